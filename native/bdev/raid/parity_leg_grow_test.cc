// SPDX-License-Identifier: Apache-2.0
// Goal: a leg with parity grows while it is in use, and whoever opens it after a crash in the middle finds the size
// that is in force. Method: members in memory whose answers the test scripts; controllers that die after so many steps.
#include "bdev/raid/parity_leg_test_util.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t grown_blocks = 2 * parity_leg_blocks;

bool holds_what_was_written(ParityLegRig& rig) {
  for (uint64_t block = 0; block < 32; block++)
    if (rig.read(block) != static_cast<int>(block + 1)) return false;
  return true;
}

void begin_growing_leg(ParityLegRig& rig) {
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  for (uint64_t block = 0; block < 32; block++)
    ASSERT_TRUE(rig.write(block, static_cast<uint8_t>(block + 1)));
}

bool grow(ParityLegRig& rig) {
  return rig.fixture.run(rig.leg->grow(grown_blocks)).ok();
}

// What is new is zero at first, and of the same redundancy.
void expect_in_use_to_its_end(ParityLegRig& rig, const std::vector<size_t>& others) {
  ASSERT_EQ(rig.leg->info().count_blocks, grown_blocks);
  for (uint64_t block = parity_leg_blocks; block < grown_blocks; block++)
    ASSERT_EQ(rig.read(block), 0) << block;
  ASSERT_TRUE(rig.write(grown_blocks - 9, 0x77, 9));
  rig.die();
  rig.leg_blocks = grown_blocks;
  rig.grown_blocks = 0;
  ASSERT_TRUE(rig.open(others).ok());
  EXPECT_EQ(rig.read(grown_blocks - 9), 0x77);
  EXPECT_EQ(rig.read(grown_blocks - 1), 0x77);
  EXPECT_EQ(rig.read(grown_blocks - 10), 0);
  EXPECT_TRUE(holds_what_was_written(rig));
}

TEST(ParityLegGrow, WhatIsNewIsZeroesAndSurvivesTheLossOfAMember) {
  for (const auto& others : {std::vector<size_t>{0, 1}, {0, 2}, {1, 2}}) {
    ParityLegRig rig(2, 1);
    begin_growing_leg(rig);
    PendingIo& write = rig.start(IoType::write, 40, 0x44, 8);
    ASSERT_TRUE(grow(rig));
    ASSERT_TRUE(rig.ends(write));
    EXPECT_TRUE(grow(rig)) << "the same again";
    EXPECT_EQ(rig.fixture.run(rig.leg->grow(parity_leg_blocks)).error().code, Errc::invalid_argument);
    expect_in_use_to_its_end(rig, others);
    EXPECT_EQ(rig.read(40), 0x44);
  }
}

TEST(ParityLegGrow, WaitsForMembersThatLackTheRoomOrAreNotEqual) {
  ParityLegRig rig(2, 1);
  begin_growing_leg(rig);
  EXPECT_EQ(rig.fixture.run(rig.leg->grow(uint64_t{1} << 30)).error().code, Errc::no_space);
  rig.members[3]->hold = true;
  ASSERT_TRUE(rig.leg->remove_member("c").ok());
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.leg->add_member(rig.handle(3)).ok(); }));
  rig.settle();
  EXPECT_EQ(rig.fixture.run(rig.leg->grow(grown_blocks)).error().code, Errc::busy);
  EXPECT_EQ(rig.leg->info().count_blocks, parity_leg_blocks);
  rig.members[3]->release();
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.copied.empty(); }));
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  ASSERT_TRUE(grow(rig));
  expect_in_use_to_its_end(rig, {1, 3});
}

TEST(ParityLegGrow, AMemberThatFailsMeanwhileLeavesFirst) {
  ParityLegRig rig(2, 1);
  begin_growing_leg(rig);
  rig.members[1]->write_status = nvme::status::host_path_error;
  EXPECT_FALSE(grow(rig));
  EXPECT_EQ(rig.failed, std::vector<std::string>{"b"});
  EXPECT_EQ(rig.leg->info().count_blocks, parity_leg_blocks);
  ASSERT_TRUE(rig.leg->remove_member("b").ok());
  ASSERT_TRUE(rig.fixture.run_until([&] { return grow(rig); }));
  expect_in_use_to_its_end(rig, {0, 2});
}

// A controller dies after so many steps of growing. What the next one finds wrong, or nothing. The orchestrator knows
// whether growing had ended.
std::string after_growth_cut_short(uint64_t steps, size_t lost, const RaidPlantedBugs& bugs) {
  ParityLegRig rig(2, 1);
  rig.planted.raid = bugs;
  begin_growing_leg(rig);
  for (auto& member : rig.members)
    member->steps_left = &steps;
  const bool ended = grow(rig);
  if (ended && !bugs.grow_unsaid && steps == 0) return "";  // the history is longer than this
  for (auto& member : rig.members)
    member->steps_left = nullptr;
  if (ended) rig.write(grown_blocks - 1, 0x66);
  rig.die();
  rig.leg_blocks = ended ? grown_blocks : parity_leg_blocks;
  rig.grown_blocks = ended ? 0 : grown_blocks;
  std::vector<size_t> left;
  for (size_t i = 0; i < 3; i++)
    if (i != lost) left.push_back(i);
  const Outcome opened = rig.open(left);
  if (!opened) return "it does not open: " + opened.error().message;
  if (!holds_what_was_written(rig)) return "something is lost";
  if (ended && rig.read(grown_blocks - 1) != 0x66) return "something new is lost";
  if (ended) return "";
  if (!grow(rig)) return "it does not grow";
  for (uint64_t block = parity_leg_blocks; block < grown_blocks; block++)
    if (rig.read(block) != 0) return "what is new is no zeroes";
  return rig.write(grown_blocks - 1, 0x66) && rig.read(grown_blocks - 1) == 0x66 ? "" : "what is new is of no use";
}

TEST(ParityLegGrow, EveryStepCanBeTheControllersLast) {
  bool caught = false;
  for (uint64_t steps = 0; steps < 16; steps++) {
    for (size_t lost = 0; lost <= 3; lost++) {
      EXPECT_EQ(after_growth_cut_short(steps, lost, {}), "") << steps << " steps, without " << lost;
      caught |= !after_growth_cut_short(steps, lost, {.grow_unsaid = true}).empty();
    }
  }
  EXPECT_TRUE(caught) << "or this test finds nothing";
}

}  // namespace
}  // namespace basalt::bdev
