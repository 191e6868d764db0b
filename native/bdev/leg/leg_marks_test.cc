// SPDX-License-Identifier: Apache-2.0
// Goal: the design's invariant 7: dirty before data, cleared only when equal and flushed, kept while a member is out;
// a returning member gets the union of its marks and the survivors'.
// Method: members in memory with a cache that can be lost; takeovers and returns as the orchestrator does them.
#include "base/crc32c.h"
#include "bdev/leg/leg_test_util.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t region_blocks = 16;  // 64 KiB
constexpr Duration rest = seconds(1);

class LegMarks : public LegFixture {
 protected:
  LegMarks() : LegFixture(true) {}

  void take_over(std::vector<ScriptedMember*> in_sync, bool unclean = true) {
    LegOptions options;
    options.name = "leg";
    options.identity = "volume/0";
    options.epoch = ++epoch;
    options.count_blocks = test_blocks;
    options.all_dirty = unclean;
    options.mark_region_bytes_min = region_blocks * block_bytes;
    options.mark_rest = rest;
    options.replicas = replicas;
    options.planted = planted;
    std::vector<LegMember> members;
    for (ScriptedMember* member : in_sync)
      members.emplace_back(Handle(*member, fixture.reactor));
    make(options, std::move(members));
  }
  void written(uint64_t block, uint8_t value, uint32_t count_blocks = 1) {
    PendingIo& op = start(IoType::write, block, value, count_blocks);
    ASSERT_TRUE(ends(op));
    ASSERT_TRUE(op.io.status.ok());
  }
  uint8_t value_of(uint64_t block) {
    PendingIo& op = start(IoType::read, block);
    EXPECT_TRUE(ends(op) && op.io.status.ok());
    return op.data[0];
  }
  void lose(ScriptedMember& member) {
    member.status = nvme::status::host_path_error;
    leg->member_lost(member.info().name);
    ASSERT_TRUE(leg->remove_member(member.info().name).ok());
  }
  void come_back(ScriptedMember& member) {
    member.status = nvme::status::success;
    copied.clear();
    ASSERT_TRUE(leg->add_member(Handle(member, fixture.reactor)).ok());
    ASSERT_TRUE(fixture.run_until([&] { return !copied.empty(); }));
    ASSERT_TRUE(leg->commit_member(member.info().name).ok());
  }
  bool equal_data(const ScriptedMember& one, const ScriptedMember& other) {
    return std::equal(one.contents.begin(), one.contents.begin() + test_blocks * block_bytes, other.contents.begin());
  }
  void all_rest() {
    EXPECT_TRUE(fixture.run_until([&] { return leg->marked_count() == 0; }, seconds(20)));
    settle(milliseconds(50));
  }
  bool opened() {
    return fixture.run_until([&] { return leg->equal(); }, seconds(5));
  }

  uint64_t epoch = 0;
  std::vector<std::string> replicas = {"a", "b"};
  LegPlanted planted;
};

TEST_F(LegMarks, TheMarkIsDurableOnEveryMemberBeforeAnyIsSentData) {
  take_over({&a, &b}, false);
  settle(milliseconds(50));
  std::vector<std::string> steps;
  const auto note = [&](const char* name) {
    return [&steps, name](const Io& io) {
      if (io.type != IoType::write) return;
      steps.push_back(std::string(name) + (io.offset_blocks < test_blocks ? " data" : io.fua ? " mark" : " tail"));
    };
  };
  a.on_effect = note("a");
  b.on_effect = note("b");
  for (const IoType type : {IoType::write, IoType::write_zeroes, IoType::unmap}) {
    b.hold = true;
    steps.clear();
    PendingIo& op = start(type, 16 * static_cast<uint64_t>(type), 0x11);
    settle(milliseconds(20));
    EXPECT_EQ(steps, std::vector<std::string>{"a mark"}) << "no data while a member has no mark";
    b.release();
    ASSERT_TRUE(ends(op));
    ASSERT_GE(steps.size(), 2u);
    EXPECT_EQ(steps[1], "b mark");
  }
}

TEST_F(LegMarks, AMarkedRegionCostsNoFurtherWrite) {
  take_over({&a, &b}, false);
  written(3, 1);
  settle(milliseconds(20));
  const uint64_t before = a.tail_write_count + b.tail_write_count;
  for (int i = 0; i < 200; i++)
    written(static_cast<uint64_t>(i) % region_blocks, uint8_t(i));
  EXPECT_EQ(a.tail_write_count + b.tail_write_count, before);
}

TEST_F(LegMarks, MarksThatAreAskedForTogetherShareOneWrite) {
  take_over({&a, &b}, false);
  settle(milliseconds(20));
  const uint64_t before = a.tail_write_count;
  for (uint64_t region = 0; region < 16; region++)
    start(IoType::write, region * region_blocks, 1);
  for (auto& op : pending)
    ASSERT_TRUE(ends(*op));
  EXPECT_LE(a.tail_write_count - before, 2u);
}

TEST_F(LegMarks, AreClearedAfterAFlushOfAllMembersAndThenTheLegIsQuiet) {
  take_over({&a, &b}, false);
  written(3, 1);
  bool flushed_a = false, flushed_b = false, cleared_early = false;
  a.on_effect = [&](const Io& io) {
    flushed_a |= io.type == IoType::flush;
    cleared_early |= io.type == IoType::write && !(flushed_a && flushed_b);
  };
  b.on_effect = [&](const Io& io) { flushed_b |= io.type == IoType::flush; };
  all_rest();
  EXPECT_TRUE(flushed_a && flushed_b && !cleared_early);
  const uint64_t before = a.submitted_count + b.submitted_count;
  settle(seconds(100));
  EXPECT_EQ(a.submitted_count + b.submitted_count, before) << "an idle leg does nothing";
  die();
  take_over({&a, &b});
  ASSERT_TRUE(opened());
  EXPECT_EQ(leg->marked_count(), 0u);
}

TEST_F(LegMarks, ALegThatIsGivenAwayLeavesNoMarks) {
  take_over({&a, &b}, false);
  written(3, 1);
  written(200, 2);
  EXPECT_TRUE(fixture.run(leg->settle_all()));
  EXPECT_EQ(leg->marked_count(), 0u);
  die();
  a.read_count = b.read_count = 0;
  take_over({&a, &b});
  ASSERT_TRUE(opened());
  EXPECT_EQ(a.read_count + b.read_count, 2u) << "two tails, and nothing that was to be made equal";
  EXPECT_EQ(value_of(200), 2);
}

// Its right was not taken after all: the next write is marked like the first one.
TEST_F(LegMarks, ALegThatGoesOnAfterItSettledMarksItsWrites) {
  take_over({&a, &b}, false);
  written(40, 1);
  EXPECT_TRUE(fixture.run(leg->settle_all()));
  uint64_t steps = 3;  // two marks, one of the two data writes
  a.steps_left = b.steps_left = &steps;
  start(IoType::write, 40, 2);
  settle(milliseconds(50));
  EXPECT_NE(a.block(40), b.block(40));
  die();
  take_over({&a, &b});
  const uint8_t value = value_of(40);
  EXPECT_EQ(a.block(40)[0], value);
  EXPECT_EQ(b.block(40)[0], value);
}

TEST_F(LegMarks, WhatIsWrittenWhileALegSettlesKeepsItsMark) {
  take_over({&a, &b}, false);
  written(40, 1);
  b.hold = true;
  bool settled = false;
  struct Settling {
    static Task<void> run(LegBdev& leg, bool& settled) {
      (void)co_await leg.settle_all();
      settled = true;
    }
  };
  spawn(Settling::run(*leg, settled));
  settle(milliseconds(20));
  EXPECT_FALSE(settled) << "the flush is held";
  PendingIo& late = start(IoType::write, 40, 2);
  settle(milliseconds(20));
  b.release();
  ASSERT_TRUE(ends(late) && fixture.run_until([&] { return settled; }));
  EXPECT_EQ(leg->marked_count(), 1u);
}

TEST_F(LegMarks, ALegWithAMemberThatCannotFlushDoesNotSettle) {
  take_over({&a, &b}, false);
  written(3, 1);
  b.flush_status = nvme::status::write_fault;
  EXPECT_FALSE(fixture.run(leg->settle_all()));
  EXPECT_EQ(leg->marked_count(), 1u);
  EXPECT_EQ(failed, std::vector<std::string>{"b"});
}

TEST_F(LegMarks, MarksForAMemberThatIsOutStayWhenTheLegSettles) {
  take_over({&a, &b}, false);
  written(3, 1);
  lose(b);
  written(100, 2);
  EXPECT_TRUE(fixture.run(leg->settle_all()));
  EXPECT_EQ(leg->marked_count(), 2u);
}

// It may be in the recorded set already, and then the next controller reads from it at once.
TEST_F(LegMarks, ALegWithAMemberThatIsCopiedButNotCommittedFlushesItAndIsNotClean) {
  take_over({&a}, false);
  ASSERT_TRUE(leg->add_member(Handle(b, fixture.reactor)).ok());
  ASSERT_TRUE(fixture.run_until([&] { return !copied.empty(); }));
  written(100, 2);
  EXPECT_FALSE(b.flushed());
  EXPECT_FALSE(fixture.run(leg->settle_all()));
  EXPECT_TRUE(b.flushed());
  EXPECT_GT(leg->marked_count(), 0u);
  ASSERT_TRUE(leg->commit_member(b.info().name).ok());
  EXPECT_TRUE(fixture.run(leg->settle_all()));
}

TEST_F(LegMarks, ARegionThatIsWrittenAllTheTimeKeepsItsMark) {
  take_over({&a, &b}, false);
  for (int i = 0; i < 60; i++) {
    written(3, uint8_t(i));
    settle(milliseconds(100));
  }
  EXPECT_EQ(leg->marked_count(), 1u);
  EXPECT_EQ(leg->stats().marks_cleared_count, 0u);
}

TEST_F(LegMarks, AMemberThatFailsTheFlushOfTheSweepLeaves) {
  take_over({&a, &b}, false);
  written(3, 1);
  b.flush_status = nvme::status::write_fault;
  ASSERT_TRUE(fixture.run_until([&] { return !failed.empty(); }, seconds(10)));
  settle(seconds(5));
  EXPECT_EQ(leg->marked_count(), 1u);
}

TEST_F(LegMarks, AfterAnUncleanTakeoverOnlyMarkedRegionsAreDirty) {
  take_over({&a, &b}, false);
  written(3, 1);
  written(200, 2);
  die();
  a.read_count = b.read_count = 0;
  take_over({&a, &b});
  ASSERT_TRUE(fixture.run_until([&] { return clean_count == 1; }));
  EXPECT_LE(a.read_count + b.read_count, 4u) << "two tails and two regions";
  EXPECT_EQ(value_of(3), 1);
}

TEST_F(LegMarks, ALegThatHasNothingToMakeEqualSaysSoWhenItsTailsAreRead) {
  for (const bool unclean : {false, true}) {
    take_over({&a}, unclean);
    EXPECT_FALSE(leg->equal());
    ASSERT_TRUE(fixture.run_until([&] { return clean_count == 1; })) << (unclean ? "unclean" : "clean");
    EXPECT_TRUE(leg->equal());
    die();
  }
}

TEST_F(LegMarks, AHalfMadeWriteIsMadeEqualByItsMark) {
  take_over({&a, &b}, false);
  written(40, 1);
  settle(seconds(5));
  uint64_t steps = 3;  // two marks, one of the two data writes
  a.steps_left = b.steps_left = &steps;
  start(IoType::write, 40, 2);
  settle(milliseconds(50));
  EXPECT_NE(a.block(40), b.block(40));
  die();
  take_over({&a, &b});
  const uint8_t value = value_of(40);
  EXPECT_EQ(a.block(40)[0], value);
  EXPECT_EQ(b.block(40)[0], value);
}

TEST_F(LegMarks, DamagedMarksMakeEverythingDirty) {
  take_over({&a, &b}, false);
  written(3, 1);
  die();
  const uint64_t tail = test_blocks + leg_tail::mark_page_first;
  b.contents[tail * block_bytes + 100] ^= 1;
  b.fill(77, 0x77);  // nobody's mark says so
  take_over({&a, &b});
  ASSERT_TRUE(fixture.run_until([&] { return clean_count == 1; }));
  EXPECT_TRUE(equal_data(a, b));
  EXPECT_EQ(leg->marked_count(), leg->mark_region_count());
  all_rest();
}

TEST_F(LegMarks, AnUnreadableTailMakesEverythingDirty) {
  take_over({&a, &b}, false);
  written(3, 1);
  die();
  b.bad_block = test_blocks;
  b.fill(77, 0x77);
  take_over({&a, &b});
  ASSERT_TRUE(fixture.run_until([&] { return clean_count == 1; }));
  EXPECT_TRUE(equal_data(a, b));
}

TEST_F(LegMarks, NothingIsWrittenToATailOfALaterVersion) {
  take_over({&a, &b}, false);
  settle(milliseconds(50));
  die();
  for (const uint32_t number : leg_tail::superblock_pages) {
    uint8_t* page = b.contents.data() + (test_blocks + number) * block_bytes;
    page[12] = 2;
    std::memset(page + 8, 0, 4);
    const uint32_t crc = crc32c(0, page, leg_tail::page_bytes);
    std::memcpy(page + 8, &crc, 4);
  }
  const auto before = b.contents;
  take_over({&a, &b});
  ASSERT_TRUE(fixture.run_until([&] { return !failed.empty(); }));
  EXPECT_EQ(failed, std::vector<std::string>{"b"});
  ASSERT_TRUE(leg->remove_member("b").ok());
  written(3, 1);
  EXPECT_EQ(b.contents, before);
}

TEST_F(LegMarks, MarksAreKeptWhileAMemberIsOutAndItGetsOnlyWhatItMissed) {
  take_over({&a, &b}, false);
  written(3, 1);
  written(100, 1);
  all_rest();
  lose(b);
  written(40, 2);
  settle(seconds(20));
  EXPECT_EQ(leg->marked_count(), 1u);
  come_back(b);
  EXPECT_EQ(last_copied.resync, Resync::delta);
  EXPECT_EQ(last_copied.copied_blocks, region_blocks);
  EXPECT_TRUE(equal_data(a, b));
  all_rest();
}

TEST_F(LegMarks, TheSurvivorsMarksOutliveTheController) {
  take_over({&a, &b}, false);
  all_rest();
  lose(b);
  written(40, 2);
  die();
  take_over({&a});
  written(80, 3);
  settle(seconds(20));
  die();
  take_over({&a});
  ASSERT_TRUE(opened());
  come_back(b);
  EXPECT_EQ(last_copied.resync, Resync::delta);
  EXPECT_EQ(last_copied.copied_blocks, 2 * region_blocks);
  EXPECT_TRUE(equal_data(a, b));
}

// Its mark and its data are on b alone: a was away when both went out.
TEST_F(LegMarks, AReturningMembersOwnMarksAreCopiedToo) {
  take_over({&a, &b}, false);
  written(40, 1);
  all_rest();
  a.status = nvme::status::host_path_error;
  b.status = nvme::status::success;
  start(IoType::write, 40, 2);  // waits for a's removal; never acknowledged
  settle(milliseconds(50));
  EXPECT_EQ(b.block(40)[0], 2);
  die();
  take_over({&a});
  EXPECT_EQ(value_of(40), 1);
  come_back(b);
  EXPECT_EQ(last_copied.resync, Resync::delta);
  EXPECT_EQ(b.block(40)[0], 1);
  EXPECT_TRUE(equal_data(a, b));
}

TEST_F(LegMarks, PlantedIgnoringItsOwnMarksIsSeenOnTheReturningMember) {
  planted.ignore_own_marks = true;
  take_over({&a, &b}, false);
  written(40, 1);
  all_rest();
  a.status = nvme::status::host_path_error;
  start(IoType::write, 40, 2);
  settle(milliseconds(50));
  die();
  take_over({&a});
  come_back(b);
  EXPECT_FALSE(equal_data(a, b));
}

TEST_F(LegMarks, WhatAMemberLostWithItsCacheIsCopied) {
  for (const bool broken : {false, true}) {
    planted.clear_before_flush = broken;
    take_over({&a, &b}, false);
    written(40, uint8_t(1 + broken));
    settle(seconds(5));  // long enough for its mark to be cleared
    EXPECT_EQ(leg->marked_count(), 0u);
    lose(b);
    b.lose_cache([](uint64_t block) { return block < test_blocks; });
    come_back(b);
    EXPECT_EQ(last_copied.resync, Resync::delta);
    EXPECT_EQ(equal_data(a, b), !broken) << "a mark that was cleared before the flush is a write that is lost";
    die();
  }
}

TEST_F(LegMarks, PlantedSkippingMarksIsSeenAfterATakeover) {
  for (const bool broken : {false, true}) {
    planted.skip_marks = broken;
    take_over({&a, &b}, false);
    settle(seconds(5));
    b.hold = true;
    start(IoType::write, 40 + 16 * broken, uint8_t(2));
    settle(milliseconds(50));
    die();
    take_over({&a, &b});
    ASSERT_TRUE(opened());
    EXPECT_EQ(equal_data(a, b), !broken);
    die();
  }
}

TEST_F(LegMarks, AnUnknownMemberIsCopiedInFull) {
  take_over({&a}, false);
  written(40, 1);
  b.fill(9, 0x99);
  come_back(b);
  EXPECT_EQ(last_copied.resync, Resync::full);
  EXPECT_EQ(last_copied.copied_blocks, test_blocks);
  EXPECT_TRUE(equal_data(a, b));
}

TEST_F(LegMarks, AMemberThatWasSetBackIsCopiedInFull) {
  take_over({&a, &b}, false);
  written(40, 1);
  all_rest();
  const auto before = b.contents;
  lose(b);
  come_back(b);
  written(60, 2);
  all_rest();
  lose(b);
  b.contents = before;
  come_back(b);
  EXPECT_EQ(last_copied.resync, Resync::full);
  EXPECT_TRUE(equal_data(a, b));
}

TEST_F(LegMarks, AMemberWhoseMarksAreDamagedIsCopiedInFull) {
  take_over({&a, &b}, false);
  lose(b);
  b.contents[(test_blocks + leg_tail::mark_page_first) * block_bytes + 700] ^= 1;
  b.fill(9, 0x99);
  come_back(b);
  EXPECT_EQ(last_copied.resync, Resync::full);
  EXPECT_TRUE(equal_data(a, b));
}

TEST_F(LegMarks, OneThatIsNoLongerAReplicaIsForgotten) {
  take_over({&a, &b}, false);
  written(40, 1);
  lose(b);
  settle(seconds(5));
  EXPECT_EQ(leg->marked_count(), 1u);
  die();
  replicas = {"a", "c"};
  take_over({&a});
  all_rest();
  die();
  replicas = {"a", "b"};
  take_over({&a});
  ASSERT_TRUE(opened());
  come_back(b);
  EXPECT_EQ(last_copied.resync, Resync::full);
}

TEST_F(LegMarks, ACopyThatWasCutShortGoesOnUnderTheNextController) {
  take_over({&a}, false);
  for (uint64_t block = 0; block < test_blocks; block += 8)
    written(block, uint8_t(block + 1));
  leg->set_resync(64 * block_bytes, false);
  ASSERT_TRUE(leg->add_member(Handle(b, fixture.reactor)).ok());
  settle(seconds(2));
  const auto copied_blocks = leg->members()[1].copied_blocks;
  EXPECT_GT(copied_blocks, 0u);
  EXPECT_LT(copied_blocks, test_blocks);
  EXPECT_EQ(leg->members()[1].resync, Resync::full);
  die();
  take_over({&a});
  written(5, 0x55);
  come_back(b);
  EXPECT_EQ(last_copied.resync, Resync::delta);
  EXPECT_TRUE(equal_data(a, b));
}

TEST_F(LegMarks, AResyncKeepsToItsPaceAndCanBePaused) {
  take_over({&a}, false);
  leg->set_resync(0, true);
  ASSERT_TRUE(leg->add_member(Handle(b, fixture.reactor)).ok());
  settle(seconds(5));
  EXPECT_EQ(leg->members()[1].copied_blocks, 0u);
  EXPECT_TRUE(copied.empty());
  const Instant begin = fixture.world.now();
  leg->set_resync(test_blocks * block_bytes / 4, false);
  ASSERT_TRUE(fixture.run_until([&] { return !copied.empty(); }));
  const Duration took = fixture.world.now() - begin;
  EXPECT_GE(took, milliseconds(2500));
  EXPECT_LE(took, milliseconds(5000));
}

TEST_F(LegMarks, APausedResyncCanBeGivenUp) {
  take_over({&a}, false);
  leg->set_resync(0, true);
  ASSERT_TRUE(leg->add_member(Handle(b, fixture.reactor)).ok());
  settle(seconds(1));
  ASSERT_TRUE(leg->abandon_member("b").ok());
  EXPECT_TRUE(fixture.run_until([&] { return !leg->uses(b); }, seconds(1)));
}

TEST_F(LegMarks, AMarkThatFindsNoSpaceEndsItsWriteWithThatStatusAndNothingDiffers) {
  take_over({&a, &b}, false);
  settle(milliseconds(50));
  b.write_status = nvme::status::capacity_exceeded;
  PendingIo& op = start(IoType::write, 40, 1);
  ASSERT_TRUE(ends(op));
  EXPECT_TRUE(op.io.status.is(nvme::status::capacity_exceeded));
  EXPECT_TRUE(failed.empty());
  EXPECT_TRUE(equal_data(a, b));
  b.write_status = nvme::status::success;
  written(40, 2);
}

TEST_F(LegMarks, AWriteGoesOnWhenTheMemberThatMissedItsMarkWasRemoved) {
  take_over({&a, &b}, false);
  settle(milliseconds(50));
  b.write_status = nvme::status::host_path_error;
  PendingIo& op = start(IoType::write, 40, 1);
  settle(seconds(1));
  EXPECT_FALSE(op.done);
  EXPECT_EQ(failed, std::vector<std::string>{"b"});
  ASSERT_TRUE(leg->remove_member("b").ok());
  ASSERT_TRUE(ends(op));
  EXPECT_TRUE(op.io.status.ok());
}

TEST_F(LegMarks, RefusesTwoMembersOfOneReplicaAndMembersWithoutRoom) {
  LegOptions options;
  options.name = "leg";
  options.identity = "volume/0";
  options.epoch = 1;
  options.count_blocks = test_blocks;
  std::vector<LegMember> same = {{Handle(a, fixture.reactor), "r"}, {Handle(b, fixture.reactor), "r"}};
  EXPECT_FALSE(LegBdev::create(fixture.reactor, options, same, {}).ok());
  options.count_blocks = test_blocks + 1;
  std::vector<LegMember> small = {Handle(a, fixture.reactor)};
  EXPECT_FALSE(LegBdev::create(fixture.reactor, options, small, {}).ok());
}

}  // namespace
}  // namespace basalt::bdev
