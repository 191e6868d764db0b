// SPDX-License-Identifier: Apache-2.0
#include "bdev/crypt/crypt.h"

#include <algorithm>
#include <cstring>

namespace basalt::bdev {
namespace {

bool all_zero(const uint8_t* data, size_t length_bytes) {
  uint64_t first;
  std::memcpy(&first, data, sizeof(first));
  if (first != 0) [[likely]]
    return false;
  return std::memcmp(data, data + sizeof(first), length_bytes - sizeof(first)) == 0;
}

// Walks the pieces of a request's memory.
class Cursor {
 public:
  explicit Cursor(const Io& io) : iov_(io.iov), end_(io.iov + io.iov_count) {}

  void skip(uint64_t bytes) {
    while (bytes > 0) {
      const size_t take = std::min<uint64_t>(bytes, left());
      advance(take);
      bytes -= take;
    }
  }
  // The next `bytes`, when they lie in one piece; nullptr otherwise, and nothing moves.
  uint8_t* contiguous(size_t bytes) {
    if (left() < bytes) return nullptr;
    uint8_t* at = here();
    advance(bytes);
    return at;
  }
  void copy_out(uint8_t* to, size_t bytes) {
    walk(bytes, [&](uint8_t* memory, size_t done, size_t count) { std::memcpy(to + done, memory, count); });
  }
  void copy_in(const uint8_t* from, size_t bytes) {
    walk(bytes, [&](uint8_t* memory, size_t done, size_t count) { std::memcpy(memory, from + done, count); });
  }

 private:
  uint8_t* here() const { return static_cast<uint8_t*>(iov_->base) + used_; }
  // Steps over pieces that are used up, and empty ones.
  size_t left() {
    while (iov_ != end_ && used_ == iov_->length_bytes) {
      iov_++;
      used_ = 0;
    }
    BASALT_ASSERT(iov_ != end_);
    return iov_->length_bytes - used_;
  }
  void advance(size_t bytes) { used_ += bytes; }
  template <class Use>
  void walk(size_t bytes, Use use) {
    for (size_t done = 0; done < bytes;) {
      const size_t take = std::min(bytes - done, left());
      use(here(), done, take);
      advance(take);
      done += take;
    }
  }

  const Iovec* iov_;
  const Iovec* end_;
  size_t used_ = 0;
};

}  // namespace

// A write on its way: as one request below, or as several when it goes through the reserve.
struct CryptBdev::Write {
  Io child;
  Iovec piece;
  CryptBdev* bdev = nullptr;
  Io* parent = nullptr;
  Buffer* bounce = nullptr;
  uint32_t done_blocks = 0;
};

CryptBdev::CryptBdev(Reactor& home, Handle base, crypto::XtsCipher cipher)
    : Bdev(home), base_(base), cipher_(std::move(cipher)), writes_(std::make_unique<Pool<Write>>(child_io_count_max)) {
  waiter_.bdev = this;
  waiter_.run = [](Work* work) { static_cast<Waiter*>(work)->bdev->start_waiting(); };
}

CryptBdev::~CryptBdev() {
  if (size_node.linked()) base_.bdev().unwatch_size(this);
  if (reserve_ != nullptr) home().buffers().give(reserve_);
}

Result<std::unique_ptr<CryptBdev>> CryptBdev::create(Reactor& home, const CryptOptions& options, Handle base,
                                                     crypto::XtsCipher cipher) {
  std::unique_ptr<CryptBdev> bdev(new CryptBdev(home, base, std::move(cipher)));
  bdev->reserve_ = home.buffers().take(reserve_bytes, BufferUse::upper);
  if (bdev->reserve_ == nullptr) return Error{Errc::no_memory, options.name + ": no buffer of 64 KiB is left"};
  bdev->info_ = base.info();
  bdev->info_.name = options.name;
  bdev->info_.product = "crypto";
  bdev->info_.uuid = options.uuid;
  BASALT_ASSERT(bdev->info_.block_size_bytes <= bdev->scratch_.size());
  // A base of another reactor is not followed: the engine stacks bdevs of one.
  if (&base.bdev().home() == &home) base.bdev().watch_size(bdev.get());
  return bdev;
}

// Blocks keep their numbers when the base grows, so they keep their tweaks.
void CryptBdev::size_changed(Bdev& base) {
  if (base.info().count_blocks > info_.count_blocks) set_size(base.info().count_blocks);
}

void CryptBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  if (io->type != IoType::write) return pass(io);
  if (waiting_.empty()) {
    Buffer* bounce = take_bounce(size_t{io->count_blocks} * info_.block_size_bytes);
    if (bounce != nullptr) [[likely]]
      return start(io, bounce);
  }
  waiting_.push_back(io);
  waiting_count_++;
  start_waiting();
}

void CryptBdev::pass(Io* io) {
  ChildIo* child = children_.take();
  BASALT_ASSERT(child != nullptr);
  child->mirror(io, child_done, this);
  base_.submit(child);
}

void CryptBdev::child_done(Io* io) {
  auto* bdev = static_cast<CryptBdev*>(io->context);
  Io* parent = ChildIo::of(io)->parent;
  nvme::Status status = io->status;
  bdev->children_.give(ChildIo::of(io));
  if (status.ok() && parent->type == IoType::read && !bdev->decrypt(*parent)) status = nvme::status::internal_error;
  complete_now(parent, status);
}

bool CryptBdev::decrypt(const Io& io) {
  const size_t unit_bytes = info_.block_size_bytes;
  Cursor cursor(io);
  for (uint32_t i = 0; i < io.count_blocks; i++) {
    const uint64_t unit = io.offset_blocks + i;
    if (uint8_t* data = cursor.contiguous(unit_bytes)) [[likely]] {
      if (!decrypt_unit(unit, data)) return false;
      continue;
    }
    Cursor start = cursor;
    cursor.copy_out(scratch_.data(), unit_bytes);
    if (!decrypt_unit(unit, scratch_.data())) return false;
    start.copy_in(scratch_.data(), unit_bytes);
  }
  return true;
}

bool CryptBdev::decrypt_unit(uint64_t unit, uint8_t* data) {
  if (all_zero(data, info_.block_size_bytes)) return true;
  return cipher_.decrypt(unit, data, data, info_.block_size_bytes);
}

Buffer* CryptBdev::take_bounce(size_t bytes) {
  Buffer* bounce = home().buffers().take(bytes, BufferUse::upper);
  if (bounce != nullptr || reserve_busy_) return bounce;
  reserve_busy_ = true;
  return reserve_;
}

void CryptBdev::start_waiting() {
  BufferPool& buffers = home().buffers();
  while (Io* io = waiting_.front()) {
    const size_t bytes = size_t{io->count_blocks} * info_.block_size_bytes;
    Buffer* bounce = take_bounce(bytes);
    // A start() that failed has been here meanwhile: the wait may be for another size.
    buffers.stop_waiting(&waiter_);
    if (bounce == nullptr) return buffers.wait(&waiter_, bytes, BufferUse::upper);
    waiting_.pop_front();
    waiting_count_--;
    start(io, bounce);
  }
  buffers.stop_waiting(&waiter_);
}

void CryptBdev::start(Io* io, Buffer* bounce) {
  Write* write = writes_->take();
  BASALT_ASSERT(write != nullptr);
  write->bdev = this;
  write->parent = io;
  write->bounce = bounce;
  write->done_blocks = 0;
  next_part(write);
}

// The next blocks of the write, as many as the buffer holds.
void CryptBdev::next_part(Write* write) {
  const Io& io = *write->parent;
  Io& child = write->child;
  child.type = IoType::write;
  child.fua = io.fua;
  child.offset_blocks = io.offset_blocks + write->done_blocks;
  child.count_blocks =
      std::min(io.count_blocks - write->done_blocks, write->bounce->capacity_bytes / info_.block_size_bytes);
  if (!encrypt_part(*write)) return end(write, nvme::status::internal_error.dnr(), true);
  write->piece = {write->bounce->data, size_t{child.count_blocks} * info_.block_size_bytes};
  child.iov = &write->piece;
  child.iov_count = 1;
  child.context = write;
  child.done = part_done;
  base_.submit(&child);
}

bool CryptBdev::encrypt_part(Write& write) {
  const size_t unit_bytes = info_.block_size_bytes;
  Cursor cursor(*write.parent);
  cursor.skip(uint64_t{write.done_blocks} * unit_bytes);
  auto* to = static_cast<uint8_t*>(write.bounce->data);
  for (uint32_t i = 0; i < write.child.count_blocks; i++, to += unit_bytes) {
    const uint8_t* from = cursor.contiguous(unit_bytes);
    if (from == nullptr) {
      cursor.copy_out(scratch_.data(), unit_bytes);
      from = scratch_.data();
    }
    if (!cipher_.encrypt(write.child.offset_blocks + i, from, to, unit_bytes)) return false;
    // It would read as never written.
    if (all_zero(to, unit_bytes)) return false;
  }
  return true;
}

void CryptBdev::part_done(Io* io) {
  auto* write = static_cast<Write*>(io->context);
  write->done_blocks += io->count_blocks;
  if (io->status.ok() && write->done_blocks < write->parent->count_blocks) return write->bdev->next_part(write);
  write->bdev->end(write, io->status, false);
}

void CryptBdev::end(Write* write, nvme::Status status, bool inside_submit) {
  Io* parent = write->parent;
  Buffer* bounce = write->bounce;
  writes_->give(write);
  if (bounce != reserve_) {
    home().buffers().give(bounce);
  } else {
    reserve_busy_ = false;
  }
  if (!waiting_.empty()) start_waiting();
  if (inside_submit) {
    complete_later(parent, status);
  } else {
    complete_now(parent, status);
  }
}

Task<Outcome> CryptBdev::close() {
  BASALT_ASSERT(children_.in_use() == 0 && writes_->in_use() == 0 && waiting_.empty());
  co_return success();
}

}  // namespace basalt::bdev
