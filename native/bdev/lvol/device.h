// SPDX-License-Identifier: Apache-2.0
// Device: the base bdev as the lvstore sees it, in 4 KiB blocks, whatever its own block size. Also the aligned memory
// that metadata travels in.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/bytes.h"
#include "bdev/handle.h"
#include "bdev/lvol/format.h"

namespace basalt::bdev::lvs {

// Zeroed memory, 4 KiB-aligned. Control path only.
class BlockMemory {
 public:
  explicit BlockMemory(size_t count_blocks)
      : data_(static_cast<uint8_t*>(std::aligned_alloc(block_bytes, std::max<size_t>(count_blocks, 1) * block_bytes))) {
    BASALT_ASSERT(data_ != nullptr);
    std::memset(data_.get(), 0, std::max<size_t>(count_blocks, 1) * block_bytes);
  }
  uint8_t* block(size_t index) { return data_.get() + index * block_bytes; }
  uint8_t* data() { return data_.get(); }
  void clear(size_t count_blocks) { std::memset(data_.get(), 0, count_blocks * block_bytes); }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t, Free> data_;
};

class Device {
 public:
  explicit Device(Handle handle) : handle_(handle), factor_(block_bytes / handle.info().block_size_bytes) {}

  uint64_t count_blocks() const { return handle_.info().count_blocks / factor_; }
  const Handle& handle() const { return handle_; }
  uint32_t factor() const { return factor_; }  // of its blocks in one of 4 KiB
  void submit(Io* io) const { handle_.submit(io); }

  // Everything but iov, done and context.
  void prepare(Io& io, IoType type, uint64_t offset_blocks, uint64_t count_blocks) const {
    io.type = type;
    io.fua = false;
    io.iov = nullptr;
    io.iov_count = 0;
    io.offset_blocks = offset_blocks * factor_;
    io.count_blocks = static_cast<uint32_t>(count_blocks * factor_);
    io.status = {};
  }

  // Of any length; in pieces that the base takes.
  Task<nvme::Status> transfer(IoType type, uint64_t offset_blocks, uint64_t count_blocks, uint8_t* memory) const {
    const bool has_memory = type == IoType::read || type == IoType::write;
    const uint64_t piece_blocks_max = has_memory ? io_bytes_max / block_bytes : (uint64_t{1} << 30) / block_bytes;
    while (count_blocks > 0) {
      const uint64_t piece = count_blocks < piece_blocks_max ? count_blocks : piece_blocks_max;
      Io io;
      Iovec iov{memory, static_cast<size_t>(piece * block_bytes)};
      prepare(io, type, offset_blocks, piece);
      if (has_memory) {
        io.iov = &iov;
        io.iov_count = 1;
        memory += piece * block_bytes;
      }
      const nvme::Status status = co_await io_wait(handle_, io);
      if (!status.ok()) co_return status;
      offset_blocks += piece;
      count_blocks -= piece;
    }
    co_return nvme::status::success;
  }
  Task<nvme::Status> flush() const {
    Io io;
    prepare(io, IoType::flush, 0, 0);
    const nvme::Status status = co_await io_wait(handle_, io);
    co_return status;
  }

 private:
  Handle handle_;
  uint32_t factor_;
};

inline Error io_error(const char* what, nvme::Status status) {
  return Error{Errc::io, std::string("lvstore: ") + what + ": " + nvme::to_string(status)};
}

}  // namespace basalt::bdev::lvs
