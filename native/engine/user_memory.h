// SPDX-License-Identifier: Apache-2.0
// UserMemory: blocks of the arena for programs that embed the engine (ArrayBuffers). 4 KiB-aligned, zeroed;
// power-of-two sizes from 4 KiB to 1 MiB share slabs and are reused, larger ones are mapped alone and unmapped when
// given back. Any thread. Outlives the engine when blocks do: hold it by shared_ptr.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "memory/arena.h"

namespace basalt {

class UserMemory {
 public:
  static constexpr size_t alignment_bytes = 4096;
  static constexpr size_t shared_bytes_max = size_t{1} << 20;

  explicit UserMemory(std::shared_ptr<Arena> arena) : arena_(std::move(arena)) {}

  void* take(size_t bytes);  // nullptr at the arena's limit; bytes > 0
  void give(void* block, size_t bytes);
  size_t in_use_bytes() const;
  // The arena was cleared: what is given back later is nobody's.
  void forget();

 private:
  static constexpr size_t class_count = 9;  // 4 KiB << 0..8
  const std::shared_ptr<Arena> arena_;
  mutable std::mutex mutex_;
  std::array<std::vector<void*>, class_count> free_;
  size_t in_use_bytes_ = 0;
  bool forgotten_ = false;
};

}  // namespace basalt
