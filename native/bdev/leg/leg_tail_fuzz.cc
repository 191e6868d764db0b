// SPDX-License-Identifier: Apache-2.0
// The tail of a leg's member, damaged in any way: what is called whole is of this leg and shape, and writing it again
// reads the same; damage that no checksum was made for is never taken for marks.
#include "bdev/leg/leg_tail.h"

#include "bdev/leg/leg_tail_fuzz_testing.h"

namespace basalt::bdev::leg_tail {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDamage;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

constexpr uint64_t count_blocks = 4096;
constexpr uint64_t region_blocks = 16;
constexpr uint32_t block_size_bytes = 4096;
constexpr size_t page_count = mark_page_first + 1;
const char leg_name[] = "volume/0";

RegionMap shape() {
  return {count_blocks, RegionMap::RegionSize{region_blocks}};
}

Superblock superblock_of(uint64_t generation) {
  Superblock superblock;
  superblock.leg = leg_name;
  superblock.replica = "a";
  superblock.stay = 77;
  superblock.epoch = 5;
  superblock.generation = generation;
  superblock.block_size_bytes = block_size_bytes;
  superblock.count_blocks = count_blocks;
  superblock.region_blocks = region_blocks;
  superblock.roster = {{"a", 77, generation, RosterEntry::State::in_sync},
                       {"b", 78, 1, RosterEntry::State::joining},
                       {std::string(name_bytes_max, 'c'), 79, 2, RosterEntry::State::absent}};
  return superblock;
}

FuzzBytes good_image() {
  FuzzBytes image(page_count * page_bytes);
  RegionMap marks = shape();
  for (const uint64_t region : {0, 1, 63, 64, 255})
    marks.set(region);
  for (const uint64_t copy : {0, 1})
    encode_superblock(superblock_of(8 + copy), image.data() + superblock_pages[copy] * page_bytes);
  encode_marks(marks, nullptr, 0, 77, image.data() + mark_page_first * page_bytes);
  return image;
}

bool same(const Superblock& one, const Superblock& other) {
  const auto same_entry = [](const RosterEntry& a, const RosterEntry& b) {
    return a.replica == b.replica && a.stay == b.stay && a.generation == b.generation && a.state == b.state;
  };
  return one.leg == other.leg && one.replica == other.replica && one.stay == other.stay && one.epoch == other.epoch &&
         one.generation == other.generation && one.block_size_bytes == other.block_size_bytes &&
         one.count_blocks == other.count_blocks && one.region_blocks == other.region_blocks &&
         std::equal(one.roster.begin(), one.roster.end(), other.roster.begin(), other.roster.end(), same_entry);
}

void check_page(const uint8_t* page) {
  Superblock superblock;
  if (decode_superblock(page, superblock) != Page::whole) return;
  uint8_t again[page_bytes];
  encode_superblock(superblock, again);
  Superblock twice;
  BASALT_ASSERT(decode_superblock(again, twice) == Page::whole && same(superblock, twice));
  for (const RosterEntry& entry : superblock.roster)
    BASALT_ASSERT(superblock.find(entry.replica)->replica == entry.replica);
  BASALT_ASSERT(superblock.find("nobody of that name") == nullptr);
}

void check_marks(const Image& image) {
  RegionMap again = shape();
  uint8_t page[page_bytes];
  encode_marks(*image.marks, nullptr, 0, image.superblock.stay, page);
  BASALT_ASSERT(decode_marks(page, 0, image.superblock.stay, again) && again.count() == image.marks->count());
  for (uint64_t region = again.next(0); region < again.region_count(); region = again.next(region + 1))
    BASALT_ASSERT(image.marks->has(region));
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  FuzzBytes pages = good_image();
  FuzzDamage damage;
  damage.take_all(
      input, [&](FuzzInput&) { return std::span(pages); }, page_count, damage_format);
  for (const uint32_t page : superblock_pages)
    check_page(pages.data() + page * page_bytes);
  const std::string leg = leg_name;
  const RegionMap expected_shape = shape();
  const Image image =
      decode_image(reinterpret_cast<const char*>(pages.data()), {leg, expected_shape, count_blocks, block_size_bytes});
  BASALT_ASSERT(image.marks.has_value() == (image.state == Page::whole));
  if (image.state != Page::whole) return;
  BASALT_ASSERT(image.superblock.leg == leg && image.superblock.region_blocks == region_blocks);
  check_marks(image);
  if (damage.forged) return;
  BASALT_ASSERT(image.marks->count() == 5 && image.superblock.stay == 77);
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out = {{"good", {}}};
  for (const unsigned page : {0u, 1u, mark_page_first + 0u}) {
    for (const unsigned what : {FuzzDamage::patch + 0u, FuzzDamage::flag_reseal + 0u}) {
      for (const unsigned offset : {0u, 8u, 12u, 20u, 24u, 28u, 29u, 56u, 64u, 128u, 224u, 384u, 496u, 600u}) {
        out.push_back({"patch-" + std::to_string(page) + "-" + std::to_string(what) + "-" + std::to_string(offset),
                       FuzzOutput().u8(what).u8(page).u16(offset).u8(1).u8(4).bytes()});
      }
    }
    out.push_back({"blank-" + std::to_string(page), FuzzOutput().u8(FuzzDamage::blank).u8(page).u8(0).bytes()});
  }
  FuzzOutput both;
  for (const unsigned page : {0u, 1u})
    both.u8(FuzzDamage::blank).u8(page).u8(0);
  out.push_back({"blank-both", both.bytes()});
  out.push_back({"copy", FuzzOutput().u8(FuzzDamage::copy).u8(0).u8(1).bytes()});
  out.push_back({"tear", FuzzOutput().u8(FuzzDamage::tear | FuzzDamage::flag_reseal).u8(0).u8(1).u8(0x55).bytes()});
  return out;
}

BASALT_FUZZ_TARGET(leg_tail, run, seeds)

}  // namespace
}  // namespace basalt::bdev::leg_tail
