// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/journal.h"

#include <algorithm>

#include "base/probe.h"

namespace basalt::bdev::lvs {

Journal::Journal(Reactor& reactor, const Device& device, const Layout& layout, JournalHost& host)
    : reactor_(reactor), device_(device), layout_(layout), host_(host) {
  kick_.journal = this;
  kick_.run = [](Work* work) {
    Journal& journal = *static_cast<Kick*>(work)->journal;
    journal.kicked_ = false;
    journal.begin_batch();
  };
}

Journal::~Journal() {
  BASALT_ASSERT(idle() && pending_.empty());
}

void Journal::start(const Uuid& store_uuid, uint64_t incarnation, uint64_t generation, uint64_t next_sequence) {
  store_uuid_ = store_uuid;
  incarnation_ = incarnation;
  generation_ = generation;
  next_sequence_ = tail_sequence_ = next_sequence;
  stable_sequence_ = next_sequence - 1;
}

void Journal::append(JournalEntry* entry) {
  BASALT_ASSERT(entry->length_bytes > 0 && entry->length_bytes <= journal_block_records_bytes_max);
  pending_.push_back(entry);
  kick();
}

// At the end of the turn, so that all that this turn publishes shares a write.
void Journal::kick() {
  if (writing_ || kicked_) return;
  kicked_ = true;
  reactor_.at_turn_end(&kick_);
}

void Journal::begin_batch() {
  if (writing_ || pending_.empty()) return;
  if (failed_) {
    fail_all(nvme::status::write_fault);
    return;
  }
  const uint64_t room_blocks = layout_.journal_blocks - used_blocks();
  if (room_blocks == 0) {
    host_.journal_progress();  // a checkpoint makes room; trim() goes on from here
    return;
  }
  const uint64_t to_ring_end = layout_.journal_blocks - next_sequence_ % layout_.journal_blocks;
  if (to_ring_end == layout_.journal_blocks && next_sequence_ > layout_.journal_blocks) reach(Mark::journal_wrapped);
  fill(std::min<uint64_t>({room_blocks, to_ring_end, batch_blocks_max}));
  writing_ = true;
  bool flush_first = false;
  batch_.for_each([&](JournalEntry* entry) { flush_first |= entry->flush_first; });
  if (!flush_first) {
    write_batch();
    return;
  }
  device_.prepare(io_, IoType::flush, 0, 0);
  io_.context = this;
  io_.done = [](Io* io) {
    Journal& journal = *static_cast<Journal*>(io->context);
    if (!io->status.ok() || journal.failed_) {
      journal.batch_done(io->status.ok() ? nvme::status::write_fault : io->status);
      return;
    }
    journal.flushed(journal.completed_sequence());
    journal.write_batch();
  };
  device_.submit(&io_);
}

void Journal::fill(uint64_t blocks_max) {
  uint64_t count_blocks = 0;
  uint32_t length_bytes = 0;
  JournalBlock* block = nullptr;
  const auto seal = [&] {
    const uint64_t sequence = next_sequence_ + count_blocks - 1;
    std::memset(block->records + length_bytes, 0, sizeof(block->records) - length_bytes);
    block->incarnation = incarnation_;
    block->stable_sequence = stable_sequence_;
    seal_block(block, {BlockType::journal, store_uuid_, layout_.journal_block(sequence), generation_, sequence, 0},
               16 + length_bytes);
  };
  while (JournalEntry* entry = pending_.front()) {
    if (block == nullptr || length_bytes + entry->length_bytes > journal_block_records_bytes_max) {
      if (count_blocks == blocks_max) break;
      if (block != nullptr) seal();
      block = reinterpret_cast<JournalBlock*>(memory_.block(count_blocks++));
      length_bytes = 0;
    }
    std::memcpy(block->records + length_bytes, entry->records, entry->length_bytes);
    length_bytes += entry->length_bytes;
    pending_.pop_front();
    batch_.push_back(entry);
  }
  seal();
  in_flight_blocks_ = count_blocks;
  next_sequence_ += count_blocks;
}

void Journal::write_batch() {
  const uint64_t first_sequence = next_sequence_ - in_flight_blocks_;
  device_.prepare(io_, IoType::write, layout_.journal_block(first_sequence), in_flight_blocks_);
  iov_ = {memory_.data(), static_cast<size_t>(in_flight_blocks_ * block_bytes)};
  io_.iov = &iov_;
  io_.iov_count = 1;
  io_.context = this;
  io_.done = [](Io* io) { static_cast<Journal*>(io->context)->batch_done(io->status); };
  device_.submit(&io_);
}

void Journal::batch_done(nvme::Status status) {
  if (!status.ok()) {
    writing_ = false;
    failed_ = true;
    fail_all(status);
    host_.journal_failed();
    return;
  }
  in_flight_blocks_ = 0;
  batch_.for_each([&](JournalEntry* entry) { host_.journal_apply(entry->records, entry->length_bytes); });
  // `done` may append; writing_ is still set, so that this list is finished first.
  while (JournalEntry* entry = batch_.pop_front()) {
    entry->status = nvme::status::success;
    entry->done(entry);
  }
  writing_ = false;
  host_.journal_progress();
  if (!pending_.empty()) kick();
}

void Journal::fail_all(nvme::Status batch_status) {
  List<JournalEntry, &JournalEntry::node> failing;
  failing.splice_back(batch_);
  failing.for_each([&](JournalEntry* entry) { entry->status = batch_status; });
  pending_.for_each([](JournalEntry* entry) { entry->status = nvme::status::write_fault; });
  failing.splice_back(pending_);
  while (JournalEntry* entry = failing.pop_front())
    entry->done(entry);
}

void Journal::trim(uint64_t tail_sequence, uint64_t generation) {
  BASALT_ASSERT(tail_sequence >= tail_sequence_ && tail_sequence <= next_sequence_);
  tail_sequence_ = tail_sequence;
  generation_ = generation;
  if (!pending_.empty()) kick();
}

void Journal::flushed(uint64_t sequence) {
  if (sequence > stable_sequence_) stable_sequence_ = sequence;
}

void Journal::fail() {
  failed_ = true;
  if (!pending_.empty()) kick();
}

}  // namespace basalt::bdev::lvs
