// SPDX-License-Identifier: Apache-2.0
// Rebuild of raid5 and raid6: several bands at once, at a pace, and what happens to those that are under way when
// members leave and come, or the power goes.
#include <gtest/gtest.h>

#include "bdev/raid/raid_cut_test_util.h"
#include "bdev/raid/raid_parity.h"

namespace basalt::bdev {
namespace {

using Rig = RaidRig;

bool reads_of_strips(const Io& io) {
  return io.type == IoType::read && io.offset_blocks > parity::superblock_pages[1];
}

// A written raid5 of 64 KiB strips without its member 0, and a blank disk (4) for that place.
struct Without {
  explicit Without(uint64_t seed = 1) : rig({3, 1, 65536}, seed) {
    rig.create();
    for (uint64_t block = 0; block + 64 <= rig.raid->info().count_blocks; block += 64)
      rig.write(block, 64);
    rig.raid->member_lost("d0");
    EXPECT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(0).state == RaidMemberState::missing; }));
    rig.add_disk(2048);
  }
  uint64_t member_bytes() const {
    const ParityLayout& layout = rig.raid->layout();
    return layout.strip_count * layout.strip_blocks * layout.block_bytes;
  }
  bool is_rebuilt() {
    return rig.fixture.run_until([&] { return !rig.raid->degraded(); });
  }

  Rig rig;
};

TEST(RaidParityRebuild, SeveralBandsAreUnderWayAtOnce) {
  Without without;
  Rig& rig = without.rig;
  rig.disks[1]->holds = reads_of_strips;
  ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(4)));
  rig.fixture.world.run_for(milliseconds(20));
  EXPECT_EQ(rig.disks[1]->held_count(), 8u);
  rig.disks[1]->release();
  ASSERT_TRUE(without.is_rebuilt());
  rig.expect_all();
  rig.expect_clean_scrub();
}

TEST(RaidParityRebuild, KeepsToItsPaceAndCanBePaused) {
  Without without;
  Rig& rig = without.rig;
  rig.raid->set_resync(0, true);
  ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(4)));
  rig.fixture.world.run_for(seconds(5));
  EXPECT_EQ(rig.raid->member(0).rebuilt_blocks, 0u);
  const Instant begin = rig.fixture.world.now();
  rig.raid->set_resync(without.member_bytes() / 4, false);
  rig.fixture.world.run_for(seconds(2));
  const uint64_t half_way = rig.raid->member(0).rebuilt_blocks;
  EXPECT_GT(half_way * Rig::block_bytes, without.member_bytes() / 4);
  EXPECT_LT(half_way * Rig::block_bytes, without.member_bytes() * 3 / 4);
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->degraded(); }, seconds(10)));
  const Duration took = rig.fixture.world.now() - begin;
  EXPECT_GE(took, milliseconds(3000));
  EXPECT_LE(took, milliseconds(4500));
  rig.expect_all();
  rig.expect_clean_scrub();
}

TEST(RaidParityRebuild, APausedOneIsOverWhenItsMemberIsLostOrTheRaidCloses) {
  Without without;
  Rig& rig = without.rig;
  rig.raid->set_resync(0, true);
  for (const char* name : {"d4", "d5"}) {
    const size_t index = rig.disks.size() - 1;
    ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(index)));
    rig.fixture.world.run_for(seconds(1));
    rig.raid->member_lost(name);
    ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(0).state == RaidMemberState::missing; }));
    rig.add_disk(2048);
  }
  ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(6)));
  rig.fixture.world.run_for(seconds(1));
  rig.close();
}

// Bands of the first one are still being read when the second one comes to the same place.
TEST(RaidParityRebuild, TheNextMemberOfAPlaceIsRebuiltFromTheBeginning) {
  Without without;
  Rig& rig = without.rig;
  rig.disks[2]->holds = reads_of_strips;
  ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(4)));
  rig.fixture.world.run_for(milliseconds(20));
  ASSERT_EQ(rig.disks[2]->held_count(), 8u);
  rig.raid->member_lost("d4");
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(0).state == RaidMemberState::missing; }));
  rig.add_disk(2048);
  ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(5)));
  rig.fixture.world.run_for(milliseconds(20));
  rig.disks[2]->release();
  ASSERT_TRUE(without.is_rebuilt());
  EXPECT_EQ(rig.rebuilt, std::vector<std::string>{"d5"});
  rig.expect_all();
  rig.expect_clean_scrub();
}

// Two come at once, while writes go on, and the power goes at some device write: whatever the set is then, nothing that
// was acknowledged is missing; when both are of it, any two may be lost.
TEST(RaidParityRebuild, TwoMembersThatReturnAtOnceSurvivePowerCuts) {
  bool was_cut = true;
  uint64_t joined_count = 0;
  for (uint64_t admitted = 0; was_cut; admitted += 1 + admitted / 16) {
    Settled settled({4, 2, 8192}, 1 + admitted, {});
    Rig& rig = settled.rig;
    rig.raid->member_lost("d0");
    rig.raid->member_lost("d1");
    ASSERT_TRUE(settled.carry_out({0, 3}));
    for (uint32_t member = 0; member < 2; member++) {
      rig.add_disk(raid_cut_member_blocks);
      ASSERT_TRUE(rig.raid->replace_member(member, rig.handle(6 + member)));
    }
    rig.power.admitted = admitted;
    for (auto& disk : rig.disks)
      disk->power = &rig.power;
    for (uint64_t turn = 0, left = 4; left > 0 && !rig.power.cut; turn++) {
      if (!rig.raid->degraded()) left--;
      (void)settled.carry_out({turn * 7 % 30, 1 + static_cast<uint32_t>(turn % 3), turn % 5 == 0});
    }
    was_cut = rig.power.cut;
    rig.cut_power();
    // The superblocks of those that stayed say who is of the set.
    const bool joined = newest_superblock(*rig.disks[2]).in_sync == 0b111111;
    joined_count += joined ? 1 : 0;
    const uint32_t lost = joined ? 1u << (2 + admitted % 4) | 1u << (6 + admitted % 2) : 0;
    uint32_t without = 0b11 | lost;  // what left at the beginning
    for (uint32_t index = 6; index < 8; index++) {
      if (newest_superblock(*rig.disks[index]).generation == 0) without |= 1u << index;
    }
    Revived after(rig, 1, members_but(without, 8));
    EXPECT_EQ(after.judge(settled.expected, settled.count_blocks, lost != 0), "") << admitted << " writes";
  }
  EXPECT_GT(joined_count, 1u);
}

}  // namespace
}  // namespace basalt::bdev
