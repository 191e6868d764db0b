// SPDX-License-Identifier: Apache-2.0
// The tail of a leg's member, on disk (docs/on-disk/leg.md): two copies of a superblock and the write-intent marks, in
// the tail_bytes behind the leg's blocks. Only the leg reads and writes it, by ordinary requests. Pure: bytes in, bytes
// out.
//
// Invariants: - a superblock's copies are written one after the other, so one of them is whole at every instant
//             - a sector of marks carries its own checksum over its place and its member's stay: a torn page is a mix
//               of old and new sectors, both of them right; anything else is damage, and never guessed
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bdev/mark_pages.h"
#include "bdev/region_map.h"

namespace basalt::bdev::leg_tail {

constexpr uint64_t tail_bytes = uint64_t{1} << 20;
using mark_pages::decode_marks;
using mark_pages::encode_marks;
using mark_pages::mark_page_count;
using mark_pages::mark_page_count_max;
using mark_pages::mark_page_of;
using mark_pages::page_bytes;
using mark_pages::page_region_count;
using mark_pages::region_count_max;
using mark_pages::sector_bytes;
using mark_pages::sector_header_bytes;
using mark_pages::sector_region_count;
constexpr uint32_t superblock_pages[2] = {0, 1};
constexpr uint32_t mark_page_first = 8;  // 2 to 7 are reserved, and zero
static_assert((mark_page_first + mark_page_count_max) * page_bytes <= tail_bytes);

constexpr size_t name_bytes_max = 96;  // an NQN of a replica
constexpr size_t roster_count_max = 16;

// A replica that the marks are kept for: from the moment it began to be copied to until it is forgotten.
struct RosterEntry {
  enum class State : uint8_t { in_sync = 1, joining = 2, absent = 3 };
  std::string replica;
  uint64_t stay = 0;        // drawn when its copying began; another one means another history
  uint64_t generation = 0;  // it has a superblock of at least this generation
  State state = State::in_sync;
};

struct Superblock {
  std::string leg;
  std::string replica;  // whose member this is
  uint64_t stay = 0;
  uint64_t epoch = 0;
  uint64_t generation = 0;  // grows with each change of the roster
  uint32_t block_size_bytes = 0;
  uint64_t count_blocks = 0;  // of the leg
  uint64_t region_blocks = 0;
  std::vector<RosterEntry> roster;

  RosterEntry* find(const std::string& of_replica);
};

// Regions of the marks: 1 MiB, larger where that would be too many.
uint64_t region_blocks_for(uint64_t count_blocks, uint32_t block_size_bytes, uint64_t region_bytes_min);

void encode_superblock(const Superblock& superblock, void* page);
enum class Page : uint8_t { blank, whole, damaged, unknown };
// unknown: written by a later version; nobody may write over it.
Page decode_superblock(const void* page, Superblock& superblock);

// What the beginning of a tail (both superblocks and all mark pages) says.
struct Image {
  Page state = Page::damaged;
  Superblock superblock;
  std::optional<RegionMap> marks;  // when whole, and of this leg and shape
};
struct Expected {
  const std::string& leg;
  const RegionMap& shape;
  uint64_t count_blocks;
  uint32_t block_size_bytes;
};
inline size_t image_bytes(const RegionMap& shape) {
  return (mark_page_first + mark_page_count(shape)) * page_bytes;
}
Image decode_image(const char* bytes, const Expected& expected);

}  // namespace basalt::bdev::leg_tail
