// SPDX-License-Identifier: Apache-2.0
#include "bdev/file/file.h"

#include <cerrno>

#include "bdev/geometry.h"

namespace basalt::bdev {

struct FileBdev::Op {
  env::FileIo file_io;
  FileBdev* bdev = nullptr;
  Io* io = nullptr;
  Buffer* bounce = nullptr;
  Iovec bounce_iov;
  struct Waiter : BufferWaiter {
    Op* op = nullptr;
  } waiter;
  bool flush_follows = false;  // a deallocation with FUA
};

namespace {

constexpr size_t op_count_max = size_t{1} << 20;

nvme::Status status_of(IoType type, int error) {
  if (error == 0) return nvme::status::success;
  if (error == ENOSPC || error == EDQUOT) return nvme::status::capacity_exceeded;
  return type == IoType::read ? nvme::status::unrecovered_read_error : nvme::status::write_fault;
}

env::FileIo::Type file_type(IoType type) {
  switch (type) {
    case IoType::read:
      return env::FileIo::Type::read;
    case IoType::write:
      return env::FileIo::Type::write;
    case IoType::flush:
      return env::FileIo::Type::flush;
    case IoType::write_zeroes:
    case IoType::unmap:
      return env::FileIo::Type::zero;
  }
  BASALT_ASSERT(false);
}

}  // namespace

Result<std::unique_ptr<FileBdev>> FileBdev::open(Reactor& home, const FileBdevOptions& options) {
  auto checked = check_geometry(options.block_size_bytes, 1);
  if (!checked) return std::move(checked).error();
  env::FileOptions file_options;
  file_options.path = options.path;
  file_options.create_bytes = options.create_bytes;
  file_options.read_only = options.read_only;
  file_options.buffered = options.buffered;
  auto file = home.poller().open(file_options);
  if (!file) return std::move(file).error();
  const env::FileLimits limits = (*file)->limits();
  if (limits.offset_alignment_bytes > options.block_size_bytes) {
    return Error{Errc::invalid_argument,
                 "block_size: " + options.path + " needs at least " + std::to_string(limits.offset_alignment_bytes)};
  }
  if (limits.size_bytes < options.block_size_bytes) {
    return Error{Errc::invalid_argument, options.path + ": smaller than one block"};
  }
  std::unique_ptr<FileBdev> bdev(new FileBdev(home));
  bdev->file_ = std::move(file).value();
  bdev->ops_ = std::make_unique<Pool<Op>>(op_count_max);
  bdev->info_.name = options.name;
  bdev->info_.product = "file";
  bdev->info_.uuid = options.uuid;
  bdev->info_.block_size_bytes = options.block_size_bytes;
  bdev->info_.count_blocks = limits.size_bytes / options.block_size_bytes;
  bdev->info_.volatile_cache = true;
  bdev->info_.memory_alignment_bytes = limits.memory_alignment_bytes;
  if (options.read_only)
    bdev->info_.io_types = {1u << static_cast<unsigned>(IoType::read) | 1u << static_cast<unsigned>(IoType::flush)};
  return bdev;
}

FileBdev::~FileBdev() = default;

bool FileBdev::aligned(const Io& io) const {
  const uint64_t mask = info_.memory_alignment_bytes - 1;
  for (size_t i = 0; i < io.iov_count; i++) {
    if ((reinterpret_cast<uintptr_t>(io.iov[i].base) | io.iov[i].length_bytes) & mask) return false;
  }
  return true;
}

void FileBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  Op* op = ops_->take();
  BASALT_ASSERT(op != nullptr);
  op->bdev = this;
  op->io = io;
  op->flush_follows = false;
  op->file_io.type = file_type(io->type);
  op->file_io.fua = io->fua && io->type == IoType::write;
  op->file_io.offset_bytes = io->offset_blocks * info_.block_size_bytes;
  op->file_io.length_bytes = uint64_t{io->count_blocks} * info_.block_size_bytes;
  op->file_io.iov = io->iov;
  op->file_io.iov_count = io->iov_count;
  op->file_io.context = op;
  op->file_io.run = file_done;
  const bool moves_data = io->type == IoType::read || io->type == IoType::write;
  if (moves_data && !aligned(*io)) {
    start_bounced(op);
  } else {
    if (op->file_io.type == env::FileIo::Type::zero) op->flush_follows = io->fua;
    start(op);
  }
}

void FileBdev::start(Op* op) {
  if (op->file_io.type == env::FileIo::Type::flush) return join_flush(op);
  file_->submit(&op->file_io);
}

void FileBdev::join_flush(Op* op) {
  flushes_waiting_.push(&op->file_io);
  if (!flushing_) start_flush();
}

void FileBdev::start_flush() {
  flushing_ = true;
  std::swap(flushes_joined_, flushes_waiting_);
  flush_io_.type = env::FileIo::Type::flush;
  flush_io_.context = this;
  flush_io_.run = flush_done;
  file_->submit(&flush_io_);
}

void FileBdev::flush_done(Work* work) {
  auto* bdev = static_cast<FileBdev*>(static_cast<env::FileIo*>(work)->context);
  if (bdev->flush_io_.error != 0) bdev->flush_failed_ = true;
  bdev->flushing_ = false;
  WorkQueue ended;
  std::swap(ended, bdev->flushes_joined_);
  if (!bdev->flushes_waiting_.empty()) bdev->start_flush();
  const int error = bdev->flush_failed_ ? EIO : 0;
  while (Work* joined = ended.pop()) {
    static_cast<env::FileIo*>(joined)->error = error;
    file_done(joined);
  }
}

void FileBdev::start_bounced(Op* op) {
  BufferPool& buffers = home().buffers();
  op->bounce = buffers.take(op->file_io.length_bytes);
  if (op->bounce == nullptr) {
    op->waiter.op = op;
    op->waiter.run = [](Work* work) {
      Op* waiting = static_cast<Op::Waiter*>(work)->op;
      waiting->bdev->start_bounced(waiting);
    };
    return buffers.wait(&op->waiter, op->file_io.length_bytes);
  }
  if (op->io->type == IoType::write) iovec_copy_out(op->io->iov, op->io->iov_count, op->bounce->data);
  op->bounce_iov = {op->bounce->data, op->file_io.length_bytes};
  op->file_io.iov = &op->bounce_iov;
  op->file_io.iov_count = 1;
  start(op);
}

void FileBdev::file_done(Work* work) {
  Op* op = static_cast<Op*>(static_cast<env::FileIo*>(work)->context);
  if (op->file_io.error == 0 && op->flush_follows) {
    op->flush_follows = false;
    op->file_io.type = env::FileIo::Type::flush;
    return op->bdev->start(op);
  }
  op->bdev->finish(op);
}

void FileBdev::finish(Op* op) {
  Io* io = op->io;
  if (op->bounce != nullptr) {
    if (io->type == IoType::read && op->file_io.error == 0) iovec_copy_in(io->iov, io->iov_count, op->bounce->data);
    home().buffers().give(std::exchange(op->bounce, nullptr));
  }
  const nvme::Status status = status_of(io->type, op->file_io.error);
  ops_->give(op);
  complete_now(io, status);
}

Task<Outcome> FileBdev::close() {
  BASALT_ASSERT(ops_->in_use() == 0);
  co_return success();
}

}  // namespace basalt::bdev
