// SPDX-License-Identifier: Apache-2.0
// For fuzz targets: pages of marks whose checksums fit again.
#pragma once

#include "base/bytes.h"
#include "base/crc32c.h"
#include "bdev/mark_pages.h"

namespace basalt::bdev::mark_pages {

inline void reseal(uint8_t* page) {
  for (uint32_t at = 0; at < page_bytes; at += sector_bytes)
    store_le<uint32_t>(page + at, crc32c(0, page + at + 4, sector_bytes - 4));
}

inline bool in_checksum(size_t offset) {
  return offset % sector_bytes < 4;
}

}  // namespace basalt::bdev::mark_pages
