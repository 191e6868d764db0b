// SPDX-License-Identifier: Apache-2.0
// Who is in the set of a leg with parity: failures are reported, removal and joining follow the orchestrator's swaps.
//
// Joining. The raid takes the rebuilt member into its superblocks, from then on nothing is acknowledged without it, and
// `member_copied` is said; then comes the orchestrator's swap. So the superblocks' set always contains the recorded
// one.
//
// Taking over from another member, which leaves for good but serves still: the same, in one swap that exchanges the
// two. The raid keeps both equal from before that swap until the old one is removed, so either may be the recorded one.
#include <algorithm>

#include "bdev/raid/parity_leg_internal.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {

RaidParityEvents ParityLegBdev::raid_events() {
  RaidParityEvents events;
  const auto broke = [this](const std::string& name, const std::string& reason) {
    Slot* slot = find(name);
    if (slot == nullptr || slot->failed || fenced_) return;
    slot->failed = true;
    slot->failure = reason;
    if (slot->of_set()) failed_at_ = home().env().now();
    // While it opens nobody may hear of anything yet.
    if (raid_ == nullptr) return;
    if (slot->state != MemberState::in_sync && events_.joining_failed) events_.joining_failed(name, reason);
    tell_failures();
  };
  events.member_failed = broke;
  events.rebuild_failed = broke;
  events.member_rebuilt = [this](const std::string& name) {
    Slot* slot = find(name);
    if (slot == nullptr || slot->state != MemberState::joining || fenced_) return;
    slot->state = MemberState::copied;
    set_version_++;
    if (!slot->failed && events_.member_copied) events_.member_copied(info_of(*slot));
  };
  events.rebuild_progress = [this](const std::string& name, uint64_t) {
    const Slot* slot = find(name);
    if (slot == nullptr || slot->state != MemberState::joining || fenced_) return;
    if (events_.resync_progress) events_.resync_progress(info_of(*slot));
  };
  events.repaired = [this](const std::string& name, uint64_t offset_blocks, uint64_t count_blocks) {
    if (events_.repaired && find(name) != nullptr) events_.repaired(name, offset_blocks, count_blocks);
  };
  events.scrub = [this](const ScrubInfo& info) {
    if (events_.scrub) events_.scrub(info);
  };
  // Later than leave(): until the raid's own set has changed, what it was asked meanwhile it refused.
  events.set_changed = [this] {
    set_version_++;
    if (raid_ != nullptr) recheck();
  };
  return events;
}

// Who is told lets the others go on without it: so each of them has to have been there since.
void ParityLegBdev::tell_failures() {
  if (fenced_ || raid_ == nullptr) return;
  const auto untold = [](const Slot& slot) { return slot.state == MemberState::in_sync && slot.failed && !slot.told; };
  if (std::none_of(slots_.begin(), slots_.end(), [&](const auto& slot) { return untold(*slot); })) return;
  bool heard_of_all = true;
  for_each_of_set([&](Slot& slot) {
    if (slot.failed || slot.member.handle.bdev().last_success_sent() >= failed_at_) return;
    heard_of_all = false;
    renew(slot);
  });
  if (!heard_of_all) return;
  for_each_of_set([&](Slot& slot) {
    if (!untold(slot)) return;
    slot.told = true;
    if (events_.member_failed) events_.member_failed(slot.member.handle.info().name, slot.failure);
  });
}

ParityLegBdev::Slot& ParityLegBdev::put(LegMember member, MemberState state) {
  auto slot = std::make_unique<Slot>(std::move(member));
  slot->leg = this;
  slot->tap = std::make_unique<Tap>(*this, slot->member.handle);
  slot->state = state;
  slots_.push_back(std::move(slot));
  set_version_++;
  return *slots_.back();
}

ParityLegBdev::Slot* ParityLegBdev::find(const std::string& name) const {
  for (const auto& slot : slots_) {
    if (slot->state != MemberState::empty && slot->member.handle.info().name == name) return slot.get();
  }
  return nullptr;
}

// The raid lets it go in its own time; the member hears no more of it.
void ParityLegBdev::leave(Slot& slot) {
  slot.state = MemberState::empty;
  slot.tap->cut();
  raid_->release_member(*slot.tap);
  set_version_++;
  wake_released();
  recheck();
}

void ParityLegBdev::conflict() {
  fence();
}

Outcome ParityLegBdev::remove_member(const std::string& name) {
  Slot* slot = find(name);
  if (slot == nullptr) return Error{Errc::not_found, info_.name + ": no member " + name};
  if (slot->state != MemberState::in_sync) {
    return Error{Errc::invalid_argument, info_.name + ": " + name + " is joining: abandon it"};
  }
  uint32_t count = 0;
  for (const auto& other : slots_)
    count += other->state == MemberState::in_sync ? 1 : 0;
  if (count <= options_.data_count) {
    return Error{Errc::invalid_argument,
                 info_.name + ": the last " + std::to_string(options_.data_count) + " members are never removed"};
  }
  leave(*slot);
  return success();
}

Outcome ParityLegBdev::add_member(LegMember member) {
  const BdevInfo& info = member.handle.info();
  if (find(info.name) != nullptr) return Error{Errc::exists, info_.name + ": has a member " + info.name};
  if (fenced_) return Error{Errc::fenced, info_.name + ": is fenced"};
  if (&member.handle.bdev().home() != &home()) {
    return Error{Errc::invalid_argument, info.name + ": lives on another reactor"};
  }
  for (const auto& slot : slots_) {
    if (slot->state != MemberState::empty && slot->member.replica == member.replica) {
      return Error{Errc::exists, info_.name + ": replica " + member.replica + " is a member already"};
    }
  }
  const Slot* old = member.instead_of.empty() ? nullptr : find(member.instead_of);
  if (!member.instead_of.empty() && (old == nullptr || old->state != MemberState::in_sync)) {
    return Error{Errc::not_found, info_.name + ": no member " + member.instead_of + " in sync"};
  }
  const uint32_t place = raid_->free_place();
  if (old == nullptr && place == raid_->member_count()) {
    return Error{Errc::busy, info_.name + ": all " + std::to_string(place) + " places are taken"};
  }
  std::erase_if(slots_, [this](const auto& slot) { return is_done_with(*slot); });
  Slot& slot = put(std::move(member), MemberState::joining);
  const Handle tap(*slot.tap, home());
  auto begun = old == nullptr ? raid_->replace_member(place, tap) : raid_->add_twin(*old->tap, tap);
  if (begun) return success();
  slots_.pop_back();
  return begun;
}

Outcome ParityLegBdev::commit_member(const std::string& name) {
  Slot* slot = find(name);
  if (slot == nullptr) return Error{Errc::not_found, info_.name + ": no member " + name};
  if (slot->state == MemberState::joining) {
    return Error{Errc::invalid_argument, info_.name + ": " + name + " is not copied yet"};
  }
  slot->state = MemberState::in_sync;
  set_version_++;
  // It failed between the copy's end and the commit: now it is a failed member of the set.
  if (slot->failed) slot->failure = "failed while it joined";
  recheck();
  return success();
}

Outcome ParityLegBdev::abandon_member(const std::string& name) {
  Slot* slot = find(name);
  if (slot == nullptr) return Error{Errc::not_found, info_.name + ": no member " + name};
  if (slot->state == MemberState::in_sync) {
    return Error{Errc::invalid_argument, info_.name + ": " + name + " is in the set: remove it by a swap"};
  }
  leave(*slot);
  return success();
}

bool ParityLegBdev::uses(const Bdev& member) const {
  return std::any_of(slots_.begin(), slots_.end(), [&](const auto& slot) {
    if (&slot->member.handle.bdev() != &member) return false;
    return slot->state != MemberState::empty || slot->tap->in_flight_count() > 0 || slot->renewing;
  });
}

// Nothing refers to it any more.
bool ParityLegBdev::is_done_with(const Slot& slot) const {
  return slot.state == MemberState::empty && slot.tap->in_flight_count() == 0 && !slot.renewing &&
         settling_count_ == 0 && !raid_->uses(*slot.tap);
}

void ParityLegBdev::wake_released() {
  if (lists_->release_waiters.empty()) return;
  // Later: the caller is in the middle of something, and whoever waits may free the bdev.
  lists_->release_waiters.for_each([&](Lists::ReleaseWaiter* waiter) {
    if (uses(*waiter->member)) return;
    waiter->node.unlink();
    waiter->run = [](Work* work) { static_cast<Lists::ReleaseWaiter*>(work)->coroutine.resume(); };
    home().defer(waiter);
  });
}

Task<void> ParityLegBdev::released(const Bdev& member) {
  struct Released {
    ParityLegBdev& leg;
    Lists::ReleaseWaiter waiter;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> coroutine) {
      waiter.coroutine = coroutine;
      leg.lists_->release_waiters.push_back(&waiter);
    }
    void await_resume() const noexcept {}
  };
  while (uses(member)) {
    Released free{*this, {}};
    free.waiter.member = &member;
    co_await free;
  }
}

bool ParityLegBdev::waiting() const {
  return std::any_of(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->failed && slot->of_set(); });
}

LegMemberInfo ParityLegBdev::info_of(const Slot& slot) const {
  LegMemberInfo info{slot.member.handle.info().name, slot.state, slot.failed, Resync::none, 0, 0, 0, {}};
  RaidMemberInfo found;
  for (uint32_t seat = 0; seat < raid_->seat_count(); seat++) {
    const RaidMemberInfo below = raid_->member(seat);
    if (below.name != info.name) continue;
    info.place = below.place;
    found = below;
  }
  if (slot.state == MemberState::in_sync) return info;
  // In blocks of the leg.
  const auto of_leg = [&](uint64_t blocks) { return std::min(blocks * options_.data_count, info_.count_blocks); };
  info.resync = found.delta ? Resync::delta : Resync::full;
  info.to_copy_blocks = found.delta ? of_leg(found.to_rebuild_blocks) : info_.count_blocks;
  info.copied_blocks = slot.state == MemberState::copied ? info.to_copy_blocks
                                                         : std::min(of_leg(found.rebuilt_blocks), info.to_copy_blocks);
  return info;
}

// No region is dirty: after the replay all members fit each other.
LegCounts ParityLegBdev::counts() const {
  LegCounts counts;
  counts.marked_regions = raid_->marks().count();
  counts.mark_region_count = raid_->marks().region_count();
  return counts;
}

std::vector<LegMemberInfo> ParityLegBdev::members() const {
  std::vector<LegMemberInfo> list;
  for (const auto& slot : slots_) {
    if (slot->state != MemberState::empty) list.push_back(info_of(*slot));
  }
  return list;
}

Task<Outcome> ParityLegBdev::grow(uint64_t count_blocks) {
  if (count_blocks == info_.count_blocks) co_return success();
  if (count_blocks < info_.count_blocks) co_return Error{Errc::invalid_argument, info_.name + ": legs do not shrink"};
  if (fenced_ || !gate_.enter()) co_return Error{Errc::fenced, info_.name + ": is fenced"};
  Gate::Leaver leaver(gate_);
  const uint64_t needed = raid_->member_blocks_for(count_blocks);
  for (const auto& slot : slots_) {
    if (slot->state == MemberState::empty) continue;
    const BdevInfo& info = slot->member.handle.info();
    if (info.count_blocks >= needed) continue;
    co_return Error{Errc::no_space, info_.name + ": " + info.name + " has " + std::to_string(info.count_blocks) +
                                        " blocks; " + std::to_string(needed) + " are needed"};
  }
  auto growing = raid_->grow(count_blocks);
  auto grown = co_await growing;
  if (!grown) co_return std::move(grown);
  if (count_blocks > info_.count_blocks) set_size(count_blocks);
  co_return success();
}

// Equal: their strips fit each other, wherever nothing is in flight.
Result<std::vector<std::string>> ParityLegBdev::equal_members() const {
  const auto busy = [this](const char* why) { return Error{Errc::busy, info_.name + ": " + why}; };
  if (fenced_) return Error{Errc::fenced, info_.name + ": is fenced"};
  std::vector<std::string> names;
  for (const auto& slot : slots_) {
    if (slot->state == MemberState::empty) continue;
    if (slot->state == MemberState::in_sync && slot->failed) return busy("a member failed");
    // What is written to it meanwhile is whole on the others without it; once it may be of the set, it has to be cut.
    if (slot->state == MemberState::copied) return busy("a member is joining the set");
    if (slot->state == MemberState::in_sync) names.push_back(slot->member.handle.info().name);
  }
  return names;
}

Outcome ParityLegBdev::pace_resync(uint64_t bytes_per_s, bool paused) {
  raid_->set_resync(bytes_per_s, paused);
  return success();
}

Outcome ParityLegBdev::start_scrub(const ScrubOptions& options) {
  if (fenced_) return Error{Errc::fenced, info_.name + ": is fenced"};
  return raid_->start_scrub(options);
}

}  // namespace basalt::bdev
