// SPDX-License-Identifier: Apache-2.0
// BufferPool: I/O payload buffers of one reactor, 4 KiB-aligned, in power-of-two sizes from 4 KiB to 1 MiB. Taken and
// given back on that reactor only, without the heap once warm. When the pool's share of the arena is used up, take()
// returns nullptr; the taker queues a BufferWaiter and is run when a buffer of at least its size came back.
//
// A request whose end needs a peer (a volume's: its replicas are elsewhere) takes with BufferUse::upper, and leaves the
// last buffers of a size to those that end here. Otherwise two nodes that are each other's replicas could both be full
// of requests that wait for the other's buffers, for ever. Requests of a part (decision 020) are waited for by volumes
// on other nodes, and wait for replicas: BufferUse::middle leaves some to those that end here, and upper leaves it
// some.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/list.h"
#include "base/work.h"
#include "memory/arena.h"

namespace basalt {

class BufferPool;

struct Buffer {
  void* data = nullptr;
  uint32_t capacity_bytes = 0;
  uint32_t size_class = 0;
  Buffer* next_free = nullptr;
};

enum class BufferUse : uint8_t { local, middle, upper };

struct BufferWaiter : Work {
  ListNode node;
  uint32_t size_class = 0;
  BufferUse use = BufferUse::local;
};

class BufferPool {
 public:
  static constexpr size_t alignment_bytes = 4096;
  static constexpr size_t buffer_bytes_min = 4096;
  static constexpr size_t buffer_bytes_max = size_t{1} << 20;
  static constexpr uint32_t class_count = 9;  // 4 KiB << 0..8
  // Whatever the limit is, every class gets one slab, and the largest one two: each use finds a buffer.
  static constexpr size_t bytes_min = (class_count + 1) * Arena::slab_bytes;

  static constexpr uint32_t slabs_min(uint32_t size_class) { return size_class + 1 == class_count ? 2 : 1; }
  // From that use, for those below: a half, or a quarter, of what every class gets.
  static constexpr uint32_t kept_count(uint32_t size_class, BufferUse use) {
    const auto count =
        static_cast<uint32_t>(slabs_min(size_class) * Arena::slab_bytes / (buffer_bytes_min << size_class));
    return use == BufferUse::upper ? count / 2 : use == BufferUse::middle ? count / 4 : 0;
  }

  BufferPool(Arena& arena, size_t bytes_max) : arena_(arena), bytes_max_(bytes_max) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // 1..buffer_bytes_max; contents are whatever was there before
  Buffer* take(size_t bytes, BufferUse use = BufferUse::local);
  void give(Buffer* buffer);
  void wait(BufferWaiter* waiter, size_t bytes, BufferUse use = BufferUse::local);
  void stop_waiting(BufferWaiter* waiter);

  Arena& arena() const { return arena_; }
  size_t bytes_max() const { return bytes_max_; }
  size_t in_use_count() const { return in_use_count_; }
  size_t in_use_bytes() const { return in_use_bytes_; }
  size_t mapped_bytes() const { return mapped_bytes_; }

 private:
  bool grow(uint32_t size_class);
  bool has(uint32_t size_class, BufferUse use) const { return free_count_[size_class] > kept_count(size_class, use); }
  Arena& arena_;
  const size_t bytes_max_;
  std::array<Buffer*, class_count> free_{};
  std::array<uint32_t, class_count> free_count_{};
  std::vector<std::unique_ptr<Buffer[]>> chunks_;
  List<BufferWaiter, &BufferWaiter::node> waiters_;
  std::array<uint32_t, class_count> slab_count_{};
  size_t in_use_count_ = 0;
  size_t in_use_bytes_ = 0;
  size_t mapped_bytes_ = 0;
};

}  // namespace basalt
