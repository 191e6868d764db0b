// SPDX-License-Identifier: Apache-2.0
#include "bdev/leg/leg_tail.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"

namespace basalt::bdev::leg_tail {
namespace {

constexpr char magic[8] = {'B', 'S', 'L', 'T', 'L', 'E', 'G', '\n'};
constexpr uint32_t version = 1;
constexpr uint32_t features_known = 0;

// Offsets in a superblock page.
constexpr size_t at_magic = 0;
constexpr size_t at_crc = 8;
constexpr size_t at_version = 12;
constexpr size_t at_compatible = 16;
constexpr size_t at_incompatible = 20;
constexpr size_t at_block_size = 24;
constexpr size_t at_roster_count = 28;
constexpr size_t at_epoch = 32;
constexpr size_t at_generation = 40;
constexpr size_t at_stay = 48;
constexpr size_t at_count_blocks = 56;
constexpr size_t at_region_blocks = 64;
constexpr size_t at_leg = 128;
constexpr size_t at_replica = at_leg + name_bytes_max;
constexpr size_t at_roster = 384;
constexpr size_t roster_entry_bytes = 128;
constexpr size_t at_entry_stay = 96;
constexpr size_t at_entry_generation = 104;
constexpr size_t at_entry_state = 112;
static_assert(at_replica + name_bytes_max <= at_roster);
static_assert(at_roster + roster_count_max * roster_entry_bytes <= page_bytes);

void put_name(char* to, const std::string& name) {
  BASALT_ASSERT(name.size() <= name_bytes_max);
  std::memcpy(to, name.data(), name.size());
}

std::string get_name(const char* from) {
  return {from, strnlen(from, name_bytes_max)};
}

uint32_t page_crc(const char* page) {
  const char zeroes[4] = {};
  uint32_t crc = crc32c(0, page, at_crc);
  crc = crc32c(crc, zeroes, sizeof zeroes);
  return crc32c(crc, page + at_version, page_bytes - at_version);
}

}  // namespace

RosterEntry* Superblock::find(const std::string& of_replica) {
  const auto found =
      std::find_if(roster.begin(), roster.end(), [&](const RosterEntry& entry) { return entry.replica == of_replica; });
  return found == roster.end() ? nullptr : &*found;
}

uint64_t region_blocks_for(uint64_t count_blocks, uint32_t block_size_bytes, uint64_t region_bytes_min) {
  uint64_t region_blocks = std::max<uint64_t>(region_bytes_min / block_size_bytes, 1);
  while ((count_blocks + region_blocks - 1) / region_blocks > region_count_max)
    region_blocks *= 2;
  return region_blocks;
}

void encode_superblock(const Superblock& superblock, void* to) {
  char* page = static_cast<char*>(to);
  std::memset(page, 0, page_bytes);
  BASALT_ASSERT(superblock.roster.size() <= roster_count_max);
  std::memcpy(page + at_magic, magic, sizeof magic);
  store_le<uint32_t>(page + at_version, version);
  store_le<uint32_t>(page + at_block_size, superblock.block_size_bytes);
  store_le<uint32_t>(page + at_roster_count, static_cast<uint32_t>(superblock.roster.size()));
  store_le<uint64_t>(page + at_epoch, superblock.epoch);
  store_le<uint64_t>(page + at_generation, superblock.generation);
  store_le<uint64_t>(page + at_stay, superblock.stay);
  store_le<uint64_t>(page + at_count_blocks, superblock.count_blocks);
  store_le<uint64_t>(page + at_region_blocks, superblock.region_blocks);
  put_name(page + at_leg, superblock.leg);
  put_name(page + at_replica, superblock.replica);
  char* at = page + at_roster;
  for (const RosterEntry& entry : superblock.roster) {
    put_name(at, entry.replica);
    store_le<uint64_t>(at + at_entry_stay, entry.stay);
    store_le<uint64_t>(at + at_entry_generation, entry.generation);
    at[at_entry_state] = static_cast<char>(entry.state);
    at += roster_entry_bytes;
  }
  store_le<uint32_t>(page + at_crc, page_crc(page));
}

Page decode_superblock(const void* from, Superblock& superblock) {
  const char* page = static_cast<const char*>(from);
  if (all_zero(page, page_bytes)) return Page::blank;
  if (std::memcmp(page + at_magic, magic, sizeof magic) != 0) return Page::damaged;
  if (load_le<uint32_t>(page + at_crc) != page_crc(page)) return Page::damaged;
  const bool newer = load_le<uint32_t>(page + at_version) > version;
  if (newer || (load_le<uint32_t>(page + at_incompatible) & ~features_known) != 0) return Page::unknown;
  const uint32_t roster_count = load_le<uint32_t>(page + at_roster_count);
  if (roster_count > roster_count_max) return Page::damaged;
  superblock.block_size_bytes = load_le<uint32_t>(page + at_block_size);
  superblock.epoch = load_le<uint64_t>(page + at_epoch);
  superblock.generation = load_le<uint64_t>(page + at_generation);
  superblock.stay = load_le<uint64_t>(page + at_stay);
  superblock.count_blocks = load_le<uint64_t>(page + at_count_blocks);
  superblock.region_blocks = load_le<uint64_t>(page + at_region_blocks);
  superblock.leg = get_name(page + at_leg);
  superblock.replica = get_name(page + at_replica);
  superblock.roster.clear();
  for (const char* at = page + at_roster; superblock.roster.size() < roster_count; at += roster_entry_bytes) {
    RosterEntry entry;
    entry.replica = get_name(at);
    entry.stay = load_le<uint64_t>(at + at_entry_stay);
    entry.generation = load_le<uint64_t>(at + at_entry_generation);
    const auto state = static_cast<uint8_t>(at[at_entry_state]);
    if (state < 1 || state > 3) return Page::damaged;
    entry.state = static_cast<RosterEntry::State>(state);
    // Each replica is there once: who looks for room counts on it.
    if (entry.replica.empty() || superblock.find(entry.replica) != nullptr) return Page::damaged;
    superblock.roster.push_back(std::move(entry));
  }
  return Page::whole;
}

Image decode_image(const char* bytes, const Expected& expected) {
  Image image;
  Superblock copies[2];
  Page states[2];
  for (int i = 0; i < 2; i++)
    states[i] = decode_superblock(bytes + superblock_pages[i] * page_bytes, copies[i]);
  image.state = Page::blank;
  for (const Page state : states) {
    if (state == Page::unknown) return {Page::unknown, {}, {}};
    if (state == Page::damaged) image.state = Page::damaged;
  }
  // The copies are written one after the other: the newer one counts, and one is enough.
  int chosen = -1;
  for (int i = 0; i < 2; i++) {
    if (states[i] != Page::whole) continue;
    if (chosen < 0 || copies[i].generation > copies[chosen].generation) chosen = i;
  }
  if (chosen < 0) return image;
  image.superblock = std::move(copies[chosen]);
  const Superblock& found = image.superblock;
  image.state = Page::damaged;
  if (found.leg != expected.leg || found.count_blocks != expected.count_blocks ||
      found.block_size_bytes != expected.block_size_bytes || found.region_blocks != expected.shape.region_blocks()) {
    return image;
  }
  RegionMap marks(expected.count_blocks, RegionMap::RegionSize{found.region_blocks});
  for (uint64_t page = 0; page < mark_page_count(marks); page++) {
    if (!decode_marks(bytes + (mark_page_first + page) * page_bytes, page, found.stay, marks)) return image;
  }
  image.state = Page::whole;
  image.marks.emplace(std::move(marks));
  return image;
}

}  // namespace basalt::bdev::leg_tail
