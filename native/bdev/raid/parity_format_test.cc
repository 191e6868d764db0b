// SPDX-License-Identifier: Apache-2.0
// Superblocks of raid5 and raid6 as docs/on-disk/raid.md describes them: made up byte by byte, not by the structure.
#include "bdev/raid/parity_format.h"

#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "bdev/raid/raid_cut_test_util.h"

namespace basalt::bdev {
namespace {

using Page = std::vector<uint8_t>;
constexpr uint32_t k = 3;
constexpr uint64_t first_block = 80;  // superblocks, and four slots of four pages
constexpr uint64_t strip_count = 16;
constexpr uint64_t member_blocks = first_block + strip_count * 2;

template <class Value>
void put(Page& page, size_t offset, Value value) {
  std::memcpy(&page[offset], &value, sizeof(value));
}

void seal(Page& page) {
  put<uint32_t>(page, 8, 0);
  put<uint32_t>(page, 8, crc32c(0, page.data(), page.size()));
}

// Of a whole raid5 3+1, clean, as versions before the marks wrote it.
Page old_superblock(uint8_t member) {
  Page page(4096);
  std::memcpy(page.data(), "BSLTRAID", 8);
  put<uint32_t>(page, 12, 1);
  std::memset(&page[32], 0x5a, 16);
  put<uint64_t>(page, 48, 7);  // generation
  put<uint64_t>(page, 56, 3);  // epoch
  put<uint64_t>(page, 64, member_blocks);
  put<uint64_t>(page, 72, strip_count);
  put<uint64_t>(page, 80, first_block);
  put<uint32_t>(page, 88, 4096);
  put<uint32_t>(page, 92, 2);
  put<uint32_t>(page, 96, 4);  // slots
  put<uint32_t>(page, 100, 4);
  put<uint64_t>(page, 104, 9);   // log tail
  put<uint32_t>(page, 112, 15);  // all four
  page[116] = k;
  page[117] = 1;
  page[118] = member;
  page[119] = 1;
  put<uint16_t>(page, 120, 1);
  page[128] = 'r';
  seal(page);
  return page;
}

struct Disks {
  Disks() : rig({k, 1, 8192}, 1, member_blocks) {
    for (uint8_t member = 0; member <= k; member++) {
      auto& contents = rig.disks[member]->contents();
      const Page superblock = old_superblock(member);
      std::copy(superblock.begin(), superblock.end(), contents.begin());
      // Data strip r of stripe s holds 0x10 + r; each parity is their exclusive or.
      for (uint64_t stripe = 0; stripe < strip_count; stripe++) {
        const uint64_t role = (member + stripe) % (k + 1);
        const auto value = static_cast<uint8_t>(role < k ? 0x10 + role : 0x10 ^ 0x11 ^ 0x12);
        std::fill_n(contents.begin() + static_cast<ptrdiff_t>((first_block + stripe * 2) * 4096), 8192, value);
      }
    }
    rig.oracle.resize(strip_count * k * 8192);
    for (size_t at = 0; at < rig.oracle.size(); at++)
      rig.oracle[at] = static_cast<uint8_t>(0x10 + at / 8192 % k);
  }
  void change(size_t member, const std::function<void(Page&)>& how) {
    Page page = old_superblock(static_cast<uint8_t>(member));
    how(page);
    seal(page);
    std::copy(page.begin(), page.end(), rig.disks[member]->contents().begin());
  }
  RaidRig rig;
};

TEST(ParityFormat, WhatVersionsBeforeTheMarksWroteIsReadAndStaysReadableForThem) {
  for (const bool degraded : {false, true}) {
    Disks disks;
    RaidRig& rig = disks.rig;
    auto loaded = rig.load(degraded ? std::vector<size_t>{0, 2, 3} : std::vector<size_t>{0, 1, 2, 3});
    ASSERT_TRUE(loaded) << loaded.error().message;
    rig.raid = std::move(*loaded);
    EXPECT_EQ(rig.raid->degraded(), degraded);
    EXPECT_FALSE(rig.raid->resyncing());
    rig.expect_all();
    rig.write(5, 9);
    if (degraded) {
      ASSERT_TRUE(rig.fixture.run(rig.raid->add_member(rig.handle(1))));
      ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->degraded(); }));
    }
    rig.expect_clean_scrub();
    rig.close();
    for (auto& disk : rig.disks) {
      const parity::Superblock newest = newest_superblock(*disk);
      EXPECT_EQ(newest.incompatible, 0u);
      EXPECT_EQ(newest.stay, 0u);
      EXPECT_EQ(newest.mark_strips, 0u);
    }
  }
}

TEST(ParityFormat, WhatIsNotKnownOrMakesNoSenseIsRefusedAndNothingIsWritten) {
  const auto marks = [](Page& page) {
    put<uint64_t>(page, 24, 1);
    put<uint32_t>(page, 724, 2);
  };
  const struct {
    const char* what;
    Errc code;
    std::function<void(Page&)> how;
  } cases[] = {
      {"an incompatible feature", Errc::unsupported, [](Page& page) { put<uint64_t>(page, 24, 4); }},
      {"another version", Errc::unsupported, [](Page& page) { put<uint32_t>(page, 12, 2); }},
      {"away: no such place", Errc::corrupt,
       [&](Page& page) {
         marks(page);
         put<uint32_t>(page, 720, 16);
       }},
      {"rebuilding: no such place", Errc::corrupt,
       [&](Page& page) {
         marks(page);
         put<uint32_t>(page, 728, 16);
       }},
      {"no strips of a mark", Errc::corrupt,
       [&](Page& page) {
         marks(page);
         put<uint32_t>(page, 724, 0);
       }},
      {"strips of a mark: no power of two", Errc::corrupt,
       [&](Page& page) {
         marks(page);
         put<uint32_t>(page, 724, 3);
       }},
      {"twin's place", Errc::corrupt,
       [&](Page& page) {
         marks(page);
         page[732] = 4;
       }},
      {"an epoch that runs over", Errc::corrupt,
       [&](Page& page) {
         marks(page);
         put<uint64_t>(page, 560 + 8, UINT64_MAX);
       }},
  };
  for (const auto& [what, code, how] : cases) {
    Disks disks;
    disks.change(1, how);
    std::vector<Page> before;
    for (auto& disk : disks.rig.disks)
      before.push_back(disk->contents());
    auto loaded = disks.rig.load({0, 1, 2, 3});
    ASSERT_FALSE(loaded) << what;
    EXPECT_EQ(loaded.error().code, code) << what << ": " << loaded.error().message;
    for (size_t i = 0; i < before.size(); i++)
      EXPECT_EQ(disks.rig.disks[i]->contents(), before[i]) << what;
  }
}

// Place 1 is away, and lacks what is in the first and the third region of four stripes.
TEST(ParityFormat, MarksSayWhatAMemberThatIsAwayLacks) {
  constexpr uint64_t stay = 0x1122334455667788;
  Disks disks;
  RaidRig& rig = disks.rig;
  for (const size_t member : {0u, 2u, 3u}) {
    disks.change(member, [&](Page& page) {
      put<uint64_t>(page, 24, 1);
      put<uint64_t>(page, 56, 5);          // epoch
      put<uint32_t>(page, 112, 15 & ~2u);  // the set
      put<uint64_t>(page, 392 + 8, stay);  // whose place 1 is
      put<uint32_t>(page, 720, 2);         // away
      put<uint32_t>(page, 724, 4);         // strips of a mark
      put<uint64_t>(page, 560 + 8, 4);     // left
      page[1024] = 1 | 4;
    });
  }
  disks.change(1, [&](Page& page) {
    put<uint64_t>(page, 24, 1);
    put<uint64_t>(page, 384, stay);
    put<uint64_t>(page, 392 + 8, stay);
    put<uint32_t>(page, 724, 4);
  });
  // It lacks all of the first region, and one block of the third one.
  auto& contents = rig.disks[1]->contents();
  std::fill_n(contents.begin() + first_block * 4096, 8 * 4096, 0);
  std::fill_n(contents.begin() + (first_block + 17) * 4096, 4096, 0);
  auto loaded = rig.load({0, 2, 3});
  ASSERT_TRUE(loaded) << loaded.error().message;
  rig.raid = std::move(*loaded);
  EXPECT_TRUE(rig.raid->degraded());
  rig.expect_all();
  uint64_t rebuilt_blocks = 0;
  rig.disks[1]->seen = [&](const Io& io) {
    if (io.type == IoType::write && io.offset_blocks >= first_block) rebuilt_blocks += io.count_blocks;
  };
  ASSERT_TRUE(rig.fixture.run(rig.raid->add_member(rig.handle(1))));
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->degraded(); }));
  EXPECT_EQ(rebuilt_blocks, 16u);
  rig.expect_all();
  rig.expect_clean_scrub();
}

}  // namespace
}  // namespace basalt::bdev
