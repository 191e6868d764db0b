// SPDX-License-Identifier: Apache-2.0
// Goal: what a tail says is believed when it is whole and nothing else is; the format does not change unnoticed.
// Method: bytes, torn and flipped.
#include "bdev/leg/leg_tail.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/crc32c.h"

namespace basalt::bdev::leg_tail {
namespace {

constexpr uint64_t count_blocks = uint64_t{40'000} * 256;  // two mark pages

Superblock example() {
  Superblock superblock;
  superblock.leg = "3f0e8a52-0000-4000-8000-000000000001/0";
  superblock.replica = "r0";
  superblock.stay = 0x1122334455667788;
  superblock.epoch = 7;
  superblock.generation = 9;
  superblock.block_size_bytes = 4096;
  superblock.count_blocks = count_blocks;
  superblock.region_blocks = 256;
  superblock.roster = {{"r0", 0x1122334455667788, 9, RosterEntry::State::in_sync},
                       {"r1", 42, 8, RosterEntry::State::absent}};
  return superblock;
}

RegionMap marks_of(std::initializer_list<uint64_t> regions) {
  RegionMap marks(count_blocks, RegionMap::RegionSize{256});
  for (const uint64_t region : regions)
    marks.set(region);
  return marks;
}

std::vector<char> image_of(const Superblock& superblock, const RegionMap& marks) {
  std::vector<char> bytes(image_bytes(marks));
  for (const uint32_t page : superblock_pages)
    encode_superblock(superblock, bytes.data() + page * page_bytes);
  for (uint64_t page = 0; page < mark_page_count(marks); page++)
    encode_marks(marks, nullptr, page, superblock.stay, bytes.data() + (mark_page_first + page) * page_bytes);
  return bytes;
}

Image read(const std::vector<char>& bytes) {
  const std::string leg = example().leg;
  const RegionMap shape = marks_of({});
  return decode_image(bytes.data(), {leg, shape, count_blocks, 4096});
}

TEST(LegTail, SaysWhatWasWritten) {
  const RegionMap marks = marks_of({0, 1, 3839, 3840, 30719, 30720, 39'999});
  const Image image = read(image_of(example(), marks));
  ASSERT_EQ(image.state, Page::whole);
  EXPECT_EQ(image.superblock.epoch, 7u);
  EXPECT_EQ(image.superblock.replica, "r0");
  ASSERT_EQ(image.superblock.roster.size(), 2u);
  EXPECT_EQ(image.superblock.roster[1].replica, "r1");
  EXPECT_EQ(image.superblock.roster[1].stay, 42u);
  EXPECT_EQ(image.superblock.roster[1].generation, 8u);
  EXPECT_EQ(image.superblock.roster[1].state, RosterEntry::State::absent);
  EXPECT_EQ(image.marks->count(), 7u);
  for (const uint64_t region : {0, 1, 3839, 3840, 30719, 30720, 39'999})
    EXPECT_TRUE(image.marks->has(region)) << region;
}

TEST(LegTail, IsTheFormatOfItsFirstVersion) {
  const std::vector<char> bytes = image_of(example(), marks_of({5, 30721}));
  EXPECT_EQ(crc32c(0, bytes.data(), bytes.size()), 0xe999562au);
}

TEST(LegTail, ANewTailIsBlank) {
  EXPECT_EQ(read(std::vector<char>(image_bytes(marks_of({})))).state, Page::blank);
}

TEST(LegTail, OneCopyOfTheSuperblockIsEnough) {
  for (const uint32_t page : superblock_pages) {
    std::vector<char> bytes = image_of(example(), marks_of({9}));
    bytes[page * page_bytes + 33] ^= 1;
    const Image image = read(bytes);
    ASSERT_EQ(image.state, Page::whole);
    EXPECT_TRUE(image.marks->has(9));
    bytes[(superblock_pages[0] + superblock_pages[1] - page) * page_bytes + 200] ^= 1;
    EXPECT_EQ(read(bytes).state, Page::damaged);
  }
}

TEST(LegTail, TheNewerCopyOfTheSuperblockCounts) {
  for (const uint32_t page : superblock_pages) {
    std::vector<char> bytes = image_of(example(), marks_of({}));
    Superblock newer = example();
    newer.generation = 10;
    encode_superblock(newer, bytes.data() + page * page_bytes);
    EXPECT_EQ(read(bytes).superblock.generation, 10u);
  }
}

// A torn page is a mix of two right ones: every region that both had marked is marked.
TEST(LegTail, AMarkPageThatWasTornBetweenItsSectorsIsReadable) {
  const std::vector<char> before = image_of(example(), marks_of({5, 4000}));
  const std::vector<char> after = image_of(example(), marks_of({5, 6, 4000, 4001}));
  for (uint32_t kept = 0; kept < 256; kept++) {
    std::vector<char> torn = after;
    for (uint32_t sector = 0; sector < 8; sector++) {
      if ((kept >> sector & 1) == 0) continue;
      const size_t at = mark_page_first * page_bytes + sector * sector_bytes;
      std::memcpy(torn.data() + at, before.data() + at, sector_bytes);
    }
    const Image image = read(torn);
    ASSERT_EQ(image.state, Page::whole) << kept;
    EXPECT_TRUE(image.marks->has(5) && image.marks->has(4000));
  }
}

TEST(LegTail, EveryFlippedBitOfTheMarksIsDamage) {
  std::mt19937_64 random(20261121);
  const std::vector<char> whole = image_of(example(), marks_of({5, 4000, 35'000}));
  for (size_t at = mark_page_first * page_bytes; at < whole.size(); at += 1 + random() % 7) {
    std::vector<char> bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 1 << (random() % 8));
    ASSERT_EQ(read(bytes).state, Page::damaged) << at;
  }
}

TEST(LegTail, MarksAtAnotherPlaceOrOfAnotherStayAreDamage) {
  std::vector<char> moved = image_of(example(), marks_of({5}));
  std::memcpy(moved.data() + (mark_page_first + 1) * page_bytes, moved.data() + mark_page_first * page_bytes,
              page_bytes);
  EXPECT_EQ(read(moved).state, Page::damaged);
  std::vector<char> stale = image_of(example(), marks_of({5}));
  encode_marks(marks_of({}), nullptr, 0, 77, stale.data() + mark_page_first * page_bytes);
  EXPECT_EQ(read(stale).state, Page::damaged);
}

TEST(LegTail, AnotherLegsTailIsDamageAndALaterVersionIsUnknown) {
  Superblock other = example();
  other.leg = "another";
  EXPECT_EQ(read(image_of(other, marks_of({}))).state, Page::damaged);
  std::vector<char> later = image_of(example(), marks_of({}));
  for (const uint32_t number : superblock_pages) {
    char* page = later.data() + number * page_bytes;
    page[12] = 2;
    std::memset(page + 8, 0, 4);
    const uint32_t crc = crc32c(0, page, page_bytes);
    std::memcpy(page + 8, &crc, 4);
  }
  EXPECT_EQ(read(later).state, Page::unknown);
}

TEST(LegTail, FitsItsPlaceWhateverTheLegsSize) {
  for (const uint64_t blocks : {uint64_t{1}, uint64_t{1} << 20, uint64_t{1} << 32, uint64_t{1} << 50}) {
    const RegionMap marks(std::min(blocks, uint64_t{1} << 28),
                          RegionMap::RegionSize{region_blocks_for(blocks, 512, 1 << 20)});
    EXPECT_LE((blocks + marks.region_blocks() - 1) / marks.region_blocks(), region_count_max);
    EXPECT_LE(image_bytes(marks), tail_bytes);
  }
  EXPECT_EQ(region_blocks_for(uint64_t{1} << 28, 4096, 1 << 20) * 4096, uint64_t{4} << 20) << "1 TiB";
}

}  // namespace
}  // namespace basalt::bdev::leg_tail
