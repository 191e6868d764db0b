// SPDX-License-Identifier: Apache-2.0
// raid5 and raid6 in power cuts after members came back, and in two crashes in a row.
#include <gtest/gtest.h>

#include <algorithm>

#include "bdev/raid/raid_cut_test_util.h"
#include "bdev/raid/raid_parity.h"
#include "bdev/raid/superblock_test_util.h"

namespace basalt::bdev {
namespace {

using Rig = RaidRig;
using Geometry = RaidRig::Geometry;

// ---- Members that come back -----------------------------------------------------------------------------------------

// The member that has the only record of a write goes; the others know nothing of it, and write the block again.
TEST(RaidParityReturn, AMemberBringsNoRecordsFromBeforeItLeft) {
  for (const bool broken : {false, true}) {
    Settled settled({3, 1, 8192}, 1, {.keep_old_records = broken});
    const auto parity = static_cast<size_t>(settled.rig.raid->layout().member_of(0, 3));
    ASSERT_TRUE(settled.carry_out({0, 1}));
    settled.rig.cut_power();
    Revived without(settled.rig, 2, members_but(1u << parity, 4));
    ASSERT_EQ(without.refused, "");
    Expectation expected(1);
    ASSERT_TRUE(expected.carry_out(without.rig, {0, 1}));
    ASSERT_TRUE(without.rig.raid->replace_member(static_cast<uint32_t>(parity), without.rig.handle(parity)));
    ASSERT_TRUE(without.rig.fixture.run_until([&] { return !without.rig.raid->degraded(); }));
    ASSERT_TRUE(expected.carry_out(without.rig, {}));
    without.rig.cut_power();
    Revived after(without.rig, 3, {0, 1, 2, 3});
    EXPECT_EQ(after.judge(expected, 1, false).empty(), !broken);
  }
}

// While a member is out a write changes data alone. Rebuilt from caches, its parity must not outlive that data.
TEST(RaidParityReturn, ARebuiltMemberFitsWhatIsOnTheMediaOfTheOthers) {
  for (const bool broken : {false, true}) {
    bool wrong = false;
    for (uint64_t seed = 1; seed <= 8; seed++) {
      Settled settled({3, 1, 8192}, seed, {.no_flush_before_join = broken});
      Rig& rig = settled.rig;
      const ParityLayout& layout = rig.raid->layout();
      const uint32_t parity = layout.member_of(0, 3);
      const uint32_t other = layout.member_of(0, 1);
      rig.raid->member_lost("d" + std::to_string(parity));
      ASSERT_TRUE(settled.carry_out({0, 1}));
      rig.add_disk(raid_cut_member_blocks);
      ASSERT_TRUE(rig.raid->replace_member(parity, rig.handle(4)));
      ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->degraded(); }));
      rig.cut_power();
      Revived after(rig, seed, members_but(1u << parity | 1u << other, 5));
      wrong |= !after.judge(settled.expected, settled.count_blocks, true).empty();
    }
    EXPECT_EQ(wrong, broken);
  }
}

// Writes go on while a parity member joins, and the power is cut at every device write; the other parity's member is
// lost then, with a data member missing already. The one that joined has to know what the lost one's records said:
// those of writes that began before the join as well.
TEST(RaidParityReturn, AWriteThatBeganBeforeAMemberJoinedIsOnItsLogToo) {
  for (const bool broken : {false, true}) {
    bool wrong = false;
    bool was_cut = true;
    uint32_t judged_count = 0;
    for (uint64_t admitted = 0; was_cut && !wrong; admitted++) {
      Settled settled({4, 2, 8192}, 1 + admitted, {.no_record_for_joining = broken});
      Rig& rig = settled.rig;
      const ParityLayout layout = rig.raid->layout();
      const uint32_t missing = layout.member_of(1, 2);
      const uint32_t parity = layout.member_of(1, 4);
      const uint32_t lost = 1u << missing | 1u << layout.member_of(1, 5);
      rig.raid->member_lost("d" + std::to_string(missing));
      rig.raid->member_lost("d" + std::to_string(parity));
      ASSERT_TRUE(settled.carry_out({0, 1}));
      ASSERT_TRUE(rig.raid->replace_member(parity, rig.handle(parity)));
      rig.power.admitted = admitted;
      for (auto& disk : rig.disks)
        disk->power = &rig.power;
      for (int left = 3; left > 0 && !rig.power.cut;) {
        if (rig.raid->member(parity).state == RaidMemberState::in_sync) left--;
        (void)settled.carry_out({14, 2});  // role 3 of stripe 1
      }
      was_cut = rig.power.cut;
      rig.cut_power();
      // Before it has joined those that are left are too few.
      Revived after(rig, 1, members_but(lost, 6));
      if (!after.refused.empty()) continue;
      judged_count++;
      wrong |= !after.judge(settled.expected, settled.count_blocks, true).empty();
    }
    EXPECT_GE(judged_count, broken ? 1u : 5u);
    EXPECT_EQ(wrong, broken);
  }
}

Task<void> write_one(Rig* rig, uint64_t block, std::vector<uint8_t> data) {
  Iovec iov{data.data(), data.size()};
  Io io;
  io.type = IoType::write;
  io.offset_blocks = block;
  io.count_blocks = 1;
  io.iov = &iov;
  io.iov_count = 1;
  (void)co_await io_wait(Handle(*rig->raid, rig->fixture.reactor), io);
}

// A member has joined as its own superblock says, and those of the others do not say so yet. Everything is killed while
// a block is being written, and the new one is lost: the others know what the records say.
TEST(RaidParityReturn, ARecordFromTheMomentOfAJoinCountsForThoseThatWereThereBefore) {
  for (const bool broken : {false, true}) {
    bool wrong = false;
    for (uint64_t stripe = 0; stripe < raid_cut_stripes; stripe++) {
      for (uint64_t admitted = 0; admitted < 6; admitted++) {
        Settled settled({3, 1, 8192}, 1 + admitted, {.record_epoch_early = broken});
        Rig& rig = settled.rig;
        const ParityLayout layout = rig.raid->layout();
        const uint32_t missing = layout.member_of(stripe, 1);
        const uint64_t changed = stripe * layout.stripe_blocks();
        rig.raid->member_lost("d" + std::to_string(missing));
        ASSERT_TRUE(settled.carry_out({changed, 1}));  // marked
        const std::vector<uint8_t> before = rig.fixture.read(*rig.raid, 0, settled.count_blocks);
        CutDisk& joining = rig.add_disk(raid_cut_member_blocks);
        const uint64_t epoch = newest_superblock(*rig.disks[layout.member_of(stripe, 0)]).epoch;
        const std::vector<size_t> others = members_but(1u << missing | 1u << 4, 5);
        for (const size_t i : others)
          rig.disks[i]->holds = [epoch](const Io& io) { return names_epoch_above(io, epoch); };
        ASSERT_TRUE(rig.raid->replace_member(missing, rig.handle(4)));
        ASSERT_TRUE(rig.fixture.run_until([&] {
          return newest_superblock(joining).epoch > epoch &&
                 std::all_of(others.begin(), others.end(), [&](size_t i) { return rig.disks[i]->held_count() > 0; });
        }));
        rig.power.admitted = admitted;
        for (auto& disk : rig.disks)
          disk->power = &rig.power;
        const auto data = rig.fresh(1);
        spawn(write_one(&rig, changed, data));
        rig.fixture.world.run_for(milliseconds(5));
        rig.power.cut = true;
        for (auto& disk : rig.disks)
          disk->release();
        rig.kill();
        Revived after(rig, 1, others);
        ASSERT_EQ(after.refused, "");
        const std::vector<uint8_t> found = after.read(settled.count_blocks);
        for (uint64_t block = 0; block < settled.count_blocks; block++) {
          const auto* at = &found[block * Rig::block_bytes];
          const bool is_old = std::equal(at, at + Rig::block_bytes, &before[block * Rig::block_bytes]);
          const bool is_new = block == changed && std::equal(at, at + Rig::block_bytes, data.data());
          wrong |= !is_old && !is_new;
          EXPECT_TRUE(broken || is_old || is_new) << "block " << block << ", stripe " << stripe << ", " << admitted;
        }
      }
    }
    EXPECT_EQ(wrong, broken);
  }
}

// A write and a flush at any moment of a rebuild: what the flush covered is on the new member when that one counts.
TEST(RaidParityReturn, WhatWasFlushedDuringARebuildIsOnTheNewMember) {
  for (const bool broken : {false, true}) {
    bool wrong = false;
    for (int64_t delay_us = 0; delay_us < 4000 && !wrong; delay_us += 20) {
      Settled settled({3, 1, 8192}, 1 + static_cast<uint64_t>(delay_us), {.no_flush_before_join = broken});
      Rig& rig = settled.rig;
      const uint32_t member = rig.raid->layout().member_of(0, 0);
      rig.raid->member_lost("d" + std::to_string(member));
      ASSERT_TRUE(settled.carry_out({12, 1}));
      rig.add_disk(raid_cut_member_blocks);
      ASSERT_TRUE(rig.raid->replace_member(member, rig.handle(4)));
      rig.fixture.world.run_for(microseconds(delay_us));
      ASSERT_TRUE(settled.carry_out({0, 1}));
      ASSERT_TRUE(settled.carry_out({}));
      ASSERT_TRUE(settled.carry_out({2, 1}));
      ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->degraded(); }));
      rig.cut_power();
      Revived after(rig, 1, members_but(1u << member, 5));
      wrong |= !after.judge(settled.expected, settled.count_blocks, false).empty();
    }
    EXPECT_EQ(wrong, broken);
  }
}

// ---- Two crashes ----------------------------------------------------------------------------------------------------

// What a read showed after a crash is what later losses leave, also where a whole stripe was torn.
TEST(RaidParityCrash, WhatWasReadAfterwardsStaysSo) {
  struct Case {
    Geometry geometry;
    uint32_t lost_first;
    uint32_t lost_then;
  };
  for (const Case& one : {Case{{3, 1, 8192}, 0, 0b10}, Case{{4, 2, 8192}, 0, 0b110}, Case{{4, 2, 8192}, 0b10, 0b110}}) {
    for (const bool broken : {false, true}) {
      bool wrong = false;
      const size_t n = one.geometry.k + one.geometry.m;
      for (uint64_t seed = 1; seed <= 12; seed++) {
        Settled settled(one.geometry, seed, {.show_unsettled = broken});
        ASSERT_TRUE(settled.carry_out({0, settled.count_blocks}));
        settled.rig.cut_power();
        Revived first(settled.rig, seed, members_but(one.lost_first, n));
        ASSERT_EQ(first.refused, "");
        const auto shown = first.read(settled.count_blocks);
        first.rig.cut_power();
        Revived then(first.rig, seed, members_but(one.lost_then, n));
        ASSERT_EQ(then.refused, "");
        wrong |= then.read(settled.count_blocks) != shown;
      }
      EXPECT_EQ(wrong, broken) << one.geometry.k << "+" << one.geometry.m << ", first without " << one.lost_first;
    }
  }
}

// A crash tore the newest superblock of one member; the next one may come while that is being written again.
TEST(RaidParityCrash, TheOnlyGoodSuperblockOfAMemberIsNotWrittenOver) {
  for (uint32_t damaged = 0; damaged < 2; damaged++) {
    Settled settled({3, 1, 8192}, 1, {});
    ASSERT_TRUE(settled.carry_out({0, 1}));
    settled.rig.cut_power();
    Rig rig(settled.rig, 2);
    rig.disks[1]->contents()[size_t{parity::superblock_pages[damaged]} * parity::page_bytes + 100] ^= 1;
    std::vector<uint64_t> written;
    rig.disks[1]->seen = [&](const Io& io) {
      if (io.type == IoType::write && io.offset_blocks < parity::log_first_page) written.push_back(io.offset_blocks);
    };
    auto loaded = rig.load({0, 1, 2, 3});
    ASSERT_TRUE(loaded) << loaded.error().message;
    rig.raid = std::move(*loaded);
    ASSERT_FALSE(written.empty());
    EXPECT_EQ(written.front(), parity::superblock_pages[damaged]);
    rig.disks[1]->seen = nullptr;
  }
}

// One try without some members, cut again, and another one without others: refused or right.
TEST(RaidParityCrash, ALoadThatWasCutDoesNotMisleadTheNextOne) {
  for (const bool broken : {false, true}) {
    bool wrong = false;
    const Geometry geometry{4, 2, 8192};
    for (uint64_t first_admitted = 1; first_admitted <= 2; first_admitted++) {
      for (uint64_t then_admitted = 0; then_admitted <= 24; then_admitted++) {
        Settled settled(geometry, 1 + then_admitted, {.leave_after_replay = broken});
        Rig& rig = settled.rig;
        const ParityLayout layout = rig.raid->layout();
        ASSERT_TRUE(settled.carry_out({0, 1}));  // not clean, before the power counts
        rig.power.admitted = first_admitted;
        for (auto& disk : rig.disks)
          disk->power = &rig.power;
        (void)settled.carry_out({8, 1});
        rig.cut_power();
        for (const uint32_t p : {4u, 5u}) {
          const uint32_t without_record = 1u << layout.member_of(1, p);
          const uint32_t with_record = 1u << layout.member_of(1, 9 - p);
          Rig copy(geometry, 1, raid_cut_member_blocks);
          for (size_t i = 0; i < rig.disks.size(); i++)
            copy.disks[i]->contents() = rig.disks[i]->contents();
          copy.bugs = rig.bugs;
          for (auto& disk : copy.disks)
            disk->power = &copy.power;
          copy.power.admitted = then_admitted;
          auto loaded = copy.load(members_but(without_record, 6));
          if (loaded) copy.raid = std::move(*loaded);
          for (auto& disk : copy.disks)
            disk->lose_power(copy.random);
          copy.power.cut = true;
          if (copy.raid != nullptr) copy.close();
          Revived after(copy, 1, members_but(with_record | 1u << layout.member_of(1, 3), 6));
          if (!after.refused.empty()) continue;
          wrong |= !after.judge(settled.expected, settled.count_blocks, true).empty();
        }
      }
    }
    EXPECT_EQ(wrong, broken);
  }
}

}  // namespace
}  // namespace basalt::bdev
