// SPDX-License-Identifier: Apache-2.0
#include "bdev/mark_pages.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace basalt::bdev::mark_pages {
namespace {

// Offsets in a sector.
constexpr size_t at_sector_crc = 0;
constexpr size_t at_sector_index = 4;
constexpr size_t at_sector_stay = 8;

uint32_t sector_crc(const char* sector) {
  return crc32c(0, sector + at_sector_index, sector_bytes - at_sector_index);
}

}  // namespace

void encode_marks(const RegionMap& marks, const RegionMap* more, uint64_t mark_page, uint64_t stay, void* to) {
  char* page = static_cast<char*>(to);
  std::memset(page, 0, page_bytes);
  const uint64_t first = mark_page * page_region_count;
  const auto put = [&](const RegionMap& map) {
    const uint64_t end = std::min(first + page_region_count, map.region_count());
    for (uint64_t region = map.next(first); region < end; region = map.next(region + 1)) {
      const uint64_t at = region - first;
      char* bits = page + at / sector_region_count * sector_bytes + sector_header_bytes;
      const uint64_t bit = at % sector_region_count;
      bits[bit / 8] = static_cast<char>(bits[bit / 8] | 1 << (bit % 8));
    }
  };
  put(marks);
  if (more != nullptr) put(*more);
  for (uint32_t i = 0; i < page_bytes / sector_bytes; i++) {
    char* sector = page + i * sector_bytes;
    store_le<uint32_t>(sector + at_sector_index, static_cast<uint32_t>(mark_page * (page_bytes / sector_bytes) + i));
    store_le<uint64_t>(sector + at_sector_stay, stay);
    store_le<uint32_t>(sector + at_sector_crc, sector_crc(sector));
  }
}

bool decode_marks(const void* from, uint64_t mark_page, uint64_t stay, RegionMap& marks) {
  const char* page = static_cast<const char*>(from);
  for (uint32_t i = 0; i < page_bytes / sector_bytes; i++) {
    const char* sector = page + i * sector_bytes;
    const auto index = static_cast<uint32_t>(mark_page * (page_bytes / sector_bytes) + i);
    if (load_le<uint32_t>(sector + at_sector_crc) != sector_crc(sector)) return false;
    if (load_le<uint32_t>(sector + at_sector_index) != index) return false;
    if (load_le<uint64_t>(sector + at_sector_stay) != stay) return false;
    for (uint64_t bit = 0; bit < sector_region_count; bit++) {
      if ((sector[sector_header_bytes + bit / 8] >> (bit % 8) & 1) == 0) continue;
      const uint64_t region = index * sector_region_count + bit;
      if (region >= marks.region_count()) return false;
      marks.set(region);
    }
  }
  return true;
}

}  // namespace basalt::bdev::mark_pages
