// SPDX-License-Identifier: Apache-2.0
#include "bdev/geometry.h"

#include <string>

#include "base/bytes.h"

namespace basalt::bdev {

Outcome check_geometry(uint32_t block_size_bytes, uint64_t count_blocks) {
  if (!is_power_of_two(block_size_bytes) || block_size_bytes < 512 || block_size_bytes > 4096) {
    return Error{Errc::invalid_argument,
                 "block_size: 512, 1024, 2048 or 4096, got " + std::to_string(block_size_bytes)};
  }
  constexpr uint64_t size_bytes_max = uint64_t{1} << 53;
  if (count_blocks == 0 || count_blocks > size_bytes_max / block_size_bytes) {
    return Error{Errc::invalid_argument, "num_blocks: 1 to " + std::to_string(size_bytes_max / block_size_bytes) +
                                             ", got " + std::to_string(count_blocks)};
  }
  return success();
}

}  // namespace basalt::bdev
