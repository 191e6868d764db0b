// SPDX-License-Identifier: Apache-2.0
// Scrub of raid5 and raid6: what was damaged behind its back is found, and made right where the others can tell.
#include <gtest/gtest.h>

#include "bdev/raid/parity_leg_test_util.h"
#include "bdev/raid/raid_cut_test_util.h"
#include "bdev/raid/raid_parity.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

using Rig = RaidRig;

struct Written {
  explicit Written(const Rig::Geometry& geometry, uint64_t seed = 1) : rig(geometry, seed) {
    rig.create();
    for (uint64_t block = 0; block + 64 <= rig.raid->info().count_blocks; block += 64)
      rig.write(block, 64);
    EXPECT_TRUE(rig.fixture.run_until([&] { return !rig.raid->resyncing(); }));
  }
  CutDisk& disk(uint64_t stripe, uint32_t role) { return *rig.disks[rig.raid->layout().member_of(stripe, role)]; }
  uint64_t block(uint64_t stripe, uint32_t column) const { return rig.raid->layout().member_block(stripe, column); }
  void damage(uint64_t stripe, uint32_t role, uint32_t column) {
    disk(stripe, role).contents()[block(stripe, column) * Rig::block_bytes + 100] ^= 4;
  }
  void make_unreadable(uint64_t stripe, uint32_t role, uint32_t column) {
    disk(stripe, role).bad_blocks.insert(block(stripe, column));
  }
  ScrubInfo scrub(bool repair = true) {
    auto scrubbed = rig.fixture.run(rig.raid->scrub({.repair = repair}));
    EXPECT_TRUE(scrubbed.ok());
    return scrubbed.ok() ? *scrubbed : ScrubInfo{};
  }

  Rig rig;
};

TEST(RaidParityScrub, CountsParityThatDoesNotFitAndRewritesItWhenAskedTo) {
  Written written({3, 1, 65536});
  written.damage(0, 3, 0);
  written.damage(2, 3, 5);
  written.damage(2, 3, 6);
  for (int turn = 0; turn < 2; turn++) {
    const ScrubInfo found = written.scrub(false);
    EXPECT_EQ(found.compared_blocks, written.rig.raid->info().count_blocks);
    EXPECT_EQ(found.different_blocks, 3u);
    EXPECT_EQ(found.repaired_blocks, 0u);
  }
  EXPECT_EQ(written.scrub().repaired_blocks, 3u);
  written.rig.expect_clean_scrub();
  written.rig.expect_all();
}

TEST(RaidParityScrub, TwoParitiesTellWhichStripIsWrong) {
  Written written({4, 2, 16384});
  for (uint32_t role = 0; role < 6; role++)
    written.damage(role, role, role % 4);
  const ScrubInfo found = written.scrub();
  EXPECT_EQ(found.different_blocks, 6u);
  EXPECT_EQ(found.repaired_blocks, 6u);
  written.rig.expect_all();
  written.rig.expect_clean_scrub();
}

// One parity cannot tell; neither can two when two strips of a row are wrong.
TEST(RaidParityScrub, WhereNobodyCanTellTheDataCounts) {
  Written one({3, 1, 16384});
  one.damage(1, 1, 0);
  EXPECT_EQ(one.scrub().repaired_blocks, 1u);
  one.rig.expect_clean_scrub();
  Written two({4, 2, 16384});
  two.damage(1, 1, 0);
  two.damage(1, 3, 0);
  EXPECT_EQ(two.scrub().different_blocks, 1u);
  two.rig.expect_clean_scrub();
}

TEST(RaidParityScrub, WhatCannotBeReadIsRecoveredBlockByBlock) {
  Written written({3, 1, 65536});
  // One row after the other, in different strips; a row where two are missing is left as it is.
  for (uint32_t role = 0; role < 4; role++)
    written.make_unreadable(1, role, role);
  written.make_unreadable(3, 0, 7);
  written.make_unreadable(3, 2, 7);
  const ScrubInfo found = written.scrub(false);
  EXPECT_EQ(found.unreadable_blocks, 6u);
  EXPECT_EQ(found.different_blocks, 0u);
  EXPECT_EQ(written.scrub().repaired_blocks, 4u);
  const ScrubInfo left = written.scrub();
  EXPECT_EQ(left.unreadable_blocks, 2u);
  EXPECT_EQ(left.repaired_blocks, 0u);
  EXPECT_EQ(left.compared_blocks, written.rig.raid->info().count_blocks);
  for (uint32_t role : {0u, 2u})
    written.disk(3, role).bad_blocks.clear();
  written.rig.expect_all();
  written.rig.expect_clean_scrub();
}

TEST(RaidParityScrub, TwoParitiesBringBackTwoBlocksOfARow) {
  Written written({4, 2, 65536});
  written.make_unreadable(1, 0, 3);
  written.make_unreadable(1, 4, 3);
  EXPECT_EQ(written.scrub().repaired_blocks, 2u);
  written.rig.expect_all();
  written.rig.expect_clean_scrub();
}

TEST(RaidParityScrub, WhatIsRecoveredFromStripsThatDoNotFitIsNotBelieved) {
  Written written({4, 2, 16384});
  written.make_unreadable(1, 0, 3);
  written.damage(1, 5, 3);
  const ScrubInfo found = written.scrub();
  EXPECT_EQ(found.unreadable_blocks, 1u);
  EXPECT_EQ(found.different_blocks, 1u);
  EXPECT_EQ(found.repaired_blocks, 0u);
}

TEST(RaidParityScrub, KeepsToItsPaceOneAtATimeAndCanBeStopped) {
  Written written({3, 1, 65536});
  Rig& rig = written.rig;
  const uint64_t bytes = rig.raid->info().count_blocks * Rig::block_bytes;
  const Instant begin = rig.fixture.world.now();
  ASSERT_TRUE(rig.raid->start_scrub({.bytes_per_s = bytes / 4}));
  EXPECT_EQ(rig.raid->start_scrub({}).error().code, Errc::busy);
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->scrub_info().state == ScrubState::finished; }, seconds(9)));
  EXPECT_GE(rig.fixture.world.now() - begin, milliseconds(3000));
  ASSERT_TRUE(rig.raid->start_scrub({.bytes_per_s = 1}));
  rig.fixture.world.run_for(seconds(1));
  rig.raid->stop_scrub();
  EXPECT_EQ(rig.raid->scrub_info().state, ScrubState::stopped);
  ASSERT_TRUE(rig.raid->start_scrub({.bytes_per_s = 1}));
  rig.fixture.world.run_for(seconds(1));
  rig.close();
}

TEST(RaidParityScrub, EndsWhenAMemberLeavesAndIsRefusedWithoutIt) {
  Written written({3, 1, 65536});
  Rig& rig = written.rig;
  std::vector<ScrubState> states;
  written.disk(4, 0).holds = [](const Io& io) { return io.type == IoType::read; };
  ASSERT_TRUE(rig.raid->start_scrub({}));
  ASSERT_TRUE(rig.fixture.run_until([&] { return written.disk(4, 0).held_count() == 1; }));
  rig.raid->member_lost("d0");
  written.disk(4, 0).release();
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->scrub_info().state == ScrubState::stopped; }));
  EXPECT_EQ(rig.raid->start_scrub({}).error().code, Errc::busy);
}

// What is compared is what is written, whatever is under way: nothing differs, and nothing is put back.
TEST(RaidParityScrub, TakesPartInTheOrderOfWrites) {
  for (uint64_t seed = 1; seed <= testing::rounds_here({.plain = 8, .asan = 2, .tsan = 1}); seed++) {
    Written written({4, 2, 8192}, seed);
    Rig& rig = written.rig;
    for (int turn = 0; turn < 4; turn++) {
      ASSERT_TRUE(rig.raid->start_scrub({}));
      while (rig.raid->scrub_info().state == ScrubState::running)
        rig.random_step();
      ASSERT_EQ(rig.raid->scrub_info().state, ScrubState::finished);
      EXPECT_EQ(rig.raid->scrub_info().different_blocks, 0u) << "seed " << seed;
      rig.fixture.world.run_for(milliseconds(1));
    }
    rig.expect_all();
  }
}

// The power goes at any device write of a repair: what can be had from the others still can.
TEST(RaidParityScrub, ARepairThatIsCutShortLosesNothing) {
  bool was_cut = true;
  for (uint64_t admitted = 0; was_cut; admitted++) {
    Settled settled({4, 2, 8192}, 1 + admitted, {});
    Rig& rig = settled.rig;
    const ParityLayout layout = rig.raid->layout();
    ASSERT_TRUE(settled.carry_out({}));
    rig.fixture.world.run_for(seconds(2));  // clean
    for (uint64_t stripe = 0; stripe < 4; stripe++) {
      CutDisk& disk = *rig.disks[layout.member_of(stripe, static_cast<uint32_t>(stripe))];
      disk.contents()[layout.member_block(stripe, 0) * Rig::block_bytes] ^= 1;
      rig.disks[layout.member_of(stripe, 3)]->bad_blocks.insert(layout.member_block(stripe, 1));
    }
    rig.power.admitted = admitted;
    for (auto& disk : rig.disks)
      disk->power = &rig.power;
    (void)rig.fixture.run(rig.raid->scrub({}));
    was_cut = rig.power.cut;
    rig.cut_power();
    Revived after(rig, 1, members_but(0, 6));
    ASSERT_EQ(after.refused, "");
    ASSERT_TRUE(after.rig.fixture.run(after.rig.raid->scrub({})));
    EXPECT_EQ(after.judge(settled.expected, settled.count_blocks, false), "") << admitted << " writes";
    after.rig.expect_clean_scrub();
  }
}

// ---- Legs -----------------------------------------------------------------------------------------------------------

ScrubInfo scrub_leg(ParityLegRig& rig) {
  EXPECT_TRUE(rig.leg->start_scrub({}));
  EXPECT_TRUE(rig.fixture.run_until([&] { return rig.leg->scrub().state != ScrubState::running; }));
  EXPECT_EQ(rig.leg->scrub().state, ScrubState::finished);
  return rig.leg->scrub();
}

void damage_parity(ParityLegRig& rig, uint64_t stripe) {
  const ParityLayout& layout = rig.leg->raid().layout();
  rig.members[layout.member_of(stripe, layout.data_count)]->contents[layout.member_block(stripe, 0) * block_bytes] ^= 1;
}

// The record of a write over wrong parity has wrong parity, too: a replay must not bring it back.
TEST(ParityLegScrub, NoReplayUndoesARepair) {
  ParityLegRig rig(4, 1);
  ASSERT_TRUE(rig.open({0, 1, 2, 3, 4}).ok());
  for (uint64_t block = 0; block < parity_leg_blocks; block++)
    ASSERT_TRUE(rig.write(block, static_cast<uint8_t>(block + 1)));
  damage_parity(rig, 1);
  ASSERT_TRUE(rig.write(16, 1));
  EXPECT_EQ(scrub_leg(rig).repaired_blocks, 1u);
  rig.die();
  ASSERT_TRUE(rig.open({0, 1, 2, 3, 4}).ok());
  EXPECT_EQ(scrub_leg(rig).different_blocks, 0u);
}

// It was copied from the member that held what was wrong.
TEST(ParityLegScrub, AMemberThatTakesOverIsMadeRightAsWell) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  for (uint64_t block = 0; block < parity_leg_blocks; block++)
    ASSERT_TRUE(rig.write(block, 7));
  damage_parity(rig, 0);
  LegMember member(rig.handle(3));
  const std::string old = rig.members[rig.leg->raid().layout().member_of(0, 2)]->info().name;
  member.instead_of = old;
  ASSERT_TRUE(rig.leg->add_member(std::move(member)));
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.copied.empty(); }));
  EXPECT_EQ(scrub_leg(rig).repaired_blocks, 2u);
  ASSERT_TRUE(rig.leg->commit_member("d"));
  ASSERT_TRUE(rig.leg->remove_member(old));
  rig.settle();
  EXPECT_EQ(scrub_leg(rig).different_blocks, 0u);
}

TEST(ParityLegScrub, EndsWithItsLegAndWaitsForTheOrchestratorsWord) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  ASSERT_TRUE(rig.leg->start_scrub({.bytes_per_s = 65536}));
  rig.settle();
  rig.members[1]->status = nvme::status::host_path_error;
  rig.settle(seconds(30));
  EXPECT_EQ(rig.failed, std::vector<std::string>{"b"});
  EXPECT_EQ(rig.leg->scrub().state, ScrubState::running);
  ASSERT_TRUE(rig.leg->remove_member("b"));
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.leg->scrub().state == ScrubState::stopped; }));
  rig.leg->fence();
  EXPECT_EQ(rig.leg->start_scrub({}).error().code, Errc::fenced);
}

}  // namespace
}  // namespace basalt::bdev
