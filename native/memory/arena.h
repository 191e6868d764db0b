// SPDX-License-Identifier: Apache-2.0
// Arena: maps the engine's memory in large slabs; huge pages when the machine has them, ordinary pages when not. Slabs
// are given back when the arena goes. Any thread (slabs are rare; a lock is enough).
#pragma once

#include <cstddef>
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
  bool huge_pages() const { return huge_pages_; }

 private:
  struct Mapping {
    void* base;
    size_t bytes;
  };
  const size_t bytes_max_;
  mutable std::mutex mutex_;
  std::vector<Mapping> mappings_;
  size_t mapped_bytes_ = 0;
  bool huge_pages_ = true;  // until the kernel says no
};

}  // namespace basalt
