// SPDX-License-Identifier: Apache-2.0
#include "bdev/leg/dirty_map.h"

#include <algorithm>
#include <bit>

namespace basalt::bdev {

DirtyMap::DirtyMap(uint64_t count_blocks, uint32_t block_size_bytes) : count_blocks_(count_blocks) {
  uint64_t region_bytes = region_bytes_min;
  const uint64_t size_bytes = count_blocks * block_size_bytes;
  while (region_bytes < region_bytes_max && size_bytes / region_bytes > region_count_max)
    region_bytes *= 2;
  region_blocks_ = region_bytes / block_size_bytes;
  region_count_ = (count_blocks + region_blocks_ - 1) / region_blocks_;
  bits_.resize((region_count_ + 63) / 64);
}

uint64_t DirtyMap::end_block(uint64_t region) const {
  return std::min((region + 1) * region_blocks_, count_blocks_);
}

void DirtyMap::set(uint64_t region) {
  if (is_dirty(region)) return;
  bits_[region / 64] |= uint64_t{1} << (region % 64);
  dirty_count_++;
}

void DirtyMap::set_all() {
  for (uint64_t region = 0; region < region_count_; region++)
    set(region);
}

void DirtyMap::set_range(uint64_t first_block, uint64_t end_block) {
  for (uint64_t region = region_of(first_block); region <= region_of(end_block - 1); region++)
    set(region);
}

void DirtyMap::clear(uint64_t region) {
  if (!is_dirty(region)) return;
  bits_[region / 64] &= ~(uint64_t{1} << (region % 64));
  dirty_count_--;
}

bool DirtyMap::any(uint64_t first_block, uint64_t end_block) const {
  if (dirty_count_ == 0) return false;
  return next_dirty(region_of(first_block)) <= region_of(end_block - 1);
}

uint64_t DirtyMap::next_dirty(uint64_t region) const {
  if (dirty_count_ == 0) return region_count_;
  for (uint64_t word = region / 64; word < bits_.size(); word++) {
    uint64_t bits = bits_[word];
    if (word == region / 64) bits &= ~uint64_t{0} << (region % 64);
    if (bits != 0) return word * 64 + static_cast<uint64_t>(std::countr_zero(bits));
  }
  return region_count_;
}

}  // namespace basalt::bdev
