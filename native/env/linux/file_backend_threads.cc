// SPDX-License-Identifier: Apache-2.0
// File I/O by a few threads: the fallback where io_uring is forbidden (containers, hardened kernels).
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "base/assert.h"
#include "env/linux/file_backend.h"

namespace basalt::env {
namespace {

constexpr unsigned thread_count = 4;

static_assert(sizeof(Iovec) == sizeof(iovec) && offsetof(Iovec, base) == offsetof(iovec, iov_base) &&
              offsetof(Iovec, length_bytes) == offsetof(iovec, iov_len));

// Emulators and filters of system calls, under which io_uring is missing, often do not know RWF_DSYNC either.
ssize_t write_durably(int fd, const iovec* iov, int count, off_t offset) {
  ssize_t moved = pwritev2(fd, iov, count, offset, RWF_DSYNC);
  if (moved >= 0 || (errno != ENOSYS && errno != EOPNOTSUPP)) return moved;
  moved = pwritev(fd, iov, count, offset);
  return moved >= 0 && fdatasync(fd) != 0 ? -1 : moved;
}

int transfer(int fd, FileIo& io) {
  const bool writing = io.type == FileIo::Type::write;
  const uint64_t expected_bytes = iovec_bytes(io.iov, io.iov_count);
  const auto* iov = reinterpret_cast<const iovec*>(io.iov);
  const auto offset = static_cast<off_t>(io.offset_bytes);
  const auto count = static_cast<int>(io.iov_count);
  ssize_t moved;
  do {
    if (!writing)
      moved = preadv(fd, iov, count, offset);
    else
      moved = io.fua ? write_durably(fd, iov, count, offset) : pwritev(fd, iov, count, offset);
  } while (moved < 0 && errno == EINTR);
  if (moved < 0) return errno;
  if (static_cast<uint64_t>(moved) != expected_bytes) return writing ? ENOSPC : EIO;
  return 0;
}

int deallocate(int fd, FileIo& io) {
  const auto offset = static_cast<off_t>(io.offset_bytes);
  const auto length = static_cast<off_t>(io.length_bytes);
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) == 0) return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
  return write_zero_range(fd, io.offset_bytes, io.length_bytes);
}

class ThreadBackend final : public FileBackend {
 public:
  ThreadBackend() : event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    for (unsigned i = 0; i < thread_count; i++)
      threads_.emplace_back([this] { serve(); });
  }
  ~ThreadBackend() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_)
      thread.join();
    close(event_fd_);
  }

  void submit(int fd, FileIo* io) override {
    io->env_private[0] = static_cast<uint64_t>(fd);
    {
      const std::lock_guard lock(mutex_);
      waiting_.push(io);
    }
    wake_.notify_one();
  }

  size_t poll() override {
    WorkQueue done;
    {
      const std::lock_guard lock(mutex_);
      std::swap(done, done_);
    }
    size_t count = 0;
    while (Work* work = done.pop()) {
      work->run(work);
      count++;
    }
    return count;
  }

  bool prepare_sleep() override {
    const std::lock_guard lock(mutex_);
    return done_.empty();
  }
  void finish_sleep() override {
    uint64_t count;
    [[maybe_unused]] const ssize_t got = read(event_fd_, &count, sizeof(count));
  }
  int event_fd() const override { return event_fd_; }
  const char* name() const override { return "threads"; }

 private:
  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
      if (stopping_) return;
      auto* io = static_cast<FileIo*>(waiting_.pop());
      lock.unlock();
      io->error = file_io_now(static_cast<int>(io->env_private[0]), *io);
      lock.lock();
      done_.push(io);
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t put = write(event_fd_, &one, sizeof(one));
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  WorkQueue waiting_;
  WorkQueue done_;
  int event_fd_;
  std::vector<std::thread> threads_;
};

}  // namespace

int file_io_now(int fd, FileIo& io) {
  switch (io.type) {
    case FileIo::Type::read:
    case FileIo::Type::write:
      return transfer(fd, io);
    case FileIo::Type::flush:
      return fdatasync(fd) == 0 ? 0 : errno;
    case FileIo::Type::zero:
      return deallocate(fd, io);
  }
  BASALT_ASSERT(false);
}

int write_zero_range(int fd, uint64_t offset_bytes, uint64_t length_bytes) {
  constexpr size_t chunk_bytes = size_t{1} << 20;
  void* zeroes = std::aligned_alloc(4096, chunk_bytes);
  if (zeroes == nullptr) return ENOMEM;
  std::memset(zeroes, 0, chunk_bytes);
  int error = 0;
  while (length_bytes > 0 && error == 0) {
    const size_t want = length_bytes < chunk_bytes ? static_cast<size_t>(length_bytes) : chunk_bytes;
    const ssize_t wrote = pwrite(fd, zeroes, want, static_cast<off_t>(offset_bytes));
    if (wrote < 0) {
      if (errno != EINTR) error = errno;
      continue;
    }
    if (wrote == 0) error = ENOSPC;
    offset_bytes += static_cast<uint64_t>(wrote);
    length_bytes -= static_cast<uint64_t>(wrote);
  }
  std::free(zeroes);
  return error;
}

std::unique_ptr<FileBackend> make_thread_backend() {
  return std::make_unique<ThreadBackend>();
}

}  // namespace basalt::env
