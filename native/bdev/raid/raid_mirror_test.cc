// SPDX-License-Identifier: Apache-2.0
// raid1: a raid with one data strip, whose parities are copies. What is of its own: each member has everything, power
// cuts leave each block old or new on whichever member is left, and one member alone is believed only when it was asked
// for.
#include <gtest/gtest.h>

#include "bdev/raid/raid_cut_test_util.h"

namespace basalt::bdev {
namespace {

using Geometry = RaidRig::Geometry;

Result<std::unique_ptr<RaidParityBdev>> load_mirror(RaidRig& rig, const std::vector<size_t>& indexes, bool accept) {
  std::vector<Handle> members;
  for (const size_t index : indexes)
    members.push_back(rig.handle(index));
  return rig.fixture.run(RaidParityBdev::load(rig.fixture.reactor, "r", members, rig.events(), {}, accept));
}

TEST(RaidMirror, HasEverythingOnEachOfItsMembers) {
  for (uint32_t copies = 2; copies <= 4; copies++) {
    RaidRig rig({1, copies - 1, 65536});
    rig.create();
    EXPECT_EQ(rig.raid->info().product, "raid1");
    for (int i = 0; i < 200; i++)
      rig.random_step();
    const uint64_t first = rig.raid->layout().first_block;
    for (auto& disk : rig.disks) {
      const auto* strips = disk->contents().data() + first * RaidRig::block_bytes;
      EXPECT_TRUE(std::equal(rig.oracle.begin(), rig.oracle.end(), strips));
    }
    EXPECT_EQ(rig.raid->parity_stats().partial_stripe_count, 0u) << "no log";
    rig.expect_clean_scrub();
    for (uint32_t lost = 0; lost + 1 < copies; lost++)
      rig.raid->member_lost("d" + std::to_string(lost));
    rig.expect_all();
  }
}

TEST(RaidMirror, IsReadFromAllOfItsMembers) {
  std::vector<uint64_t> read_count(2);  // the members outlive the test's own names
  RaidRig rig({1, 1, 65536});
  rig.create();
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->resyncing(); }));
  for (size_t i = 0; i < 2; i++)
    rig.disks[i]->seen = [&read_count, i](const Io& io) { read_count[i] += io.type == IoType::read; };
  rig.expect_all();
  EXPECT_LE(std::max(read_count[0], read_count[1]) - std::min(read_count[0], read_count[1]), 1u);
}

TEST(RaidMirror, IsNotBelievedWhereAnotherMemberMayHaveGoneOnAlone) {
  RaidRig rig({1, 1, 65536});
  rig.create();
  rig.write(0, 100);
  rig.close();
  auto refused = load_mirror(rig, {1}, false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::busy);
  // Each goes on without the other.
  for (const size_t alone : {0u, 1u}) {
    auto loaded = load_mirror(rig, {alone}, true);
    ASSERT_TRUE(loaded) << loaded.error().message;
    rig.raid = std::move(*loaded);
    rig.expect_all();
    if (alone == 1) rig.write(200, 4);
    if (alone == 0) {
      ASSERT_TRUE(rig.fixture.write(*rig.raid, 300, rig.fresh(4)).ok());
    }
    rig.close();
  }
  // Neither is the other one's member that left, whichever was loaded more often.
  auto both = load_mirror(rig, {0, 1}, false);
  ASSERT_FALSE(both);
  EXPECT_EQ(both.error().code, Errc::busy);
  EXPECT_NE(both.error().message.find("went on without"), std::string::npos) << both.error().message;
  // The one that is asked now is right, and who comes to it gets everything.
  auto loaded = load_mirror(rig, {1}, true);
  ASSERT_TRUE(loaded) << loaded.error().message;
  rig.raid = std::move(*loaded);
  rig.expect_all();
  ASSERT_TRUE(rig.fixture.run(rig.raid->add_member(rig.handle(0))));
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->degraded(); }));
  rig.expect_all();
  rig.expect_clean_scrub();
}

TEST(RaidMirror, AMemberThatWasAwayGetsWhatItMissed) {
  RaidRig rig({1, 1, 65536}, 1, 4096);
  rig.mark_region_bytes = 65536;
  rig.create();
  rig.write(0, 200);
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->resyncing(); }));
  ASSERT_TRUE(rig.fixture.io(*rig.raid, IoType::flush, 0, 0).ok());
  rig.raid->member_lost("d1");
  rig.write(64, 10);
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->degraded(); }));
  uint64_t blocks = 0;
  const uint64_t first = rig.raid->layout().first_block;
  rig.disks[1]->seen = [&](const Io& io) {
    const bool copied = io.type == IoType::write || io.type == IoType::write_zeroes;
    if (copied && io.offset_blocks >= first) blocks += io.count_blocks;
  };
  ASSERT_TRUE(rig.fixture.run(rig.raid->add_member(rig.handle(1))));
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->degraded(); }));
  EXPECT_LT(blocks, 1000u);
  rig.expect_all();
  rig.expect_clean_scrub();
}

size_t in_sync_count(const RaidParityBdev& raid) {
  size_t count = 0;
  for (uint32_t place = 0; place < raid.member_count(); place++)
    count += raid.member_at(place).state == RaidMemberState::in_sync;
  return count;
}

// What the others wrote after one had left is given up with them, and with it what that one knew of a third.
TEST(RaidMirror, WhoGoesOnWithoutTheNewestGivesEverythingToWhoComes) {
  RaidRig rig({1, 2, 65536}, 1, 4096);
  rig.mark_region_bytes = 65536;
  rig.create();
  rig.write(0, 200);
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->resyncing(); }));
  ASSERT_TRUE(rig.fixture.io(*rig.raid, IoType::flush, 0, 0).ok());
  rig.raid->member_lost("d2");
  rig.write(64, 10);
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->degraded(); }));
  // d0 knows that d2 lacks little; then it is away, while d2 comes back and gets more.
  const std::vector<uint8_t> old = rig.oracle;
  rig.raid->member_lost("d0");
  rig.write(500, 1);
  ASSERT_TRUE(rig.fixture.run(rig.raid->add_member(rig.handle(2))));
  ASSERT_TRUE(rig.fixture.run_until([&] { return in_sync_count(*rig.raid) == 2; }));
  rig.write(1000, 40);
  rig.close();
  rig.oracle = old;
  auto loaded = load_mirror(rig, {0}, true);
  ASSERT_TRUE(loaded) << loaded.error().message;
  rig.raid = std::move(*loaded);
  rig.expect_all();
  for (const size_t other : {2u, 1u})
    ASSERT_TRUE(rig.fixture.run(rig.raid->add_member(rig.handle(other))));
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->degraded(); }));
  rig.expect_all();
  rig.expect_clean_scrub();
}

// Every cut of writes that overlap nothing but each other, every set of lost members but all. What is seen then stays.
std::string cut_mirror(const Geometry& geometry, uint64_t admitted, uint32_t lost, bool* was_cut) {
  Settled settled(geometry, 1 + admitted * 7 + lost, {});
  RaidRig& rig = settled.rig;
  rig.power.admitted = admitted;
  for (auto& disk : rig.disks)
    disk->power = &rig.power;
  for (const RaidStep& step : std::vector<RaidStep>{{1, 1}, {0, 3, true}, {}, {1, 4}, {6, 1, true}}) {
    if (!settled.carry_out(step)) break;
  }
  *was_cut = rig.power.cut;
  rig.cut_power();
  RaidRig after(rig, 1 + admitted);
  auto loaded = load_mirror(after, members_but(lost, after.disks.size()), true);
  if (!loaded) return loaded.error().message;
  after.raid = std::move(*loaded);
  const auto found = after.fixture.read(*after.raid, 0, settled.count_blocks);
  const std::string wrong = settled.expected.judge(found, false);
  if (!wrong.empty()) return wrong;
  const std::vector<size_t> left = members_but(lost, after.disks.size());
  for (size_t i = 0; i + 1 < left.size(); i++)
    after.raid->member_lost("d" + std::to_string(left[i]));
  return after.fixture.read(*after.raid, 0, settled.count_blocks) == found ? "" : "another member tells otherwise";
}

TEST(RaidMirror, APowerCutLeavesEachBlockOldOrNewOnWhoeverIsLeft) {
  for (const Geometry& geometry : {Geometry{1, 1, 8192}, Geometry{1, 2, 8192}}) {
    const uint32_t n = geometry.k + geometry.m;
    for (uint32_t lost = 0; lost + 1 < 1u << n; lost++) {
      bool was_cut = true;
      for (uint64_t admitted = 0; was_cut; admitted++) {
        ASSERT_EQ(cut_mirror(geometry, admitted, lost, &was_cut), "") << "cut after " << admitted << ", lost " << lost;
      }
    }
  }
}

}  // namespace
}  // namespace basalt::bdev
