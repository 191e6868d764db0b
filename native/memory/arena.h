// SPDX-License-Identifier: Apache-2.0
// Arena: maps the engine's memory in large slabs; huge pages when the machine has them, ordinary pages when not. Slabs
// are given back when the arena goes. Any thread (slabs are rare; a lock is enough).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace basalt {

class Arena {
 public:
  static constexpr size_t slab_bytes = size_t{2} << 20;

  explicit Arena(size_t bytes_max);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // `bytes` (rounded up to whole slabs) of zeroed memory aligned to slab_bytes, or nullptr at the limit.
  void* map(size_t bytes);
  void unmap(void* base);  // only whole mappings that map() returned
  void clear();            // all of them: a simulated process was killed
  size_t mapped_bytes() const;

  // For those who keep something about mappings (registrations): which one an address lies in. An id is never used
  // again. What was found is good while unmap_count() stays the same.
  struct Found {
    void* base = nullptr;
    size_t bytes = 0;
    uint64_t id = 0;  // 0: not the arena's
  };
  Found find(const void* address) const;
  uint64_t unmap_count() const { return unmap_count_.load(std::memory_order_acquire); }
  bool huge_pages() const { return huge_pages_; }

 private:
  struct Mapping {
    void* base;
    size_t bytes;
    uint64_t id;
  };
  const size_t bytes_max_;
  mutable std::mutex mutex_;
  std::vector<Mapping> mappings_;
  size_t mapped_bytes_ = 0;
  uint64_t last_id_ = 0;
  std::atomic<uint64_t> unmap_count_{0};
  bool huge_pages_ = true;  // until the kernel says no
};

}  // namespace basalt
