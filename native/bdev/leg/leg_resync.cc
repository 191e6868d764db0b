// SPDX-License-Identifier: Apache-2.0
// Resync of a joining member, under the locks of what is copied. With tails: first its own marks are read, at the epoch
// that it was just taken over at; where its history is known, only the union of them and of the survivors' marks is
// copied. Its own tail says all the while what it still lacks, so that a copy that was cut short goes on from there.
#include <algorithm>
#include <functional>

#include "base/bytes.h"
#include "base/probe.h"
#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t copy_chunk_bytes = 256 * 1024;
constexpr uint32_t copy_worker_count = 4;
// So much is copied again at most when a copy is cut short.
constexpr uint64_t checkpoint_bytes = uint64_t{64} << 20;

}  // namespace

// What the workers of one resync share.
struct LegBdev::Copying {
  uint64_t next_region = 0;
  uint64_t since_checkpoint_bytes = 0;
  uint64_t told_percent = 0;
  bool broken = false;
  bool checkpointing = false;
  Countdown countdown;
};

bool LegBdev::copying_goes_on(uint32_t slot) const {
  return !fenced_ && members_[slot].state == MemberState::joining && (failed_ & bit(slot)) == 0;
}

// Holds a place in the gate and in the slot, entered by its starter.
Task<void> LegBdev::resync_member(uint32_t slot) {
  Gate::Leaver leaver(gate_);
  Member& member = members_[slot];
  bool copied = true;
  if (tail_ != nullptr) {
    copied = co_await prepare_member(slot);
  } else {
    begin_resync(slot, {});
  }
  if (copied && copying_goes_on(slot)) {
    Copying copying;
    for (uint32_t i = 0; i < copy_worker_count; i++) {
      copying.countdown.add();
      spawn(copy_regions(slot, copying));
    }
    co_await copying.countdown;
    copied = !copying.broken && member.left->empty();
  }
  if (copied && copying_goes_on(slot)) copied = co_await checkpoint_resync(slot);
  if (copied && tail_ != nullptr) {
    // Its tail has to say the same as the others' before it counts.
    const std::vector<uint64_t> wanted = tail_->page_version;
    while (copying_goes_on(slot) &&
           !std::equal(wanted.begin(), wanted.end(), member.page_written.begin(), std::less_equal<>())) {
      write_tails_soon(true);
      TailsWritten written(*this);
      co_await written;
    }
  }
  const bool whole = copied && copying_goes_on(slot);
  member.left.reset();
  member.left_marked.reset();
  if (whole) {
    member.state = MemberState::copied;
    refresh_masks();
    if (events_.member_copied) events_.member_copied(info_of(slot));
  }
  task_ended(slot);
}

// Reads its tail, says in all tails that it is here, and returns when it receives.
Task<bool> LegBdev::prepare_member(uint32_t slot) {
  Member& member = members_[slot];
  co_await hop(home());
  while (!open_ && copying_goes_on(slot)) {
    TailsWritten written(*this);
    co_await written;
  }
  if (!copying_goes_on(slot)) co_return false;
  const leg_tail::Image image = co_await read_tail(slot);
  if (!copying_goes_on(slot)) co_return false;
  begin_resync(slot, image);
  while (!member.receives && copying_goes_on(slot)) {
    write_tails_soon(true);
    TailsWritten written(*this);
    co_await written;
  }
  co_return copying_goes_on(slot);
}

void LegBdev::begin_resync(uint32_t slot, const leg_tail::Image& image) {
  Member& member = members_[slot];
  if (tail_ == nullptr) {
    member.left = std::make_unique<RegionMap>(info_.count_blocks, info_.block_size_bytes);
    member.left->set_all();
    member.resync = Resync::full;
    member.to_copy_blocks = info_.count_blocks;
    member.receives = true;
    return refresh_masks();
  }
  leg_tail::RosterEntry& entry = roster_entry(slot);
  // The marks are complete for it when it is the same stay that the survivors keep them for, and it was not set back.
  const bool known = image.state == leg_tail::Page::whole && entry.stay == image.superblock.stay &&
                     image.superblock.generation >= entry.generation && entry.stay != 0;
  member.left = std::make_unique<RegionMap>(tail_->wanted);
  if (!known) {
    member.left->set_all();
  } else if (!options_.planted.ignore_own_marks) {
    member.left->add(*image.marks);
  }
  member.left_marked = std::make_unique<RegionMap>(*member.left);
  if (known) reach(Mark::resync_used);
  member.resync = known ? Resync::delta : Resync::full;
  member.to_copy_blocks = member.left->count_blocks();
  member.stay = known ? entry.stay : home().env().random_u64();
  member.generation = known ? image.superblock.generation : 0;
  member.page_written.assign(tail_->page_version.size(), 0);
  member.superblock_written = 0;
  member.tail_known = true;
  entry.stay = member.stay;
  entry.generation = member.generation;
  entry.state = leg_tail::RosterEntry::State::joining;
  roster_changed();
}

Task<void> LegBdev::copy_regions(uint32_t slot, Copying& copying) {
  Member& member = members_[slot];
  member.task_count++;
  if (events_.resync_progress && copying.told_percent == 0) {
    copying.told_percent = 1;
    events_.resync_progress(info_of(slot));
  }
  while (copying_goes_on(slot) && !copying.broken) {
    const uint64_t region = member.left->next(copying.next_region);
    if (region >= member.left->region_count()) break;
    copying.next_region = region + 1;
    const bool copied = co_await copy_region(slot, region, copying);
    if (!copied) break;
    member.left->clear(region);
    const uint64_t percent = member.copied_blocks * 100 / member.to_copy_blocks;
    if (percent >= copying.told_percent + 10 && events_.resync_progress && copying_goes_on(slot)) {
      copying.told_percent = percent;
      events_.resync_progress(info_of(slot));
    }
    if (copying.since_checkpoint_bytes < checkpoint_bytes || copying.checkpointing || tail_ == nullptr) continue;
    copying.since_checkpoint_bytes = 0;
    copying.checkpointing = true;
    const bool kept = co_await checkpoint_resync(slot);
    copying.checkpointing = false;
    if (!kept) copying.broken = true;
  }
  task_ended(slot);
  copying.countdown.done();
}

Task<bool> LegBdev::copy_region(uint32_t slot, uint64_t region, Copying& copying) {
  Member& member = members_[slot];
  const uint64_t chunk_blocks = copy_chunk_bytes / info_.block_size_bytes;
  const uint64_t region_end = member.left->end_block(region);
  const auto goes_on = [this, slot] { return copying_goes_on(slot); };
  for (uint64_t block = member.left->first_block(region); block < region_end; block += chunk_blocks) {
    const uint64_t end_block = std::min(block + chunk_blocks, region_end);
    const uint64_t length_bytes = (end_block - block) * info_.block_size_bytes;
    co_await resync_pace_.keep(length_bytes, goes_on);
    RangeEntry range;
    range.first_block = block;
    range.end_block = end_block;
    LockAwaiter lock(*this, range);
    co_await lock;
    bool copied = false;
    if (copying_goes_on(slot) && !copying.broken) copied = co_await copy_chunk(slot, block, end_block);
    locks_.release(&range);
    if (!copied) {
      copying.broken = true;
      co_return false;
    }
    member.copied_blocks += end_block - block;
    copying.since_checkpoint_bytes += length_bytes;
    // Let the reactor serve others between chunks.
    co_await hop(home());
  }
  co_return true;
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

// Puts what was copied so far on stable media, and only then out of the member's marks.
Task<bool> LegBdev::checkpoint_resync(uint32_t slot) {
  Member& member = members_[slot];
  auto left = std::make_unique<RegionMap>(*member.left);
  Io flush;
  flush.type = IoType::flush;
  const nvme::Status status = co_await member_io(slot, flush);
  if (!status.ok() && !fenced_) member_failed(slot, status);
  if (!status.ok() || !copying_goes_on(slot)) co_return false;
  if (tail_ == nullptr) co_return true;
  member.left_marked = std::move(left);
  for (uint64_t& version : tail_->page_version)
    version++;
  write_tails_soon(false);
  co_return true;
}

void LegBdev::set_resync(uint64_t bytes_per_s, bool paused) {
  resync_pace_.set(bytes_per_s, paused);
}

// Tasks that wait for their pace see whether it is over.
void LegBdev::wake_paced() {
  resync_pace_.wake();
  scrub_pace_.wake();
}

}  // namespace basalt::bdev
