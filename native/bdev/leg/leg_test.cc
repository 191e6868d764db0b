// SPDX-License-Identifier: Apache-2.0
// Goal: the leg keeps the design's invariants 1 to 6 when members fail, are fenced, join and when leases run out.
// Method: members in memory whose answers the test scripts, on a simulated node in virtual time.
#include "bdev/leg/leg_test_util.h"

namespace basalt::bdev {
namespace {

class Leg : public LegFixture {};

TEST_F(Leg, AcknowledgesAWriteOnlyWhenEveryMemberHasIt) {
  make({&a, &b});
  b.hold = true;
  PendingIo& write = start(IoType::write, 3, 0x11);
  settle(milliseconds(50));
  EXPECT_FALSE(write.done);
  b.release();
  ASSERT_TRUE(ends(write));
  EXPECT_TRUE(write.io.status.ok());
  EXPECT_EQ(a.block(3), b.block(3));
}

TEST_F(Leg, HoldsWritesThatAMemberMissedUntilItsRemovalIsCommitted) {
  make({&a, &b});
  b.status = nvme::status::host_path_error;
  PendingIo& write = start(IoType::write, 3, 0x11);
  PendingIo& later = start(IoType::write, 9, 0x22);
  settle(seconds(20));
  EXPECT_FALSE(write.done);
  EXPECT_FALSE(later.done);
  EXPECT_EQ(failed, std::vector<std::string>{"b"});
  ASSERT_TRUE(leg->remove_member("b").ok());
  ASSERT_TRUE(ends(write) && ends(later));
  EXPECT_TRUE(write.io.status.ok());
  EXPECT_TRUE(later.io.status.ok());
}

// The controller stood still. Meanwhile b's machine lost its cache, and a, who has everything, gave the connection up.
TEST_F(Leg, TellsOfAFailureOnlyWhenEachMemberThatWouldStayHasAnsweredSince) {
  make({&a, &b, &c});
  b.hold = true;
  PendingIo& write = start(IoType::write, 3, 0x11);
  leg->member_lost("a");
  settle(seconds(5));
  EXPECT_EQ(failed, std::vector<std::string>{}) << "nobody has heard of b";
  b.fail_held(nvme::status::host_path_error);
  settle();
  EXPECT_EQ(failed, (std::vector<std::string>{"a", "b"}));
  EXPECT_FALSE(write.done);
}

TEST_F(Leg, TellsOfAFailureAsSoonAsTheOthersHaveAnswered) {
  make({&a, &b});
  settle(seconds(2));
  b.hold_reads_only = true;
  leg->member_lost("a");
  settle(milliseconds(50));
  EXPECT_EQ(failed, std::vector<std::string>{});
  b.release();
  settle();
  EXPECT_EQ(failed, std::vector<std::string>{"a"});
}

// Its answer to an earlier request says only that it was there before.
TEST_F(Leg, AnAnswerToWhatWasAskedBeforeTheFailureIsNotEnough) {
  make({&a, &b});
  settle(seconds(2));
  b.hold = true;
  PendingIo& write = start(IoType::write, 3, 0x11);
  settle(milliseconds(1));
  leg->member_lost("a");
  b.release_first();
  ASSERT_TRUE(ends(write));
  settle(milliseconds(50));
  EXPECT_EQ(failed, std::vector<std::string>{});
  b.release();
  settle();
  EXPECT_EQ(failed, std::vector<std::string>{"a"});
}

TEST_F(Leg, NeverRemovesTheLastMember) {
  make({&a, &b});
  ASSERT_TRUE(leg->remove_member("b").ok());
  EXPECT_FALSE(leg->remove_member("a").ok());
  a.status = nvme::status::host_path_error;
  PendingIo& write = start(IoType::write, 1, 1);
  settle(seconds(5));
  EXPECT_FALSE(write.done);
  leg->fence();
  ASSERT_TRUE(ends(write));
  EXPECT_TRUE(write.io.status.is(nvme::status::ana_inaccessible));
}

TEST_F(Leg, IsFencedByReservationConflictAndAcknowledgesNothingAfterwards) {
  make({&a, &b});
  b.hold = true;
  PendingIo& parked = start(IoType::write, 3, 0x11);
  settle();
  a.status = nvme::status::reservation_conflict;
  PendingIo& write = start(IoType::write, 5, 0x22);
  settle();
  b.status = nvme::status::success;
  b.release();
  ASSERT_TRUE(ends(parked) && ends(write));
  EXPECT_EQ(fenced_count, 1);
  EXPECT_TRUE(failed.empty()) << "a fenced controller reports no member as failed";
  EXPECT_TRUE(parked.io.status.is(nvme::status::ana_inaccessible));
  EXPECT_TRUE(write.io.status.is(nvme::status::ana_inaccessible));
  PendingIo& after = start(IoType::read, 3);
  ASSERT_TRUE(ends(after));
  EXPECT_TRUE(after.io.status.is(nvme::status::ana_inaccessible));
}

TEST_F(Leg, AFailedFlushExpelsTheMemberAndIsNotRetried) {
  make({&a, &b});
  b.flush_status = nvme::status::capacity_exceeded;
  PendingIo& flush = start(IoType::flush, 0);
  settle(seconds(1));
  EXPECT_FALSE(flush.done);
  EXPECT_EQ(failed, std::vector<std::string>{"b"});
  const uint64_t submitted_before = b.submitted_count;
  ASSERT_TRUE(leg->remove_member("b").ok());
  ASSERT_TRUE(ends(flush));
  EXPECT_TRUE(flush.io.status.ok());
  EXPECT_EQ(b.submitted_count, submitted_before);
}

TEST_F(Leg, OrdersOverlappingWritesAndReads) {
  make({&a, &b});
  b.hold = true;
  PendingIo& first = start(IoType::write, 10, 0x11, 4);
  PendingIo& second = start(IoType::write, 12, 0x22, 4);
  PendingIo& read = start(IoType::read, 13, 0);
  PendingIo& elsewhere = start(IoType::write, 40, 0x33);
  settle(milliseconds(20));
  EXPECT_EQ(a.write_count, 2u) << "the second overlapping write must not have reached a member";
  EXPECT_FALSE(read.done);
  b.release();
  ASSERT_TRUE(ends(first) && ends(second) && ends(read) && ends(elsewhere));
  EXPECT_EQ(a.block(12), b.block(12));
  EXPECT_EQ(a.block(12)[0], 0x22);
  EXPECT_EQ(read.data[0], 0x22);
}

TEST_F(Leg, AnswersNoReadWithoutALeaseFromEveryMember) {
  make({&a, &b});
  ASSERT_TRUE(ends(start(IoType::write, 1, 0x55)));
  settle(seconds(2));  // every lease ran out
  a.hold = b.hold = true;
  PendingIo& read = start(IoType::read, 1);
  settle();
  // One member answers the data; the other stays silent and renews nothing.
  (a.held.empty() ? b : a).release();
  settle(seconds(5));
  EXPECT_FALSE(read.done);
  a.release();
  b.release();
  ASSERT_TRUE(ends(read));
  EXPECT_EQ(read.data[0], 0x55);
}

TEST_F(Leg, AReadGoesOnWhenTheSilentMemberWasRemoved) {
  make({&a, &b});
  settle(seconds(2));
  a.hold = b.hold = true;
  PendingIo& read = start(IoType::read, 1);
  settle();
  const bool from_a = b.held.empty();
  ScriptedMember& silent = from_a ? b : a;
  (from_a ? a : b).release();
  settle(seconds(1));
  ASSERT_FALSE(read.done);
  silent.hold = false;
  silent.fail_held(nvme::status::host_path_error);
  settle();
  ASSERT_EQ(failed.size(), 1u);
  ASSERT_FALSE(read.done) << "the failed member is still in the recorded set";
  ASSERT_TRUE(leg->remove_member(silent.info().name).ok());
  ASSERT_TRUE(ends(read));
  EXPECT_TRUE(read.io.status.ok());
}

TEST_F(Leg, IdleLegsSendNothing) {
  make({&a, &b});
  ASSERT_TRUE(ends(start(IoType::read, 1)));
  settle(seconds(1));
  const uint64_t before = a.submitted_count + b.submitted_count;
  settle(seconds(100));
  EXPECT_EQ(a.submitted_count + b.submitted_count, before);
}

TEST_F(Leg, MakesADirtyRegionEqualBeforeItAnswersAReadOfIt) {
  // The old controller died between the two member writes.
  std::fill_n(a.contents.begin() + 5 * block_bytes, block_bytes, uint8_t{0xaa});
  std::fill_n(b.contents.begin() + 5 * block_bytes, block_bytes, uint8_t{0xbb});
  a.hold = a.hold_writes_only = b.hold = b.hold_writes_only = true;
  make({&a, &b}, true);
  PendingIo& read = start(IoType::read, 5);
  settle(seconds(1));
  EXPECT_FALSE(read.done) << "the value must be on both members first";
  a.release();
  b.release();
  ASSERT_TRUE(ends(read));
  EXPECT_EQ(a.block(5), b.block(5));
  EXPECT_EQ(a.block(5)[0], read.data[0]);
  ASSERT_TRUE(fixture.run_until([&] { return clean_count == 1; }));
  EXPECT_EQ(leg->dirty().count(), 0u);
}

TEST_F(Leg, ADirtyReadWaitsForTheRemovalOfAMemberThatCouldNotBeMadeEqual) {
  std::fill_n(a.contents.begin(), block_bytes, uint8_t{0xaa});
  b.write_status = nvme::status::host_path_error;
  a.write_status = nvme::status::success;
  make({&a, &b}, true);
  PendingIo& read = start(IoType::read, 0);
  settle(seconds(2));
  if (!failed.empty()) {
    EXPECT_FALSE(read.done) << "the survivor of the next takeover might be the unequal one";
    ASSERT_TRUE(leg->remove_member(failed[0]).ok());
  }
  ASSERT_TRUE(ends(read));
}

TEST_F(Leg, AJoiningMemberGetsEverythingAndJoinsAtTheCommit) {
  make({&a});
  for (uint64_t block = 0; block < 40; block++)
    ASSERT_TRUE(ends(start(IoType::write, block * 5, uint8_t(block + 1))));
  std::fill(c.contents.begin(), c.contents.end(), uint8_t{0xcc});  // an old life's contents
  ASSERT_TRUE(leg->add_member(Handle(c, fixture.reactor)).ok());
  for (uint64_t block = 0; block < 40; block++)
    start(IoType::write, 255 - block * 3, uint8_t(0x80 + block));
  ASSERT_TRUE(fixture.run_until([&] { return copied.size() == 1; }));
  for (auto& op : pending)
    ASSERT_TRUE(ends(*op));
  EXPECT_EQ(a.contents, c.contents);
  ASSERT_TRUE(leg->commit_member("c").ok());
  // Now it is needed.
  c.hold = true;
  PendingIo& write = start(IoType::write, 0, 1);
  settle();
  EXPECT_FALSE(write.done);
}

TEST_F(Leg, WhileAJoinsSwapIsUnknownWritesNeedTheUnionAndReadsUseTheIntersection) {
  make({&a});
  ASSERT_TRUE(leg->add_member(Handle(c, fixture.reactor)).ok());
  ASSERT_TRUE(fixture.run_until([&] { return copied.size() == 1; }));
  c.read_count = 0;
  for (int i = 0; i < 20; i++)
    ASSERT_TRUE(ends(start(IoType::read, 3)));
  EXPECT_EQ(c.read_count, 0u);
  c.status = nvme::status::host_path_error;
  PendingIo& write = start(IoType::write, 0, 1);
  settle(seconds(1));
  EXPECT_FALSE(write.done);
  EXPECT_EQ(joining_failed, std::vector<std::string>{"c"});
  ASSERT_TRUE(leg->abandon_member("c").ok());  // the swap surely was not made
  ASSERT_TRUE(ends(write));
  EXPECT_TRUE(write.io.status.ok());
}

TEST_F(Leg, AJoiningMembersErrorsAreNobodyElses) {
  make({&a});
  c.write_status = nvme::status::capacity_exceeded;
  a.contents[200 * block_bytes] = 1;
  ASSERT_TRUE(leg->add_member(Handle(c, fixture.reactor)).ok());
  PendingIo& write = start(IoType::write, 0, 1);
  ASSERT_TRUE(ends(write));
  EXPECT_TRUE(write.io.status.ok());
  EXPECT_EQ(joining_failed, std::vector<std::string>{"c"});
}

TEST_F(Leg, AnExactErrorGoesUpAndItsRangeCountsAsDirty) {
  make({&a, &b});
  b.write_status = nvme::status::capacity_exceeded;
  PendingIo& write = start(IoType::write, 4, 0x44);
  ASSERT_TRUE(ends(write));
  EXPECT_TRUE(write.io.status.is(nvme::status::capacity_exceeded));
  EXPECT_TRUE(failed.empty());
  b.write_status = nvme::status::success;
  PendingIo& read = start(IoType::read, 4);
  ASSERT_TRUE(ends(read));
  EXPECT_EQ(a.block(4), b.block(4));
  EXPECT_EQ(a.block(4), read.data);
}

TEST_F(Leg, WhatARefusedWriteLeftIsMadeEqualWithoutARead) {
  make({&a, &b});
  b.write_status = nvme::status::capacity_exceeded;
  ASSERT_TRUE(ends(start(IoType::write, 4, 0x44)));
  EXPECT_FALSE(leg->equal());
  EXPECT_FALSE(leg->equal_members().ok());
  const uint64_t reads = a.read_count + b.read_count;
  settle(seconds(3));
  // It tries again now and then, and a member that is full is no failed one.
  EXPECT_FALSE(leg->equal());
  EXPECT_TRUE(failed.empty());
  EXPECT_GT(a.read_count + b.read_count, reads);
  EXPECT_LE(a.read_count + b.read_count, reads + 10);
  b.write_status = nvme::status::success;
  EXPECT_TRUE(fixture.run_until([&] { return leg->equal(); }, seconds(20)));
  EXPECT_TRUE(leg->equal_members().ok());
  EXPECT_EQ(a.block(4), b.block(4));
  EXPECT_TRUE(failed.empty());
  EXPECT_EQ(clean_count, 1);
}

TEST_F(Leg, ReadsFromAnotherMemberAfterAMediaError) {
  make({&a, &b});
  ASSERT_TRUE(ends(start(IoType::write, 2, 0x77)));
  a.bad_block = 2;
  for (int i = 0; i < 4; i++) {
    PendingIo& read = start(IoType::read, 2);
    ASSERT_TRUE(ends(read));
    EXPECT_TRUE(read.io.status.ok());
    EXPECT_EQ(read.data[0], 0x77);
  }
  EXPECT_TRUE(failed.empty());
}

// Every buffer of the pool is held by requests that wait for the region, as after a takeover under load.
TEST_F(Leg, MakesARegionEqualWhenThePoolHasNoBufferLeft) {
  std::fill_n(a.contents.begin() + 5 * block_bytes, block_bytes, uint8_t{0xaa});
  std::vector<Buffer*> taken;
  while (Buffer* buffer = fixture.reactor.buffers().take(RegionMap::region_bytes_min))
    taken.push_back(buffer);
  make({&a, &b}, true);
  PendingIo& read = start(IoType::read, 5);
  PendingIo& other_read = start(IoType::read, 100);
  PendingIo& write = start(IoType::write, 6, 0x66);
  EXPECT_TRUE(ends(read) && ends(other_read) && ends(write)) << "they wait for buffers that they hold themselves";
  EXPECT_EQ(a.block(5), b.block(5));
  EXPECT_TRUE(fixture.run_until([&] { return clean_count == 1; }));
  for (Buffer* buffer : taken)
    fixture.reactor.buffers().give(buffer);
}

TEST_F(Leg, CopiesToAJoiningMemberWhenThePoolHasNoBufferLeft) {
  std::fill(a.contents.begin(), a.contents.end(), uint8_t{0x5a});
  std::vector<Buffer*> taken;
  while (Buffer* buffer = fixture.reactor.buffers().take(256 * 1024))
    taken.push_back(buffer);
  make({&a});
  ASSERT_TRUE(leg->add_member(Handle(c, fixture.reactor)).ok());
  EXPECT_TRUE(fixture.run_until([&] { return copied.size() == 1; }));
  EXPECT_EQ(a.contents, c.contents);
  for (Buffer* buffer : taken)
    fixture.reactor.buffers().give(buffer);
}

// A flush holds no range, so a member can be copied and join while it is in flight.
TEST_F(Leg, AFlushThatAFormerMemberMissedDoesNotWaitForTheNextOneInItsPlace) {
  make({&a, &b});
  b.flush_status = nvme::status::host_path_error;
  a.hold = a.hold_writes_only = true;
  PendingIo& flush = start(IoType::flush, 0);
  settle();
  ASSERT_EQ(failed, std::vector<std::string>{"b"});
  ASSERT_TRUE(leg->remove_member("b").ok());
  ASSERT_TRUE(leg->add_member(Handle(c, fixture.reactor)).ok());
  ASSERT_TRUE(fixture.run_until([&] { return copied.size() == 1; }));
  ASSERT_TRUE(leg->commit_member("c").ok());
  a.release();
  ASSERT_TRUE(ends(flush));
  EXPECT_TRUE(flush.io.status.ok());
}

TEST_F(Leg, AMediaErrorOnOneBlockDoesNotEndAMembersLease) {
  make({&a, &b});
  settle(seconds(2));  // every lease ran out
  b.bad_block = 0;
  for (int i = 0; i < 4; i++) {
    PendingIo& read = start(IoType::read, 7);
    ASSERT_TRUE(ends(read)) << "read " << i;
    EXPECT_TRUE(read.io.status.ok());
    settle(seconds(2));
  }
  EXPECT_TRUE(failed.empty());
}

TEST_F(Leg, AMemberThatCanReadNothingIsReportedAndItsReadersGoOn) {
  make({&a, &b});
  settle(seconds(2));
  b.status = nvme::status::unrecovered_read_error;
  PendingIo& read = start(IoType::read, 7);
  settle(seconds(1));
  EXPECT_EQ(failed, std::vector<std::string>{"b"});
  const uint64_t before = b.submitted_count;
  settle(seconds(10));
  EXPECT_EQ(b.submitted_count, before) << "it is not asked for ever";
  ASSERT_TRUE(leg->remove_member("b").ok());
  ASSERT_TRUE(ends(read));
  EXPECT_TRUE(read.io.status.ok());
}

// The one who hears of the first completion fences the leg, inside that call.
TEST_F(Leg, EndsParkedWritesThatAreInHandWhenTheLegIsFenced) {
  make({&a, &b, &c});
  b.status = nvme::status::host_path_error;
  PendingIo& first = start(IoType::write, 1, 1);
  settle();
  PendingIo& second = start(IoType::write, 2, 2);
  settle();
  c.status = nvme::status::host_path_error;
  PendingIo& third = start(IoType::write, 3, 3);
  settle();
  ASSERT_FALSE(first.done || second.done || third.done);
  struct Fencer {
    LegBdev* leg;
    PendingIo* op;
  } fencer{leg.get(), &first};
  first.io.context = &fencer;
  first.io.done = [](Io* io) {
    auto* fencer = static_cast<Fencer*>(io->context);
    fencer->op->done = true;
    fencer->leg->fence();
  };
  ASSERT_TRUE(leg->remove_member("b").ok());
  ASSERT_TRUE(first.done && first.io.status.ok());
  ASSERT_TRUE(ends(second) && ends(third));
  EXPECT_TRUE(second.io.status.is(nvme::status::ana_inaccessible)) << "nothing is acknowledged once it is fenced";
  EXPECT_TRUE(third.io.status.is(nvme::status::ana_inaccessible));
}

}  // namespace
}  // namespace basalt::bdev
