// SPDX-License-Identifier: Apache-2.0
// raid5 and raid6 when a member fails while something else is under way: a flush, a join, a resync, a read after a
// crash.
#include <gtest/gtest.h>

#include <cstring>
#include <optional>

#include "bdev/raid/raid_cut_test_util.h"
#include "bdev/raid/raid_parity.h"

namespace basalt::bdev {
namespace {

using Rig = RaidRig;

// A request that is not waited for.
struct Pending {
  Pending(Rig& rig, IoType type, uint64_t block, uint32_t count_blocks) : data(rig.fresh(count_blocks)) {
    iov = {data.data(), data.size()};
    io.type = type;
    io.offset_blocks = block;
    io.count_blocks = count_blocks;
    io.iov = &iov;
    io.iov_count = data.empty() ? 0 : 1;
    io.context = this;
    io.done = [](Io* ended) { static_cast<Pending*>(ended->context)->done = true; };
    Handle(*rig.raid, rig.fixture.reactor).submit(&io);
  }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

  std::vector<uint8_t> data;
  Iovec iov{};
  Io io;
  bool done = false;
};

// The write needs what lies below it flushed, and joins a flush that then misses a member.
TEST(RaidParityRace, AWriteOverAWholeStripeGoesOnWhenTheFlushItWaitsForMissesAMember) {
  Settled settled({3, 1, 8192}, 1, {});
  Rig& rig = settled.rig;
  const ParityLayout layout = rig.raid->layout();
  ASSERT_TRUE(settled.carry_out({0, 6}));
  CutDisk& slow = *rig.disks[layout.member_of(0, 3)];
  slow.holds = [](const Io& io) { return io.type == IoType::flush; };
  rig.disks[layout.member_of(0, 0)]->fail_writes = true;
  Pending flush(rig, IoType::flush, 0, 0);
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->degraded() && slow.held_count() == 1; }));
  rig.fixture.world.run_for(milliseconds(5));
  Pending write(rig, IoType::write, 2, 1);
  rig.fixture.world.run_for(milliseconds(5));
  EXPECT_FALSE(write.done);
  slow.release();
  ASSERT_TRUE(rig.fixture.run_until([&] { return write.done && flush.done; }));
  EXPECT_TRUE(write.io.status.ok());
  EXPECT_TRUE(flush.io.status.ok());
}

// The joining member knows its place in the set and the others are being told when it fails: what it holds is believed
// after a crash until they have been told otherwise.
TEST(RaidParityRace, AFlushWaitsUntilAJoiningMemberThatFailedIsOutOfTheRecordedSet) {
  Settled settled({3, 1, 8192}, 1, {});
  Rig& rig = settled.rig;
  rig.raid->member_lost("d0");
  ASSERT_TRUE(settled.carry_out({12, 1}));
  rig.add_disk(raid_cut_member_blocks);
  CutDisk& slow = *rig.disks[1];
  slow.holds = [](const Io& io) {
    if (io.type != IoType::write || io.offset_blocks >= parity::log_first_page) return false;
    parity::Superblock superblock;
    std::memcpy(&superblock, io.iov[0].base, sizeof(superblock));
    return superblock.in_sync == 0b1111;
  };
  ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(4)));
  ASSERT_TRUE(rig.fixture.run_until([&] { return slow.held_count() == 1; }));
  rig.raid->member_lost("d4");
  Pending flush(rig, IoType::flush, 0, 0);
  rig.fixture.world.run_for(milliseconds(5));
  EXPECT_FALSE(flush.done);
  slow.release();
  ASSERT_TRUE(rig.fixture.run_until([&] { return flush.done; }));
  EXPECT_TRUE(flush.io.status.ok());
  EXPECT_EQ(newest_superblock(slow).in_sync, 0b1110u);
}

// A read of strip 0 that was begun without its member, since that was not yet of the set: the member has joined, and of
// the others one holds its answer and will not be able to read the place.
struct ReadBesideItsMember {
  ReadBesideItsMember() {
    const ParityLayout layout = rig.raid->layout();
    EXPECT_TRUE(settled.carry_out({0, settled.count_blocks}));
    written = rig.fixture.read(*rig.raid, 0, 1);
    const uint32_t lost = layout.member_of(0, 0);
    CutDisk& slow = *rig.disks[layout.member_of(0, 1)];
    rotten = rig.disks[layout.member_of(0, 2)].get();
    rig.raid->member_lost("d" + std::to_string(lost));
    EXPECT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(lost).state == RaidMemberState::missing; }));
    rig.add_disk(raid_cut_member_blocks);
    slow.holds = [](const Io& io) {
      if (io.type != IoType::write || io.offset_blocks >= parity::log_first_page) return false;
      parity::Superblock superblock;
      std::memcpy(&superblock, io.iov[0].base, sizeof(superblock));
      return superblock.in_sync == 0b1111;
    };
    EXPECT_TRUE(rig.raid->replace_member(lost, rig.handle(4)).ok());
    EXPECT_TRUE(rig.fixture.run_until([&] { return slow.held_count() == 1; }));
    rotten->holds = [](const Io& io) { return io.type == IoType::read; };
    read.emplace(rig, IoType::read, 0, 1);
    EXPECT_TRUE(rig.fixture.run_until([&] { return rotten->held_count() == 1; }));
    slow.release();
    EXPECT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(lost).state == RaidMemberState::in_sync; }));
    rotten->bad_blocks.insert(layout.member_block(0, 0));
  }
  void answer() {
    rotten->release();
    EXPECT_TRUE(rig.fixture.run_until([&] { return read->done; }));
  }

  Settled settled{{3, 1, 8192}, 1, {}};
  Rig& rig = settled.rig;
  std::vector<uint8_t> written;
  CutDisk* rotten = nullptr;
  std::optional<Pending> read;
};

TEST(RaidParityRace, AReadWhoseMemberComesBackAsksThatWhenTheOthersCannotTell) {
  ReadBesideItsMember beside;
  beside.answer();
  EXPECT_TRUE(beside.read->io.status.ok()) << nvme::to_string(beside.read->io.status);
  EXPECT_EQ(beside.read->data, beside.written);
}

// Somebody else may drive the members by now: what is answered after that may be old.
TEST(RaidParityRace, AFencedReadAsksNoMemberThatCameBack) {
  ReadBesideItsMember beside;
  uint32_t asked_count = 0;
  beside.rig.disks[4]->holds = [&](const Io& io) {
    asked_count += io.type == IoType::read ? 1 : 0;
    return false;
  };
  beside.rig.raid->fence();
  beside.answer();
  EXPECT_EQ(beside.read->io.status, nvme::status::internal_path_error) << nvme::to_string(beside.read->io.status);
  EXPECT_EQ(asked_count, 0u);
}

// ---- After a crash --------------------------------------------------------------------------------------------------

TEST(RaidParityRace, AMemberThatLeavesWhileTheResyncReadsDoesNotEndIt) {
  Settled settled({4, 2, 8192}, 1, {});
  ASSERT_TRUE(settled.carry_out({0, settled.count_blocks}));
  settled.rig.cut_power();
  Revived after(settled.rig, 1, members_but(0, 6));
  ASSERT_EQ(after.refused, "");
  CutDisk& slow = *after.rig.disks[1];
  slow.holds = [](const Io& io) { return io.type == IoType::read; };
  ASSERT_TRUE(after.rig.fixture.run_until([&] { return slow.held_count() == 1; }));
  after.rig.raid->member_lost("d0");
  ASSERT_TRUE(after.rig.fixture.run_until([&] { return after.rig.raid->member(0).state == RaidMemberState::missing; }));
  slow.release();
  EXPECT_TRUE(after.rig.fixture.run_until([&] { return !after.rig.raid->resyncing(); }));
}

// Stripe 1 has to wait until its data can be read; those behind it need not.
TEST(RaidParityRace, AnUnreadableSectorKeepsTheResyncFromItsOwnStripeOnly) {
  for (uint64_t seed = 1; seed <= 4; seed++) {
    Settled settled({3, 1, 8192}, seed, {});
    const ParityLayout layout = settled.rig.raid->layout();
    ASSERT_TRUE(settled.carry_out({0, settled.count_blocks}));
    settled.rig.cut_power();
    settled.rig.disks[layout.member_of(1, 0)]->bad_blocks.insert(layout.member_block(1, 0));
    Revived after(settled.rig, seed, members_but(0, 4));
    ASSERT_EQ(after.refused, "");
    after.rig.fixture.world.run_for(seconds(1));
    EXPECT_TRUE(after.rig.raid->resyncing());
    EXPECT_EQ(after.rig.raid->resync_stripe(), 1u);
    const size_t first = layout.member_block(2, 0) * RaidRig::block_bytes;
    const size_t end = layout.member_block(raid_cut_stripes, 0) * RaidRig::block_bytes;
    size_t wrong_count = 0;
    for (size_t at = first; at < end; at++) {
      uint8_t sum = 0;
      for (auto& disk : after.rig.disks)
        sum ^= disk->contents()[at];
      wrong_count += sum != 0 ? 1 : 0;
    }
    EXPECT_EQ(wrong_count, 0u) << "seed " << seed;
    // Reading it mends the sector, and the resync gets to its end.
    (void)after.read(settled.count_blocks);
    EXPECT_TRUE(after.rig.fixture.run_until([&] { return !after.rig.raid->resyncing(); }));
    after.rig.expect_clean_scrub();
  }
}

TEST(RaidParityRace, AMemberThatDoesNotTakeItsParityInTheResyncLeaves) {
  Settled settled({4, 2, 8192}, 1, {});
  const uint32_t parity = settled.rig.raid->layout().member_of(0, 4);
  ASSERT_TRUE(settled.carry_out({0, settled.count_blocks}));
  settled.rig.cut_power();
  Revived after(settled.rig, 1, members_but(0, 6));
  ASSERT_EQ(after.refused, "");
  after.rig.disks[parity]->fail_writes = true;
  EXPECT_TRUE(after.rig.fixture.run_until([&] { return !after.rig.raid->resyncing(); }));
  EXPECT_EQ(after.rig.failed, std::vector<std::string>{"d" + std::to_string(parity)});
}

// A member is leaving when the stripe is read: with one parity left it can still be settled, and is.
TEST(RaidParityRace, WhatWasReadWhileAMemberLeftStaysSo) {
  for (const bool broken : {false, true}) {
    bool wrong = false;
    for (uint64_t seed = 1; seed <= 12; seed++) {
      Settled settled({4, 2, 8192}, seed, {.show_unsettled = broken});
      ASSERT_TRUE(settled.carry_out({0, settled.count_blocks}));
      settled.rig.cut_power();
      Revived first(settled.rig, seed, members_but(0, 6));
      ASSERT_EQ(first.refused, "");
      CutDisk& slow = *first.rig.disks[1];
      slow.holds = [](const Io& io) { return io.type == IoType::write && io.offset_blocks < parity::log_first_page; };
      first.rig.raid->member_lost("d0");
      Pending read(first.rig, IoType::read, 0, settled.count_blocks);
      first.rig.fixture.world.run_for(milliseconds(5));
      EXPECT_EQ(read.done, broken);
      slow.release();
      ASSERT_TRUE(first.rig.fixture.run_until([&] { return read.done; }));
      EXPECT_TRUE(read.io.status.ok());
      const auto shown = read.data;
      first.rig.cut_power();
      Revived then(first.rig, seed, members_but(0b11, 6));
      ASSERT_EQ(then.refused, "");
      wrong |= then.read(settled.count_blocks) != shown;
    }
    EXPECT_EQ(wrong, broken);
  }
}

}  // namespace
}  // namespace basalt::bdev
