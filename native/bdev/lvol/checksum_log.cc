// SPDX-License-Identifier: Apache-2.0
// The log of checksummed writes. One record is on its way at most; what comes meanwhile goes with the next one. When
// half of the ring is used it is trimmed in the background, while writes go on.
#include "base/crc32c.h"
#include "bdev/lvol/checksums.h"

namespace basalt::bdev::lvs {
namespace {

ChecksumRecord& record_in(BlockMemory& memory) {
  return *reinterpret_cast<ChecksumRecord*>(memory.data());
}

}  // namespace

void Checksums::log(Op* op) {
  pending_.push_back(op);
  kick();
}

// At the end of the turn, so that all that this turn writes shares a record.
void Checksums::kick() {
  if (writing_ || kicked_) return;
  kicked_ = true;
  reactor_.at_turn_end(&kick_);
}

void Checksums::fail() {
  failed_ = true;
  if (!pending_.empty()) kick();
}

void Checksums::fail_pending() {
  List<Op, &Op::node> failing;
  failing.splice_back(pending_);
  while (Op* op = failing.pop_front())
    finish(op, nvme::status::write_fault);
}

void Checksums::begin_batch() {
  if (writing_ || pending_.empty()) return;
  if (failed_) return fail_pending();
  if (!fill()) return trim_in_background();  // it makes room, and comes back
  writing_ = true;
  const uint32_t blocks = 1 + record_in(memory_).block_count;
  device_.prepare(io_, IoType::write, area_.log_base_block(head_), blocks);
  io_.fua = !bugs_.record_not_durable;
  iov_ = {memory_.data(), size_t{blocks} * block_bytes};
  io_.iov = &iov_;
  io_.iov_count = 1;
  io_.context = this;
  io_.done = [](Io* io) { static_cast<Checksums*>(io->context)->logged(io->status); };
  head_ += blocks;
  next_sequence_++;
  if (bugs_.no_record) return logged(nvme::status::success);
  device_.submit(&io_);
}

// Puts together the next record, at head_. False: there is no room.
bool Checksums::fill() {
  const uint32_t first_blocks = 1 + pending_.front()->chunk_blocks;
  const uint32_t left = area_.left_in_cluster(head_);
  const uint32_t skip = first_blocks > left ? left : 0;
  const uint64_t room = area_.log_blocks() - (head_ - tail_);
  if (room < uint64_t{skip} + first_blocks) return false;
  head_ += skip;
  const uint64_t fits = std::min<uint64_t>(area_.left_in_cluster(head_), room - skip) - 1;
  const auto limit = static_cast<uint32_t>(std::min<uint64_t>(fits, checksum_record_blocks_max));
  ChecksumRecord& record = record_in(memory_);
  std::memset(&record, 0, sizeof(record));
  uint32_t crcs[checksum_record_blocks_max];
  uint32_t count = 0;
  while (Op* op = pending_.front()) {
    if (count + op->chunk_blocks > limit) break;
    pending_.pop_front();
    copy_chunk(*op, memory_.block(1 + count));
    for (uint32_t i = 0; i < op->chunk_blocks; i++, count++) {
      crcs[count] = crc32c(0, memory_.block(1 + count), block_bytes);
      op->tags[i] = op->copied_tags == nullptr ? crcs[count] : op->copied_tags[op->done_blocks + i];
      record.tags[count] = op->tags[i];
      record.blocks[count] = op->chunk_block() + i;
    }
    op->phase = phase_;
    unplaced_[phase_]++;
    batch_.push_back(op);
  }
  record.nonce = nonce_;
  record.block_count = count;
  record.data_crc32c = crc32c(0, crcs, size_t{count} * sizeof(uint32_t));
  seal_block(
      &record,
      {BlockType::checksum_record, store_uuid_, area_.log_base_block(head_), record_generation_, next_sequence_, head_},
      payload_bytes_max);
  return true;
}

void Checksums::copy_chunk(const Op& op, uint8_t* to) {
  uint64_t skip = uint64_t{op.done_blocks} * block_bytes;
  size_t left = size_t{op.chunk_blocks} * block_bytes;
  for (const Iovec* piece = op.io->iov; left > 0; piece++) {
    if (skip >= piece->length_bytes) {
      skip -= piece->length_bytes;
      continue;
    }
    const size_t take = std::min<size_t>(left, piece->length_bytes - skip);
    std::memcpy(to, static_cast<const char*>(piece->base) + skip, take);
    to += take;
    left -= take;
    skip = 0;
  }
}

void Checksums::logged(nvme::Status status) {
  writing_ = false;
  List<Op, &Op::node> batch;
  batch.splice_back(batch_);
  if (!status.ok()) {
    failed_ = true;
    while (Op* op = batch.pop_front()) {
      leave_phase(op);
      finish(op, status);
    }
    host_.checksums_failed();
    fail();
    return;
  }
  while (Op* op = batch.pop_front())
    write_in_place(op);
  if (!pending_.empty()) kick();
  if ((head_ - tail_) * 2 > area_.log_blocks()) trim_in_background();
}

// ---- trimming ------------------------------------------------------------------------------------------------------

void Checksums::trim_in_background() {
  if (trimming_ || failed_) return;
  (void)run_trim();
}

FramedSpawn Checksums::run_trim() {
  host_.checksums_begin();
  (void)(co_await trim()).ok();  // a failure has been told to the host
  host_.checksums_end();
}

FramedTask<nvme::Status> Checksums::trim() {
  while (trimming_)
    co_await trimmed_.wait();
  if (failed_) co_return nvme::status::write_fault;
  if (tail_sequence_ == next_sequence_) co_return nvme::status::success;
  trimming_ = true;
  nvme::Status status = co_await empty_log();
  trimming_ = false;
  // A base that is full may have room again: until the log is full too, nothing is lost.
  const auto fits = [this] {
    if (pending_.empty()) return true;
    const uint32_t blocks = 1 + pending_.front()->chunk_blocks;
    const uint32_t left = area_.left_in_cluster(head_);
    return area_.log_blocks() - (head_ - tail_) >= uint64_t{blocks} + (blocks > left ? left : 0);
  };
  const bool later = status.is(nvme::status::capacity_exceeded) && !failed_ && fits();
  if (!status.ok() && !later) {
    failed_ = true;
    host_.checksums_failed();
  }
  if (!pending_.empty()) kick();
  trimmed_.wake_all();
  co_return status;
}

// Pages may be written with tags of records that are newer: those are in the log still, and are carried out again.
FramedTask<nvme::Status> Checksums::empty_log() {
  const uint64_t sequence = next_sequence_;
  const uint64_t position = head_;
  const bool old_phase = phase_;
  phase_ = !old_phase;
  while (unplaced_[old_phase] > 0)
    co_await phase_ended_.wait();
  pages_.take_dirty(trimmed_pages_);
  nvme::Status status = co_await write_pages(trimmed_pages_);
  for (TagPage* page : trimmed_pages_) {
    if (!status.ok()) pages_.mark_dirty(page);
    pages_.unpin(page);
  }
  if (status.ok() && !bugs_.trim_before_flush) {
    Io flush;
    device_.prepare(flush, IoType::flush, 0, 0);
    const nvme::Status flushed = co_await io_wait(device_.handle(), flush);
    if (!flushed.ok()) status = nvme::status::write_fault;  // what was lost is not known: never a reason to go on
  }
  if (status.ok() && failed_) status = nvme::status::write_fault;
  if (!status.ok()) co_return status;
  status = co_await write_superblocks(sequence, position);
  co_return status;
}

// Pages on their way. Writers share them; each writes from memory of its own, for tags change meanwhile.
struct Checksums::PageWriting {
  const std::vector<TagPage*>& pages;
  size_t next = 0;
  size_t writer_count = 1;  // and the one who waits
  nvme::Status status = {};
  std::coroutine_handle<> waiter = {};
  void done() {
    if (--writer_count == 0 && waiter) waiter.resume();
  }
  bool await_ready() noexcept { return --writer_count == 0; }
  void await_suspend(std::coroutine_handle<> coroutine) noexcept { waiter = coroutine; }
  void await_resume() const noexcept {}
};

FramedSpawn Checksums::write_some(PageWriting& writing, uint8_t* memory) {
  while (writing.next < writing.pages.size() && writing.status.ok()) {
    TagPage* page = writing.pages[writing.next++];
    std::memcpy(memory, page->memory.data(), block_bytes);
    const nvme::Status status = co_await write_block(area_.page_base_block(page->index), memory);
    if (!status.ok()) writing.status = status;
  }
  writing.done();
}

FramedTask<nvme::Status> Checksums::write_block(uint64_t block, uint8_t* memory) {
  Io io;
  Iovec iov{memory, block_bytes};
  device_.prepare(io, IoType::write, block, 1);
  io.iov = &iov;
  io.iov_count = 1;
  co_return co_await io_wait(device_.handle(), io);
}

FramedTask<nvme::Status> Checksums::write_pages(const std::vector<TagPage*>& pages) {
  PageWriting writing{pages};
  for (size_t i = 0; i < std::min(writers_max, pages.size()); i++) {
    writing.writer_count++;
    (void)write_some(writing, trim_memory_.block(i));
  }
  co_await writing;
  co_return writing.status;
}

// Into both places, one after the other: one that is lost later is not replaced by one with an older tail, whose
// records may name clusters that have other owners now.
FramedTask<nvme::Status> Checksums::write_superblocks(uint64_t tail_sequence, uint64_t tail_position) {
  uint8_t* const memory = trim_memory_.block(0);
  std::memset(memory, 0, block_bytes);
  auto& superblock = *reinterpret_cast<ChecksumSuperblock*>(memory);
  superblock.nonce = nonce_;
  superblock.tail_sequence = tail_sequence;
  superblock.tail_position = tail_position;
  const uint64_t first_generation = generation_ + 1;
  for (uint32_t i = 0; i < checksum_superblock_count; i++) {
    const uint64_t generation = first_generation + i;
    const uint64_t block = area_.base_block(generation % checksum_superblock_count);
    seal_block(&superblock, {BlockType::checksum_superblock, store_uuid_, block, generation, 0, 0}, payload_bytes_max);
    // With FUA alone an older write of the same place could still be in the cache.
    nvme::Status status = co_await write_block(block, memory);
    if (!status.ok()) co_return status;
    Io flush;
    device_.prepare(flush, IoType::flush, 0, 0);
    status = co_await io_wait(device_.handle(), flush);
    if (!status.ok()) co_return nvme::status::write_fault;
    generation_ = generation;
  }
  record_generation_ = first_generation;
  tail_sequence_ = tail_sequence;
  tail_ = tail_position;
  co_return nvme::status::success;
}

}  // namespace basalt::bdev::lvs
