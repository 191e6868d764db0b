// SPDX-License-Identifier: Apache-2.0
#include "bdev/region_map.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"

namespace basalt::bdev {
namespace {

uint64_t region_blocks_for(uint64_t count_blocks, uint32_t block_size_bytes) {
  uint64_t region_bytes = RegionMap::region_bytes_min;
  const uint64_t size_bytes = count_blocks * block_size_bytes;
  while (region_bytes < RegionMap::region_bytes_max && size_bytes / region_bytes > RegionMap::region_count_max)
    region_bytes *= 2;
  return region_bytes / block_size_bytes;
}

}  // namespace

RegionMap::RegionMap(uint64_t count_blocks, uint32_t block_size_bytes)
    : RegionMap(count_blocks, RegionSize{region_blocks_for(count_blocks, block_size_bytes)}) {}

RegionMap::RegionMap(uint64_t count_blocks, RegionSize region)
    : count_blocks_(count_blocks), region_blocks_(region.blocks) {
  region_count_ = (count_blocks + region_blocks_ - 1) / region_blocks_;
  bits_.resize((region_count_ + 63) / 64);
}

uint64_t RegionMap::end_block(uint64_t region) const {
  return std::min((region + 1) * region_blocks_, count_blocks_);
}

void RegionMap::set_all() {
  std::fill(bits_.begin(), bits_.end(), ~uint64_t{0});
  if (region_count_ % 64 != 0) bits_.back() = (uint64_t{1} << (region_count_ % 64)) - 1;
  count_ = region_count_;
}

void RegionMap::clear_all() {
  if (count_ == 0) return;
  std::fill(bits_.begin(), bits_.end(), uint64_t{0});
  count_ = 0;
}

void RegionMap::set_range(uint64_t first_block, uint64_t end_block) {
  for (uint64_t region = region_of(first_block); region <= region_of(end_block - 1); region++)
    set(region);
}

void RegionMap::add(const RegionMap& other) {
  BASALT_ASSERT(other.region_count_ == region_count_);
  for (size_t word = 0; word < bits_.size(); word++)
    bits_[word] |= other.bits_[word];
  recount();
}

void RegionMap::keep(const RegionMap& other) {
  BASALT_ASSERT(other.region_count_ == region_count_);
  for (size_t word = 0; word < bits_.size(); word++)
    bits_[word] &= other.bits_[word];
  recount();
}

void RegionMap::assign(const RegionMap& other, uint64_t first_region, uint64_t end_region) {
  BASALT_ASSERT(other.region_count_ == region_count_ && first_region % 64 == 0);
  const uint64_t end_word = std::min<uint64_t>((end_region + 63) / 64, bits_.size());
  for (uint64_t word = first_region / 64; word < end_word; word++)
    bits_[word] = other.bits_[word];
  recount();
}

void RegionMap::recount() {
  count_ = 0;
  for (const uint64_t word : bits_)
    count_ += static_cast<uint64_t>(std::popcount(word));
}

bool RegionMap::any(uint64_t first_block, uint64_t end_block) const {
  if (count_ == 0) return false;
  return next(region_of(first_block)) <= region_of(end_block - 1);
}

uint64_t RegionMap::next(uint64_t region) const {
  if (count_ == 0) return region_count_;
  for (uint64_t word = region / 64; word < bits_.size(); word++) {
    uint64_t bits = bits_[word];
    if (word == region / 64) bits &= ~uint64_t{0} << (region % 64);
    if (bits != 0) return word * 64 + static_cast<uint64_t>(std::countr_zero(bits));
  }
  return region_count_;
}

uint64_t RegionMap::count_blocks() const {
  if (count_ == 0) return 0;
  const bool has_last = has(region_count_ - 1);
  const uint64_t missing_blocks = has_last ? region_count_ * region_blocks_ - count_blocks_ : 0;
  return count_ * region_blocks_ - missing_blocks;
}

}  // namespace basalt::bdev
