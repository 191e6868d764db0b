// SPDX-License-Identifier: Apache-2.0
// MembershipWorker: changes of the in-sync sets while a volume is served (src/agents/membership-worker.ts): shrinking
// after failures, joining after copies. Its steps run one after the other. One reactor.
//
// Invariants: - a leg is told to go on without a member only after the swap that removed it is known to be in the store
//             - a copied member counts only after its swap; one that fails meanwhile is swapped out before it is given
//             up
#pragma once

#include <map>
#include <string>
#include <vector>

#include "sim/assembly.h"
#include "sim/store.h"

namespace basalt::sim {

class MembershipWorker {
 public:
  enum class End : uint8_t { none, fenced, stuck };

  MembershipWorker(Reactor& reactor, Assembly& assembly, const VolumeShape& volume, LeadershipRegister& store,
                   Holder holder, const PlantedBugs& bugs);
  ~MembershipWorker() { BASALT_ASSERT(running_count_ == 0); }

  Assembly::Events events();
  void start();
  Task<void> stop();
  // Not none: this assembly's time is over.
  End ended() const { return ended_; }

 private:
  struct Joining {
    bool copied = false;
    bool failed = false;
    bool swapped = false;  // the swap that lets it in is in the store, or may be
  };
  Task<void> work();
  Task<void> rejoin();
  Task<void> shrink();
  Task<void> join(std::string name);
  Task<void> give_up(std::string name);
  Task<void> rejoin_member(MemberRef member);
  Task<bool> swap(LeadershipRegister::Plan plan);
  void end(End how);
  void member_failed(size_t leg, const std::string& name);

  Reactor& reactor_;
  Assembly& assembly_;
  const VolumeShape& volume_;
  LeadershipRegister& register_;
  const Holder holder_;
  const PlantedBugs bugs_;
  const StopFlag stop_ = std::make_shared<bool>(false);
  End ended_ = End::none;
  size_t running_count_ = 0;
  std::vector<std::string> failed_;
  std::map<std::string, Joining> joining_;
  std::map<std::string, Instant> not_before_;  // by replica
};

}  // namespace basalt::sim
