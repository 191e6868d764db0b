// SPDX-License-Identifier: Apache-2.0
// Pages of write-intent marks on disk (docs/on-disk/leg.md), as legs of either kind keep them. Pure: bytes in, bytes
// out.
//
// Invariant: a sector carries its own checksum over its place and its stay: a torn page is a mix of old and new
// sectors, both of them right; anything else is damage, and never guessed.
#pragma once

#include "bdev/region_map.h"

namespace basalt::bdev::mark_pages {

constexpr uint32_t page_bytes = 4096;
constexpr uint32_t sector_bytes = 512;
constexpr uint32_t sector_header_bytes = 32;
constexpr uint64_t sector_region_count = (sector_bytes - sector_header_bytes) * 8;
constexpr uint64_t page_region_count = sector_region_count * (page_bytes / sector_bytes);
constexpr uint64_t region_count_max = uint64_t{1} << 18;
constexpr uint64_t mark_page_count_max = (region_count_max + page_region_count - 1) / page_region_count;

inline uint64_t mark_page_count(const RegionMap& marks) {
  return (marks.region_count() + page_region_count - 1) / page_region_count;
}
inline uint64_t mark_page_of(uint64_t region) {
  return region / page_region_count;
}

// `more`: further regions that this member alone lacks, or null. `stay`: what the marks are of.
void encode_marks(const RegionMap& marks, const RegionMap* more, uint64_t mark_page, uint64_t stay, void* page);
// Adds the page's marks; false: damaged.
bool decode_marks(const void* page, uint64_t mark_page, uint64_t stay, RegionMap& marks);

}  // namespace basalt::bdev::mark_pages
