// SPDX-License-Identifier: Apache-2.0
// Goal: unreadable blocks are read elsewhere and rewritten; a scrub finds and repairs what differs; a slow member does
// not make reads slow. Method: members in memory that the test spoils, holds back and lets go.
#include "bdev/leg/leg_test_util.h"

namespace basalt::bdev {
namespace {

class LegCare : public LegFixture {
 protected:
  LegCare() : LegFixture(true) {}
  void serve(std::vector<ScriptedMember*> in_sync) {
    LegOptions options;
    options.name = "leg";
    options.identity = "volume/0";
    options.epoch = 1;
    options.count_blocks = test_blocks;
    options.mark_region_bytes_min = 64 * 1024;
    std::vector<LegMember> members;
    for (ScriptedMember* member : in_sync)
      members.emplace_back(Handle(*member, fixture.reactor));
    make(options, std::move(members));
    ASSERT_TRUE(fixture.run_until([&] { return leg->equal(); }, seconds(1)));
    settle(milliseconds(20));
  }
  void written(uint64_t block, uint8_t value) {
    PendingIo& op = start(IoType::write, block, value);
    ASSERT_TRUE(ends(op) && op.io.status.ok());
  }
  void scrub(const ScrubOptions& options = {}) {
    ASSERT_TRUE(leg->start_scrub(options).ok());
    ASSERT_TRUE(fixture.run_until([&] { return leg->scrub().state == ScrubState::finished; }, seconds(60)));
  }
};

TEST_F(LegCare, AnUnreadableBlockIsAnsweredFromAnotherMemberAndRewritten) {
  serve({&a, &b});
  written(40, 7);
  for (ScriptedMember* member : {&a, &b}) {
    member->bad_block = 40;
    for (int i = 0; i < 4; i++) {
      PendingIo& read = start(IoType::read, 40);
      ASSERT_TRUE(ends(read) && read.io.status.ok());
      EXPECT_EQ(read.data[0], 7);
    }
    ASSERT_TRUE(fixture.run_until([&] { return member->bad_block == UINT64_MAX; }, seconds(1)));
    settle(milliseconds(20));
  }
  EXPECT_GE(leg->stats().repaired_blocks, 2u);
  EXPECT_TRUE(failed.empty());
  EXPECT_EQ(a.block(40), b.block(40));
}

TEST_F(LegCare, ARepairIsMarkedFirstAndOrderedWithWrites) {
  serve({&a, &b});
  a.bad_block = 40;
  const uint64_t before = b.tail_write_count;
  for (int i = 0; i < 2; i++)
    ASSERT_TRUE(ends(start(IoType::read, 40)));
  PendingIo& write = start(IoType::write, 40, 9);
  ASSERT_TRUE(ends(write));
  settle(milliseconds(50));
  EXPECT_GT(b.tail_write_count, before);
  EXPECT_EQ(a.block(40)[0], 9);
  EXPECT_EQ(b.block(40)[0], 9);
}

TEST_F(LegCare, AMemberThatCannotBeRewrittenFails) {
  serve({&a, &b});
  written(40, 7);
  a.bad_block = 40;
  a.write_status = nvme::status::write_fault;
  for (int i = 0; i < 2; i++)
    ASSERT_TRUE(ends(start(IoType::read, 40)));
  ASSERT_TRUE(fixture.run_until([&] { return !failed.empty(); }, seconds(1)));
  EXPECT_EQ(failed, std::vector<std::string>{"a"});
}

TEST_F(LegCare, AScrubOfEqualMembersFindsNothing) {
  serve({&a, &b});
  written(40, 7);
  scrub();
  EXPECT_EQ(leg->scrub().compared_blocks, test_blocks);
  EXPECT_EQ(leg->scrub().different_blocks, 0u);
  EXPECT_EQ(leg->scrub().repaired_blocks, 0u);
}

TEST_F(LegCare, AScrubRepairsWhatMostMembersSayOtherwise) {
  serve({&a, &b, &c});
  written(40, 7);
  for (ScriptedMember* wrong : {&a, &b, &c}) {
    wrong->fill(40, 0x66);
    scrub();
    EXPECT_EQ(leg->scrub().different_blocks, 1u);
    EXPECT_GT(leg->scrub().repaired_blocks, 0u);
    for (const ScriptedMember* member : {&a, &b, &c})
      EXPECT_EQ(member->block(40)[0], 7);
  }
}

TEST_F(LegCare, AScrubThatShallNotRepairOnlyCounts) {
  serve({&a, &b});
  b.fill(40, 0x66, 3);
  scrub({.repair = false});
  EXPECT_EQ(leg->scrub().different_blocks, 3u);
  EXPECT_EQ(b.block(40)[0], 0x66);
  scrub();
  EXPECT_EQ(a.block(40), b.block(40));
}

TEST_F(LegCare, AScrubRewritesWhatCannotBeRead) {
  serve({&a, &b});
  written(40, 7);
  b.bad_block = 40;
  scrub();
  EXPECT_EQ(leg->scrub().unreadable_blocks, 1u);
  EXPECT_EQ(leg->scrub().repaired_blocks, 1u);
  EXPECT_EQ(leg->scrub().compared_blocks, test_blocks);
  EXPECT_EQ(b.bad_block, UINT64_MAX);
  EXPECT_EQ(b.block(40)[0], 7);
}

// Both lie in what is read at once.
TEST_F(LegCare, AScrubRewritesWhatOneMemberCannotReadHereAndTheOtherThere) {
  serve({&a, &b});
  written(40, 7);
  written(44, 8);
  a.bad_block = 40;
  b.bad_block = 44;
  scrub();
  EXPECT_EQ(leg->scrub().unreadable_blocks, 2u);
  for (const ScriptedMember* member : {&a, &b}) {
    EXPECT_EQ(member->bad_block, UINT64_MAX);
    EXPECT_EQ(member->block(40)[0], 7);
    EXPECT_EQ(member->block(44)[0], 8);
  }
}

TEST_F(LegCare, AScrubSaysWhatNobodyCanRead) {
  serve({&a, &b});
  a.bad_block = b.bad_block = 40;
  scrub();
  EXPECT_EQ(leg->scrub().unreadable_blocks, 1u);
  EXPECT_EQ(leg->scrub().compared_blocks, test_blocks - 1);
  EXPECT_EQ(leg->scrub().repaired_blocks, 0u);
}

TEST_F(LegCare, AScrubSeesNoDifferenceInWritesUnderWay) {
  serve({&a, &b});
  ASSERT_TRUE(leg->start_scrub({}).ok());
  for (int i = 0; i < 400; i++)
    start(IoType::write, static_cast<uint64_t>(i * 37) % test_blocks, uint8_t(i));
  ASSERT_TRUE(fixture.run_until([&] { return leg->scrub().state == ScrubState::finished; }, seconds(10)));
  for (auto& op : pending)
    ASSERT_TRUE(ends(*op));
  EXPECT_EQ(leg->scrub().different_blocks, 0u);
}

TEST_F(LegCare, AScrubKeepsToItsPaceAndCanBeStopped) {
  serve({&a, &b});
  ASSERT_TRUE(leg->start_scrub({.bytes_per_s = test_blocks * block_bytes / 4}).ok());
  EXPECT_FALSE(leg->start_scrub({}).ok()) << "one at a time";
  settle(seconds(2));
  EXPECT_GT(leg->scrub().compared_blocks, 0u);
  EXPECT_LT(leg->scrub().compared_blocks, test_blocks);
  leg->stop_scrub();
  EXPECT_EQ(leg->scrub().state, ScrubState::stopped);
  settle(seconds(2));
  EXPECT_LT(leg->scrub().compared_blocks, test_blocks);
}

TEST_F(LegCare, ReadsPreferTheNearerMember) {
  LegOptions options;
  options.name = "leg";
  options.epoch = 1;
  std::vector<LegMember> members = {{Handle(a, fixture.reactor), "a", 2}, {Handle(b, fixture.reactor), "b", 0}};
  make(options, members);
  for (int i = 0; i < 20; i++)
    ASSERT_TRUE(ends(start(IoType::read, 3)));
  EXPECT_GE(b.read_count, 20u);
  EXPECT_LE(a.read_count, 1u) << "but for a lease";
  for (int i = 0; i < 20; i++)
    start(IoType::read, 3);
  settle();
  EXPECT_GT(a.read_count, 5u) << "a loaded member is no longer the nearest";
}

TEST_F(LegCare, AMemberThatStallsIsAvoidedAndItsReadsAreHedgedLater) {
  serve({&a, &b});
  for (uint64_t block = 0; block < 8; block++)
    written(block, uint8_t(block + 1));
  for (int i = 0; i < 20; i++)
    ASSERT_TRUE(ends(start(IoType::read, 3)));
  b.hold_reads_only = true;
  PendingIo& first = start(IoType::read, 1);
  PendingIo& second = start(IoType::read, 1);
  settle(milliseconds(50));
  ASSERT_NE(first.done, second.done) << "one of them went to the member that stalls";
  // Writes keep the leases alive.
  const auto worst_of = [&](int count) {
    Duration worst;
    for (int i = 0; i < count; i++) {
      written(9, uint8_t(i));
      const Instant begin = fixture.world.now();
      PendingIo& read = start(IoType::read, static_cast<uint64_t>(i % 8));
      EXPECT_TRUE(ends(read) && read.io.status.ok());
      EXPECT_EQ(read.data[0], i % 8 + 1);
      worst = std::max(worst, fixture.world.now() - begin);
      settle(milliseconds(50));
    }
    return worst;
  };
  EXPECT_LT(worst_of(60), milliseconds(5)) << "nobody is sent to the member that stalls";
  EXPECT_FALSE(first.done && second.done);
  b.release();
  ASSERT_TRUE(ends(first) && ends(second));
  worst_of(40);  // it is asked again
  b.hold_reads_only = true;
  EXPECT_LT(worst_of(60), milliseconds(20)) << "another one answers instead";
  EXPECT_GT(leg->stats().hedged_read_count, 0u);
  EXPECT_GT(leg->stats().hedge_won_count, 0u);
  b.release();
  settle(milliseconds(50));
  EXPECT_EQ(leg->stats().hedged_read_count, leg->stats().hedge_won_count);
}

TEST_F(LegCare, AHedgedReadEndsOnceWhenTheLegIsFencedOrBothFail) {
  serve({&a, &b});
  b.hold_reads_only = true;
  start(IoType::read, 1);
  start(IoType::read, 1);
  settle(milliseconds(50));
  start(IoType::read, 1);
  b.release();
  settle(milliseconds(1100));
  a.hold_reads_only = b.hold_reads_only = true;
  for (int i = 0; i < 8; i++)
    start(IoType::read, static_cast<uint64_t>(i));
  settle(milliseconds(40));
  a.fail_held(nvme::status::unrecovered_read_error);
  settle(milliseconds(5));
  leg->fence();
  b.release();
  a.release();
  for (auto& op : pending)
    ASSERT_TRUE(ends(*op));
}

}  // namespace
}  // namespace basalt::bdev
