// SPDX-License-Identifier: Apache-2.0
// Repair: blocks that a member could not read are written anew, with what another member of the set holds, under the
// range's lock. A member that does not take them, or still cannot read them, fails.
#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {
namespace {
constexpr uint32_t repair_count_max = 4;  // further ones wait for the next read
}

void LegBdev::repair_later(uint64_t first_block, uint64_t end_block, uint64_t bad) {
  if (repair_count_ == repair_count_max || !gate_.enter()) return;
  repair_count_++;
  spawn(repair(first_block, end_block, bad));
}

// Holds a place in the gate, entered by its starter.
Task<void> LegBdev::repair(uint64_t first_block, uint64_t end_block, uint64_t bad) {
  Gate::Leaver leaver(gate_);
  RangeEntry range;
  range.first_block = first_block;
  range.end_block = end_block;
  LockAwaiter lock(*this, range);
  co_await lock;
  // A write that is cut short leaves neither the old nor the new: the mark comes first here too.
  const bool marked = co_await mark_for_task(first_block, end_block);
  if (marked && !fenced_) {
    const size_t length_bytes = (end_block - first_block) * info_.block_size_bytes;
    Buffer* buffer = co_await take_buffer(length_bytes);
    Iovec iov{buffer->data, length_bytes};
    Io io;
    io.offset_blocks = first_block;
    io.count_blocks = static_cast<uint32_t>(end_block - first_block);
    io.iov = &iov;
    io.iov_count = 1;
    bool readable = false;
    uint64_t tried = bad;
    while (!readable && !fenced_) {
      const uint32_t source = choose_reader(tried);
      if (source == member_slot_count) break;
      tried |= bit(source);
      io.type = IoType::read;
      const nvme::Status status = co_await member_io(source, io);
      readable = status.ok();
    }
    for (uint32_t slot = 0; slot < member_slot_count && readable && !fenced_; slot++) {
      if ((bad & in_sync_ & ~failed_ & bit(slot)) == 0) continue;
      const bool rewritten = co_await rewrite(slot, io);
      if (!rewritten) continue;
      leg_stats_.repaired_blocks += io.count_blocks;
      members_[slot].repaired_blocks += io.count_blocks;
      if (events_.repaired) events_.repaired(members_[slot].handle.info().name, io.offset_blocks, io.count_blocks);
    }
    give_buffer(buffer);
  }
  locks_.release(&range);
  repair_count_--;
}

Task<bool> LegBdev::rewrite(uint32_t slot, Io& io) {
  io.type = IoType::write;
  nvme::Status status = co_await member_io(slot, io);
  if (status.ok()) {
    io.type = IoType::read;
    status = co_await member_io(slot, io);
  }
  if (!status.ok() && !fenced_) member_failed(slot, status);
  co_return status.ok();
}

}  // namespace basalt::bdev
