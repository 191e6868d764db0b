// SPDX-License-Identifier: Apache-2.0
// Geometry: the checks that bdevs made from a block size and a block count share.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace basalt::bdev {

// Block size 512, 1024, 2048 or 4096; at least one block; at most 8 PiB. The error names the parameter.
Outcome check_geometry(uint32_t block_size_bytes, uint64_t count_blocks);

}  // namespace basalt::bdev
