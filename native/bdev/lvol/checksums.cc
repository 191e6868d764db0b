// SPDX-License-Identifier: Apache-2.0
// Reads and writes of checksummed data. A read has its range shared and its pages pinned while the data is on its way;
// a write goes in chunks, each from the log to its place before the next one.
#include "bdev/lvol/checksums.h"

#include "base/crc32c.h"
#include "bdev/lvol/checksum_replay.h"

namespace basalt::bdev::lvs {

Checksums::Checksums(Reactor& reactor, const Device& device, const Layout& layout, const Uuid& store_uuid,
                     ChecksumHost& host, std::vector<uint32_t> clusters)
    : reactor_(reactor), device_(device), store_uuid_(store_uuid), host_(host), area_(layout), pages_(device, area_) {
  BASALT_ASSERT(clusters.size() == area_.cluster_count);
  area_.clusters = std::move(clusters);
  kick_.owner = this;
  kick_.run = [](Work* work) {
    Checksums& checksums = *static_cast<Kick*>(work)->owner;
    checksums.kicked_ = false;
    checksums.begin_batch();
  };
}

Checksums::~Checksums() {
  BASALT_ASSERT(ops_.in_use() == 0 && !trimming_ && !writing_ && !kicked_);
}

void Checksums::begin(Io* io, uint32_t* copied_tags) {
  Op* op = ops_.take();
  BASALT_ASSERT(op != nullptr);
  op->owner = this;
  op->io = io;
  op->copied_tags = copied_tags;
  op->done_blocks = op->page_count = 0;
  op->range.first_block = io->offset_blocks / device_.factor();
  op->range.end_block = op->range.first_block + io->count_blocks / device_.factor();
  op->range.exclusive = op->writes = io->type == IoType::write;
  op->range.context = op;
  op->range.granted = [](RangeEntry* range) {
    Op* op = static_cast<Op*>(range->context);
    op->owner->next_chunk(op);
  };
  op->page_ready = [](TagPageWaiter* waiter, nvme::Status status) {
    Op* op = static_cast<Op*>(waiter);
    if (status.ok()) return op->owner->pin_pages(op);
    op->owner->finish(op, status);
  };
  op->child.context = op;
  BASALT_ASSERT(area_.holds(op->range.first_block) && area_.holds(op->range.end_block - 1));
  if (locks_.acquire(&op->range)) next_chunk(op);
}

void Checksums::next_chunk(Op* op) {
  const uint32_t left = op->count_blocks() - op->done_blocks;
  op->chunk_blocks = op->writing() ? std::min(left, area_.chunk_blocks_max()) : left;
  pin_pages(op);
}

void Checksums::pin_pages(Op* op) {
  const uint64_t first = area_.tag_index(op->chunk_block());
  const uint64_t first_page = first / tags_per_page;
  const uint64_t last_page = (first + op->chunk_blocks - 1) / tags_per_page;
  while (first_page + op->page_count <= last_page) {
    TagPage* page = pages_.pin(first_page + op->page_count);
    op->pages[op->page_count++] = page;
    if (!page->loaded) return page->waiting.push_back(op);
  }
  have_pages(op);
}

void Checksums::have_pages(Op* op) {
  if (op->writing()) return log(op);
  device_.prepare(op->child, IoType::read, op->chunk_block(), op->chunk_blocks);
  op->child.iov = op->io->iov;
  op->child.iov_count = op->io->iov_count;
  op->child.done = [](Io* child) {
    Op* op = static_cast<Op*>(child->context);
    op->owner->read_done(op);
  };
  device_.submit(&op->child);
}

void Checksums::unpin_pages(Op* op) {
  while (op->page_count > 0)
    pages_.unpin(op->pages[--op->page_count]);
}

uint32_t& Checksums::tag_of(Op* op, uint32_t block_of_chunk) {
  const uint64_t index = area_.tag_index(op->chunk_block()) + block_of_chunk;
  TagPage* page = op->pages[index / tags_per_page - op->pages[0]->index];
  return page->tags()[index % tags_per_page];
}

void Checksums::read_done(Op* op) {
  nvme::Status status = op->child.status;
  if (status.ok() && !verify(op)) status = nvme::status::unrecovered_read_error;
  finish(op, status);
}

// Over the pieces as they lie.
bool Checksums::verify(Op* op) {
  if (op->copied_tags != nullptr) {
    for (uint32_t i = 0; i < op->chunk_blocks; i++)
      op->copied_tags[i] = tag_of(op, i);
    return true;
  }
  const Iovec* piece = op->io->iov;
  size_t used = 0;
  bool right = true;
  for (uint32_t i = 0; i < op->chunk_blocks; i++) {
    uint32_t crc = 0;
    for (size_t left = block_bytes; left > 0;) {
      if (used == piece->length_bytes) {
        piece++;
        used = 0;
        continue;
      }
      const size_t take = std::min(left, piece->length_bytes - used);
      crc = crc32c(crc, static_cast<const char*>(piece->base) + used, take);
      used += take;
      left -= take;
    }
    if (crc == tag_of(op, i)) [[likely]]
      continue;
    mismatch_count_++;
    right = bugs_.no_verify;
  }
  return right;
}

bool Checksums::point_child(Op* op) {
  device_.prepare(op->child, IoType::write, op->chunk_block(), op->chunk_blocks);
  op->child.fua = op->io->fua;
  if (op->chunk_blocks == op->count_blocks()) [[likely]] {
    op->child.iov = op->io->iov;
    op->child.iov_count = op->io->iov_count;
    return true;
  }
  if (op->slice == nullptr) op->slice = std::make_unique<Iovec[]>(iov_count_max);
  const size_t used = iovec_slice(op->io->iov, op->io->iov_count, uint64_t{op->done_blocks} * block_bytes,
                                  uint64_t{op->chunk_blocks} * block_bytes, op->slice.get(), iov_count_max);
  op->child.iov = op->slice.get();
  op->child.iov_count = static_cast<uint16_t>(used);
  return used > 0;
}

// The tags of the pages and those of the request change places: the old ones may be right again.
void Checksums::swap_tags(Op* op) {
  for (uint32_t i = 0; i < op->chunk_blocks; i++)
    std::swap(tag_of(op, i), op->tags[i]);
  for (uint32_t i = 0; i < op->page_count; i++)
    pages_.mark_dirty(op->pages[i]);
}

// Its record is stable.
void Checksums::write_in_place(Op* op) {
  swap_tags(op);
  const bool pointed = point_child(op);
  BASALT_ASSERT(pointed);
  op->child.done = [](Io* child) {
    Op* op = static_cast<Op*>(child->context);
    op->owner->placed(op);
  };
  device_.submit(&op->child);
}

void Checksums::placed(Op* op) {
  op->status = op->child.status;
  if (op->status.ok()) [[likely]]
    return chunk_ended(op);
  // Refused (a thin base is full) or half written: which of the two it is, block by block.
  op->look = std::make_unique<BlockMemory>(op->chunk_blocks);
  op->look_iov = {op->look->data(), size_t{op->chunk_blocks} * block_bytes};
  device_.prepare(op->child, IoType::read, op->chunk_block(), op->chunk_blocks);
  op->child.iov = &op->look_iov;
  op->child.iov_count = 1;
  op->child.done = [](Io* child) {
    Op* op = static_cast<Op*>(child->context);
    op->owner->looked(op);
  };
  device_.submit(&op->child);
}

// The record must not outlive the failure: carried out at the next load, it would change what was read since, or fail
// again. Nobody reads these blocks before the log has forgotten it.
void Checksums::looked(Op* op) {
  // A base that is out of reach tells nothing of what it holds: the next load carries the record out.
  if (!op->child.status.ok() && op->child.status.type() != nvme::StatusType::media) {
    failed_ = true;
    host_.checksums_failed();
    fail();
  }
  for (uint32_t i = 0; op->child.status.ok() && i < op->chunk_blocks; i++) {
    if (crc32c(0, op->look->block(i), block_bytes) == op->tags[i]) tag_of(op, i) = op->tags[i];
  }
  for (uint32_t i = 0; i < op->page_count; i++)
    pages_.mark_dirty(op->pages[i]);
  op->look.reset();
  leave_phase(op);
  spawn(forget_failed(this, op));
}

Task<void> Checksums::forget_failed(Checksums* checksums, Op* op) {
  checksums->host_.checksums_begin();
  (void)(co_await checksums->trim()).ok();  // a failure has been told to the host
  checksums->finish(op, op->status);
  checksums->host_.checksums_end();
}

void Checksums::leave_phase(Op* op) {
  if (--unplaced_[op->phase] == 0 && op->phase != phase_) phase_ended_.wake_all();
}

void Checksums::chunk_ended(Op* op) {
  leave_phase(op);
  op->done_blocks += op->chunk_blocks;
  unpin_pages(op);
  if (op->done_blocks == op->count_blocks()) return finish(op, op->status);
  next_chunk(op);
}

void Checksums::finish(Op* op, nvme::Status status) {
  Io* io = op->io;
  unpin_pages(op);
  locks_.release(&op->range);
  ops_.give(op);
  io->status = status;
  io->done(io);
}

// ---- copies --------------------------------------------------------------------------------------------------------

namespace {

struct CopyWait {
  Io io;
  Iovec iov;
  std::coroutine_handle<> waiter;
};

}  // namespace

struct Checksums::Copy {
  Checksums& checksums;
  CopyWait& wait;
  uint32_t* tags;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    wait.waiter = waiter;
    wait.io.context = &wait;
    wait.io.done = [](Io* io) { static_cast<CopyWait*>(io->context)->waiter.resume(); };
    checksums.begin(&wait.io, tags);
  }
  nvme::Status await_resume() const noexcept { return wait.io.status; }
};

Task<nvme::Status> Checksums::copy(IoType type, uint64_t block, uint32_t count_blocks, uint8_t* memory,
                                   uint32_t* tags) {
  constexpr auto piece_blocks_max = static_cast<uint32_t>(io_bytes_max / block_bytes);
  while (count_blocks > 0) {
    const uint32_t piece = std::min(count_blocks, piece_blocks_max);
    CopyWait wait;
    device_.prepare(wait.io, type, block, piece);
    wait.iov = {memory, size_t{piece} * block_bytes};
    wait.io.iov = &wait.iov;
    wait.io.iov_count = 1;
    Copy copying{*this, wait, tags};
    const nvme::Status status = co_await copying;
    if (!status.ok()) co_return status;
    block += piece;
    count_blocks -= piece;
    memory += size_t{piece} * block_bytes;
    tags += piece;
  }
  co_return nvme::status::success;
}

}  // namespace basalt::bdev::lvs
