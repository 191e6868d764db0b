// SPDX-License-Identifier: Apache-2.0
// The process of a ControllerNode. One reactor; `drive` is its one decision at a time.
#pragma once

#include <set>

#include "sim/controller_node.h"

namespace basalt::sim {

struct ControllerNode::Daemon final : Process {
  Daemon(env::SimNode& node, SimStore& store, const ControllerNodeOptions& daemon_options, uint64_t* promotions_made);

  Task<void> run();
  Task<bool> serve_slot();
  Task<void> drive();
  // Whether this controller should try now (src/reconcile/promotion.ts).
  bool should_promote();
  Task<bool> promote(bool takeover);
  Task<bool> take_right(bool takeover);
  Task<bool> assemble();
  Task<void> take_members(const Leadership& present, std::vector<Assembly::Attached*>* taken, bool* fenced);
  Task<void> attach_into(MemberRef member, std::vector<Assembly::Attached*>* taken, bool* fenced, size_t* left);
  Task<void> outwait_leases(Duration lease, Instant taken_at);
  Task<bool> serve(std::vector<Assembly::Attached*> members, bool all_dirty, Duration lease);
  Task<void> disassemble();
  Task<void> set_ana(nvme::AnaState state);

  struct Watch final : nvmf::PeerWatch::Listener {
    std::string name;
    std::unique_ptr<nvmf::PeerWatch> peer;
    bool connected = false;
    bool lost = false;  // after it had stood
    void peer_connected() override {
      connected = true;
      lost = false;
    }
    void peer_lost(const Error&) override {
      connected = false;
      lost = true;
    }
  };

  const ControllerNodeOptions& options;
  nvmf::TcpHostTransport host_transport;
  bdev::Links links{reactor(), host_transport};
  std::unique_ptr<nvmf::Target> target;
  nvmf::Subsystem* subsystem = nullptr;
  nvmf::ListenAddress address;
  std::unique_ptr<bdev::SlotBdev> slot;
  std::vector<std::unique_ptr<Watch>> watches;

  LeadershipRegister leadership;
  ControllerState state = ControllerState::idle;
  const StopFlag never_stop = std::make_shared<bool>(false);
  Holder holder;
  uint64_t fenced_by = 0;
  uint64_t* const promotion_count;
  std::unique_ptr<Assembly> assembly;
  std::unique_ptr<MembershipWorker> worker;
  std::string wish;  // why it should promote, and since when
  Instant wish_since;
  bool signed_stop = false;  // the last holder gave the volume away in good order
};

}  // namespace basalt::sim
