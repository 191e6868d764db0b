// SPDX-License-Identifier: Apache-2.0
// The log of checksummed writes. One record is on its way at most; what comes meanwhile goes with the next one. When
// half of the ring is used it is trimmed in the background, while writes go on.
#include "base/crc32c.h"
#include "bdev/lvol/checksums.h"

namespace basalt::bdev::lvs {
namespace {

constexpr size_t writers_max = 16;

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
  spawn(run_trim(this));
}

Task<void> Checksums::run_trim(Checksums* checksums) {
  checksums->host_.checksums_begin();
  (void)(co_await checksums->trim()).ok();  // a failure has been told to the host
  checksums->host_.checksums_end();
}

Task<nvme::Status> Checksums::trim() {
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
Task<nvme::Status> Checksums::empty_log() {
  const uint64_t sequence = next_sequence_;
  const uint64_t position = head_;
  const bool old_phase = phase_;
  phase_ = !old_phase;
  while (unplaced_[old_phase] > 0)
    co_await phase_ended_.wait();
  std::vector<TagPage*> dirty = pages_.take_dirty();
  nvme::Status status = co_await write_pages(dirty);
  for (TagPage* page : dirty) {
    if (!status.ok()) pages_.mark_dirty(page);
    pages_.unpin(page);
  }
  if (status.ok() && !bugs_.trim_before_flush) {
    const nvme::Status flushed = co_await device_.flush();
    if (!flushed.ok()) status = nvme::status::write_fault;  // what was lost is not known: never a reason to go on
  }
  if (status.ok() && failed_) status = nvme::status::write_fault;
  if (!status.ok()) co_return status;
  status = co_await write_superblocks(sequence, position);
  co_return status;
}

// Pages on their way. Writers share them; each writes from memory of its own, for tags change meanwhile.
struct Checksums::PageWriting {
  Checksums& checksums;
  std::vector<TagPage*>& pages;
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

Task<void> Checksums::write_some(PageWriting& writing) {
  Checksums& checksums = writing.checksums;
  BlockMemory memory(1);
  while (writing.next < writing.pages.size() && writing.status.ok()) {
    TagPage* page = writing.pages[writing.next++];
    std::memcpy(memory.data(), page->memory.data(), block_bytes);
    const nvme::Status status = co_await checksums.device_.transfer(
        IoType::write, checksums.area_.page_base_block(page->index), 1, memory.data());
    if (!status.ok()) writing.status = status;
  }
  writing.done();
}

Task<nvme::Status> Checksums::write_pages(std::vector<TagPage*>& pages) {
  PageWriting writing{*this, pages};
  for (size_t i = 0; i < std::min(writers_max, pages.size()); i++) {
    writing.writer_count++;
    spawn(write_some(writing));
  }
  co_await writing;
  co_return writing.status;
}

// Into both places, one after the other: one that is lost later is not replaced by one with an older tail, whose
// records may name clusters that have other owners now.
Task<nvme::Status> Checksums::write_superblocks(uint64_t tail_sequence, uint64_t tail_position) {
  BlockMemory memory(1);
  auto& superblock = *reinterpret_cast<ChecksumSuperblock*>(memory.data());
  superblock.nonce = nonce_;
  superblock.tail_sequence = tail_sequence;
  superblock.tail_position = tail_position;
  const uint64_t first_generation = generation_ + 1;
  for (uint32_t i = 0; i < checksum_superblock_count; i++) {
    const uint64_t generation = first_generation + i;
    const uint64_t block = area_.base_block(generation % checksum_superblock_count);
    seal_block(&superblock, {BlockType::checksum_superblock, store_uuid_, block, generation, 0, 0}, payload_bytes_max);
    // With FUA alone an older write of the same place could still be in the cache.
    nvme::Status status = co_await device_.transfer(IoType::write, block, 1, memory.data());
    if (!status.ok()) co_return status;
    status = co_await device_.flush();
    if (!status.ok()) co_return nvme::status::write_fault;
    generation_ = generation;
  }
  record_generation_ = first_generation;
  tail_sequence_ = tail_sequence;
  tail_ = tail_position;
  co_return nvme::status::success;
}

// ---- making and loading --------------------------------------------------------------------------------------------

Task<Outcome> Checksums::format() {
  reactor_.env().random(&nonce_, sizeof(nonce_));
  const nvme::Status status = co_await write_superblocks(next_sequence_, head_);
  if (!status.ok()) co_return io_error("writing the superblock of the checksums", status);
  co_return success();
}

Task<Outcome> Checksums::load() {
  bool blank = true;
  bool found = false;
  for (uint32_t slot = 0; slot < checksum_superblock_count; slot++) {
    const uint64_t block = area_.base_block(slot);
    const nvme::Status status = co_await device_.transfer(IoType::read, block, 1, memory_.data());
    if (!status.ok()) co_return io_error("reading the superblocks of the checksums", status);
    blank = blank && std::all_of(memory_.data(), memory_.data() + block_bytes, [](uint8_t byte) { return byte == 0; });
    const auto& superblock = *reinterpret_cast<const ChecksumSuperblock*>(memory_.data());
    if (!block_matches(&superblock, BlockType::checksum_superblock, store_uuid_, block)) continue;
    if (found && superblock.header.generation <= generation_) continue;
    found = true;
    nonce_ = superblock.nonce;
    generation_ = superblock.header.generation;
    next_sequence_ = tail_sequence_ = superblock.tail_sequence;
    head_ = tail_ = superblock.tail_position;
  }
  if (blank) co_return Error{Errc::not_found, "lvstore: its checksums were never made"};
  if (!found) co_return corrupt("no superblock of the checksums is intact");
  co_return success();
}

// The record that comes next, with its data, into the memory. False: the log ends there. What cannot be read may be a
// record whose write was acknowledged, and is no end.
Task<Result<bool>> Checksums::read_record(uint64_t* position, BlockMemory& memory) {
  // The next one follows, or begins the next cluster because it did not fit.
  const uint64_t places[2] = {*position, *position + area_.left_in_cluster(*position)};
  nvme::Status unread = {};
  for (const uint64_t place : places) {
    const uint64_t block = area_.log_base_block(place);
    nvme::Status status = co_await device_.transfer(IoType::read, block, 1, memory.data());
    if (!status.ok()) unread = status;
    if (!status.ok()) continue;
    const ChecksumRecord& record = record_in(memory);
    const bool next = block_matches(&record, BlockType::checksum_record, store_uuid_, block) &&
                      record.nonce == nonce_ && record.header.owner == next_sequence_ && record.header.index == place &&
                      record.block_count > 0 && record.block_count < area_.left_in_cluster(place) &&
                      record.block_count <= checksum_record_blocks_max;
    if (!next) continue;
    if (record.header.generation > generation_)
      co_return corrupt("the log of the checksums is newer than every intact superblock of theirs");
    status = co_await device_.transfer(IoType::read, block + 1, record.block_count, memory.block(1));
    if (!status.ok()) unread = status;
    if (!status.ok()) continue;
    uint32_t crcs[checksum_record_blocks_max];
    for (uint32_t i = 0; i < record.block_count; i++)
      crcs[i] = crc32c(0, memory.block(1 + i), block_bytes);
    if (crc32c(0, crcs, size_t{record.block_count} * sizeof(uint32_t)) != record.data_crc32c) continue;
    *position = place + 1 + record.block_count;
    co_return true;
  }
  if (!unread.ok()) co_return io_error("reading the log of the checksums", unread);
  co_return false;
}

// From the tail to the end.
Task<Outcome> Checksums::go_through_log(bool carrying_out) {
  next_sequence_ = tail_sequence_;
  uint64_t position = head_ = tail_;
  while (position - tail_ <= area_.log_blocks()) {
    Result<bool> more = co_await read_record(&position, memory_);
    if (!more) co_return std::move(more).error();
    if (!*more) break;
    if (carrying_out) {
      Outcome done = co_await carry_out(memory_);
      if (!done) co_return done;
    }
    next_sequence_++;
    head_ = position;
  }
  co_return success();
}

// All is read before anything is written: a log that cannot be read to its end is left as it is.
Task<Outcome> Checksums::replay() {
  Outcome outcome = co_await go_through_log(false);
  if (!outcome) co_return outcome;
  const uint64_t end_sequence = next_sequence_;
  outcome = co_await go_through_log(true);
  if (!outcome) co_return outcome;
  if (next_sequence_ != end_sequence) co_return corrupt("the log of the checksums reads differently each time");
  // A new nonce: what the log holds now can never be taken for what will be written.
  std::vector<TagPage*> dirty = pages_.take_dirty();
  nvme::Status status = co_await write_pages(dirty);
  for (TagPage* page : dirty)
    pages_.unpin(page);
  if (status.ok()) status = co_await device_.flush();
  reactor_.env().random(&nonce_, sizeof(nonce_));
  if (status.ok()) status = co_await write_superblocks(next_sequence_, head_);
  if (!status.ok()) co_return io_error("what the log of the checksums says", status);
  co_return success();
}

Task<Outcome> Checksums::carry_out(BlockMemory& memory) {
  const ChecksumRecord& record = record_in(memory);
  for (uint32_t i = 0; i < record.block_count; i++) {
    if (!area_.holds(record.blocks[i])) co_return corrupt("the log of the checksums names a block that is none");
  }
  for (uint32_t first = 0; first < record.block_count;) {
    uint32_t count = 1;
    while (first + count < record.block_count && record.blocks[first + count] == record.blocks[first] + count)
      count++;
    const nvme::Status status = co_await put_in_place(record.blocks[first], count, memory.block(1 + first));
    if (!status.ok()) co_return io_error("carrying out the log of the checksums", status);
    for (uint32_t i = first; i < first + count; i++) {
      Outcome set = co_await set_tag(record.blocks[i], record.tags[i]);
      if (!set) co_return set;
    }
    first += count;
  }
  co_return success();
}

// Blocks that the base does not take, a bad sector or a full base, get their tags nevertheless: unless they hold this
// data already they read as damaged. They are no reason to refuse the store. A base that is out of reach is.
Task<nvme::Status> Checksums::put_in_place(uint64_t block, uint32_t count_blocks, uint8_t* memory) {
  const auto bearable = [](nvme::Status status) {
    return status.ok() || status.type() == nvme::StatusType::media || status.is(nvme::status::capacity_exceeded);
  };
  nvme::Status status = co_await device_.transfer(IoType::write, block, count_blocks, memory);
  if (status.ok() || !bearable(status)) co_return status;
  for (uint32_t i = 0; i < count_blocks; i++) {  // each for itself
    status = co_await device_.transfer(IoType::write, block + i, 1, memory + size_t{i} * block_bytes);
    if (!bearable(status)) co_return status;
  }
  co_return nvme::status::success;
}

// For a coroutine that waits for a page.
struct Checksums::PageWait : TagPageWaiter {
  TagPage* page;
  nvme::Status status = {};
  std::coroutine_handle<> waiter = {};
  explicit PageWait(TagPage* page) : page(page) {
    writes = true;
    page_ready = [](TagPageWaiter* self, nvme::Status status) {
      auto* wait = static_cast<PageWait*>(self);
      wait->status = status;
      wait->waiter.resume();
    };
  }
  bool await_ready() const noexcept { return page->loaded; }
  void await_suspend(std::coroutine_handle<> coroutine) {
    waiter = coroutine;
    page->waiting.push_back(this);
  }
  void await_resume() const noexcept {}
};

Task<Outcome> Checksums::set_tag(uint64_t block, uint32_t tag) {
  const uint64_t index = area_.tag_index(block);
  TagPage* page = pages_.pin(index / tags_per_page);
  PageWait wait(page);
  co_await wait;
  if (wait.status.ok()) {
    page->tags()[index % tags_per_page] = tag;
    pages_.mark_dirty(page);
  }
  pages_.unpin(page);
  if (!wait.status.ok()) co_return io_error("reading a page of checksums", wait.status);
  co_return success();
}

}  // namespace basalt::bdev::lvs
