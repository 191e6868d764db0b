// SPDX-License-Identifier: Apache-2.0
// Making regions equal: one member's value is written to all others, under the region's lock, before any read of it is
// answered; a background pass does the same for the whole leg. A value once read is kept like an acknowledged one.
#include <algorithm>

#include "base/probe.h"
#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {

// Never waits for the pool: its buffers may be held by the very requests that wait for the caller's range.
Task<Buffer*> LegBdev::take_buffer(size_t bytes) {
  for (;;) {
    Buffer* buffer = home().buffers().take(bytes);
    if (buffer != nullptr) co_return buffer;
    if (lists_->spare_memory == nullptr) {
      const size_t capacity_bytes = (bytes + BufferPool::alignment_bytes - 1) & ~(BufferPool::alignment_bytes - 1);
      lists_->spare_memory.reset(static_cast<char*>(std::aligned_alloc(BufferPool::alignment_bytes, capacity_bytes)));
      BASALT_ASSERT(lists_->spare_memory != nullptr);
      lists_->spare.data = lists_->spare_memory.get();
      lists_->spare.capacity_bytes = static_cast<uint32_t>(capacity_bytes);
      co_return &lists_->spare;
    }
    SpareReturned returned(*this);
    co_await returned;
  }
}

void LegBdev::give_buffer(Buffer* buffer) {
  if (buffer != &lists_->spare) return home().buffers().give(buffer);
  lists_->spare_memory.reset();
  // The others find a spare taken again by the first, or a buffer of the pool.
  Lists::resume_all(lists_->spare_waiters);
}

Task<void> LegBdev::equalize_then_read(Op* op) {
  const uint64_t last = dirty_.region_of(op->range.end_block - 1);
  reach(Mark::region_made_equal);
  for (uint64_t region = dirty_.region_of(op->range.first_block); region <= last; region++) {
    const bool equal = co_await equalize(region, Refusal::expels);
    if (!equal) {
      finish(op, fenced_ ? nvme::status::ana_inaccessible : nvme::status::unrecovered_read_error);
      co_return;
    }
  }
  if (fenced_) {
    finish(op, nvme::status::ana_inaccessible);
    co_return;
  }
  start_read(op);
}

// The caller holds the region exclusively. False: fenced, no member can read it, or one has no room and stays.
Task<bool> LegBdev::equalize(uint64_t region, Refusal refusal) {
  if (!dirty_.has(region)) co_return true;
  const uint64_t first_block = dirty_.first_block(region);
  const auto count_blocks = static_cast<uint32_t>(dirty_.end_block(region) - first_block);
  Buffer* buffer = co_await take_buffer(count_blocks * info_.block_size_bytes);
  Iovec iov{buffer->data, count_blocks * info_.block_size_bytes};
  Io io;
  io.offset_blocks = first_block;
  io.count_blocks = count_blocks;
  io.iov = &iov;
  io.iov_count = 1;

  uint64_t tried = 0;
  uint32_t source = member_slot_count;
  bool readable = true;
  bool refused = false;
  while (source == member_slot_count && readable && !fenced_) {
    const uint32_t slot = choose_reader(tried);
    if (slot == member_slot_count) {
      if (!waiting()) {
        readable = false;
        continue;
      }
      Settled settled(*this);
      co_await settled;
      if (choose_reader(tried) == member_slot_count) readable = false;
      continue;
    }
    io.type = IoType::read;
    const nvme::Status status = co_await member_io(slot, io);
    if (status.ok()) source = slot;
    tried |= bit(slot);
  }
  if (source != member_slot_count) {
    for (uint32_t slot = 0; slot < member_slot_count && !fenced_; slot++) {
      if (slot == source || (receives_ & ~failed_ & bit(slot)) == 0) continue;
      io.type = IoType::write;
      // What a power cut left on one member's media is read from now on: a second cut must not take it away again by
      // leaving another member to be asked.
      io.fua = true;
      const nvme::Status status = co_await member_io(slot, io);
      if (refusal == Refusal::leaves_dirty && status.is(nvme::status::capacity_exceeded)) {
        refused = true;
      } else if (!status.ok() && !is_member_failure(status) && !fenced_) {
        member_failed(slot, status);
      }
    }
    // A member that missed it may be the survivor of the next takeover until its removal is committed.
    Settled settled(*this);
    co_await settled;
  }
  give_buffer(buffer);
  if (fenced_ || source == member_slot_count || refused) co_return false;
  dirty_.clear(region);
  co_return true;
}

// Holds a place in the gate, entered by its starter.
Task<void> LegBdev::clean_in_background(Refusal refusal) {
  Gate::Leaver leaver(gate_);
  uint64_t region = dirty_.next(0);
  bool all_equal = true;
  while (region < dirty_.region_count() && !fenced_) {
    RangeEntry range;
    range.first_block = dirty_.first_block(region);
    range.end_block = dirty_.end_block(region);
    LockAwaiter lock(*this, range);
    co_await lock;
    const bool equal = co_await equalize(region, refusal);
    locks_.release(&range);
    all_equal = all_equal && equal;
    // Let the reactor serve others between regions.
    co_await hop(home());
    region = dirty_.next(region + 1);
  }
  cleaning_ = false;
  if (fenced_) co_return;
  clean_wait_ = all_equal ? clean_wait_min : std::min(clean_wait_ * 2, clean_wait_max);
  if (!dirty_.empty()) {
    clean_later();
  } else if (all_equal && events_.clean) {
    events_.clean();
  }
}

// For what became dirty after the beginning, or could not be made equal then.
void LegBdev::clean_later() {
  Lists::CleanTimer& timer = lists_->clean_timer;
  if (cleaning_ || timer.armed() || fenced_) return;
  timer.leg = this;
  timer.run = [](Work* work) {
    LegBdev* leg = static_cast<Lists::CleanTimer*>(work)->leg;
    // Reads may have made it equal meanwhile.
    if (leg->fenced_ || !leg->gate_.enter()) return;
    leg->cleaning_ = true;
    spawn(leg->clean_in_background(Refusal::leaves_dirty));
  };
  home().arm_after(&timer, clean_wait_);
}

}  // namespace basalt::bdev
