// SPDX-License-Identifier: Apache-2.0
// ControllerNode: the daemon that serves one volume to hosts, as active or standby: a subsystem with a slot at one
// listener, watches on the other controllers, and the procedure that takes and loses the right to drive the volume
// (src/agents/volume-controller.ts, takeover.ts, served-volume.ts).
//
//   idle -> promoting -> active -> idle          active -> promoting when every member of a leg failed
//
// Invariant: nothing is served under an epoch before that epoch is in the store, the members were taken over, those
// that were not have left by swap, and old read leases have run out.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bdev/slot/slot.h"
#include "nvmf/host/peer_watch.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "sim/membership_worker.h"

namespace basalt::sim {

struct ControllerPeer {
  std::string name;
  Endpoint endpoint;
};

struct ControllerTiming {
  Duration attach_timeout = milliseconds(800);
  Duration attach_retry = milliseconds(200);
  Duration grace = seconds(5);  // how long members are waited for when none is known to have kept its cache
  Duration standby_step = milliseconds(250);
};

struct ControllerNodeOptions {
  std::string name;
  Endpoint endpoint;
  std::vector<ControllerPeer> order;  // all controllers of the volume, this one too, by preference
  const VolumeShape* volume = nullptr;
  ControllerTiming timing;
  PlantedBugs bugs;
};

std::string volume_nqn();

enum class ControllerState : uint8_t { idle, promoting, active };

class ControllerNode {
 public:
  ControllerNode(env::SimWorld& world, SimStore& store, ControllerNodeOptions options);
  ~ControllerNode();

  const std::string& name() const { return options_.name; }
  const Endpoint& endpoint() const { return options_.endpoint; }
  env::SimNode& node() { return node_; }

  void start();
  void kill();
  bool up() const { return daemon_ != nullptr; }
  ControllerState state() const;
  uint64_t epoch() const;  // of the assembly; 0: none
  // Present while active or promoting.
  Assembly* assembly();
  bdev::SlotBdev& slot();
  uint64_t promotion_count() const { return promotion_count_; }

 private:
  struct Daemon;
  SimStore& store_;
  const ControllerNodeOptions options_;
  env::SimNode& node_;
  uint64_t promotion_count_ = 0;
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace basalt::sim
