// SPDX-License-Identifier: Apache-2.0
// File I/O by io_uring. The probe asks the kernel which operations it has and does no I/O, so it cannot hang. Polled
// I/O (IOPOLL) is never used: on some virtual disks and file systems it hangs a process for good.
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/assert.h"
#include "env/linux/file_backend.h"

namespace basalt::env {
namespace {

constexpr unsigned ring_entries = 512;
constexpr unsigned completions_per_poll_max = 256;

class UringBackend final : public FileBackend {
 public:
  ~UringBackend() override {
    if (!ready_) return;
    io_uring_queue_exit(&ring_);
    close(event_fd_);
  }

  bool init() {
    io_uring_params params{};
    params.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
    params.cq_entries = ring_entries * 8;
    if (io_uring_queue_init_params(ring_entries, &ring_, &params) != 0) return false;
    event_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ready_ = true;
    return (params.features & IORING_FEAT_NODROP) != 0 && operations_present() &&
           io_uring_register_eventfd(&ring_, event_fd_) == 0 && io_uring_cq_eventfd_toggle(&ring_, false) == 0;
  }

  void submit(int fd, FileIo* io) override {
    io->env_private[0] = static_cast<uint64_t>(fd);
    if (!waiting_.empty() || !prepare(io)) {
      waiting_.push(io);
      return;
    }
    pending_count_++;
  }

  size_t poll() override {
    while (!waiting_.empty() && in_flight_count_ + pending_count_ < ring_entries * 8) {
      if (io_uring_sq_space_left(&ring_) == 0) break;
      auto* io = static_cast<FileIo*>(waiting_.pop());
      BASALT_ASSERT(prepare(io));
      pending_count_++;
    }
    push();
    if (in_flight_count_ == 0) return 0;
    return reap();
  }

  bool prepare_sleep() override {
    push();
    io_uring_cq_eventfd_toggle(&ring_, true);
    return io_uring_cq_ready(&ring_) == 0 && waiting_.empty() && pending_count_ == 0;
  }
  void finish_sleep() override {
    io_uring_cq_eventfd_toggle(&ring_, false);
    uint64_t count;
    [[maybe_unused]] const ssize_t got = read(event_fd_, &count, sizeof(count));
  }
  int event_fd() const override { return event_fd_; }
  const char* name() const override { return "io_uring"; }

 private:
  bool operations_present() {
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    if (probe == nullptr) return false;
    bool present = true;
    for (const int op : {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE}) {
      present = present && io_uring_opcode_supported(probe, op) != 0;
    }
    io_uring_free_probe(probe);
    return present;
  }

  bool prepare(FileIo* io) {
    if (in_flight_count_ + pending_count_ >= ring_entries * 8) return false;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) return false;
    const int fd = static_cast<int>(io->env_private[0]);
    const auto* iov = reinterpret_cast<const iovec*>(io->iov);
    switch (io->type) {
      case FileIo::Type::read:
        io_uring_prep_readv(sqe, fd, iov, io->iov_count, io->offset_bytes);
        break;
      case FileIo::Type::write:
        io_uring_prep_writev2(sqe, fd, iov, io->iov_count, io->offset_bytes, io->fua ? RWF_DSYNC : 0);
        break;
      case FileIo::Type::flush:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
      case FileIo::Type::zero:
        io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                static_cast<off_t>(io->offset_bytes), static_cast<off_t>(io->length_bytes));
        break;
    }
    io_uring_sqe_set_data(sqe, io);
    return true;
  }

  void push() {
    while (pending_count_ > 0) {
      const int pushed = io_uring_submit(&ring_);
      if (pushed <= 0) return;  // EAGAIN, EBUSY: the next poll tries again
      pending_count_ -= static_cast<unsigned>(pushed);
      in_flight_count_ += static_cast<unsigned>(pushed);
    }
  }

  size_t reap() {
    io_uring_cqe* cqe = nullptr;
    unsigned head;
    WorkQueue done;
    unsigned count = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      auto* io = static_cast<FileIo*>(io_uring_cqe_get_data(cqe));
      io->error = error_of(*io, cqe->res);
      done.push(io);
      if (++count == completions_per_poll_max) break;
    }
    io_uring_cq_advance(&ring_, count);
    in_flight_count_ -= count;
    while (Work* work = done.pop())
      work->run(work);
    return count;
  }

  static int error_of(FileIo& io, int result) {
    if (io.type == FileIo::Type::zero && (result == -EOPNOTSUPP || result == -ENOSYS)) {
      // Cannot deallocate here: write the zeroes. Rare (old file systems), so the wait inside the reactor is accepted.
      return write_zero_range(static_cast<int>(io.env_private[0]), io.offset_bytes, io.length_bytes);
    }
    if (result < 0) return -result;
    if (io.type == FileIo::Type::flush || io.type == FileIo::Type::zero) return 0;
    if (static_cast<uint64_t>(result) == iovec_bytes(io.iov, io.iov_count)) return 0;
    return io.type == FileIo::Type::write ? ENOSPC : EIO;
  }

  io_uring ring_{};
  bool ready_ = false;
  int event_fd_ = -1;
  unsigned pending_count_ = 0;    // prepared, not yet given to the kernel
  unsigned in_flight_count_ = 0;  // at the kernel; never more than the completion ring holds
  WorkQueue waiting_;             // no room in the ring yet
};

}  // namespace

std::unique_ptr<FileBackend> make_uring_backend() {
  auto backend = std::make_unique<UringBackend>();
  return backend->init() ? std::move(backend) : nullptr;
}

}  // namespace basalt::env
