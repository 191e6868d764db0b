// SPDX-License-Identifier: Apache-2.0
#include "memory/arena.h"

#include <sys/mman.h>

#include "base/assert.h"
#include "base/bytes.h"

namespace basalt {
namespace {

void* map_huge(size_t bytes) {
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  return base == MAP_FAILED ? nullptr : base;
}

// Ordinary pages, aligned to a slab so that transparent huge pages can serve them.
void* map_ordinary(size_t bytes) {
  const size_t wide_bytes = bytes + Arena::slab_bytes;
  void* wide = mmap(nullptr, wide_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (wide == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(wide);
  const auto aligned = static_cast<uintptr_t>(align_up(start, Arena::slab_bytes));
  if (aligned > start) munmap(wide, aligned - start);
  const uintptr_t end = start + wide_bytes;
  if (end > aligned + bytes) munmap(reinterpret_cast<void*>(aligned + bytes), end - aligned - bytes);
  madvise(reinterpret_cast<void*>(aligned), bytes, MADV_HUGEPAGE);
  return reinterpret_cast<void*>(aligned);
}

}  // namespace

Arena::Arena(size_t bytes_max) : bytes_max_(bytes_max) {}

Arena::~Arena() {
  clear();
}

void Arena::clear() {
  const std::lock_guard lock(mutex_);
  for (const Mapping& mapping : mappings_)
    munmap(mapping.base, mapping.bytes);
  mappings_.clear();
  mapped_bytes_ = 0;
  unmap_count_.fetch_add(1, std::memory_order_release);
}

void* Arena::map(size_t bytes) {
  bytes = align_up(bytes, slab_bytes);
  const std::lock_guard lock(mutex_);
  if (bytes > bytes_max_ - mapped_bytes_) return nullptr;
  void* base = huge_pages_ ? map_huge(bytes) : nullptr;
  if (base == nullptr) {
    huge_pages_ = false;
    base = map_ordinary(bytes);
  }
  if (base == nullptr) return nullptr;
  mappings_.push_back({base, bytes, ++last_id_});
  mapped_bytes_ += bytes;
  return base;
}

void Arena::unmap(void* base) {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < mappings_.size(); i++) {
    if (mappings_[i].base != base) continue;
    munmap(base, mappings_[i].bytes);
    mapped_bytes_ -= mappings_[i].bytes;
    mappings_[i] = mappings_.back();
    mappings_.pop_back();
    unmap_count_.fetch_add(1, std::memory_order_release);
    return;
  }
  BASALT_ASSERT(false);
}

Arena::Found Arena::find(const void* address) const {
  const std::lock_guard lock(mutex_);
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const Mapping& mapping : mappings_) {
    const auto base = reinterpret_cast<uintptr_t>(mapping.base);
    if (at >= base && at - base < mapping.bytes) return {mapping.base, mapping.bytes, mapping.id};
  }
  return {};
}

size_t Arena::mapped_bytes() const {
  const std::lock_guard lock(mutex_);
  return mapped_bytes_;
}

}  // namespace basalt
