// SPDX-License-Identifier: Apache-2.0
// How file requests reach the kernel: io_uring where a probe proved it usable, threads elsewhere. Owned by one poller.
// event_fd() becomes readable when completions wait while sleep was announced.
#pragma once

#include <memory>

#include "env/env.h"

namespace basalt::env {

class FileBackend {
 public:
  virtual ~FileBackend() = default;
  virtual void submit(int fd, FileIo* io) = 0;
  virtual size_t poll() = 0;         // runs completions; returns how many
  virtual bool prepare_sleep() = 0;  // false: completions wait already, do not sleep
  virtual void finish_sleep() = 0;
  virtual int event_fd() const = 0;
  virtual const char* name() const = 0;
};

// nullptr: io_uring cannot be used here (forbidden, missing, or without the needed operations).
std::unique_ptr<FileBackend> make_uring_backend();
std::unique_ptr<FileBackend> make_thread_backend();

// Carries out `io` with plain system calls, as threads do. Returns 0 or a positive errno.
int file_io_now(int fd, FileIo& io);
// Writes zeroes where the file cannot deallocate.
int write_zero_range(int fd, uint64_t offset_bytes, uint64_t length_bytes);

}  // namespace basalt::env
