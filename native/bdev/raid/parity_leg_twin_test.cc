// SPDX-License-Identifier: Apache-2.0
// Goal: a member of a leg with parity is exchanged for another one while it serves, and the leg never has less
// redundancy than before. Method: members in memory whose answers the test scripts; controllers that die on either side
// of the swap.
#include "bdev/raid/parity_leg_test_util.h"

namespace basalt::bdev {
namespace {

class ParityTwin : public ::testing::Test {
 protected:
  ParityTwin() {
    EXPECT_TRUE(rig.open({0, 1, 2}).ok());
    for (uint64_t block = 0; block < 32; block++)
      EXPECT_TRUE(rig.write(block, static_cast<uint8_t>(block + 1)));
  }
  Outcome exchange(const std::string& old, size_t index = 3) {
    LegMember member(rig.handle(index));
    member.instead_of = old;
    return rig.leg->add_member(std::move(member));
  }
  bool is_copied() {
    return rig.fixture.run_until([&] { return !rig.copied.empty(); });
  }
  void expect_filled(const std::string& when) {
    for (uint64_t block = 0; block < 32; block++)
      ASSERT_EQ(rig.read(block), static_cast<int>(block + 1)) << when << ": block " << block;
  }
  // The next controllers have any two of them; then one has all.
  void expect_filled_in_all_of(const std::vector<size_t>& set, const std::string& when) {
    rig.die();
    std::vector<std::vector<uint8_t>> contents;
    for (const auto& member : rig.members)
      contents.push_back(member->contents);
    const auto restore = [&] {
      for (size_t i = 0; i < contents.size(); i++)
        rig.members[i]->contents = contents[i];
    };
    for (const size_t lost : set) {
      std::vector<size_t> left;
      std::copy_if(set.begin(), set.end(), std::back_inserter(left), [&](size_t index) { return index != lost; });
      ASSERT_TRUE(rig.open(left).ok()) << when << " without " << lost;
      expect_filled(when + " without " + std::to_string(lost));
      rig.die();
      restore();
    }
    ASSERT_TRUE(rig.open(set).ok()) << when;
  }

  ParityLegRig rig{2, 1, 2};
};

TEST_F(ParityTwin, TakesOverFromAMemberThatServesUntilThen) {
  ASSERT_TRUE(exchange("a").ok());
  ASSERT_TRUE(is_copied());
  EXPECT_EQ(rig.copied, std::vector<std::string>{"d"});
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  rig.members[0]->status = nvme::status::host_path_error;
  rig.settle();
  EXPECT_TRUE(rig.failed.empty());
  ASSERT_TRUE(rig.write(3, 4) && rig.write(8, 9, 1));
  EXPECT_EQ(rig.leg->members().size(), 3u);
  EXPECT_FALSE(rig.leg->raid().degraded());
  expect_filled("at once");
  expect_filled_in_all_of({1, 2, 3}, "afterwards");
}

TEST_F(ParityTwin, ReadsWhatItCopiesFromTheOneThatItTakesOverFrom) {
  for (auto& member : rig.members)
    member->read_count = 0;
  ASSERT_TRUE(exchange("a").ok());
  ASSERT_TRUE(is_copied());
  EXPECT_GT(rig.members[0]->read_count, 0u);
  EXPECT_EQ(rig.members[1]->read_count + rig.members[2]->read_count, 0u);
}

TEST_F(ParityTwin, WhatItCannotReadThereIsRecoveredFromTheOthers) {
  rig.members[0]->bad_block = 136;  // where strips lie
  ASSERT_TRUE(exchange("a").ok());
  ASSERT_TRUE(is_copied());
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  expect_filled_in_all_of({1, 2, 3}, "with a bad block");
}

// Between `copied` and the removal the record may name either.
TEST_F(ParityTwin, EitherOfTheTwoMayBeTheRecordedOne) {
  for (const bool committed : {false, true}) {
    ASSERT_TRUE(exchange("a").ok());
    ASSERT_TRUE(is_copied());
    if (committed) {
      ASSERT_TRUE(rig.leg->commit_member("d").ok());
    }
    ASSERT_TRUE(rig.write(5, 6) && rig.write(16, 17));
    if (!committed) {
      expect_filled_in_all_of({0, 1, 2}, "with the old one");
      continue;
    }
    expect_filled_in_all_of({1, 2, 3}, "with the new one");
    // Back: the old one comes as one that has nothing.
    ASSERT_TRUE(exchange("d", 0).ok());
    ASSERT_TRUE(is_copied());
    expect_filled_in_all_of({1, 2, 3}, "its swap was not made");
    ASSERT_TRUE(exchange("d", 0).ok());
    ASSERT_TRUE(is_copied());
    expect_filled_in_all_of({0, 1, 2}, "its swap was made");
  }
}

TEST_F(ParityTwin, NothingIsAcknowledgedWithoutEitherOnceTheSwapMayHaveBeenMade) {
  for (const size_t failing : {size_t{0}, size_t{3}}) {
    ASSERT_TRUE(exchange("a").ok());
    ASSERT_TRUE(is_copied());
    rig.members[failing]->status = nvme::status::host_path_error;
    PendingIo& write = rig.start(IoType::write, 0, 1, 8);
    rig.settle(seconds(2));
    EXPECT_FALSE(write.done);
    EXPECT_TRUE(rig.leg->waiting());
    if (failing == 0) {
      EXPECT_EQ(rig.failed, std::vector<std::string>{"a"});
      ASSERT_TRUE(rig.leg->commit_member("d").ok());
      ASSERT_TRUE(rig.leg->remove_member("a").ok());
    } else {
      EXPECT_EQ(rig.joining_failed, std::vector<std::string>{"d"});
      ASSERT_TRUE(rig.leg->abandon_member("d").ok());
    }
    ASSERT_TRUE(rig.ends(write));
    EXPECT_TRUE(write.io.status.ok());
    EXPECT_EQ(rig.leg->members().size(), 3u);
    rig.die();
    ASSERT_TRUE(rig.open(failing == 0 ? std::vector<size_t>{1, 2, 3} : std::vector<size_t>{0, 1, 2}).ok());
    if (failing == 3) continue;
    LegMember back(rig.handle(0));
    back.instead_of = "d";
    ASSERT_TRUE(rig.leg->add_member(std::move(back)).ok());
    ASSERT_TRUE(is_copied());
    rig.die();
    ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  }
}

TEST_F(ParityTwin, NoReadIsAnsweredWithoutALeaseFromBoth) {
  ASSERT_TRUE(exchange("a").ok());
  ASSERT_TRUE(is_copied());
  for (const size_t silent : {size_t{0}, size_t{3}}) {
    rig.settle(seconds(1));
    rig.members[silent]->hold = true;
    // Of a block that neither of the two has: of stripe 1, which begins with another member.
    PendingIo& read = rig.start(IoType::read, 12);
    rig.settle(seconds(1));
    EXPECT_FALSE(read.done);
    rig.members[silent]->release();
    ASSERT_TRUE(rig.ends(read));
    EXPECT_TRUE(read.io.status.ok());
  }
}

// What is copied goes on as a rebuild.
TEST_F(ParityTwin, TheOldOneMayFailBeforeTheNewOneIsEqual) {
  rig.members[3]->hold = true;
  ASSERT_TRUE(exchange("a").ok());
  rig.settle();
  rig.members[0]->status = nvme::status::host_path_error;
  rig.leg->member_lost("a");
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  rig.settle();
  rig.members[3]->release();
  ASSERT_TRUE(is_copied());
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  expect_filled_in_all_of({1, 2, 3}, "rebuilt");
}

TEST_F(ParityTwin, TheNewOneMayFailBeforeItIsEqualAndTheOldOneServesOn) {
  rig.members[3]->write_status = nvme::status::capacity_exceeded;
  ASSERT_TRUE(exchange("a").ok());
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.joining_failed.empty(); }));
  ASSERT_TRUE(rig.leg->abandon_member("d").ok());
  ASSERT_TRUE(rig.write(0, 1, 1)) << "nobody waits for it";
  rig.members[3]->write_status = nvme::status::success;
  ASSERT_TRUE(rig.fixture.run_until([&] { return exchange("a").ok(); })) << "and again";
  ASSERT_TRUE(is_copied());
  ASSERT_TRUE(rig.leg->abandon_member("d").ok()) << "called off";
  ASSERT_TRUE(rig.write(1, 2, 1));
  expect_filled_in_all_of({0, 1, 2}, "with the old one");
}

TEST_F(ParityTwin, OneMemberIsExchangedAtATime) {
  EXPECT_EQ(exchange("x").error().code, Errc::not_found);
  ASSERT_TRUE(exchange("a").ok());
  LegMember other(rig.handle(3), "another replica");
  EXPECT_EQ(rig.leg->add_member(std::move(other)).error().code, Errc::exists);
  EXPECT_EQ(exchange("b", 4).error().code, Errc::busy);
  ASSERT_TRUE(is_copied());
  EXPECT_EQ(exchange("b", 4).error().code, Errc::busy) << "both are there still";
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  rig.settle();
  // The next one, whose place is another.
  rig.copied.clear();
  ASSERT_TRUE(exchange("b", 0).ok());
  EXPECT_EQ(exchange("c", 1).error().code, Errc::exists);
  ASSERT_TRUE(is_copied());
  ASSERT_TRUE(rig.leg->commit_member("a").ok());
  ASSERT_TRUE(rig.leg->remove_member("b").ok());
  rig.settle();
  ASSERT_TRUE(rig.write(7, 8));
  expect_filled_in_all_of({0, 2, 3}, "two exchanged");
}

// Writes that were under way when it came, and those that come while it is copied.
TEST_F(ParityTwin, WritesWhileItIsCopiedReachBoth) {
  rig.members[2]->hold = true;
  PendingIo& before = rig.start(IoType::write, 0, 1, 8);
  rig.settle();
  ASSERT_TRUE(exchange("a").ok());
  PendingIo& meanwhile = rig.start(IoType::write, 8, 9, 1);
  rig.settle();
  rig.members[2]->release();
  ASSERT_TRUE(rig.ends(before) && rig.ends(meanwhile));
  PendingIo& after = rig.start(IoType::write, 2, 3, 1);
  ASSERT_TRUE(rig.ends(after));
  ASSERT_TRUE(is_copied());
  for (uint64_t block = 0; block < 8; block++)
    ASSERT_TRUE(rig.write(block, static_cast<uint8_t>(block + 1)));
  expect_filled_in_all_of({1, 2, 3}, "with the new one");
}

// A write that only the old one has was read there: the new one is not read before it has it too.
TEST_F(ParityTwin, AValueThatWasReadStaysWhenTheOldOneIsLetGo) {
  ASSERT_TRUE(exchange("a").ok());
  ASSERT_TRUE(is_copied());
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  // Not its superblocks: that the old one is let go is written there.
  rig.members[3]->hold_from_block = rig.leg->raid().layout().first_block;
  rig.members[3]->hold = rig.members[3]->hold_writes_only = true;
  PendingIo& write = rig.start(IoType::write, 0, 99);
  rig.settle();
  ASSERT_FALSE(write.done);
  ASSERT_EQ(rig.read(0), 99) << "the old one has it";
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  rig.settle();
  PendingIo& again = rig.start(IoType::read, 0, 0xee);
  // What it cannot read meanwhile is recovered, and rewritten.
  rig.members[3]->bad_block = rig.leg->raid().layout().member_block(0, 1);
  PendingIo& bad = rig.start(IoType::read, 1, 0xee);
  rig.settle();
  EXPECT_EQ(rig.read(2), 3) << "others go on";
  rig.members[3]->release();
  ASSERT_TRUE(rig.ends(write) && rig.ends(again) && rig.ends(bad));
  EXPECT_TRUE(write.io.status.ok() && again.io.status.ok() && bad.io.status.ok());
  EXPECT_EQ(again.data[0], 99);
  EXPECT_EQ(bad.data[0], 2);
  EXPECT_EQ(rig.leg->raid().parity_stats().repaired_count, 1u);
  // From then on it is the only place to read from.
  rig.members[3]->hold = true;
  PendingIo& next = rig.start(IoType::write, 0, 1);
  rig.settle();
  EXPECT_EQ(rig.read(0), 99);
  EXPECT_FALSE(next.done);
  rig.members[3]->release();
  ASSERT_TRUE(rig.ends(next) && rig.write(1, 2));
  expect_filled_in_all_of({1, 2, 3}, "afterwards");
}

// What cannot be had between the word that the old one is let go and the end of what the keeper does is had then.
TEST_F(ParityTwin, ReadsThatCameAsTheLastSpareWasExchangedEnd) {
  rig.leg->member_lost("c");
  ASSERT_TRUE(rig.leg->remove_member("c").ok());
  ASSERT_TRUE(exchange("a").ok());
  ASSERT_TRUE(is_copied());
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  // The log is half full: the keeper flushes all members, of which one is slow.
  const uint64_t before = rig.leg->raid().parity_stats().checkpoint_count;
  const auto flushes = [&] { return rig.leg->raid().parity_stats().checkpoint_count > before; };
  PendingIo* write = nullptr;
  while (!flushes()) {
    if (write != nullptr) {
      rig.members[1]->release();
      ASSERT_TRUE(rig.ends(*write));
    }
    rig.members[1]->hold = rig.members[1]->hold_writes_only = true;
    write = &rig.start(IoType::write, 8, 9);
    rig.settle();
  }
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  PendingIo& read = rig.start(IoType::read, 0, 0xee);
  rig.settle(milliseconds(50));
  EXPECT_FALSE(read.done) << "one member too few";
  rig.members[1]->release();
  ASSERT_TRUE(rig.ends(read));
  EXPECT_TRUE(read.io.status.ok());
  EXPECT_EQ(read.data[0], 1);
  ASSERT_TRUE(rig.ends(*write));
}

// The next one that comes has the seat of the one that left, whose requests may be under way for long.
TEST_F(ParityTwin, WhatTheOldOneAnswersLateIsNotHeldAgainstAnother) {
  ASSERT_TRUE(exchange("a").ok());
  ASSERT_TRUE(is_copied());
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  rig.members[0]->hold_reads_only = true;
  PendingIo& read = rig.start(IoType::read, 0, 0xee);
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  rig.settle();
  ASSERT_FALSE(read.done);
  rig.copied.clear();
  ASSERT_TRUE(exchange("b", 4).ok());
  rig.members[0]->fail_held(nvme::status::host_path_error);
  ASSERT_TRUE(is_copied());
  EXPECT_TRUE(rig.joining_failed.empty());
  EXPECT_TRUE(rig.failed.empty());
  ASSERT_TRUE(rig.ends(read));
  EXPECT_EQ(read.data[0], 1);
  ASSERT_TRUE(rig.leg->commit_member("e").ok());
  ASSERT_TRUE(rig.leg->remove_member("b").ok());
  rig.settle();
  expect_filled_in_all_of({2, 3, 4}, "two exchanged");
}

TEST_F(ParityTwin, AFlushThatAMemberMissedIsNotHeldByWhoCameInItsPlace) {
  rig.members[0]->flush_status = nvme::status::host_path_error;
  rig.members[2]->hold = rig.members[2]->hold_writes_only = true;
  PendingIo& flush = rig.start(IoType::flush, 0, 0, 0);
  rig.settle();
  rig.members[2]->hold = false;  // what comes from now on
  ASSERT_EQ(rig.failed, std::vector<std::string>{"a"});
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  rig.settle();
  ASSERT_TRUE(rig.leg->add_member(LegMember(rig.handle(3))).ok());
  ASSERT_TRUE(is_copied());
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  EXPECT_FALSE(flush.done);
  rig.members[2]->release();
  ASSERT_TRUE(rig.ends(flush));
  EXPECT_TRUE(flush.io.status.ok());
}

TEST(ParityLegSlots, AreUsedAgainByMembersThatComeAndGo) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  for (int round = 0; round < 50; round++) {
    ASSERT_TRUE(rig.fixture.run_until([&] {
      return rig.leg
          ->add_member([&] {
            LegMember member(rig.handle(3));
            member.instead_of = "a";
            return member;
          }())
          .ok();
    }));
    ASSERT_TRUE(rig.leg->abandon_member("d").ok());
    rig.settle();
    EXPECT_LE(rig.leg->attachment_count(), 5u);
  }
}

// What was read for the first one's place is on its way when the second one, for another place, has the same seat.
TEST_F(ParityTwin, WhatWasReadForOneThatWasGivenUpDoesNotCountForTheNext) {
  rig.members[0]->hold_reads_only = true;
  ASSERT_TRUE(exchange("a").ok());
  rig.settle();
  size_t reading_count = 0;
  rig.members[0]->held.for_each([&](Io*) { reading_count++; });
  ASSERT_GT(reading_count, 1u);
  ASSERT_TRUE(rig.leg->abandon_member("d").ok());
  rig.settle();
  ASSERT_TRUE(exchange("b", 4).ok());
  rig.settle();
  rig.members[0]->release();
  ASSERT_TRUE(is_copied());
  EXPECT_EQ(rig.copied, std::vector<std::string>{"e"});
  ASSERT_TRUE(rig.leg->commit_member("e").ok());
  ASSERT_TRUE(rig.leg->remove_member("b").ok());
  expect_filled_in_all_of({0, 2, 4}, "with the second one");
}

TEST_F(ParityTwin, IsCopiedAtAPaceAndCanBeGivenUpWhilePaused) {
  ASSERT_TRUE(rig.leg->pace_resync(0, true).ok());
  ASSERT_TRUE(exchange("a").ok());
  rig.settle(seconds(1));
  EXPECT_EQ(rig.leg->members().back().copied_blocks, 0u);
  ASSERT_TRUE(rig.leg->abandon_member("d").ok());
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.leg->members().size() == 3; }));
  rig.settle();
  ASSERT_TRUE(exchange("a").ok());
  rig.settle(seconds(1));
  EXPECT_TRUE(rig.copied.empty());
  ASSERT_TRUE(rig.leg->pace_resync(0, false).ok());
  ASSERT_TRUE(is_copied());
}

}  // namespace
}  // namespace basalt::bdev
