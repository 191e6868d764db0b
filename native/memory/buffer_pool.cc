// SPDX-License-Identifier: Apache-2.0
#include "memory/buffer_pool.h"

#include <bit>

#include "base/assert.h"

namespace basalt {
namespace {

static_assert(BufferPool::buffer_bytes_min << (BufferPool::class_count - 1) == BufferPool::buffer_bytes_max);
static_assert(BufferPool::kept_count(BufferPool::class_count - 1, BufferUse::middle) > 0);
static_assert(Arena::slab_bytes % BufferPool::buffer_bytes_max == 0);

uint32_t class_of(size_t bytes) {
  BASALT_ASSERT(bytes > 0 && bytes <= BufferPool::buffer_bytes_max);
  if (bytes <= BufferPool::buffer_bytes_min) return 0;
  return static_cast<uint32_t>(std::bit_width(bytes - 1) - std::bit_width(BufferPool::buffer_bytes_min) + 1);
}

}  // namespace

BufferPool::~BufferPool() {
  BASALT_ASSERT(in_use_count_ == 0);
}

Buffer* BufferPool::take(size_t bytes, BufferUse use) {
  const uint32_t size_class = class_of(bytes);
  while (!has(size_class, use)) {
    if (!grow(size_class)) return nullptr;
  }
  Buffer* buffer = free_[size_class];
  free_[size_class] = buffer->next_free;
  free_count_[size_class]--;
  in_use_count_++;
  in_use_bytes_ += buffer->capacity_bytes;
  return buffer;
}

void BufferPool::give(Buffer* buffer) {
  BASALT_ASSERT(in_use_count_ > 0);
  in_use_count_--;
  in_use_bytes_ -= buffer->capacity_bytes;
  buffer->next_free = free_[buffer->size_class];
  free_[buffer->size_class] = buffer;
  free_count_[buffer->size_class]++;
  if (waiters_.empty()) [[likely]]
    return;
  for (BufferWaiter* waiter = waiters_.front(); waiter != nullptr; waiter = waiters_.next(waiter)) {
    if (waiter->size_class != buffer->size_class || !has(waiter->size_class, waiter->use)) continue;
    waiters_.remove(waiter);
    waiter->run(waiter);
    return;
  }
}

void BufferPool::wait(BufferWaiter* waiter, size_t bytes, BufferUse use) {
  waiter->size_class = class_of(bytes);
  waiter->use = use;
  waiters_.push_back(waiter);
}

void BufferPool::stop_waiting(BufferWaiter* waiter) {
  if (waiter->node.linked()) waiters_.remove(waiter);
}

bool BufferPool::grow(uint32_t size_class) {
  // A slab serves one class. Every class may have its least; beyond that, classes share what is left.
  const bool owed = slab_count_[size_class] < slabs_min(size_class);
  if (!owed && mapped_bytes_ + Arena::slab_bytes > bytes_max_) return false;
  void* slab = arena_.map(Arena::slab_bytes);
  if (slab == nullptr) return false;
  mapped_bytes_ += Arena::slab_bytes;
  slab_count_[size_class]++;
  const size_t buffer_bytes = buffer_bytes_min << size_class;
  const size_t count = Arena::slab_bytes / buffer_bytes;
  auto chunk = std::make_unique<Buffer[]>(count);
  for (size_t i = 0; i < count; i++) {
    Buffer& buffer = chunk[i];
    buffer.data = static_cast<char*>(slab) + i * buffer_bytes;
    buffer.capacity_bytes = static_cast<uint32_t>(buffer_bytes);
    buffer.size_class = size_class;
    buffer.next_free = free_[size_class];
    free_[size_class] = &buffer;
  }
  free_count_[size_class] += static_cast<uint32_t>(count);
  chunks_.push_back(std::move(chunk));
  return true;
}

}  // namespace basalt
