// SPDX-License-Identifier: Apache-2.0
// Making a store's checksums, and loading them: superblocks, and the log, which is carried out.
#include "base/crc32c.h"
#include "bdev/lvol/checksum_replay.h"
#include "bdev/lvol/checksums.h"

namespace basalt::bdev::lvs {
namespace {

constexpr uint32_t replay_run_blocks = 128;

}  // namespace

Task<Outcome> Checksums::format() {
  reactor_.env().random(&nonce_, sizeof(nonce_));
  const nvme::Status status = co_await write_superblocks(next_sequence_, head_);
  if (!status.ok()) co_return io_error("writing the superblock of the checksums", status);
  co_return success();
}

// What is wrong is found here, before anything is written.
Task<Outcome> Checksums::load() {
  Outcome outcome = co_await load_superblocks();
  if (!outcome) co_return outcome;
  log_image_ = std::make_unique<ChecksumLogImage>(area_);
  outcome = co_await read_log(*log_image_);
  if (!outcome) co_return outcome;
  Result<ChecksumLogContents> log = log_image_->read({store_uuid_, nonce_, generation_, tail_sequence_, tail_});
  if (!log) co_return std::move(log).error();
  log_ = std::make_unique<ChecksumLogContents>(std::move(log).value());
  co_return success();
}

Task<Outcome> Checksums::load_superblocks() {
  bool blank = true;
  bool found = false;
  for (uint32_t slot = 0; slot < checksum_superblock_count; slot++) {
    const uint64_t block = area_.base_block(slot);
    const nvme::Status status = co_await device_.transfer(IoType::read, block, 1, memory_.data());
    // Both say the same: one that cannot be read is as one that is damaged.
    if (status.type() == nvme::StatusType::media) blank = false;
    if (status.type() == nvme::StatusType::media) continue;
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

// A cluster at a time; where sectors cannot be read, block by block. That the base is out of reach is another thing.
Task<Outcome> Checksums::read_log(ChecksumLogImage& image) {
  for (uint64_t position = 0; position < area_.log_blocks();) {
    const auto count = std::min<uint64_t>(area_.left_in_cluster(position), area_.log_blocks() - position);
    nvme::Status status =
        co_await device_.transfer(IoType::read, area_.log_base_block(position), count, image.block(position));
    for (uint64_t i = 0; !status.ok() && status.type() == nvme::StatusType::media && i < count; i++) {
      const nvme::Status one =
          co_await device_.transfer(IoType::read, area_.log_base_block(position + i), 1, image.block(position + i));
      if (one.type() == nvme::StatusType::media) image.set_unreadable(position + i);
      if (!one.ok() && one.type() != nvme::StatusType::media) status = one;
    }
    if (!status.ok() && status.type() != nvme::StatusType::media)
      co_return io_error("reading the log of the checksums", status);
    position += count;
  }
  co_return success();
}

Task<Outcome> Checksums::replay(Replay how) {
  BASALT_ASSERT(log_ != nullptr);
  next_sequence_ = log_->next_sequence;
  head_ = log_->end_position;
  lost_record_count_ = log_->lost_count;
  const Outcome outcome = co_await carry_out(*log_, how);
  log_.reset();
  log_image_.reset();
  if (!outcome || how == Replay::in_memory) co_return outcome;
  // A new nonce: what the log holds now can never be taken for what will be written.
  std::vector<TagPage*> dirty;
  pages_.take_dirty(dirty);
  nvme::Status status = co_await write_pages(dirty);
  for (TagPage* page : dirty)
    pages_.unpin(page);
  if (status.ok()) status = co_await device_.flush();
  reactor_.env().random(&nonce_, sizeof(nonce_));
  if (status.ok()) status = co_await write_superblocks(next_sequence_, head_);
  if (!status.ok()) co_return io_error("what the log of the checksums says", status);
  co_return success();
}

Task<Outcome> Checksums::carry_out(const ChecksumLogContents& log, Replay how) {
  std::vector<uint64_t> blocks;
  for (const auto& [block, versions] : log.blocks)
    blocks.push_back(block);
  for (const auto& [block, tag] : log.perhaps) {
    if (!log.blocks.contains(block)) blocks.push_back(block);
  }
  std::sort(blocks.begin(), blocks.end());
  for (size_t first = 0; first < blocks.size();) {
    uint32_t count = 1;
    while (count < replay_run_blocks && first + count < blocks.size() && blocks[first + count] == blocks[first] + count)
      count++;
    Outcome done = co_await carry_out_run(log, blocks[first], count, how);
    if (!done) co_return done;
    first += count;
  }
  co_return success();
}

// What is in place is looked at first: most of it is there, and what a lost record said can be told from nothing else.
Task<Outcome> Checksums::carry_out_run(const ChecksumLogContents& log, uint64_t first, uint32_t count, Replay how) {
  using Verdict = ChecksumLogContents::Verdict;
  std::vector<bool> unreadable(count);
  nvme::Status status = co_await device_.transfer(IoType::read, first, count, memory_.data());
  for (uint32_t i = 0; !status.ok() && status.type() == nvme::StatusType::media && i < count; i++) {
    const nvme::Status one = co_await device_.transfer(IoType::read, first + i, 1, memory_.block(i));
    unreadable[i] = !one.ok();
    if (!one.ok() && one.type() != nvme::StatusType::media) status = one;
  }
  if (!status.ok() && status.type() != nvme::StatusType::media)
    co_return io_error("carrying out the log of the checksums", status);
  uint32_t run = 0;  // blocks before this one that have to be written together
  for (uint32_t i = 0; i <= count; i++) {
    bool writes = false;
    if (i < count) {
      Result<TagPage*> page = co_await page_of(first + i);
      if (!page) co_return std::move(page).error();
      uint32_t& tag = (*page)->tags()[area_.tag_index(first + i) % tags_per_page];
      const auto judged = log.judge(first + i, unreadable[i] ? nullptr : memory_.block(i), tag);
      writes = judged.verdict == Verdict::write;
      if (judged.verdict != Verdict::as_it_is && tag != judged.tag) {
        tag = judged.tag;
        pages_.mark_dirty(*page);
      }
      pages_.unpin(*page);
      if (writes) std::memcpy(memory_.block(i), log.blocks.at(first + i).back().data, block_bytes);
    }
    if (writes) {
      run++;
    } else if (run > 0) {
      if (how == Replay::carry_out) status = co_await put_in_place(first + i - run, run, memory_.block(i - run));
      if (how == Replay::carry_out && !status.ok()) co_return io_error("carrying out the log of the checksums", status);
      run = 0;
    }
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

// Pinned.
Task<Result<TagPage*>> Checksums::page_of(uint64_t block) {
  TagPage* page = pages_.pin(area_.tag_index(block) / tags_per_page);
  PageWait wait(page);
  co_await wait;
  if (wait.status.ok()) co_return page;
  pages_.unpin(page);
  co_return io_error("reading a page of checksums", wait.status);
}

}  // namespace basalt::bdev::lvs
