// SPDX-License-Identifier: Apache-2.0
// One request to a file or device, awaited: `FileRequest request(file, …); const int error = co_await request;` gives 0
// or a positive errno. The memory stays valid until then.
#pragma once

#include <coroutine>
#include <cstdlib>

#include "base/assert.h"
#include "env/env.h"

namespace basalt::recorder {

class FileRequest : env::FileIo {
 public:
  FileRequest(env::BlockFile& file, Type io_type, uint64_t offset, void* data, uint64_t length, bool durable = false)
      : file_(file), piece_{data, length} {
    type = io_type;
    fua = durable;
    offset_bytes = offset;
    length_bytes = length;
    iov = &piece_;
    iov_count = io_type == Type::read || io_type == Type::write ? 1 : 0;
  }
  FileRequest(const FileRequest&) = delete;
  FileRequest& operator=(const FileRequest&) = delete;

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    run = [](Work* work) { static_cast<FileRequest*>(work)->waiter_.resume(); };
    file_.submit(this);
  }
  int await_resume() const noexcept { return error; }

 private:
  env::BlockFile& file_;
  Iovec piece_;
  std::coroutine_handle<> waiter_;
};

// Memory as direct I/O wants it.
class AlignedBuffer {
 public:
  static constexpr size_t alignment_bytes = 4096;
  explicit AlignedBuffer(size_t bytes)
      : bytes_(bytes), data_(static_cast<uint8_t*>(std::aligned_alloc(alignment_bytes, bytes))) {
    BASALT_ASSERT(data_ != nullptr && bytes % alignment_bytes == 0);
  }
  ~AlignedBuffer() { std::free(data_); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  uint8_t* data() { return data_; }
  size_t size_bytes() const { return bytes_; }

 private:
  size_t bytes_;
  uint8_t* data_;
};

}  // namespace basalt::recorder
