// SPDX-License-Identifier: Apache-2.0
// The orchestrator's part: members of legs are lost, leave the recorded set, and come back.
#include "sim/data/stack.h"

namespace basalt::sim {
namespace {

constexpr Duration swap_min = microseconds(50);
constexpr Duration swap_max = milliseconds(2);

size_t index_of(const LayerPlan& leg, const std::string& member) {
  for (size_t i = 0; i < leg.below.size(); i++) {
    if (leg.below[i].name() == member) return i;
  }
  BASALT_ASSERT(false);
}

}  // namespace

void Stack::hurt(const LayerPlan& plan, bool hurt) {
  for (const LayerPlan* file : files_of(plan)) {
    env::SimDisk& broken = disk(file->disk);
    broken.fail_reads = broken.fail_writes = broken.fail_flushes = hurt;
  }
}

// A member with legs of its own stays: their last members would never be given up.
bool Stack::lose_member(env::SimRandom& random) {
  if (lost_leg_ != nullptr || returning_) return false;
  struct Choice {
    const LayerPlan* leg;
    size_t member;
  };
  std::vector<Choice> choices;
  for (const LayerPlan* leg : legs_of(plan_.top)) {
    for (size_t i = 0; i < leg->below.size(); i++) {
      if (legs_of(leg->below[i]).empty()) choices.push_back({leg, i});
    }
  }
  if (choices.empty()) return false;
  const Choice choice = choices[random.below(choices.size())];
  lost_leg_ = choice.leg;
  lost_member_ = choice.member;
  hurt(lost_leg_->below[lost_member_], true);
  return true;
}

// Recorded first, then said: as the committed swap that the leg waits for.
void Stack::member_failed(const LayerPlan* plan, const std::string& member) {
  BASALT_ASSERT(plan == lost_leg_ && index_of(*plan, member) == lost_member_);
  const auto delay = static_cast<int64_t>(world_.random().below(static_cast<uint64_t>(swap_max.ns)));
  world_.at(world_.now() + swap_min + nanoseconds(delay), [this, plan, member] {
    in_sync_.at(plan->id)[lost_member_] = false;
    world_.at(world_.now() + swap_min, [this, plan, member] { BASALT_ASSERT(leg(*plan).remove_member(member).ok()); });
  });
}

bool Stack::return_member() {
  if (lost_leg_ == nullptr || returning_) return false;
  returning_ = true;
  const LayerPlan& plan = lost_leg_->below[lost_member_];
  // Its failures may have gone unnoticed; what it missed is not known.
  if (in_sync_.at(lost_leg_->id)[lost_member_]) leg(*lost_leg_).member_lost(plan.name());
  spawn(bring_back());
  return true;
}

Task<void> Stack::bring_back() {
  const LayerPlan* plan = &lost_leg_->below[lost_member_];
  const auto in_use = [&] {
    const auto found = bdevs_.find(plan->id);
    return in_sync_.at(lost_leg_->id)[lost_member_] || (found != bdevs_.end() && leg(*lost_leg_).uses(*found->second));
  };
  while (in_use())
    co_await sleep_for(reactor_, milliseconds(1));
  auto closing = close_layer(plan);
  (void)(co_await closing).ok();  // its stores may have failed
  hurt(*plan, false);
  auto opening = open_layer(plan, false);
  const Outcome opened = co_await opening;
  BASALT_ASSERT(opened.ok());
  const Outcome added = leg(*lost_leg_).add_member(bdev::Handle(*bdevs_.at(plan->id), reactor_));
  BASALT_ASSERT(added.ok());
}

void Stack::member_copied(const LayerPlan* plan, const std::string& member) {
  world_.at(world_.now() + swap_min, [this, plan, member] {
    in_sync_.at(plan->id)[index_of(*plan, member)] = true;
    world_.at(world_.now() + swap_min, [this, plan, member] {
      BASALT_ASSERT(leg(*plan).commit_member(member).ok());
      lost_leg_ = nullptr;
      returning_ = false;
    });
  });
}

}  // namespace basalt::sim
