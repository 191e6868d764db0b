// SPDX-License-Identifier: Apache-2.0
// raid5 and raid6 in power cuts. The write hole: a cut at every step of a partial write, with every set of members lost
// afterwards. Members that come back, and two crashes in a row: raid_parity_return_test.cc.
#include <gtest/gtest.h>

#include <bit>

#include "bdev/raid/raid_cut_test_util.h"
#include "bdev/raid/raid_parity.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

using Rig = RaidRig;
using Geometry = RaidRig::Geometry;
using Step = RaidStep;

// Carries steps out on a settled raid until the power is cut, after so many writes and flushes of the disks; then loses
// members, loads the others and reads everything back.
struct PowerCut {
  Geometry geometry;
  std::vector<Step> before;  // with power
  std::vector<Step> steps;
  uint32_t missing = 0;  // members that were lost before
  uint32_t lost = 0;     // these too, afterwards; includes `missing`
  uint64_t admitted = 0;
  uint64_t seed = 1;
  RaidPlantedBugs bugs;
  bool was_cut = false;

  // What is wrong, or "".
  std::string run() {
    Settled settled(geometry, seed, bugs);
    Rig& rig = settled.rig;
    for_each_lost(missing, [&](uint32_t member) { rig.raid->member_lost("d" + std::to_string(member)); });
    for (const Step& step : before) {
      if (!settled.carry_out(step)) return "a write failed before the cut";
    }
    rig.power.admitted = admitted;
    for (auto& disk : rig.disks)
      disk->power = &rig.power;
    for (const Step& step : steps) {
      if (!settled.carry_out(step)) break;
    }
    was_cut = rig.power.cut;
    rig.cut_power();
    Revived after(rig, seed, members_but(lost, rig.disks.size()));
    return after.judge(settled.expected, settled.count_blocks, lost != 0);
  }
};

// Every cut of the steps (or one of so many), every set of members lost; until `stop` says so. Gives how many cases
// there were.
template <class Stop>
uint64_t every_cut(PowerCut cut, uint64_t stride, Stop&& stop) {
  const uint32_t n = cut.geometry.k + cut.geometry.m;
  uint64_t count = 0;
  for (cut.missing = 0; cut.missing < (1u << n); cut.missing++) {
    if (std::popcount(cut.missing) > 1) continue;
    for (cut.lost = 0; cut.lost < (1u << n); cut.lost++) {
      const auto lost_count = static_cast<uint32_t>(std::popcount(cut.lost));
      if ((cut.missing & ~cut.lost) != 0 || lost_count > cut.geometry.m) continue;
      if (n - lost_count < std::max(cut.geometry.k, cut.geometry.m + 1)) continue;
      cut.was_cut = true;
      for (cut.admitted = count % stride; cut.was_cut; cut.admitted += stride) {
        cut.seed = 1 + cut.admitted * 7 + cut.lost;
        count++;
        if (stop(cut)) return count;
      }
    }
  }
  return count;
}

std::string to_string(const PowerCut& cut) {
  return "missing " + std::to_string(cut.missing) + ", lost " + std::to_string(cut.lost) + ", cut after " +
         std::to_string(cut.admitted) + ", seed " + std::to_string(cut.seed);
}

uint64_t expect_right_after_every_cut(const PowerCut& cut) {
  return every_cut(cut, testing::cut_stride, [](PowerCut& one) {
    const std::string wrong = one.run();
    EXPECT_EQ(wrong, "") << to_string(one);
    return !wrong.empty();
  });
}

bool noticed(PowerCut cut, const RaidPlantedBugs& bugs) {
  bool found = false;
  cut.bugs = bugs;
  every_cut(cut, 1, [&](PowerCut& one) { return found = !one.run().empty(); });
  return found;
}

struct WriteHoleCase {
  const char* name;
  Geometry geometry;
  Step write;
};

class WriteHole : public ::testing::TestWithParam<WriteHoleCase> {};

// Every step of a partial write, every set of up to m lost members (one of them missing before, perhaps). An older
// record of the same blocks is in the log.
TEST_P(WriteHole, LeavesEveryBlockOldOrNewAndOthersUntouched) {
  PowerCut cut;
  cut.geometry = GetParam().geometry;
  cut.before = {GetParam().write, {}};
  cut.steps = {GetParam().write};
  const uint64_t count = expect_right_after_every_cut(cut);
  RecordProperty("cases", static_cast<int>(count));
  EXPECT_GE(count, testing::cuts_here(20));
}

INSTANTIATE_TEST_SUITE_P(All, WriteHole,
                         ::testing::Values(WriteHoleCase{"Raid5OneBlock", {3, 1, 8192}, {8, 1}},
                                           WriteHoleCase{"Raid5TwoStrips", {3, 1, 8192}, {7, 3}},
                                           WriteHoleCase{"Raid6OneBlock", {4, 2, 8192}, {8, 1}},
                                           WriteHoleCase{"Raid6ThreeStrips", {4, 2, 8192}, {10, 5}}),
                         [](const auto& info) { return info.param.name; });

// Slots are used again, records are overtaken by whole stripes, flushes come in between.
PowerCut busy_log() {
  PowerCut cut;
  cut.geometry = {3, 1, 8192};
  cut.before = {{1, 1}, {}};
  cut.steps = {{8, 1}, {1, 1}, {14, 2}, {19, 1}, {3, 1}, {9, 1}, {0, 6}, {}, {13, 1}, {2, 2}};
  return cut;
}

TEST(RaidParityLog, NeverBringsAnOlderRecordBack) {
  expect_right_after_every_cut(busy_log());
}

// The tests above are worth something only if they notice these.
TEST(RaidParityLog, PlantedBugsAreNoticed) {
  EXPECT_TRUE(noticed(busy_log(), {.no_record = true})) << "in place without a record";
  EXPECT_TRUE(noticed(busy_log(), {.no_flush_before_reuse = true})) << "a slot used again before its write was flushed";
  EXPECT_TRUE(noticed(busy_log(), {.whole_stripes_ignore_log = true}))
      << "a whole stripe over a record that is still in the log";
  EXPECT_TRUE(noticed(busy_log(), {.record_not_durable = true})) << "in place before the record is durable";
}

// The record of the forced write brings a parity back that fits the whole stripe below it, all of it.
TEST(RaidParityLog, AWriteOverAWholeStripeIsStableThoughNobodyFlushedThat) {
  for (const Geometry& geometry : {Geometry{3, 1, 8192}, Geometry{4, 2, 8192}}) {
    PowerCut cut;
    cut.geometry = geometry;
    cut.steps = {{0, geometry.k * 2}, {1, 1, true}, {2, 2, true}};
    expect_right_after_every_cut(cut);
    EXPECT_TRUE(noticed(cut, {.no_flush_before_record = true}));
  }
}

// With m = 2 a record has two copies. One rots, on a member that is there, and one other member is lost.
TEST(RaidParityLog, ARottenCopyIsMadeGoodFromTheOther) {
  const Geometry geometry{4, 2, 8192};
  for (const bool broken : {false, true}) {
    bool wrong = false;
    bool was_cut = true;
    for (uint64_t admitted = 0; was_cut; admitted++) {
      for (uint32_t rotten_role = 4; rotten_role < 6; rotten_role++) {
        for (uint32_t lost_role = 0; lost_role < 6; lost_role++) {
          if (lost_role == rotten_role) continue;
          Settled settled(geometry, 1 + admitted * 7 + lost_role, {.skip_incomplete = broken});
          Rig& rig = settled.rig;
          const ParityLayout layout = rig.raid->layout();
          const size_t rotten = layout.member_of(1, rotten_role);
          rig.power.admitted = admitted;
          for (auto& disk : rig.disks)
            disk->power = &rig.power;
          (void)settled.carry_out({8, 1});
          was_cut = rig.power.cut;
          rig.cut_power();
          // The payload of whatever is in the log.
          const parity::Superblock superblock = newest_superblock(*rig.disks[rotten]);
          for (uint64_t slot = 0; slot < superblock.log_slot_count; slot++) {
            const uint64_t page = parity::log_first_page + slot * superblock.log_slot_pages + 1;
            rig.disks[rotten]->contents()[page * parity::page_bytes + 5] ^= 1;
          }
          Revived after(rig, 1, members_but(1u << layout.member_of(1, lost_role), 6));
          const std::string found = after.judge(settled.expected, settled.count_blocks, true);
          EXPECT_TRUE(broken || found.empty()) << found << "; cut after " << admitted << ", lost role " << lost_role;
          wrong |= !found.empty();
        }
      }
    }
    EXPECT_EQ(wrong, broken);
  }
}

Task<void> write_block(Rig* rig, uint64_t block, std::vector<uint8_t> data, bool* ended) {
  Iovec iov{data.data(), data.size()};
  Io io;
  io.type = IoType::write;
  io.offset_blocks = block;
  io.count_blocks = 1;
  io.iov = &iov;
  io.iov_count = 1;
  (void)co_await io_wait(Handle(*rig->raid, rig->fixture.reactor), io);
  *ended = true;
}

// A member fails while a write reads what it needs; its record is written without that member, and before the
// superblocks say that it has left everything is killed. The member is found in the set then, with a parity that is not
// what the record makes of the others.
TEST(RaidParityLog, ARecordWithoutAMemberThatHadFailedMakesItsParityRight) {
  const Geometry geometry{4, 2, 8192};
  const uint64_t stripe_blocks = geometry.k * geometry.strip_bytes / Rig::block_bytes;
  const uint64_t changed = stripe_blocks + 2;
  const auto superblock = [](const Io& io) {
    const auto& pages = parity::superblock_pages;
    return io.type == IoType::write &&
           std::find(std::begin(pages), std::end(pages), io.offset_blocks) != std::end(pages);
  };
  uint32_t tried_count = 0;
  for (uint32_t lost = 0; lost < 1u << 6; lost++) {
    for (uint32_t role = 4; role < 6; role++) {
      Settled settled(geometry, 1 + lost, {});
      Rig& rig = settled.rig;
      const size_t failing = rig.raid->layout().member_of(1, role);
      if ((lost >> failing & 1) != 0 || std::popcount(lost) > 2) continue;
      tried_count++;
      const std::vector<uint8_t> before = rig.fixture.read(*rig.raid, 0, settled.count_blocks);
      for (auto& disk : rig.disks)
        disk->holds = [&](const Io& io) { return io.type == IoType::read || superblock(io); };
      const auto data = rig.fresh(1);
      bool ended = false;
      spawn(write_block(&rig, changed, data, &ended));
      rig.fixture.world.run_for(milliseconds(5));
      rig.raid->member_lost("d" + std::to_string(failing));
      for (auto& disk : rig.disks) {
        disk->release();
        disk->holds = superblock;
      }
      rig.fixture.world.run_for(milliseconds(5));
      ASSERT_FALSE(ended);
      for (auto& disk : rig.disks) {
        disk->power = &rig.power;
        rig.power.cut = true;
        disk->release();
      }
      rig.kill();
      Revived after(rig, 1, members_but(lost, 6));
      ASSERT_EQ(after.refused, "");
      const std::vector<uint8_t> found = after.read(settled.count_blocks);
      for (uint64_t block = 0; block < settled.count_blocks; block++) {
        const auto* at = &found[block * Rig::block_bytes];
        const bool is_old = std::equal(at, at + Rig::block_bytes, &before[block * Rig::block_bytes]);
        const bool is_new = block == changed && std::equal(at, at + Rig::block_bytes, data.data());
        EXPECT_TRUE(is_old || is_new) << "block " << block << ", lost " << lost << ", failing role " << role;
      }
    }
  }
  EXPECT_EQ(tried_count, 32u);
}

// A slot that cannot be read does not stop a load that can do without it.
TEST(RaidParityLog, AnUnreadableSlotIsDoneWithoutWhileNoMemberIsMissing) {
  for (const bool missing : {false, true}) {
    Settled settled({3, 1, 8192}, 1, {});
    Rig& rig = settled.rig;
    const ParityLayout layout = rig.raid->layout();
    const uint32_t parity = layout.member_of(1, 3);
    ASSERT_TRUE(settled.carry_out({6, 1}));
    const parity::Superblock superblock = newest_superblock(*rig.disks[parity]);
    rig.cut_power();
    for (uint64_t slot = 0; slot < superblock.log_slot_count; slot++) {
      rig.disks[parity]->bad_blocks.insert(parity::log_first_page + slot * superblock.log_slot_pages);
    }
    Revived after(rig, 1, members_but(missing ? 1u << layout.member_of(1, 1) : 0, 4));
    EXPECT_EQ(after.refused.empty(), !missing) << after.refused;
    if (missing) continue;
    EXPECT_EQ(after.judge(settled.expected, settled.count_blocks, false), "");
  }
}

TEST(RaidParityClean, IsSaidOnlyOfWholeStripesThatAreOnTheMedia) {
  for (const bool broken : {false, true}) {
    uint64_t wrong_count = 0;
    for (uint64_t seed = 1; seed <= 8; seed++) {
      Settled settled({3, 1, 8192}, seed, {.no_flush_before_clean = broken});
      Rig& rig = settled.rig;
      ASSERT_TRUE(settled.carry_out({0, 6}));
      ASSERT_EQ(newest_superblock(*rig.disks[0]).clean, 0);
      ASSERT_TRUE(rig.fixture.run_until([&] { return newest_superblock(*rig.disks[0]).clean == 1; }));
      rig.fixture.world.run_for(milliseconds(1));  // on all of them
      rig.cut_power();
      Revived after(rig, seed, {0, 1, 2, 3});
      ASSERT_EQ(after.refused, "");
      ASSERT_TRUE(after.rig.fixture.run_until([&] { return !after.rig.raid->resyncing(); }));
      auto scrubbed = after.rig.fixture.run(after.rig.raid->scrub({.repair = false}));
      ASSERT_TRUE(scrubbed);
      wrong_count += scrubbed->different_blocks;
    }
    EXPECT_EQ(wrong_count == 0, !broken);
  }
}

}  // namespace
}  // namespace basalt::bdev
