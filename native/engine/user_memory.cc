// SPDX-License-Identifier: Apache-2.0
#include "engine/user_memory.h"

#include <bit>
#include <cstring>

#include "base/assert.h"

namespace basalt {
namespace {

size_t class_of(size_t bytes) {
  size_t index = 0;
  while ((UserMemory::alignment_bytes << index) < bytes)
    index++;
  return index;
}

}  // namespace

void* UserMemory::take(size_t bytes) {
  BASALT_ASSERT(bytes > 0);
  if (bytes > shared_bytes_max) {
    void* block = arena_->map(bytes);
    if (block == nullptr) return nullptr;
    const std::lock_guard lock(mutex_);
    in_use_bytes_ += bytes;
    return block;
  }
  const size_t index = class_of(bytes);
  const size_t block_bytes = alignment_bytes << index;
  void* block = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (free_[index].empty()) {
      char* slab = static_cast<char*>(arena_->map(Arena::slab_bytes));
      if (slab == nullptr) return nullptr;
      for (size_t at = Arena::slab_bytes; at >= block_bytes; at -= block_bytes)
        free_[index].push_back(slab + at - block_bytes);
    }
    block = free_[index].back();
    free_[index].pop_back();
    in_use_bytes_ += bytes;
  }
  std::memset(block, 0, bytes);
  return block;
}

void UserMemory::give(void* block, size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (forgotten_) return;
  in_use_bytes_ -= bytes;
  if (bytes > shared_bytes_max) {
    arena_->unmap(block);
  } else {
    free_[class_of(bytes)].push_back(block);
  }
}

void UserMemory::forget() {
  const std::lock_guard lock(mutex_);
  forgotten_ = true;
}

size_t UserMemory::in_use_bytes() const {
  const std::lock_guard lock(mutex_);
  return in_use_bytes_;
}

}  // namespace basalt
