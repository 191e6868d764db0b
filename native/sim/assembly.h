// SPDX-License-Identifier: Apache-2.0
// Assembly: what one epoch of a volume consists of in a controller's process: members, legs, raid0
// (src/agents/assembly.ts). Torn down in the reverse order. One reactor.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bdev/leg/leg.h"
#include "bdev/nvmf/member.h"
#include "bdev/raid/raid0.h"
#include "sim/hold_bdev.h"
#include "sim/leadership.h"
#include "sim/planted_bugs.h"
#include "sim/process.h"

namespace basalt::sim {

struct ReplicaPlace {
  std::string replica;
  Endpoint endpoint;
};
struct VolumeShape {
  std::vector<std::vector<ReplicaPlace>> legs;
  uint64_t leg_blocks = 0;
  uint64_t strip_bytes = 64 * 1024;
  // Small legs, several regions; marks that come and go within a run.
  uint64_t mark_region_bytes = 64 * 1024;
  Duration mark_rest = milliseconds(100);
  uint64_t count_blocks() const { return leg_blocks * legs.size(); }
};

class Assembly final : bdev::Member::Listener {
 public:
  struct Attached {
    TakenMember member;
    std::string name;
    std::unique_ptr<bdev::Member> bdev;
    std::unique_ptr<HoldBdev> gate;  // what the leg sees of it
  };
  enum class Attach : uint8_t { taken, fenced, unreached };
  struct AttachResult {
    Attach outcome = Attach::unreached;
    uint64_t fenced_by = 0;
    Attached* attached = nullptr;
  };
  // What the legs say. Called from completion contexts: to be noted, not acted upon.
  struct Events {
    std::function<void(size_t leg, const std::string& member, const std::string& reason)> member_failed;
    std::function<void(size_t leg, const std::string& member)> member_copied;
    std::function<void(size_t leg, const std::string& member)> joining_failed;
    std::function<void(size_t leg)> fenced;
  };

  // links: of the process, which outlive this.
  Assembly(Reactor& reactor, nvmf::HostTransport& transport, bdev::Links& links, const VolumeShape& volume,
           std::string controller, uint64_t epoch);
  ~Assembly() override;

  uint64_t epoch() const { return epoch_; }
  // Takes a replica over and adopts it when that worked.
  Task<AttachResult> attach(MemberRef member, Duration timeout);
  Task<void> detach(std::string name);
  Outcome build(const std::vector<Attached*>& members, bool all_dirty, Duration lease, const PlantedBugs& bugs,
                Events events);
  bdev::LegMember as_leg_member(Attached& attached);
  void fence();
  Task<void> tear_down();  // nothing is submitted any more

  bdev::LegBdev& leg(size_t index) { return *legs_[index]; }
  size_t leg_count() const { return legs_.size(); }
  bdev::Raid0Bdev* raid() { return raid_.get(); }
  Attached* find(const std::string& name);
  const std::vector<std::unique_ptr<Attached>>& attached() const { return attached_; }
  bool has_replica(const std::string& replica) const;
  bool clean();  // nothing dirty, nobody failed

 private:
  void member_failed(bdev::Member& member, const Error& reason) override;
  Reactor& reactor_;
  nvmf::HostTransport& transport_;
  bdev::Links& links_;
  const VolumeShape& volume_;
  const std::string controller_;
  const uint64_t epoch_;
  uint64_t attempt_ = 0;
  std::vector<std::unique_ptr<Attached>> attached_;
  std::vector<std::unique_ptr<bdev::LegBdev>> legs_;
  std::unique_ptr<bdev::Raid0Bdev> raid_;
};

}  // namespace basalt::sim
