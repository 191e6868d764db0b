// SPDX-License-Identifier: Apache-2.0
// raid5 and raid6 of their own grow while they are in use, on members that became larger; a power cut at any device
// write leaves one size or the other, and zeroes behind the old one.
#include <gtest/gtest.h>

#include "bdev/raid/raid_cut_test_util.h"
#include "bdev/raid/raid_parity.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

using Rig = RaidRig;
using Geometry = RaidRig::Geometry;
constexpr uint64_t more_blocks = 12;  // of each member: six stripes

void make_room(Rig& rig) {
  for (auto& disk : rig.disks)
    disk->grow(disk->info().count_blocks + more_blocks);
}

TEST(RaidParityGrow, WhatIsNewIsZeroesAndOfTheSameRedundancy) {
  for (const bool broken : {false, true}) {
    Rig rig({3, 1, 8192});
    rig.bugs.grow_unzeroed = broken;
    rig.create();
    for (int step = 0; step < 60; step++)
      rig.random_step();
    const uint64_t before = rig.raid->info().count_blocks;
    EXPECT_EQ(rig.fixture.run(rig.raid->grow(before + 1)).error().code, Errc::no_space);
    make_room(rig);
    const uint64_t after = rig.raid->count_blocks_max();
    ASSERT_EQ(after, before + more_blocks * 3);
    ASSERT_TRUE(rig.fixture.run(rig.raid->grow(after)).ok());
    ASSERT_TRUE(rig.fixture.run(rig.raid->grow(before)).ok()) << "the size that it has";
    ASSERT_EQ(rig.raid->info().count_blocks, after);
    const auto fresh = rig.fixture.read(*rig.raid, before, static_cast<uint32_t>(after - before));
    const bool zeroes = std::all_of(fresh.begin(), fresh.end(), [](uint8_t byte) { return byte == 0; });
    ASSERT_EQ(zeroes, !broken);
    if (broken) continue;
    rig.oracle.resize(after * Rig::block_bytes);
    for (int step = 0; step < 60; step++)
      rig.random_step();
    rig.expect_clean_scrub();
    rig.raid->member_lost("d2");
    rig.expect_all();
    rig.close();
    auto loaded = rig.load({0, 1, 3});
    ASSERT_TRUE(loaded) << loaded.error().message;
    rig.raid = std::move(*loaded);
    rig.expect_all();
  }
}

TEST(RaidParityGrow, WaitsForWhoIsMissingOrOnItsWay) {
  Rig rig({3, 1, 8192});
  rig.create();
  make_room(rig);
  const uint64_t after = rig.raid->count_blocks_max();
  rig.raid->member_lost("d0");
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(0).state == RaidMemberState::missing; }));
  EXPECT_EQ(rig.fixture.run(rig.raid->grow(after)).error().code, Errc::busy);
  rig.raid->set_resync(0, true);
  ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(0)));
  rig.fixture.world.run_for(milliseconds(20));
  EXPECT_EQ(rig.fixture.run(rig.raid->grow(after)).error().code, Errc::busy);
  rig.raid->set_resync(0, false);
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->degraded(); }));
  EXPECT_TRUE(rig.fixture.run(rig.raid->grow(after)).ok());
}

TEST(RaidParityGrow, AMemberThatFailsMeanwhileLeavesFirst) {
  Rig rig({3, 1, 8192});
  rig.create();
  make_room(rig);
  const uint64_t before = rig.raid->info().count_blocks;
  rig.disks[1]->fail_writes = true;
  EXPECT_FALSE(rig.fixture.run(rig.raid->grow(rig.raid->count_blocks_max())).ok());
  EXPECT_EQ(rig.raid->info().count_blocks, before);
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(1).state == RaidMemberState::missing; }));
  rig.expect_all();
}

// What is wrong when the power goes after so many writes, or "".
std::string after_growth_cut(const Geometry& geometry, uint64_t admitted, uint32_t lost, const RaidPlantedBugs& bugs,
                             bool* was_cut) {
  Settled settled(geometry, 1 + admitted, bugs);
  Rig& rig = settled.rig;
  make_room(rig);
  const uint64_t before = rig.raid->info().count_blocks;
  const uint64_t after = rig.raid->count_blocks_max();
  rig.power.admitted = admitted;
  for (auto& disk : rig.disks)
    disk->power = &rig.power;
  (void)settled.carry_out({3, 2});
  std::optional<bool> grown;
  const auto grow = [](RaidParityBdev& raid, uint64_t count_blocks, std::optional<bool>& ended) -> Task<void> {
    auto growing = raid.grow(count_blocks);
    ended = (co_await growing).ok();
  };
  spawn(grow(*rig.raid, after, grown));
  for (uint64_t turn = 0; !grown.has_value(); turn++)
    (void)settled.carry_out({turn * 5 % (settled.count_blocks - 2), 2, turn % 3 == 0});
  std::vector<uint8_t> fresh;
  if (*grown) {
    fresh = rig.fresh(4);
    if (!rig.fixture.io(*rig.raid, IoType::write, after - 4, 4, fresh.data(), true).ok()) fresh.clear();
    for (int turn = 0; turn < 4; turn++)
      (void)settled.carry_out({8, 1});
  }
  *was_cut = rig.power.cut;
  rig.cut_power();
  const uint32_t n = geometry.k + geometry.m;
  Revived found(rig, 1, members_but(lost, n));
  if (!found.refused.empty()) return found.refused;
  if (std::string wrong = found.judge(settled.expected, settled.count_blocks, lost != 0); !wrong.empty()) return wrong;
  RaidParityBdev& raid = *found.rig.raid;
  if (*grown && raid.info().count_blocks != after) return "what was in force is not";
  if (raid.info().count_blocks == before) {
    if (lost != 0) return "";
    if (!found.rig.fixture.run(raid.grow(after)).ok()) return "it does not grow afterwards";
  }
  // A write that was cut short may be there or not.
  const auto zero_count = static_cast<uint32_t>(after - before - (*grown ? 4 : 0));
  const auto behind = found.rig.fixture.read(raid, before, zero_count);
  if (std::any_of(behind.begin(), behind.end(), [](uint8_t byte) { return byte != 0; }))
    return "what is new is not zero";
  if (!fresh.empty() && found.rig.fixture.read(raid, after - 4, 4) != fresh) return "what was written behind is lost";
  if (lost != 0) return "";
  if (!found.rig.fixture.run_until([&] { return !raid.resyncing(); })) return "it is not made right";
  auto scrubbed = found.rig.fixture.run(raid.scrub({.repair = false}));
  return scrubbed && scrubbed->different_blocks == 0 ? "" : "rows do not fit each other";
}

bool any_growth_shows(const RaidPlantedBugs& bugs) {
  bool was_cut = true;
  for (uint64_t admitted = 0; was_cut; admitted++)
    for (const uint32_t lost : {0u, 2u, 8u})
      if (!after_growth_cut({3, 1, 8192}, admitted, lost, bugs, &was_cut).empty()) return true;
  return false;
}

TEST(RaidParityGrow, APowerCutAtAnyWriteLeavesOneSizeOrTheOther) {
  for (const Geometry& geometry : {Geometry{3, 1, 8192}, Geometry{4, 2, 8192}}) {
    bool was_cut = true;
    for (uint64_t admitted = 0; was_cut; admitted += testing::cut_stride) {
      for (const uint32_t lost : {0u, 1u, 4u}) {
        EXPECT_EQ(after_growth_cut(geometry, admitted, lost, {}, &was_cut), "")
            << "cut after " << admitted << " writes, without " << lost;
      }
    }
  }
}

TEST(RaidParityGrow, PlantedBugsAreNoticed) {
  EXPECT_TRUE(any_growth_shows({.grow_unzeroed = true}));
  EXPECT_TRUE(any_growth_shows({.grow_unsaid = true}));
}

}  // namespace
}  // namespace basalt::bdev
