// SPDX-License-Identifier: Apache-2.0
// Who is in the set: failures are reported, removal and joining follow the orchestrator's committed swaps.
#include <algorithm>
#include <cstring>

#include "base/probe.h"
#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {

uint32_t LegBdev::find(const std::string& name) const {
  for (uint32_t slot = 0; slot < member_slot_count; slot++) {
    if (members_[slot].state != MemberState::empty && members_[slot].handle.info().name == name) return slot;
  }
  return member_slot_count;
}

void LegBdev::refresh_masks() {
  in_sync_ = must_have_ = receives_ = 0;
  uint64_t known = 0;
  for (uint32_t slot = 0; slot < member_slot_count; slot++) {
    const MemberState state = members_[slot].state;
    if (state == MemberState::empty) continue;
    known |= bit(slot);
    if (state != MemberState::joining || members_[slot].receives) receives_ |= bit(slot);
    if (state != MemberState::joining) must_have_ |= bit(slot);
    if (state == MemberState::in_sync) in_sync_ |= bit(slot);
  }
  failed_ &= known;
  told_ &= failed_;
  BASALT_ASSERT(in_sync_ != 0);
}

void LegBdev::member_failed(uint32_t slot, const std::string& reason) {
  if (fenced_ || members_[slot].state == MemberState::empty || (failed_ & bit(slot)) != 0) return;
  failed_ |= bit(slot);
  members_[slot].failure = reason;
  if ((must_have_ & bit(slot)) != 0) failed_at_ = home().env().now();
  if (members_[slot].state == MemberState::in_sync) {
    if ((in_sync_ & ~failed_) == 0) reach(Mark::member_lost_last);
  } else if (events_.joining_failed) {
    reach(Mark::joining_member_failed);
    events_.joining_failed(members_[slot].handle.info().name, reason);
  }
  tell_failures();
}

// Who is told lets the others go on alone: so each of them has to have been there since.
void LegBdev::tell_failures() {
  if (fenced_ || (failed_ & in_sync_ & ~told_) == 0) return;
  bool heard_of_all = true;
  for_each_slot(must_have_ & ~failed_, [&](uint32_t slot) {
    if (members_[slot].handle.bdev().last_success_sent() >= failed_at_) return;
    heard_of_all = false;
    renew(slot);
  });
  if (!heard_of_all) return;
  const uint64_t untold = failed_ & in_sync_ & ~told_;
  told_ |= untold;
  if (!events_.member_failed) return;
  for_each_slot(
      untold, [&](uint32_t slot) { events_.member_failed(members_[slot].handle.info().name, members_[slot].failure); });
}

// Something about the set or the leases changed: let go what was waiting for it.
void LegBdev::recheck() {
  // Whoever hears of a completion may fence the leg: what this function has in hand then has nobody else to end it.
  List<Op, &Op::node> waiting_ops;
  waiting_ops.splice_back(lists_->parked_writes);
  while (Op* op = waiting_ops.pop_front()) {
    if (fenced_) {
      finish(op, nvme::status::ana_inaccessible);
    } else if (!settle_write(op)) {
      lists_->parked_writes.push_back(op);
    }
  }
  waiting_ops.splice_back(lists_->lease_waits);
  while (Op* op = waiting_ops.pop_front())
    answer_read(op);
  waiting_ops.splice_back(lists_->held_reads);
  while (Op* op = waiting_ops.pop_front())
    start_read(op);
  tell_failures();
  if (waiting() && !fenced_) return;
  Lists::resume_all(lists_->settled_waiters);
}

Outcome LegBdev::remove_member(const std::string& name) {
  const uint32_t slot = find(name);
  if (slot == member_slot_count) return Error{Errc::not_found, info_.name + ": no member " + name};
  if (members_[slot].state != MemberState::in_sync) {
    return Error{Errc::invalid_argument, info_.name + ": " + name + " is joining: abandon it"};
  }
  if (in_sync_ == bit(slot)) return Error{Errc::invalid_argument, info_.name + ": the last member is never removed"};
  if (!lists_->parked_writes.empty()) reach(Mark::lost_member_swapped_out);
  empty_slot(slot);
  recheck();
  return success();
}

void LegBdev::member_lost(const std::string& name) {
  const uint32_t slot = find(name);
  if (slot != member_slot_count) member_failed(slot, nvme::status::host_path_error);
}

bool LegBdev::uses(const Bdev& bdev) const {
  for (const Member& member : members_) {
    const bool ours = member.handle && &member.handle.bdev() == &bdev;
    if (!ours) continue;
    if (member.state != MemberState::empty || member.in_flight_count > 0 || member.task_count > 0 || member.renewing)
      return true;
  }
  return false;
}

Outcome LegBdev::add_member(LegMember member) {
  if (!member.instead_of.empty()) {
    return Error{Errc::invalid_argument, "instead_of: any number of members are copies of a mirror"};
  }
  const BdevInfo& info = member.handle.info();
  if (find(info.name) != member_slot_count) return Error{Errc::exists, info_.name + ": has a member " + info.name};
  if (fenced_) return Error{Errc::fenced, info_.name + ": is fenced"};
  if (growing_) return Error{Errc::busy, info_.name + ": is growing; try again"};
  if (&member.handle.bdev().home() != &home()) {
    return Error{Errc::invalid_argument, info.name + ": lives on another reactor"};
  }
  const uint64_t tail_blocks = tail_ == nullptr ? 0 : leg_tail::tail_bytes / info_.block_size_bytes;
  if (info.block_size_bytes != info_.block_size_bytes || info.count_blocks < info_.count_blocks + tail_blocks) {
    return Error{Errc::invalid_argument, info.name + ": too small or of another block size"};
  }
  size_t count = 0;
  for (const Member& other : members_) {
    if (other.state == MemberState::empty) continue;
    count++;
    if (tail_ != nullptr && other.replica == member.replica) {
      return Error{Errc::exists, info_.name + ": replica " + member.replica + " is a member already"};
    }
  }
  if (count >= member_count_max) return Error{Errc::no_memory, info_.name + ": has the most members it can have"};
  if (tail_ != nullptr && (member.replica.empty() || member.replica.size() > leg_tail::name_bytes_max)) {
    return Error{Errc::invalid_argument, "replica: 1 to 96 bytes"};
  }
  // A flush in flight holds no range: it may outlive a whole copy, and what it says of a former member must not count
  // for the next one in its slot. So a slot is used again as late as possible.
  for (uint32_t i = 0; i < member_slot_count; i++) {
    const uint32_t slot = (next_slot_ + i) % member_slot_count;
    Member& free = members_[slot];
    if (free.state != MemberState::empty || free.in_flight_count > 0 || free.task_count > 0) continue;
    // Parked operations may still name the slot as one that missed them: take another.
    bool named = false;
    lists_->parked_writes.for_each([&](Op* op) { named |= (op->missed & bit(slot)) != 0; });
    if (named) continue;
    next_slot_ = (slot + 1) % member_slot_count;
    put_member(slot, member, MemberState::joining);
    BASALT_ASSERT(gate_.enter());
    free.task_count++;
    spawn(resync_member(slot));
    return success();
  }
  return Error{Errc::busy, info_.name + ": former members still have requests in flight; try again"};
}

Outcome LegBdev::commit_member(const std::string& name) {
  const uint32_t slot = find(name);
  if (slot == member_slot_count) return Error{Errc::not_found, info_.name + ": no member " + name};
  if (members_[slot].state == MemberState::joining) {
    return Error{Errc::invalid_argument, info_.name + ": " + name + " is not copied yet"};
  }
  Member& member = members_[slot];
  member.state = MemberState::in_sync;
  member.resync = Resync::none;
  refresh_masks();
  if (tail_ != nullptr) {
    roster_entry(slot).state = leg_tail::RosterEntry::State::in_sync;
    roster_changed();
    arm_sweep();
  }
  // It failed between the copy's end and the commit: now it is a failed member of the set.
  if ((failed_ & bit(slot)) != 0) member.failure = "failed while it joined";
  recheck();
  return success();
}

Outcome LegBdev::abandon_member(const std::string& name) {
  const uint32_t slot = find(name);
  if (slot == member_slot_count) return Error{Errc::not_found, info_.name + ": no member " + name};
  if (members_[slot].state == MemberState::in_sync) {
    return Error{Errc::invalid_argument, info_.name + ": " + name + " is in the set: remove it by a swap"};
  }
  empty_slot(slot);
  recheck();
  return success();
}

Result<std::vector<std::string>> LegBdev::equal_members() const {
  const auto busy = [this](const char* why) { return Error{Errc::busy, info_.name + ": " + why}; };
  if (fenced_) return Error{Errc::fenced, info_.name + ": is fenced"};
  if (!open_) return busy("is being opened");
  if (growing_) return busy("is growing");
  if (failed_ != 0) return busy("a member failed");
  if (must_have_ != in_sync_) return busy("a member is joining the set");
  if (!dirty_.empty()) return busy("regions are being made equal");
  std::vector<std::string> names;
  for (const Member& member : members_) {
    if (member.state == MemberState::in_sync) names.push_back(member.handle.info().name);
  }
  return names;
}

LegMemberInfo LegBdev::info_of(uint32_t slot) const {
  const Member& member = members_[slot];
  return {member.handle.info().name, member.state,          (failed_ & bit(slot)) != 0, member.resync,
          member.copied_blocks,      member.to_copy_blocks, member.repaired_blocks};
}

std::vector<LegMemberInfo> LegBdev::members() const {
  std::vector<LegMemberInfo> list;
  for (uint32_t slot = 0; slot < member_slot_count; slot++) {
    if (members_[slot].state != MemberState::empty) list.push_back(info_of(slot));
  }
  return list;
}

void LegBdev::put_member(uint32_t slot, const LegMember& from, MemberState state) {
  Member& member = members_[slot];
  BASALT_ASSERT(member.state == MemberState::empty && member.in_flight_count == 0 && member.task_count == 0);
  member = Member{};
  member.handle = from.handle;
  member.replica = from.replica;
  member.distance = from.distance;
  member.state = state;
  if (tail_ != nullptr) tail_->set_version++;
  refresh_masks();
}

void LegBdev::empty_slot(uint32_t slot) {
  Member& member = members_[slot];
  member.state = MemberState::empty;
  refresh_masks();
  if (tail_ != nullptr) {
    tail_->set_version++;
    leg_tail::RosterEntry* entry = tail_->superblock.find(member.replica);
    if (entry != nullptr && entry->stay == member.stay) {
      entry->state = leg_tail::RosterEntry::State::absent;
      entry->generation = member.generation;
      roster_changed();
    }
  }
  // Tasks that wait for their pace or their tail see that it is over.
  wake_paced();
  Lists::resume_all(lists_->tail_waiters);
  wake_released(slot);
}

void LegBdev::request_ended(uint32_t slot) {
  Member& member = members_[slot];
  BASALT_ASSERT(member.in_flight_count > 0);
  if (--member.in_flight_count == 0 && member.state == MemberState::empty) wake_released(slot);
}

void LegBdev::task_ended(uint32_t slot) {
  members_[slot].task_count--;
  wake_released(slot);
}

void LegBdev::wake_released(uint32_t slot) {
  const Bdev* bdev = &members_[slot].handle.bdev();
  if (lists_->release_waiters.empty() || uses(*bdev)) return;
  // Later: the caller is in the middle of something, and whoever waits may free the bdev.
  lists_->release_waiters.for_each([&](Lists::ReleaseWaiter* waiter) {
    if (waiter->member != bdev) return;
    waiter->node.unlink();
    waiter->run = [](Work* work) { static_cast<Lists::ReleaseWaiter*>(work)->coroutine.resume(); };
    home().defer(waiter);
  });
}

Task<void> LegBdev::released(const Bdev& member) {
  while (uses(member)) {
    Released free(*this, member);
    co_await free;
  }
}

// One request of a background task to one member; its failure is reported like any other.
Task<nvme::Status> LegBdev::member_io(uint32_t slot, Io& io) {
  Member& member = members_[slot];
  member.in_flight_count++;
  const nvme::Status status = co_await io_wait(member.handle, io);
  request_ended(slot);
  if (status.is(nvme::status::reservation_conflict)) {
    fence();
  } else if (!status.ok() && is_member_failure(status)) {
    member_failed(slot, status);
  }
  co_return status;
}

}  // namespace basalt::bdev
