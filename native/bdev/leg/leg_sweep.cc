// SPDX-License-Identifier: Apache-2.0
// The sweep: clears marks of regions that were not written for a while, after a flush of all members that followed
// their last write. It runs only while there are marks that it could clear.
#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {

void LegBdev::arm_sweep() {
  Tail::SweepTimer& timer = tail_->sweep_timer;
  if (timer.armed() || tail_->sweeping || fenced_ || tail_->wanted.empty()) return;
  timer.run = [](Work* work) {
    LegBdev* leg = static_cast<Tail::SweepTimer*>(work)->leg;
    if (!leg->may_clear() || !leg->gate_.enter()) return;
    leg->tail_->sweeping = true;
    spawn(leg->sweep());
  };
  home().arm_after(&timer, options_.mark_rest);
}

// Nobody is out, joining or failed, and every superblock says so.
bool LegBdev::may_clear() const {
  if (fenced_ || failed_ != 0) return false;
  for (const leg_tail::RosterEntry& entry : tail_->superblock.roster) {
    if (entry.state != leg_tail::RosterEntry::State::in_sync) return false;
  }
  for (const Member& member : members_) {
    if (member.state == MemberState::empty) continue;
    if (member.state != MemberState::in_sync || member.superblock_written < tail_->superblock_version) return false;
  }
  return true;
}

Task<void> LegBdev::sweep() {
  Gate::Leaver leaver(gate_);
  Tail& tail = *tail_;
  const uint64_t set_version = tail.set_version;
  locks_.for_each([&](const RangeEntry& entry) { tail.touched.set_range(entry.first_block, entry.end_block); });
  const auto rests = [&](uint64_t region) {
    if (tail.touched.has(region) || !tail.wanted.has(region)) return false;
    return dirty_.empty() || !dirty_.any(tail.wanted.first_block(region), tail.wanted.end_block(region));
  };
  std::vector<uint64_t> resting;
  for (uint64_t region = tail.wanted.next(0); region < tail.wanted.region_count();
       region = tail.wanted.next(region + 1)) {
    if (rests(region)) resting.push_back(region);
  }
  tail.touched.clear_all();
  // Their writes had ended before: the flush covers them.
  bool flushed = options_.planted.clear_before_flush;
  if (!resting.empty() && !flushed) flushed = co_await flush_all();
  if (flushed && may_clear() && tail.set_version == set_version) {
    for (const uint64_t region : resting) {
      if (!rests(region)) continue;
      tail.drop(region);
      leg_stats_.marks_cleared_count++;
    }
    if (!resting.empty()) write_tails_soon(false);
  }
  tail.sweeping = false;
  // Where nothing can be cleared before the set changes, the change begins it again.
  if (may_clear()) arm_sweep();
}

// As a sweep of all that rests now. What is written meanwhile keeps its mark, or gets it again.
Task<bool> LegBdev::settle_all() {
  if (fenced_ || !open_ || !gate_.enter()) co_return false;
  Gate::Leaver leaver(gate_);
  // A copied member may be in the recorded set already: the next controller may have it without its resync. Who became
  // one during the flush may lack it.
  const uint64_t asked = must_have_;
  const auto clean = [this, asked](bool flushed) {
    const bool whole = must_have_ == in_sync_ && (in_sync_ & ~asked) == 0;
    return flushed && whole && !fenced_ && failed_ == 0 && dirty_.empty();
  };
  if (tail_ == nullptr) {
    const bool flushed = co_await flush_all();
    co_return clean(flushed);
  }
  Tail& tail = *tail_;
  // A sweep that is under way counts on what it saw touched: then the marks stay.
  const bool sweeps = !std::exchange(tail.sweeping, true);
  const uint64_t set_version = tail.set_version;
  if (sweeps) tail.touched.clear_all();
  locks_.for_each([&](const RangeEntry& entry) { tail.touched.set_range(entry.first_block, entry.end_block); });
  const bool flushed = co_await flush_all();
  if (sweeps && flushed && may_clear() && tail.set_version == set_version) {
    for (uint64_t region = tail.wanted.next(0); region < tail.wanted.region_count();
         region = tail.wanted.next(region + 1)) {
      if (tail.touched.has(region) || dirty_.any(tail.wanted.first_block(region), tail.wanted.end_block(region)))
        continue;
      tail.drop(region);
      leg_stats_.marks_cleared_count++;
    }
    // What a member refuses is not asked of it for ever, and a leg that grows has other cares.
    for (int tries = 0; tries < 3 && !fenced_ && !tail.moving && tails_behind(); tries++) {
      write_tails_soon(false);
      TailsWritten written(*this);
      co_await written;
    }
  }
  if (sweeps) tail.sweeping = false;
  if (may_clear()) arm_sweep();
  co_return clean(flushed);
}

Task<bool> LegBdev::flush_all() {
  struct Flush {
    static Task<void> run(LegBdev& leg, uint32_t slot, bool& flushed, Countdown& countdown) {
      leg.members_[slot].task_count++;
      Io io;
      io.type = IoType::flush;
      const nvme::Status status = co_await leg.member_io(slot, io);
      if (!status.ok()) {
        flushed = false;
        if (!leg.fenced_) leg.member_failed(slot, status);
      }
      leg.task_ended(slot);
      countdown.done();
    }
  };
  bool flushed = true;
  Countdown countdown;
  for_each_slot(must_have_, [&](uint32_t slot) {
    countdown.add();
    spawn(Flush::run(*this, slot, flushed, countdown));
  });
  co_await countdown;
  co_return flushed;
}

}  // namespace basalt::bdev
