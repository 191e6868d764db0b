// SPDX-License-Identifier: Apache-2.0
// Stack: a plan's bdevs, alive in one world: on one machine with its disks, one process, one reactor. It also plays the
// orchestrator of the legs: records who is in sync before it tells them.
//
// Owner: the run's thread. Everything below it ends in close(), orderly; a crash is a copy of the disks' states, taken
// while the stack lives, and another stack in another world that is brought up from it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "bdev/bdev.h"
#include "bdev/leg/leg.h"
#include "bdev/lvol/lvstore.h"
#include "bdev/nvmf/multipath.h"
#include "bdev/raid/raid_parity.h"
#include "env/sim/sim_world.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "runtime/reactor.h"
#include "sim/data/stack_plan.h"

namespace basalt::sim {

using DiskImages = std::vector<env::SimImage>;

class Stack {
 public:
  static constexpr uint32_t cluster_bytes = 64 << 10;

  struct Options {
    uint64_t seed = 0;
    uint64_t epoch = 1;  // of the legs; grows with each stack of a run
    bdev::LegPlanted leg_bugs;
    bdev::RaidPlantedBugs raid_bugs;
    bdev::LvolPlantedBugs lvol_bugs;
    // Members of raids that are gone, by the layer's id: they were lost together with the power.
    std::vector<uint32_t> absent;
  };
  // `images` empty: new disks, and whatever the plan needs is made on them.
  Stack(const Options& options, const StackPlan& plan, const InSyncSets& in_sync, const DiskImages& images,
        Arena& arena);
  ~Stack();

  Outcome open(bool all_dirty);
  Outcome close();  // nothing is in flight from above

  env::SimWorld& world() { return world_; }
  Reactor& reactor() { return reactor_; }
  env::SimDisk& disk(uint32_t index) { return world_.disk("m", disk_path(index)); }
  uint32_t disk_count() const { return plan_.disk_count; }
  bdev::Bdev& top() { return *bdevs_.at(plan_.top.id); }
  bdev::LvStore* pool() { return pool_.get(); }
  const InSyncSets& in_sync() const { return in_sync_; }  // as recorded durably

  // Faults of a member of a leg or raid and its return: one member at a time, of raids as many as they can spare.
  // False: not now.
  bool lose_member(env::SimRandom& random);
  bool return_member();
  bool returning() const { return returning_; }
  bool member_lost() const { return !lost_.empty(); }
  // A raid gives a member's place to another disk, or grows. False: not now.
  bool exchange_member(env::SimRandom& random);
  bool grow_raid();
  bool raids_exchanging() const;
  // Members of raids that may be gone when it comes up again, by their ids.
  std::vector<uint32_t> absent_members(env::SimRandom& random) const;
  // Some sectors of a member become unreadable, where others can tell what they held. False: not now.
  bool spoil_sectors(env::SimRandom& random);
  // From now on this disk puts some writes of data elsewhere, unnoticed, or nowhere. Metadata of its store is left
  // alone: what is damaged there refuses the store. When it does so with a repair, its member is given up.
  void misdirect_writes(const VerifiedMember& member);
  void misdirect_no_more(const VerifiedMember& member) { disk(member.file->disk).misdirect_write_chance = 0; }
  uint64_t misdirected_count(const VerifiedMember& member) { return disk(member.file->disk).silent_fault_count(); }
  uint64_t mismatch_count(const VerifiedMember& member) const;  // blocks that it has read and not given out
  // Everything redundant is compared, layer by layer from below, and made right; then once more, by when nothing may be
  // found. Nobody writes, and no member is lost. What is wrong, or "".
  struct Scrubbed {
    std::string wrong;
    uint64_t found_blocks = 0;  // by the first time: that differed or could not be read
  };
  Scrubbed scrub(bool mends = true);
  bool raids_degraded() const;
  // Whether what a crash came upon there may be neither old nor new (docs/decisions/006): a member was missing when it
  // came up, and that block's strip was on it, as far as layers can tell.
  bool may_lack(uint64_t block) const;
  bool raids_resyncing() const;
  bool legs_equal();  // nothing is left that may differ after a crash

  template <class T>
  std::optional<T> run(Task<T> task, Duration limit = seconds(600)) {
    std::optional<T> result;
    spawn(collect(std::move(task), &result));
    if (!world_.run_until([&] { return result.has_value(); }, limit)) hangs();
    return result;
  }

 private:
  template <class T>
  static Task<void> collect(Task<T> task, std::optional<T>* result) {
    result->emplace(co_await task);
  }
  [[noreturn]] void hangs() const;
  static std::string disk_path(uint32_t index) { return "disk" + std::to_string(index); }
  Task<Outcome> open_all();
  Task<Outcome> open_layer(const LayerPlan* plan, bool made);
  Task<Outcome> open_lvol(const LayerPlan* plan, bdev::Handle base, bool made);
  Outcome open_leg(const LayerPlan* plan, const std::vector<bdev::Handle>& below);
  Task<Outcome> open_raid(const LayerPlan* plan, std::vector<bdev::Handle> below, bool made);
  // stack_covers.cc
  Task<Outcome> open_remote(const LayerPlan* plan, bdev::Bdev* base);
  Task<void> close_remote(const LayerPlan* plan);
  Outcome open_crypt(const LayerPlan* plan, bdev::Handle base);

  Task<Outcome> close_all();
  Task<Outcome> close_layer(const LayerPlan* plan);
  Task<void> bring_back(const LayerPlan* parent, size_t member);
  void member_failed(const LayerPlan* leg, const std::string& member);
  void member_copied(const LayerPlan* leg, const std::string& member);
  void member_back(const LayerPlan* parent, size_t member);
  bool is_lost(const LayerPlan* parent, size_t member) const;
  bool absent(const LayerPlan& member) const;
  size_t spare_count(const LayerPlan& raid) const;
  bdev::RaidMemberState state_of(const LayerPlan& raid, size_t device) const;  // missing: of no place
  void find_lost(const LayerPlan* raid);
  bool spoiled();
  bool data_readable();
  void hurt(const LayerPlan& plan, bool hurt);
  Task<Result<bdev::ScrubInfo>> scrub_all(bool repair);
  bdev::LegBdev& leg(const LayerPlan& plan) { return static_cast<bdev::LegBdev&>(*bdevs_.at(plan.id)); }
  bdev::RaidParityBdev* raid(const LayerPlan& plan) const;  // nullptr: it is not up

  const Options options_;
  const StackPlan& plan_;
  const bool fresh_;
  bool all_dirty_ = false;
  InSyncSets in_sync_;
  env::SimWorld world_;
  env::SimNode& node_;
  Reactor reactor_;
  std::unique_ptr<env::LoopHandle> loop_;
  std::map<uint32_t, std::unique_ptr<bdev::Bdev>> bdevs_;      // by the layer's id
  std::map<uint32_t, std::unique_ptr<bdev::LvStore>> stores_;  // of inner lvols
  std::map<uint32_t, bdev::Lvol*> lvols_;
  // Both ends of a connection of this machine with itself.
  struct Remote {
    std::unique_ptr<nvmf::Target> target;
    std::unique_ptr<nvmf::TcpHostTransport> transport;
    std::unique_ptr<bdev::NvmfController> controller;
  };
  std::map<uint32_t, Remote> remotes_;
  std::unique_ptr<bdev::LvStore> pool_;
  // Members that a fault took, of legs and raids.
  struct Lost {
    const LayerPlan* parent;
    size_t member;
  };
  std::vector<Lost> lost_;
  const LayerPlan* liar_ = nullptr;             // a file whose disk puts writes elsewhere
  std::map<uint32_t, uint32_t> found_missing_;  // by raid: places, as bits, when it came up; they may be back
  bool returning_ = false;                      // the layers of one of them are being made again, or copied to
};

}  // namespace basalt::sim
