// SPDX-License-Identifier: Apache-2.0
// DirtyMap: which regions of a leg may differ between its members. In memory; after an unclean takeover every region
// counts as dirty until it was made equal.
#pragma once

#include <cstdint>
#include <vector>

namespace basalt::bdev {

class DirtyMap {
 public:
  static constexpr uint64_t region_count_max = uint64_t{1} << 22;
  static constexpr uint64_t region_bytes_min = 64 * 1024;
  static constexpr uint64_t region_bytes_max = 1 << 20;  // one region is one I/O

  DirtyMap(uint64_t count_blocks, uint32_t block_size_bytes);

  uint64_t region_blocks() const { return region_blocks_; }
  uint64_t region_count() const { return region_count_; }
  uint64_t dirty_count() const { return dirty_count_; }
  uint64_t region_of(uint64_t block) const { return block / region_blocks_; }
  uint64_t first_block(uint64_t region) const { return region * region_blocks_; }
  uint64_t end_block(uint64_t region) const;

  void set_all();
  void set_range(uint64_t first_block, uint64_t end_block);
  void clear(uint64_t region);
  bool is_dirty(uint64_t region) const { return bits_[region / 64] >> (region % 64) & 1; }
  bool any(uint64_t first_block, uint64_t end_block) const;
  // The first dirty region at or after `region`; region_count() when there is none.
  uint64_t next_dirty(uint64_t region) const;

 private:
  void set(uint64_t region);
  uint64_t count_blocks_;
  uint64_t region_blocks_;
  uint64_t region_count_;
  uint64_t dirty_count_ = 0;
  std::vector<uint64_t> bits_;
};

}  // namespace basalt::bdev
