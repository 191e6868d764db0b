// SPDX-License-Identifier: Apache-2.0
// Scrub: reads the whole leg from all members of the set and compares, chunk by chunk under the range's lock. What most
// members say is right; where none is most, the first one's word. Dirty regions are left to the equalizer.
#include <algorithm>

#include "base/probe.h"
#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {
namespace {
constexpr uint64_t scrub_chunk_bytes = 256 * 1024;
}

struct LegBdev::ScrubChunk {
  uint64_t first_block = 0;
  uint32_t count_blocks = 0;
  uint64_t readable = 0;  // members
  uint64_t unlike = 0;    // members that have to be written
  uint64_t different_blocks = 0;
  // By place among the members that were read; the right contents are put together in the last one.
  std::vector<TaskMemory> memory;
  std::vector<uint32_t> slots;
};

Outcome LegBdev::start_scrub(const ScrubOptions& options) {
  if (scrub_runs_) return Error{Errc::busy, info_.name + ": is being scrubbed"};
  if (fenced_ || !gate_.enter()) return Error{Errc::fenced, info_.name + ": is fenced"};
  scrub_runs_ = true;
  scrub_info_ = {};
  scrub_info_.state = ScrubState::running;
  scrub_pace_.set(options.bytes_per_s, false);
  spawn(run_scrub(options));
  return success();
}

void LegBdev::stop_scrub() {
  if (scrub_info_.state != ScrubState::running) return;
  scrub_info_.state = ScrubState::stopped;
  scrub_pace_.wake();
}

// Holds a place in the gate, entered by its starter.
Task<void> LegBdev::run_scrub(ScrubOptions options) {
  Gate::Leaver leaver(gate_);
  const uint64_t chunk_blocks = scrub_chunk_bytes / info_.block_size_bytes;
  ScrubChunk chunk;
  for (size_t i = 0; i <= member_count_max; i++)
    chunk.memory.emplace_back(scrub_chunk_bytes);
  co_await hop(home());
  const auto goes_on = [this] { return !fenced_ && scrub_info_.state == ScrubState::running; };
  uint64_t told_percent = 0;
  if (events_.scrub) events_.scrub(scrub_info_);
  for (uint64_t block = 0; block < info_.count_blocks && goes_on(); block += chunk_blocks) {
    chunk.first_block = block;
    chunk.count_blocks = static_cast<uint32_t>(std::min(chunk_blocks, info_.count_blocks - block));
    co_await scrub_pace_.keep(uint64_t{chunk.count_blocks} * info_.block_size_bytes, goes_on);
    RangeEntry range;
    range.first_block = block;
    range.end_block = block + chunk.count_blocks;
    LockAwaiter lock(*this, range);
    co_await lock;
    if (goes_on() && open_ && !dirty_.any(range.first_block, range.end_block)) co_await scrub_chunk(chunk, options);
    locks_.release(&range);
    const uint64_t percent = range.end_block * 100 / info_.count_blocks;
    if (percent >= told_percent + 10 && percent < 100 && goes_on() && events_.scrub) {
      told_percent = percent;
      events_.scrub(scrub_info_);
    }
    // Let the reactor serve others between chunks.
    co_await hop(home());
  }
  if (goes_on()) scrub_info_.state = ScrubState::finished;
  if (fenced_) scrub_info_.state = ScrubState::stopped;
  scrub_runs_ = false;
  if (events_.scrub) events_.scrub(scrub_info_);
}

Task<void> LegBdev::scrub_chunk(ScrubChunk& chunk, const ScrubOptions& options) {
  const size_t length_bytes = size_t{chunk.count_blocks} * info_.block_size_bytes;
  chunk.slots.clear();
  chunk.readable = chunk.unlike = chunk.different_blocks = 0;
  uint64_t unreadable = 0;
  Iovec iov;
  Io io;
  io.offset_blocks = chunk.first_block;
  io.count_blocks = chunk.count_blocks;
  io.iov = &iov;
  io.iov_count = 1;
  for (uint32_t slot = 0; slot < member_slot_count && !fenced_; slot++) {
    if ((in_sync_ & ~failed_ & bit(slot)) == 0) continue;
    iov = {chunk.memory[chunk.slots.size()].data(), length_bytes};
    io.type = IoType::read;
    const nvme::Status status = co_await member_io(slot, io);
    if (status.ok()) {
      chunk.slots.push_back(slot);
      chunk.readable |= bit(slot);
    } else if (!is_member_failure(status)) {
      unreadable |= bit(slot);
    }
  }
  if (fenced_) co_return;
  if (unreadable != 0 && chunk.count_blocks > 1) {
    // Block by block: what else a member has is good, and another one may be bad at another block.
    const uint64_t end_block = chunk.first_block + chunk.count_blocks;
    for (chunk.count_blocks = 1; chunk.first_block < end_block && !fenced_; chunk.first_block++)
      co_await scrub_chunk(chunk, options);
    co_return;
  }
  scrub_info_.unreadable_blocks += unreadable != 0 ? 1 : 0;
  if (chunk.slots.empty()) co_return;
  compare(chunk);
  scrub_info_.compared_blocks += chunk.count_blocks;
  scrub_info_.different_blocks += chunk.different_blocks;
  chunk.unlike |= unreadable;
  if (chunk.unlike == 0 || !options.repair) co_return;
  // One that joins may have been copied from the wrong one.
  chunk.unlike |= receives_ & ~in_sync_;
  const bool marked = co_await mark_for_task(chunk.first_block, chunk.first_block + chunk.count_blocks);
  iov = {chunk.memory[member_count_max].data(), length_bytes};
  for (uint32_t slot = 0; slot < member_slot_count && marked && !fenced_; slot++) {
    if ((chunk.unlike & receives_ & ~failed_ & bit(slot)) == 0) continue;
    io.type = IoType::write;
    const nvme::Status status = co_await member_io(slot, io);
    if (!status.ok() && !fenced_) member_failed(slot, status);
    if (!status.ok()) continue;
    reach(Mark::scrub_rewrote);
    scrub_info_.repaired_blocks += chunk.count_blocks;
    members_[slot].repaired_blocks += chunk.count_blocks;
    if (events_.repaired) events_.repaired(members_[slot].handle.info().name, io.offset_blocks, io.count_blocks);
  }
  // A member that missed it differs until its removal is committed.
  if (marked) {
    Settled settled(*this);
    co_await settled;
  }
}

// Which members differ from what is right, which is put together in the last memory.
void LegBdev::compare(ScrubChunk& chunk) {
  const size_t count = chunk.slots.size();
  char* right = chunk.memory[member_count_max].data();
  for (uint32_t block = 0; block < chunk.count_blocks; block++) {
    const size_t at = size_t{block} * info_.block_size_bytes;
    const auto same = [&](size_t one, size_t other) {
      return std::memcmp(chunk.memory[one].data() + at, chunk.memory[other].data() + at, info_.block_size_bytes) == 0;
    };
    size_t best = 0;
    size_t best_votes = 0;
    for (size_t one = 0; one < count && best_votes < count; one++) {
      size_t votes = 0;
      for (size_t other = 0; other < count; other++)
        votes += same(one, other) ? 1 : 0;
      if (votes <= best_votes) continue;
      best = one;
      best_votes = votes;
    }
    std::memcpy(right + at, chunk.memory[best].data() + at, info_.block_size_bytes);
    if (best_votes == count) continue;
    chunk.different_blocks++;
    for (size_t one = 0; one < count; one++) {
      if (!same(one, best)) chunk.unlike |= bit(chunk.slots[one]);
    }
  }
}

}  // namespace basalt::bdev
