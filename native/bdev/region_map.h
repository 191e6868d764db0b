// SPDX-License-Identifier: Apache-2.0
// RegionMap: a set of equal regions, one bit each. In memory. Used for what may differ between the members of a leg
// (dirty), for the write-intent marks, and for what a joining member still lacks.
#pragma once

#include <cstdint>
#include <vector>

namespace basalt::bdev {

class RegionMap {
 public:
  static constexpr uint64_t region_count_max = uint64_t{1} << 22;
  static constexpr uint64_t region_bytes_min = 64 * 1024;
  static constexpr uint64_t region_bytes_max = 1 << 20;  // one region is one I/O

  // Regions that fit one I/O each.
  RegionMap(uint64_t count_blocks, uint32_t block_size_bytes);
  struct RegionSize {
    uint64_t blocks;
  };
  RegionMap(uint64_t count_blocks, RegionSize region);

  uint64_t region_blocks() const { return region_blocks_; }
  uint64_t region_count() const { return region_count_; }
  uint64_t count() const { return count_; }
  bool empty() const { return count_ == 0; }
  uint64_t region_of(uint64_t block) const { return block / region_blocks_; }
  uint64_t first_block(uint64_t region) const { return region * region_blocks_; }
  uint64_t end_block(uint64_t region) const;

  void set(uint64_t region) {
    if (has(region)) return;
    bits_[region / 64] |= uint64_t{1} << (region % 64);
    count_++;
  }
  void clear(uint64_t region) {
    if (!has(region)) return;
    bits_[region / 64] &= ~(uint64_t{1} << (region % 64));
    count_--;
  }
  void set_all();
  void clear_all();
  void set_range(uint64_t first_block, uint64_t end_block);
  void add(const RegionMap& other);   // of the same shape
  void keep(const RegionMap& other);  // only what `other` has too
  // Takes over the regions first .. end of `other`; both multiples of 64, or the end of the map.
  void assign(const RegionMap& other, uint64_t first_region, uint64_t end_region);
  bool has(uint64_t region) const { return bits_[region / 64] >> (region % 64) & 1; }
  bool any(uint64_t first_block, uint64_t end_block) const;
  // The first region of the set at or after `region`; region_count() when there is none.
  uint64_t next(uint64_t region) const;
  uint64_t count_blocks() const;  // of all its regions together

 private:
  void recount();
  uint64_t count_blocks_;
  uint64_t region_blocks_;
  uint64_t region_count_;
  uint64_t count_ = 0;
  std::vector<uint64_t> bits_;
};

}  // namespace basalt::bdev
