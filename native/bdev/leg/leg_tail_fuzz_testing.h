// SPDX-License-Identifier: Apache-2.0
// How the pages of a leg's tail are sealed, for fuzz targets that damage them.
#pragma once

#include "bdev/leg/leg_tail.h"
#include "bdev/mark_pages_testing.h"
#include "testing/fuzz_image.h"

namespace basalt::bdev::leg_tail {

inline constexpr basalt::testing::FuzzDamage::Format damage_format = {
    .reseal =
        [](uint8_t* page, size_t index) {
          if (index < mark_page_first) return basalt::testing::FuzzDamage::seal(page);
          mark_pages::reseal(page);
        },
    .in_checksum =
        [](size_t index, size_t offset) {
          return index < mark_page_first ? offset >= 8 && offset < 12 : mark_pages::in_checksum(offset);
        },
};

}  // namespace basalt::bdev::leg_tail
