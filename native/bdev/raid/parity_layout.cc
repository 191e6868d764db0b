// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/parity_layout.h"

#include <algorithm>

namespace basalt::bdev {

bool ParityBands::next(const ParityLayout& layout, uint32_t columns_max, uint32_t full_columns_max, ParityBand* out) {
  while (block_ < end_block_) {
    const uint64_t stripe = block_ / layout.stripe_blocks();
    const uint64_t stripe_begin = stripe * layout.stripe_blocks();
    if (merge_stripes_ && column_ == 0 && block_ == stripe_begin && end_block_ - block_ >= layout.stripe_blocks()) {
      const uint64_t count = (end_block_ - block_) / layout.stripe_blocks();
      *out = {stripe, count, 0, layout.strip_blocks, 0, layout.data_count};
      block_ += count * layout.stripe_blocks();
      return true;
    }
    const uint64_t part_end = std::min(end_block_, stripe_begin + layout.stripe_blocks());
    const uint32_t strip = layout.strip_blocks;
    const auto first = static_cast<uint32_t>(block_ - stripe_begin);
    const auto last = static_cast<uint32_t>(part_end - stripe_begin - 1);
    const uint32_t first_role = first / strip;
    const uint32_t last_role = last / strip;
    const uint32_t first_column = first % strip;   // of the first role
    const uint32_t end_column = last % strip + 1;  // of the last role
    const bool one_role = first_role == last_role;
    const uint32_t begin = one_role ? first_column : 0;  // columns outside are nobody's
    const uint32_t end = one_role ? end_column : strip;
    while (std::max(column_, begin) < end) {
      const uint32_t at = std::max(column_, begin);
      // Up to the next column where a role comes in or goes out.
      uint32_t stop = end;
      if (first_column > at) stop = std::min(stop, first_column);
      if (end_column > at) stop = std::min(stop, end_column);
      const uint32_t from = at >= first_column ? first_role : first_role + 1;
      const uint32_t to = at < end_column ? last_role + 1 : last_role;
      if (from >= to) {
        column_ = stop;
        continue;
      }
      const bool full = to - from == layout.data_count;
      stop = std::min(stop, at + (full ? full_columns_max : columns_max));
      *out = {stripe, 1, at, stop - at, from, to - from};
      column_ = stop;
      return true;
    }
    block_ = part_end;
    column_ = 0;
  }
  return false;
}

}  // namespace basalt::bdev
