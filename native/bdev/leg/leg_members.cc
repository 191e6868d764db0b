// SPDX-License-Identifier: Apache-2.0
// Who is in the set: failures are reported, removal and joining follow the orchestrator's committed swaps; a joining
// member is copied to in full, under the locks of the regions.
#include <algorithm>
#include <cstring>

#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t copy_chunk_bytes = 256 * 1024;

bool all_zero(const void* data, size_t length_bytes) {
  const char* bytes = static_cast<const char*>(data);
  return bytes[0] == 0 && std::memcmp(bytes, bytes + 1, length_bytes - 1) == 0;
}

}  // namespace

uint32_t LegBdev::find(const std::string& name) const {
  for (uint32_t slot = 0; slot < member_slot_count; slot++) {
    if (members_[slot].state != MemberState::empty && members_[slot].handle.info().name == name) return slot;
  }
  return member_slot_count;
}

void LegBdev::refresh_masks() {
  in_sync_ = must_have_ = receives_ = 0;
  for (uint32_t slot = 0; slot < member_slot_count; slot++) {
    const MemberState state = members_[slot].state;
    if (state == MemberState::empty) continue;
    receives_ |= bit(slot);
    if (state != MemberState::joining) must_have_ |= bit(slot);
    if (state == MemberState::in_sync) in_sync_ |= bit(slot);
  }
  failed_ &= receives_;
  BASALT_ASSERT(in_sync_ != 0);
}

void LegBdev::member_failed(uint32_t slot, nvme::Status status) {
  if (fenced_ || (receives_ & bit(slot)) == 0 || (failed_ & bit(slot)) != 0) return;
  failed_ |= bit(slot);
  const std::string name = members_[slot].handle.info().name;
  const std::string reason = nvme::to_string(status);
  if (members_[slot].state == MemberState::in_sync) {
    if (events_.member_failed) events_.member_failed(name, reason);
  } else if (events_.joining_failed) {
    events_.joining_failed(name, reason);
  }
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
  if (waiting() && !fenced_) return;
  List<Lists::SettledWaiter, &Lists::SettledWaiter::node> settled;
  settled.splice_back(lists_->settled_waiters);
  while (Lists::SettledWaiter* waiter = settled.pop_front())
    waiter->coroutine.resume();
}

Outcome LegBdev::remove_member(const std::string& name) {
  const uint32_t slot = find(name);
  if (slot == member_slot_count) return Error{Errc::not_found, info_.name + ": no member " + name};
  if (members_[slot].state != MemberState::in_sync) {
    return Error{Errc::invalid_argument, info_.name + ": " + name + " is joining: abandon it"};
  }
  if (in_sync_ == bit(slot)) return Error{Errc::invalid_argument, info_.name + ": the last member is never removed"};
  members_[slot].state = MemberState::empty;
  refresh_masks();
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

Outcome LegBdev::add_member(Handle member) {
  const BdevInfo& info = member.info();
  if (find(info.name) != member_slot_count) return Error{Errc::exists, info_.name + ": has a member " + info.name};
  if (fenced_) return Error{Errc::fenced, info_.name + ": is fenced"};
  if (&member.bdev().home() != &home()) return Error{Errc::invalid_argument, info.name + ": lives on another reactor"};
  if (info.block_size_bytes != info_.block_size_bytes || info.count_blocks < info_.count_blocks) {
    return Error{Errc::invalid_argument, info.name + ": too small or of another block size"};
  }
  if (static_cast<size_t>(__builtin_popcountll(receives_)) >= member_count_max) {
    return Error{Errc::no_memory, info_.name + ": has the most members it can have"};
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
    free.handle = member;
    free.state = MemberState::joining;
    free.copied_blocks = 0;
    refresh_masks();
    BASALT_ASSERT(gate_.enter());
    free.task_count++;
    spawn(copy_member(slot));
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
  members_[slot].state = MemberState::in_sync;
  refresh_masks();
  // It failed between the copy's end and the commit: now it is a failed member of the set.
  if ((failed_ & bit(slot)) != 0 && events_.member_failed) events_.member_failed(name, "failed while it joined");
  recheck();
  return success();
}

Outcome LegBdev::abandon_member(const std::string& name) {
  const uint32_t slot = find(name);
  if (slot == member_slot_count) return Error{Errc::not_found, info_.name + ": no member " + name};
  if (members_[slot].state == MemberState::in_sync) {
    return Error{Errc::invalid_argument, info_.name + ": " + name + " is in the set: remove it by a swap"};
  }
  members_[slot].state = MemberState::empty;
  refresh_masks();
  recheck();
  return success();
}

std::vector<LegMemberInfo> LegBdev::members() const {
  std::vector<LegMemberInfo> list;
  for (uint32_t slot = 0; slot < member_slot_count; slot++) {
    const Member& member = members_[slot];
    if (member.state == MemberState::empty) continue;
    list.push_back({member.handle.info().name, member.state, (failed_ & bit(slot)) != 0,
                    member.state == MemberState::joining ? member.copied_blocks : info_.count_blocks});
  }
  return list;
}

// One request of a background task to one member; its failure is reported like any other.
Task<nvme::Status> LegBdev::member_io(uint32_t slot, Io& io) {
  Member& member = members_[slot];
  member.in_flight_count++;
  const nvme::Status status = co_await io_wait(member.handle, io);
  member.in_flight_count--;
  if (status.is(nvme::status::reservation_conflict)) {
    fence();
  } else if (!status.ok() && is_member_failure(status)) {
    member_failed(slot, status);
  }
  co_return status;
}

// The full resync of a joining member. Holds a place in the gate and in the slot, entered by its starter.
Task<void> LegBdev::copy_member(uint32_t slot) {
  Gate::Leaver leaver(gate_);
  const uint64_t chunk_blocks = copy_chunk_bytes / info_.block_size_bytes;
  const auto going_on = [this, slot] {
    return !fenced_ && members_[slot].state == MemberState::joining && (failed_ & bit(slot)) == 0;
  };
  for (uint64_t block = 0; block < info_.count_blocks && going_on(); block += chunk_blocks) {
    const uint64_t end_block = std::min(block + chunk_blocks, info_.count_blocks);
    RangeEntry range;
    range.first_block = block;
    range.end_block = end_block;
    LockAwaiter lock(*this, range);
    co_await lock;
    bool copied = false;
    if (going_on()) copied = co_await copy_chunk(slot, block, end_block);
    locks_.release(&range);
    if (!copied) break;
    members_[slot].copied_blocks = end_block;
    co_await hop(home());
  }
  if (going_on() && members_[slot].copied_blocks == info_.count_blocks) {
    Io flush;
    flush.type = IoType::flush;
    const nvme::Status status = co_await member_io(slot, flush);
    if (!status.ok() && !fenced_) member_failed(slot, status);
  }
  members_[slot].task_count--;
  if (going_on() && members_[slot].copied_blocks == info_.count_blocks) {
    members_[slot].state = MemberState::copied;
    refresh_masks();
    if (events_.member_copied) events_.member_copied(members_[slot].handle.info().name);
  }
}

Task<bool> LegBdev::copy_chunk(uint32_t slot, uint64_t first_block, uint64_t end_block) {
  const auto count_blocks = static_cast<uint32_t>(end_block - first_block);
  const size_t length_bytes = size_t{count_blocks} * info_.block_size_bytes;
  Buffer* buffer = co_await take_buffer(length_bytes);
  Iovec iov{buffer->data, length_bytes};
  Io io;
  io.offset_blocks = first_block;
  io.count_blocks = count_blocks;
  io.iov = &iov;
  io.iov_count = 1;
  bool copied = false;
  uint64_t tried = 0;
  while (!fenced_) {
    const uint32_t source = choose_reader(tried);
    if (source == member_slot_count && waiting()) {
      Settled settled(*this);
      co_await settled;
      continue;
    }
    if (source == member_slot_count) break;
    io.type = IoType::read;
    const nvme::Status read_status = co_await member_io(source, io);
    tried |= bit(source);
    if (!read_status.ok()) continue;
    io.type = all_zero(buffer->data, length_bytes) ? IoType::write_zeroes : IoType::write;
    const nvme::Status write_status = co_await member_io(slot, io);
    if (!write_status.ok() && !fenced_) member_failed(slot, write_status);
    copied = write_status.ok();
    break;
  }
  give_buffer(buffer);
  if (!copied && !fenced_ && (failed_ & bit(slot)) == 0) member_failed(slot, nvme::status::unrecovered_read_error);
  co_return copied;
}

}  // namespace basalt::bdev
