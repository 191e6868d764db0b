// SPDX-License-Identifier: Apache-2.0
// Growing a leg, while it is used. Its blocks keep their addresses; the tail has to move behind the new end. With all
// ranges held, so that no mark can change meanwhile:
//
//   1. whole tails are written behind the new end of every member, one generation newer
//   2. what the old tails occupied, which is going to be data, is zeroed on every member
//   3. the new size is in force; superblocks that know only who took part are written; the range is let go
//
// A controller that begins with both sizes (LegOptions::grown_blocks) finds out how far it came: as long as every
// member has its old tail nothing has happened; after that every member has its new one, and step 2 is made again. So
// the orchestrator says both sizes from before step 1 until every leg has ended step 3 (docs/decisions/008).
//
// Whoever is out while the tail moves has neither step 1 nor step 2 behind it: it is forgotten, and copied in full.
#include <algorithm>

#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {

using leg_tail::Image;
using leg_tail::Page;
using leg_tail::RosterEntry;
using leg_tail::tail_bytes;

LegBdev::TailShape LegBdev::shape_of(uint64_t count_blocks) const {
  return {count_blocks,
          {leg_tail::region_blocks_for(count_blocks, info_.block_size_bytes, options_.mark_region_bytes_min)}};
}

// What keeps the leg from growing now; the orchestrator tries again.
Outcome LegBdev::may_grow(uint64_t count_blocks) const {
  const uint64_t tail_blocks = tail_ == nullptr ? 0 : tail_bytes / info_.block_size_bytes;
  if (fenced_) return Error{Errc::fenced, info_.name + ": is fenced"};
  for (const Member& member : members_) {
    if (member.state == MemberState::empty) continue;
    const BdevInfo& info = member.handle.info();
    if (member.state != MemberState::in_sync) return Error{Errc::busy, info_.name + ": " + info.name + " is joining"};
    if (info.count_blocks < count_blocks + tail_blocks) {
      return Error{Errc::no_space, info_.name + ": " + info.name + " has " + std::to_string(info.count_blocks) +
                                       " blocks, needs " + std::to_string(count_blocks + tail_blocks)};
    }
  }
  if (failed_ != 0) return Error{Errc::busy, info_.name + ": a member failed"};
  if (!dirty_.empty()) return Error{Errc::busy, info_.name + ": regions are being made equal"};
  return success();
}

Task<Outcome> LegBdev::grow(uint64_t count_blocks) {
  if (!gate_.enter()) co_return Error{Errc::fenced, info_.name + ": is fenced"};
  Gate::Leaver leaver(gate_);
  while (!open_ && !fenced_) {
    TailsWritten written(*this);
    co_await written;
  }
  if (count_blocks == info_.count_blocks) co_return success();
  if (growing_) co_return Error{Errc::busy, info_.name + ": is growing"};
  if (count_blocks < info_.count_blocks) {
    co_return Error{Errc::invalid_argument, "num_blocks: " + info_.name + " has " + std::to_string(info_.count_blocks) +
                                                " blocks and does not shrink"};
  }
  // Old and new tail lie beside each other for a while.
  if (tail_ != nullptr && count_blocks - info_.count_blocks < tail_bytes / info_.block_size_bytes) {
    co_return Error{Errc::invalid_argument, "num_blocks: " + info_.name + " grows by at least 1 MiB"};
  }
  Outcome may = may_grow(count_blocks);
  if (!may) co_return may;
  if (tail_ == nullptr) {
    dirty_ = RegionMap(count_blocks, info_.block_size_bytes);
    set_size(count_blocks);
    co_return success();
  }
  growing_ = true;
  RangeEntry range;
  range.first_block = 0;
  range.end_block = info_.count_blocks;
  LockAwaiter lock(*this, range);
  co_await lock;
  Outcome grown = may_grow(count_blocks);
  if (grown) grown = co_await move_tails(count_blocks);
  locks_.release(&range);
  growing_ = false;
  // What was asked of the tails meanwhile.
  write_tails_soon(true);
  co_return grown;
}

// Every range is held by the caller.
Task<Outcome> LegBdev::move_tails(uint64_t count_blocks) {
  Tail& tail = *tail_;
  tail.moving = true;
  while (tail.writing && !fenced_) {
    TailsWritten written(*this);
    co_await written;
  }
  const uint64_t old_blocks = info_.count_blocks;
  Tail next(shape_of(count_blocks));
  next.take_marks(tail);
  next.superblock = tail.superblock;
  next.superblock.generation++;
  next.superblock.count_blocks = count_blocks;
  next.superblock.region_blocks = next.wanted.region_blocks();
  nvme::Status refused;
  co_await on_all_in_sync([&](uint32_t slot) { return write_whole_tail(slot, next, count_blocks, refused); });
  if (!fenced_ && refused.ok() && !options_.planted.skip_vacate) {
    co_await on_all_in_sync([&](uint32_t slot) { return vacate(slot, old_blocks); });
  }
  tail.moving = false;
  if (fenced_) co_return Error{Errc::fenced, info_.name + ": is fenced"};
  if (!refused.ok()) {
    // The old tails stay: newer than what was just written, before any mark changes.
    tail.superblock.generation++;
    roster_changed();
    co_await superblocks_written();
    co_return Error{Errc::no_space, info_.name + ": a member has no space for its tail: " + nvme::to_string(refused)};
  }
  next.superblock.roster = tail.superblock.roster;  // who left meanwhile
  next.superblock.generation = std::max(next.superblock.generation, tail.superblock.generation);
  adopt_shape(next, count_blocks);
  tail.durable = tail.wanted;
  if (!options_.planted.trust_absent) forget_absent();
  for_each_slot(in_sync_, [&](uint32_t slot) { members_[slot].page_written = tail.page_version; });
  roster_changed();
  co_await superblocks_written();
  if (fenced_) co_return Error{Errc::fenced, info_.name + ": is fenced"};
  set_size(count_blocks);
  co_return success();
}

// Runs one task for each member of the set, and returns when all have done it, or left.
template <class F>
Task<void> LegBdev::on_all_in_sync(F&& task_of) {
  struct Running {
    static Task<void> run(Task<void> task, Countdown& countdown) {
      co_await task;
      countdown.done();
    }
  };
  Countdown countdown;
  for_each_slot(in_sync_ & ~failed_, [&](uint32_t slot) {
    countdown.add();
    spawn(Running::run(task_of(slot), countdown));
  });
  co_await countdown;
  Settled settled(*this);
  co_await settled;
}

// The marks before the superblock, and that in two copies one after the other, as always.
Task<void> LegBdev::write_whole_tail(uint32_t slot, const Tail& tail, uint64_t at_blocks, nvme::Status& refused) {
  Member& member = members_[slot];
  member.task_count++;
  const uint64_t page_blocks = leg_tail::page_bytes / info_.block_size_bytes;
  const uint64_t page_count = tail.page_version.size();
  TaskMemory memory((page_count + 1) * leg_tail::page_bytes);
  for (uint64_t page = 0; page < page_count; page++)
    leg_tail::encode_marks(tail.wanted, nullptr, page, member.stay, memory.data() + page * leg_tail::page_bytes);
  char* superblock = memory.data() + page_count * leg_tail::page_bytes;
  leg_tail::encode_superblock(own_superblock(slot, tail.superblock), superblock);
  Iovec iov{memory.data(), page_count * leg_tail::page_bytes};
  Io io;
  io.type = IoType::write;
  io.fua = true;
  io.iov = &iov;
  io.iov_count = 1;
  io.offset_blocks = at_blocks + leg_tail::mark_page_first * page_blocks;
  io.count_blocks = static_cast<uint32_t>(page_count * page_blocks);
  nvme::Status status = co_await member_io(slot, io);
  iov = {superblock, leg_tail::page_bytes};
  io.count_blocks = static_cast<uint32_t>(page_blocks);
  for (int copy = 0; copy < 2 && status.ok(); copy++) {
    io.offset_blocks = at_blocks + leg_tail::superblock_pages[copy] * page_blocks;
    status = co_await member_io(slot, io);
  }
  if (status.is(nvme::status::capacity_exceeded)) {
    refused = status;
  } else if (!status.ok() && !fenced_) {
    member_failed(slot, status);
  }
  task_ended(slot);
}

// Where a tail was, data is going to be: zeroes, as everywhere that nobody wrote.
Task<void> LegBdev::vacate(uint32_t slot, uint64_t at_blocks) {
  members_[slot].task_count++;
  Io io;
  io.type = IoType::write_zeroes;
  io.fua = true;
  io.offset_blocks = at_blocks;
  io.count_blocks = static_cast<uint32_t>(tail_bytes / info_.block_size_bytes);
  const nvme::Status status = co_await member_io(slot, io);
  if (!status.ok() && !fenced_) member_failed(slot, status);
  task_ended(slot);
}

// Every member of the set has the superblock as it is now.
Task<void> LegBdev::superblocks_written() {
  const uint64_t version = tail_->superblock_version;
  const auto behind = [&] {
    bool some = false;
    for_each_slot(in_sync_ & ~failed_, [&](uint32_t slot) { some |= members_[slot].superblock_written < version; });
    return some || waiting();
  };
  while (!fenced_ && behind()) {
    if (waiting()) {
      Settled settled(*this);
      co_await settled;
      continue;
    }
    write_tails_soon(true);
    TailsWritten written(*this);
    co_await written;
  }
}

void LegBdev::Tail::take_marks(const Tail& from) {
  const auto take = [](RegionMap& to, const RegionMap& old) {
    for (uint64_t region = old.next(0); region < old.region_count(); region = old.next(region + 1))
      to.set_range(old.first_block(region), old.end_block(region));
  };
  take(wanted, from.wanted);
  take(touched, from.touched);
}

// The leg's own books for a leg of that size; nothing is written.
void LegBdev::adopt_shape(const Tail& next, uint64_t count_blocks) {
  Tail& tail = *tail_;
  tail.wanted = next.wanted;
  tail.durable = next.durable;
  tail.touched = next.touched;
  tail.page_version = next.page_version;
  tail.superblock = next.superblock;
  tail.set_version++;  // a sweep that is under way clears nothing
  tail.at_blocks = count_blocks;
  dirty_ = RegionMap(count_blocks, info_.block_size_bytes);
}

// ---- the beginning of a leg whose growth may have been under way ---------------------------------------------------

// Where the tails are, by what was found in both places.
bool LegBdev::tails_moved(const std::vector<Image>& here, const std::vector<Image>& grown) const {
  using Age = std::pair<uint64_t, uint64_t>;
  bool all_here = true;
  Age newest_here{}, newest_grown{};
  for_each_slot(in_sync_, [&](uint32_t slot) {
    const auto age = [](const Image& of) { return Age(of.superblock.epoch, of.superblock.generation); };
    if (here[slot].state == Page::whole) newest_here = std::max(newest_here, age(here[slot]));
    if (grown[slot].state == Page::whole) newest_grown = std::max(newest_grown, age(grown[slot]));
    all_here = all_here && here[slot].state == Page::whole;
  });
  return !all_here && newest_grown > newest_here;
}

Task<void> LegBdev::vacate_all(uint64_t at_blocks) {
  co_await on_all_in_sync([&](uint32_t slot) { return vacate(slot, at_blocks); });
}

// Also one whose copying the last controller did not end.
void LegBdev::forget_absent() {
  std::erase_if(tail_->superblock.roster,
                [](const RosterEntry& entry) { return entry.state != RosterEntry::State::in_sync; });
}

}  // namespace basalt::bdev
