// SPDX-License-Identifier: Apache-2.0
// How the pages of a leg's tail are sealed, for fuzz targets that damage them.
#pragma once

#include "bdev/leg/leg_tail.h"
#include "testing/fuzz_image.h"

namespace basalt::bdev::leg_tail {

inline constexpr basalt::testing::FuzzDamage::Format damage_format = {
    .reseal =
        [](uint8_t* page, size_t index) {
          if (index < mark_page_first) return basalt::testing::FuzzDamage::seal(page);
          for (uint32_t at = 0; at < page_bytes; at += sector_bytes)
            store_le<uint32_t>(page + at, crc32c(0, page + at + 4, sector_bytes - 4));
        },
    .in_checksum =
        [](size_t index, size_t offset) {
          return index < mark_page_first ? offset >= 8 && offset < 12 : offset % sector_bytes < 4;
        },
};

}  // namespace basalt::bdev::leg_tail
