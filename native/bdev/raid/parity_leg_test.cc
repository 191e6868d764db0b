// SPDX-License-Identifier: Apache-2.0
// Goal: a leg with parity keeps what every leg keeps (consent, leases, fences) and what its redundancy promises.
// Method: members in memory whose answers the test scripts, on a simulated node in virtual time.
#include "bdev/raid/parity_leg_test_util.h"

namespace basalt::bdev {
namespace {

void fill_leg(ParityLegRig& rig) {
  for (uint64_t block = 0; block < 32; block++)
    ASSERT_TRUE(rig.write(block, static_cast<uint8_t>(block + 1)));
}

void expect_leg_filled(ParityLegRig& rig, const std::string& when) {
  for (uint64_t block = 0; block < 32; block++)
    ASSERT_EQ(rig.read(block), static_cast<int>(block + 1)) << when << ": block " << block;
}

TEST(ParityLeg, ReadsAsZeroesAfterItsBlankMembersWereFormatted) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  EXPECT_EQ(rig.leg->info().count_blocks, parity_leg_blocks);
  EXPECT_EQ(rig.read(0), 0);
  EXPECT_EQ(rig.read(63), 0);
  PendingIo& outside = rig.start(IoType::read, 64);
  ASSERT_TRUE(rig.ends(outside));
  EXPECT_TRUE(outside.io.status.is(nvme::status::lba_out_of_range));
}

TEST(ParityLeg, GivesEverythingBackFromAnyDataCountOfItsMembers) {
  for (uint32_t lost = 0; lost < 16; lost++) {
    if (__builtin_popcount(lost) > 2) continue;
    ParityLegRig rig(2, 2);
    ASSERT_TRUE(rig.open({0, 1, 2, 3}).ok());
    fill_leg(rig);
    rig.die();
    std::vector<size_t> left;
    for (size_t i = 0; i < 4; i++)
      if ((lost >> i & 1) == 0) left.push_back(i);
    ASSERT_TRUE(rig.open(left).ok());
    expect_leg_filled(rig, "lost " + std::to_string(lost));
  }
}

TEST(ParityLeg, RefusesToBeginWithFewerThanItsDataMembers) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  rig.die();
  EXPECT_EQ(rig.open({1}).error().code, Errc::invalid_argument);
}

TEST(ParityLeg, NeverTakesABlankMemberForOneThatWasWrittenTo) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  rig.die();
  EXPECT_EQ(rig.open({0, 1, 3}).error().code, Errc::corrupt);
  ASSERT_TRUE(rig.open({0, 1}).ok());
  expect_leg_filled(rig, "without the blank one");
}

TEST(ParityLeg, FormatsAgainWhatWasNeverWrittenTo) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1}).ok());
  rig.die();
  ASSERT_TRUE(rig.open({0, 1, 2}).ok()) << "formatting was cut short before the third";
  fill_leg(rig);
  rig.die();
  ASSERT_TRUE(rig.open({1, 2}).ok());
  expect_leg_filled(rig, "afterwards");
}

// A new leg's first controller dies at any step, and then one superblock of a member cannot be read, or was torn.
void expect_new_one_opens(uint64_t steps, size_t member, uint32_t page, bool torn, bool* ended) {
  SCOPED_TRACE(std::to_string(steps) + " steps, page " + std::to_string(page) + " of " + std::to_string(member));
  ParityLegRig rig(2, 1);
  uint64_t left = steps;
  for (auto& disk : rig.members)
    disk->steps_left = &left;
  bool written = false;
  if (rig.open({0, 1, 2}).ok()) {
    PendingIo& op = rig.start(IoType::write, 1, 0x44);
    written = rig.ends(op, milliseconds(20)) && op.io.status.ok();
    rig.die();
  }
  *ended = written && left > 0;
  for (auto& disk : rig.members)
    disk->steps_left = nullptr;
  const auto spoil = [&] {
    uint8_t* at = rig.members[member]->contents.data() + size_t{page} * block_bytes;
    if (!torn) rig.members[member]->bad_block = page;
    if (torn && *at != 0) at[200] ^= 1;
  };
  spoil();
  const Outcome opened = rig.open({0, 1, 2});
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  if (written) EXPECT_EQ(rig.read(1), 0x44);
  EXPECT_EQ(rig.read(9), 0);
  ASSERT_TRUE(rig.write(1, 0x45));
  rig.die();
  spoil();
  const Outcome again = rig.open({0, 1, 2});
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(rig.read(1), 0x45);
}

TEST(ParityLeg, ANewOneOpensThoughASuperblockOfOneMemberCannotBeRead) {
  for (const bool torn : {false, true}) {
    bool ended = false;
    for (uint64_t steps = 0; !ended; steps++)
      for (size_t member = 0; member < 3; member++)
        for (const uint32_t page : parity::superblock_pages)
          expect_new_one_opens(steps, member, page, torn, &ended);
  }
}

TEST(ParityLeg, HoldsWritesThatAMemberMissedUntilItsRemovalIsCommitted) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  rig.members[1]->status = nvme::status::host_path_error;
  PendingIo& one = rig.start(IoType::write, 0, 0x71, 8);
  PendingIo& other = rig.start(IoType::write, 20, 0x72);
  rig.settle(seconds(20));
  EXPECT_FALSE(one.done);
  EXPECT_EQ(rig.failed, std::vector<std::string>{"b"});
  EXPECT_TRUE(rig.leg->waiting());
  ASSERT_TRUE(rig.leg->remove_member("b").ok());
  ASSERT_TRUE(rig.ends(one) && rig.ends(other));
  EXPECT_TRUE(one.io.status.ok() && other.io.status.ok());
  EXPECT_FALSE(rig.leg->waiting());
  EXPECT_EQ(rig.read(3), 0x71);
  EXPECT_EQ(rig.read(20), 0x72);
  EXPECT_EQ(rig.read(19), 20);
}

// The others would go on without it: whoever of them is gone too, perhaps with its cache, must not count as staying.
TEST(ParityLeg, TellsOfAFailureOnlyWhenEachMemberThatWouldStayHasAnsweredSince) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  rig.settle(seconds(1));
  rig.members[2]->hold = true;
  rig.leg->member_lost("b");
  rig.settle(seconds(5));
  EXPECT_EQ(rig.failed, std::vector<std::string>{}) << "nobody has heard of c";
  rig.members[2]->fail_held(nvme::status::host_path_error);
  rig.settle();
  EXPECT_EQ(rig.failed, (std::vector<std::string>{"b", "c"}));
}

TEST(ParityLeg, IsNeverLeftWithFewerThanItsDataMembers) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  ASSERT_TRUE(rig.leg->remove_member("c").ok());
  EXPECT_EQ(rig.leg->remove_member("b").error().code, Errc::invalid_argument);
  rig.members[1]->status = nvme::status::host_path_error;
  PendingIo& write = rig.start(IoType::write, 0, 1, 8);
  PendingIo& read = rig.start(IoType::read, 4);
  rig.settle(seconds(5));
  EXPECT_FALSE(write.done);
  EXPECT_FALSE(read.done) << "nobody has it: it waits, and is no error";
  rig.leg->fence();
  ASSERT_TRUE(rig.ends(write) && rig.ends(read));
  EXPECT_TRUE(write.io.status.is(nvme::status::ana_inaccessible));
  EXPECT_TRUE(read.io.status.is(nvme::status::ana_inaccessible));
}

TEST(ParityLeg, AnswersNoReadWithoutALeaseFromEveryMember) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  rig.settle(seconds(1));
  for (auto& member : rig.members)
    member->read_count = 0;
  // Somebody took one member over: it answers no more. The block's own member is another one in one of the cases.
  rig.members[2]->hold = true;
  std::vector<PendingIo*> reads;
  for (const uint64_t block : {0, 4, 8, 12})
    reads.push_back(&rig.start(IoType::read, block));
  rig.settle(seconds(3));
  for (PendingIo* read : reads)
    EXPECT_FALSE(read->done);
  ASSERT_TRUE(rig.leg->remove_member("c").ok());
  rig.members[2]->fail_held(nvme::status::host_path_error);
  for (PendingIo* read : reads) {
    ASSERT_TRUE(rig.ends(*read));
    EXPECT_TRUE(read->io.status.ok());
  }
}

TEST(ParityLeg, IsFencedByReservationConflictAndAcknowledgesNothingAfterwards) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  rig.members[1]->status = nvme::status::reservation_conflict;
  PendingIo& write = rig.start(IoType::write, 0, 0x11, 8);
  PendingIo& read = rig.start(IoType::read, 20);
  ASSERT_TRUE(rig.ends(write) && rig.ends(read));
  EXPECT_TRUE(write.io.status.is(nvme::status::ana_inaccessible));
  EXPECT_EQ(rig.fenced_count, 1);
  EXPECT_TRUE(rig.failed.empty()) << "a fenced controller reports no member as failed";
  PendingIo& after = rig.start(IoType::read, 3);
  ASSERT_TRUE(rig.ends(after));
  EXPECT_TRUE(after.io.status.is(nvme::status::ana_inaccessible));
}

TEST(ParityLeg, ThatAMemberObeysAnotherEpochIsSaidWhenItIsOpened) {
  ParityLegRig rig(2, 1);
  rig.members[1]->status = nvme::status::reservation_conflict;
  EXPECT_EQ(rig.open({0, 1, 2}).error().code, Errc::fenced);
}

TEST(ParityLeg, AMemberThatComesIsRebuiltAndCountsFromItsCommitOn) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  EXPECT_EQ(rig.leg->add_member(rig.handle(3)).error().code, Errc::busy) << "all places are taken";
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.leg->add_member(rig.handle(3)).ok(); }));
  EXPECT_FALSE(rig.leg->commit_member("d").ok()) << "it is not copied yet";
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.copied.empty(); }));
  EXPECT_EQ(rig.copied, std::vector<std::string>{"d"});
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  ASSERT_TRUE(rig.leg->remove_member("b").ok());
  expect_leg_filled(rig, "from c and d");
  rig.die();
  ASSERT_TRUE(rig.open({2, 3}).ok());
  expect_leg_filled(rig, "from c and d, under the next controller");
}

// Copied, its swap made or not: the next controller begins with whom the record names.
TEST(ParityLeg, ACopiedMemberIsOfTheSetOrNotAsTheRecordHasIt) {
  for (const bool swapped : {false, true}) {
    ParityLegRig rig(2, 1);
    ASSERT_TRUE(rig.open({0, 1, 2}).ok());
    fill_leg(rig);
    ASSERT_TRUE(rig.leg->remove_member("a").ok());
    ASSERT_TRUE(rig.fixture.run_until([&] { return rig.leg->add_member(rig.handle(3)).ok(); }));
    ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.copied.empty(); }));
    ASSERT_TRUE(rig.write(5, 0x55)) << "which d has, too";
    rig.die();
    if (swapped) {
      ASSERT_TRUE(rig.open({1, 3}).ok());
    } else {
      ASSERT_TRUE(rig.open({1, 2}).ok());
    }
    EXPECT_EQ(rig.read(5), 0x55);
    EXPECT_EQ(rig.read(4), 5);
  }
}

// What a block holds when the controller that replays the log dies after so many steps, and the parity member is lost
// then: written twice, both acknowledged.
int after_a_replay_cut_short(uint64_t steps, const RaidPlantedBugs& bugs) {
  ParityLegRig rig(2, 1);
  rig.planted.raid = bugs;
  EXPECT_TRUE(rig.open({0, 1, 2}).ok());
  EXPECT_TRUE(rig.write(4, 1) && rig.write(4, 2));
  rig.die();
  for (auto& member : rig.members)
    member->steps_left = &steps;
  if (rig.open({0, 1, 2}).ok()) rig.die();
  for (auto& member : rig.members)
    member->steps_left = nullptr;
  EXPECT_TRUE(rig.open({0, 1}).ok());
  return rig.read(4);
}

TEST(ParityLeg, AReplayThatIsCutShortBringsNothingOldBack) {
  bool caught = false;
  for (uint64_t steps = 0; steps < 20; steps++) {
    EXPECT_EQ(after_a_replay_cut_short(steps, {}), 2) << "after " << steps << " steps";
    caught |= after_a_replay_cut_short(steps, {.replay_one_after_the_other = true}) != 2;
  }
  EXPECT_TRUE(caught) << "or this test finds nothing";
}

// One of two parity members has the record of a write, nothing has changed in place. Whoever replays may die at any
// step, and two members are lost then: what was not being written is there, and what was is old or new.
TEST(ParityLeg, ARecordThatAMemberLacksIsNotCarriedOutHalfway) {
  for (uint64_t steps = 0; steps < 16; steps++) {
    for (uint32_t lost = 0; lost < 16; lost++) {
      if (__builtin_popcount(lost) != 2) continue;
      ParityLegRig rig(2, 2);
      ASSERT_TRUE(rig.open({0, 1, 2, 3}).ok());
      fill_leg(rig);
      rig.members[3]->hold_writes_only = rig.members[3]->hold = true;  // stripe 0: parity on c and d
      PendingIo& write = rig.start(IoType::write, 0, 0x77, 4);
      rig.settle();
      ASSERT_FALSE(write.done);
      rig.die();
      uint64_t left = steps;
      for (auto& member : rig.members)
        member->steps_left = &left;
      if (rig.open({0, 1, 2, 3}).ok()) rig.die();
      for (auto& member : rig.members)
        member->steps_left = nullptr;
      std::vector<size_t> set;
      for (size_t i = 0; i < 4; i++)
        if ((lost >> i & 1) == 0) set.push_back(i);
      ASSERT_TRUE(rig.open(set).ok());
      for (uint64_t block = 0; block < 8; block++) {
        const int value = rig.read(block);
        EXPECT_TRUE(value == static_cast<int>(block + 1) || (block < 4 && value == 0x77))
            << "block " << block << " gives " << value << " after " << steps << " steps without " << lost;
      }
    }
  }
}

// A parity member fails before the record is written, which the other one gets alone; the member is not let go before
// the controller dies.
TEST(ParityLeg, ARecordThatWasWrittenWithoutAMemberOfTheSetIsNotCarriedOut) {
  ParityLegRig rig(2, 2);
  ASSERT_TRUE(rig.open({0, 1, 2, 3}).ok());
  fill_leg(rig);
  rig.members[3]->status = nvme::status::host_path_error;
  PendingIo& write = rig.start(IoType::write, 0, 0x77, 4);
  rig.settle(milliseconds(100));
  ASSERT_FALSE(write.done);
  rig.die();
  ASSERT_TRUE(rig.open({0, 1, 2, 3}).ok());
  rig.die();
  ASSERT_TRUE(rig.open({0, 3}).ok());
  for (uint64_t block = 4; block < 8; block++)
    EXPECT_EQ(rig.read(block), static_cast<int>(block + 1)) << "which nobody was writing";
}

TEST(ParityLeg, AFailedJoinIsToldAndGivenUp) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  rig.members[3]->write_status = nvme::status::capacity_exceeded;
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.leg->add_member(rig.handle(3)).ok(); }));
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.joining_failed.empty(); }));
  ASSERT_TRUE(rig.leg->abandon_member("d").ok());
  rig.members[3]->write_status = nvme::status::success;
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.leg->add_member(rig.handle(3)).ok(); }));
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.copied.empty(); }));
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
}

TEST(ParityLeg, AnErrorThatWouldLeaveDataAndParityUnequalExpelsTheMember) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  rig.members[0]->write_status = nvme::status::capacity_exceeded;
  PendingIo& write = rig.start(IoType::write, 0, 0x31, 8);
  rig.settle(seconds(1));
  EXPECT_FALSE(write.done);
  EXPECT_EQ(rig.failed, std::vector<std::string>{"a"});
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  ASSERT_TRUE(rig.ends(write));
  EXPECT_EQ(rig.read(2), 0x31);
}

TEST(ParityLeg, SaysThatItIsSettledWhenAllMembersAreFlushed) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_leg(rig);
  EXPECT_TRUE(rig.fixture.run(rig.leg->settle_all()));
  for (size_t i = 0; i < 3; i++)
    EXPECT_TRUE(rig.members[i]->flushed());
  rig.members[1]->flush_status = nvme::status::capacity_exceeded;
  EXPECT_FALSE(rig.fixture.run(rig.leg->settle_all()));
  EXPECT_EQ(rig.failed, std::vector<std::string>{"b"});
}

}  // namespace
}  // namespace basalt::bdev
