// SPDX-License-Identifier: Apache-2.0
// Members of raid5 and raid6 that are away, come back, or take over from another one: what they missed is all that they
// get, a rebuild goes on after a restart, and a power cut at any device write leaves nothing that is believed wrongly.
#include <gtest/gtest.h>

#include "bdev/raid/raid_cut_test_util.h"
#include "bdev/raid/raid_parity.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

using Rig = RaidRig;
using Geometry = RaidRig::Geometry;
constexpr uint64_t one_strip = 1;

// How many blocks of strips were written to a disk.
struct Written {
  explicit Written(CutDisk& disk, uint64_t first_block) : first_block(first_block), disk(disk) {
    disk.seen = [this](const Io& io) {
      if (io.type != IoType::read && io.type != IoType::flush && io.offset_blocks >= this->first_block)
        count_blocks += io.count_blocks;
    };
  }
  ~Written() { disk.seen = nullptr; }
  const uint64_t first_block;
  CutDisk& disk;
  uint64_t count_blocks = 0;
};

// All but those of `lost`, and those that tell of nothing yet.
std::vector<size_t> carrying(const Rig& rig, uint32_t lost) {
  std::vector<size_t> found;
  for (const size_t index : members_but(lost, rig.disks.size()))
    if (newest_superblock(*rig.disks[index]).generation != 0) found.push_back(index);
  return found;
}

bool is_whole(Rig& rig) {
  return rig.fixture.run_until([&] { return !rig.raid->degraded() && !rig.raid->resyncing(); });
}

// The same disks after an orderly end.
struct Again {
  Again(Rig& before, const std::vector<size_t>& members) : rig(end(before), 77) {
    rig.bugs = before.bugs;
    rig.oracle = before.oracle;
    auto loaded = rig.load(members);
    EXPECT_TRUE(loaded) << loaded.error().message;
    if (loaded) rig.raid = std::move(*loaded);
  }
  static Rig& end(Rig& before) {
    before.close();
    return before;
  }
  Rig rig;
};

// A written raid5 of which d0 was lost.
struct Lost {
  Lost() : rig({3, 1, 65536}) {
    rig.mark_region_bytes = one_strip;
    rig.create();
    EXPECT_TRUE(rig.fixture.run_until([&] { return !rig.raid->resyncing(); }));
    for (uint64_t block = 0; block + 64 <= rig.raid->info().count_blocks; block += 64)
      rig.write(block, 64);
    EXPECT_TRUE(rig.fixture.io(*rig.raid, IoType::flush, 0, 0).ok());
    rig.raid->member_lost("d0");
    EXPECT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(0).state == RaidMemberState::missing; }));
  }
  uint64_t member_blocks() const { return rig.raid->layout().strip_count * rig.raid->layout().strip_blocks; }
  Rig rig;
};

TEST(RaidParityAway, ARebuildGoesOnAfterARestart) {
  Lost lost;
  Rig& rig = lost.rig;
  const uint64_t member_blocks = lost.member_blocks();
  rig.add_disk(2048);
  rig.raid->set_resync(member_blocks * Rig::block_bytes, false);
  ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(4)));
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(0).rebuilt_blocks > member_blocks / 2; }));
  const uint64_t first_block = rig.raid->layout().first_block;
  Again again(rig, {1, 2, 3, 4});
  const RaidMemberInfo info = again.rig.raid->member(0);
  EXPECT_EQ(info.state, RaidMemberState::rebuilding);
  EXPECT_EQ(info.name, "d4");
  EXPECT_GT(info.rebuilt_blocks, member_blocks / 3);
  const Written written(*again.rig.disks[4], first_block);
  ASSERT_TRUE(is_whole(again.rig));
  EXPECT_LT(written.count_blocks, member_blocks * 2 / 3);
  EXPECT_GT(written.count_blocks, member_blocks / 4);
  again.rig.expect_all();
  again.rig.expect_clean_scrub();
}

TEST(RaidParityAway, WhoWasAwayGetsWhatItMissed) {
  for (const bool restarted : {false, true}) {
    Lost lost;
    Rig& rig = lost.rig;
    const uint64_t first_block = rig.raid->layout().first_block;
    const uint64_t strip_blocks = rig.raid->layout().strip_blocks;
    rig.write(5, 2);
    rig.write(rig.raid->info().count_blocks - 3, 3);
    std::unique_ptr<Again> again;
    if (restarted) again = std::make_unique<Again>(rig, std::vector<size_t>{1, 2, 3});
    Rig& now = restarted ? again->rig : rig;
    const Written written(*now.disks[0], first_block);
    ASSERT_TRUE(now.fixture.run(now.raid->add_member(now.handle(0))));
    ASSERT_TRUE(is_whole(now));
    EXPECT_LE(written.count_blocks, 3 * strip_blocks);
    now.expect_all();
    now.expect_clean_scrub();
  }
}

// It left when everything was on the media, and was found to be away.
TEST(RaidParityAway, WhoWasNotThereAfterAnOrderlyEndGetsWhatItMissed) {
  Rig rig({3, 1, 65536});
  rig.create();
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.raid->resyncing(); }));
  for (uint64_t block = 0; block + 64 <= rig.raid->info().count_blocks; block += 64)
    rig.write(block, 64);
  Again without(rig, {1, 2, 3});
  without.rig.write(100, 1);
  const Written written(*without.rig.disks[0], without.rig.raid->layout().first_block);
  ASSERT_TRUE(without.rig.fixture.run(without.rig.raid->add_member(without.rig.handle(0))));
  ASSERT_TRUE(is_whole(without.rig));
  EXPECT_LE(written.count_blocks, 16u * 16);  // 1 MiB
  without.rig.expect_all();
  without.rig.expect_clean_scrub();
}

// Versions that know nothing of marks read a raid that needs none.
TEST(RaidParityAway, TheFormatIsTheOldOneUntilSomebodyIsAwayOrReplaced) {
  Lost lost;
  Rig& rig = lost.rig;
  const auto marked = [&] { return newest_superblock(*rig.disks[2]).incompatible == parity::incompatible_marks; };
  const auto is_old = [&] {
    const auto* bytes = rig.disks[2]->contents().data();
    const parity::Superblock newest = newest_superblock(*rig.disks[2]);
    uint64_t generation = 0;
    std::memcpy(&generation, bytes + 48, sizeof(generation));
    const size_t slot = generation == newest.generation ? 0 : 1;
    bytes += size_t{parity::superblock_pages[slot]} * parity::page_bytes;
    return newest.incompatible == 0 &&
           std::all_of(bytes + 192, bytes + parity::page_bytes, [](uint8_t byte) { return byte == 0; });
  };
  EXPECT_TRUE(marked());
  ASSERT_TRUE(rig.fixture.run(rig.raid->add_member(rig.handle(0))));
  ASSERT_TRUE(is_whole(rig));
  EXPECT_TRUE(is_old());
  rig.add_disk(2048);
  ASSERT_TRUE(rig.raid->add_twin(*rig.disks[1], rig.handle(4)));
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.exchanged.empty(); }));
  EXPECT_TRUE(marked());
}

// The power goes in the middle of the first superblock that a new device gets.
TEST(RaidParityAway, WhoseFirstSuperblockWasTornIsAsOneThatIsNotHere) {
  Lost lost;
  Rig& rig = lost.rig;
  CutDisk& torn = rig.add_disk(2048);
  std::copy_n(rig.disks[1]->contents().begin(), 512, torn.contents().begin());
  Again again(rig, {1, 2, 3, 4});
  EXPECT_EQ(again.rig.failed, std::vector<std::string>{"d4"});
  EXPECT_FALSE(again.rig.raid->uses(*again.rig.disks[4]));
  again.rig.expect_all();
  ASSERT_TRUE(again.rig.fixture.run(again.rig.raid->add_member(again.rig.handle(4))));
  ASSERT_TRUE(is_whole(again.rig));
  again.rig.expect_clean_scrub();
}

// What was rebuilt of it was not flushed yet when it failed, and its cache is lost.
TEST(RaidParityAway, WhatANewMemberHadInItsCacheWhenItFailedIsRebuiltAnew) {
  for (const bool restarted : {false, true}) {
    Lost lost;
    Rig& rig = lost.rig;
    CutDisk& fresh = rig.add_disk(2048);
    fresh.holds = [](const Io& io) { return io.type == IoType::flush; };
    ASSERT_TRUE(rig.raid->replace_member(0, rig.handle(4)));
    ASSERT_TRUE(rig.fixture.run_until([&] { return fresh.held_count() > 0; }));
    rig.raid->member_lost("d4");
    fresh.lose_power(rig.random);
    fresh.release();
    ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(0).state == RaidMemberState::missing; }));
    std::unique_ptr<Again> again;
    if (restarted) again = std::make_unique<Again>(rig, std::vector<size_t>{1, 2, 3});
    Rig& now = restarted ? again->rig : rig;
    ASSERT_TRUE(now.fixture.run(now.raid->add_member(now.handle(4))));
    ASSERT_TRUE(is_whole(now));
    now.expect_all();
    now.expect_clean_scrub();
  }
}

// Others have had the place since, the last one is lost as well, and one of before comes back.
bool is_right_with(size_t returning, bool broken) {
  Lost lost;
  Rig& rig = lost.rig;
  for (const size_t next : {4u, 5u}) {
    rig.add_disk(2048);
    EXPECT_TRUE(rig.raid->replace_member(0, rig.handle(next)));
    EXPECT_TRUE(is_whole(rig));
    for (uint64_t block = 0; block < 640; block += 64)
      rig.write(block, 64);
    EXPECT_TRUE(rig.fixture.io(*rig.raid, IoType::flush, 0, 0).ok());
    rig.raid->member_lost("d" + std::to_string(next));
    EXPECT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(0).state == RaidMemberState::missing; }));
  }
  rig.bugs.any_stay = broken;
  Again again(rig, {1, 2, 3});
  EXPECT_TRUE(again.rig.fixture.run(again.rig.raid->add_member(again.rig.handle(returning))));
  EXPECT_TRUE(is_whole(again.rig));
  const auto data = again.rig.fixture.read(*again.rig.raid, 0, 192);
  return std::equal(data.begin(), data.end(), again.rig.oracle.begin());
}

TEST(RaidParityAway, WhatAPlaceMissedIsForItsLastMemberAlone) {
  EXPECT_TRUE(is_right_with(0, false));
  EXPECT_TRUE(is_right_with(4, false));
  EXPECT_TRUE(is_right_with(5, false));
  EXPECT_FALSE(is_right_with(4, true));
}

TEST(RaidParityAway, ATwinTakesOverAndTheOldOneIsNotBelievedAnyMore) {
  Rig rig({3, 1, 65536});
  rig.create();
  for (uint64_t block = 0; block + 64 <= rig.raid->info().count_blocks; block += 64)
    rig.write(block, 64);
  rig.add_disk(2048);
  ASSERT_TRUE(rig.raid->add_twin(*rig.disks[1], rig.handle(4)));
  EXPECT_EQ(rig.raid->add_twin(*rig.disks[2], rig.handle(4)).error().code, Errc::busy);
  while (rig.exchanged.empty())
    rig.random_step();
  EXPECT_EQ(rig.exchanged, std::vector<std::string>{"d4 for d1"});
  EXPECT_TRUE(rig.failed.empty());
  EXPECT_FALSE(rig.raid->degraded());
  EXPECT_FALSE(rig.raid->uses(*rig.disks[1]));
  rig.expect_clean_scrub();
  for (int step = 0; step < 50; step++)
    rig.random_step();
  Again again(rig, {0, 1, 2, 3, 4});
  EXPECT_FALSE(again.rig.raid->degraded());
  EXPECT_FALSE(again.rig.raid->uses(*again.rig.disks[1]));
  again.rig.expect_all();
  Again without(again.rig, {0, 1, 2, 3});
  EXPECT_TRUE(without.rig.raid->degraded());
  without.rig.expect_all();
}

TEST(RaidParityAway, ATwinThatFailsOrWhoseOtherFailsLeavesARaidThatServes) {
  for (const bool old_fails : {false, true}) {
    Rig rig({3, 1, 65536});
    rig.create();
    rig.write(0, 256);
    rig.add_disk(2048);
    rig.raid->set_resync(uint64_t{1} << 20, false);
    ASSERT_TRUE(rig.raid->add_twin(*rig.disks[1], rig.handle(4)));
    ASSERT_TRUE(rig.fixture.run_until([&] { return rig.raid->member(4).rebuilt_blocks > 20; }));
    rig.raid->member_lost(old_fails ? "d1" : "d4");
    rig.write(40, 30);
    rig.raid->set_resync(0, false);
    ASSERT_TRUE(is_whole(rig));
    EXPECT_EQ(rig.raid->uses(*rig.disks[4]), old_fails);
    EXPECT_EQ(rig.raid->uses(*rig.disks[1]), !old_fails);
    rig.expect_all();
    Again again(rig, {0, 1, 2, 3, 4});
    EXPECT_FALSE(again.rig.raid->degraded());
    again.rig.expect_all();
    again.rig.expect_clean_scrub();
  }
}

// ---- power cuts ----------------------------------------------------------------------------------------------------

enum class Way : uint8_t { rebuild, comes_back, exchange };

// Members come while writes go on, and the power goes at some device write. Then the raid is found again, whole or in
// parts, goes on with what it was at, perhaps loses its power once more, and in the end any m members are lost.
struct Coming {
  Way way = Way::rebuild;
  Geometry geometry{3, 1, 8192};
  RaidPlantedBugs bugs;
  uint64_t admitted = 0;
  bool killed = false;  // what was written is there: nothing but the process ended
  uint32_t absent = 0;  // disks, as bits, that are not there when it is found again
  bool was_cut = false;
  bool busy = true;         // writes go on
  bool in_between = false;  // it was cut while somebody was on the way

  std::string run() {
    const uint32_t n = geometry.k + geometry.m;
    Settled settled(geometry, 1 + admitted, bugs, one_strip);
    return begin(settled.rig, settled.expected, settled.count_blocks, n);
  }

 private:
  std::string begin(Rig& rig, Expectation& expected, uint32_t count_blocks, uint32_t n) {
    const auto carry_out = [&](const RaidStep& step) { return expected.carry_out(rig, step); };
    if (!is_whole(rig)) return "it does not get whole before the cut";
    const bool away = way != Way::exchange;
    if (away) {
      rig.raid->member_lost("d1");
      if (!carry_out({0, 3}) || !carry_out({}) || !carry_out({7, 1})) return "a write failed before the cut";
    }
    if (way != Way::comes_back) rig.add_disk(raid_cut_member_blocks);
    rig.raid->set_resync(uint64_t{16} << 20, false);
    const Outcome coming = way == Way::exchange
                               ? rig.raid->add_twin(*rig.disks[1], rig.handle(n))
                               : rig.fixture.run(rig.raid->add_member(rig.handle(way == Way::rebuild ? n : 1)));
    if (!coming) return coming.error().message;
    rig.power.admitted = admitted;
    for (auto& disk : rig.disks)
      disk->power = &rig.power;
    const auto ended = [&] { return way == Way::exchange ? !rig.exchanged.empty() : !rig.raid->degraded(); };
    uint64_t turn = 0;
    for (uint64_t left = 4; left > 0 && !rig.power.cut; turn++) {
      if (ended()) left--;
      if (!busy) {
        rig.fixture.world.run_for(microseconds(100));
        continue;
      }
      (void)carry_out({turn * 7 % (count_blocks - 4), 1 + static_cast<uint32_t>(turn % 3), turn % 5 == 0});
      if (turn % 6 == 5) (void)carry_out({});
    }
    was_cut = rig.power.cut;
    in_between = !ended();
    if (killed)
      rig.kill();
    else
      rig.cut_power();
    return judge(rig, expected, count_blocks);
  }

  std::string judge(Rig& rig, const Expectation& expected, uint32_t count_blocks) {
    Revived after(rig, 1 + admitted, carrying(rig, absent));
    if (!after.refused.empty()) return after.refused;
    if (std::string wrong = after.judge(expected, count_blocks, false); !wrong.empty()) return wrong;
    let_in(after.rig);
    if (!is_whole(after.rig)) return "it does not get whole";
    const auto found = after.read(count_blocks);
    auto scrubbed = after.rig.fixture.run(after.rig.raid->scrub({.repair = false}));
    if (!scrubbed) return scrubbed.error().message;
    if (scrubbed->different_blocks != 0)
      return std::to_string(scrubbed->different_blocks) + " rows do not fit each other";
    const uint32_t lost = admitted % 3 == 0 ? 0 : 2 + static_cast<uint32_t>(admitted % 2);
    Again then(after.rig, carrying(after.rig, 1u << lost));
    if (then.rig.fixture.read(*then.rig.raid, 0, count_blocks) != found) return "what was there is another without one";
    return "";
  }

  // Whoever is of no place, while there are any.
  static void let_in(Rig& rig) {
    for (size_t index = rig.disks.size(); index-- > 0 && rig.raid->free_place() < rig.raid->member_count();) {
      if (rig.raid->uses(*rig.disks[index])) continue;
      EXPECT_TRUE(rig.fixture.run(rig.raid->add_member(rig.handle(index))));
    }
  }
};

// At every device write, or every so many; how often somebody was on the way.
uint64_t cut_everywhere(Coming coming, uint64_t step = 1) {
  uint64_t in_between = 0;
  coming.was_cut = true;
  for (coming.admitted = 0; coming.was_cut; coming.admitted += step * testing::cut_stride) {
    EXPECT_EQ(coming.run(), "") << "cut after " << coming.admitted << " writes, without " << coming.absent;
    in_between += coming.in_between ? 1 : 0;
  }
  return in_between;
}

bool any_cut_shows(Coming coming) {
  coming.was_cut = true;
  for (coming.admitted = 0; coming.was_cut; coming.admitted++)
    if (!coming.run().empty()) return true;
  return false;
}

class RaidParityComing : public ::testing::TestWithParam<Way> {};

TEST_P(RaidParityComing, APowerCutAtAnyWriteLeavesNothingThatIsBelievedWrongly) {
  for (const Geometry& geometry : {Geometry{3, 1, 8192}, Geometry{4, 2, 8192}}) {
    EXPECT_GT(cut_everywhere({.way = GetParam(), .geometry = geometry}), testing::cuts_here(30));
  }
}

TEST_P(RaidParityComing, AKillAtAnyWriteLeavesNothingThatIsBelievedWrongly) {
  EXPECT_GT(cut_everywhere({.way = GetParam(), .killed = true}), testing::cuts_here(30));
}

// As many are gone at the same moment as there is parity for; who is on the way, and whose place it is to have, too.
TEST_P(RaidParityComing, APowerCutMayTakeMembersAlong) {
  const bool away = GetParam() != Way::exchange;
  for (const Geometry& geometry : {Geometry{3, 1, 8192}, Geometry{4, 2, 8192}}) {
    const uint32_t n = geometry.k + geometry.m;
    const uint32_t coming = GetParam() == Way::comes_back ? 1 : n;
    std::vector<uint32_t> absent = {1u << coming};
    if (!away) absent.push_back(1u << 1);
    if (!away || geometry.m > 1) absent.push_back(1u << 2);
    if (geometry.m > 1) absent.push_back(1u << 2 | 1u << coming);
    for (const uint32_t members : absent)
      EXPECT_GT(cut_everywhere({.way = GetParam(), .geometry = geometry, .absent = members}, 3),
                testing::cuts_here(10));
  }
}

std::string name_of_way(const ::testing::TestParamInfo<Way>& info) {
  constexpr const char* names[] = {"Rebuild", "ComesBack", "Exchange"};
  return names[static_cast<size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(All, RaidParityComing, ::testing::Values(Way::rebuild, Way::comes_back, Way::exchange),
                         name_of_way);

TEST(RaidParityAway, PlantedBugsAreNoticed) {
  for (const Way way : {Way::rebuild, Way::exchange}) {
    EXPECT_TRUE(any_cut_shows({.way = way, .bugs = {.no_marks = true}})) << "what changes is not marked";
    EXPECT_TRUE(any_cut_shows({.way = way, .bugs = {.clear_before_flush = true}, .busy = false}))
        << "marks are cleared too early";
  }
  EXPECT_TRUE(any_cut_shows({.way = Way::exchange, .bugs = {.twin_before_equal = true}}));
  EXPECT_TRUE(any_cut_shows({.way = Way::exchange, .bugs = {.twin_without_writes = true}}));
}

}  // namespace
}  // namespace basalt::bdev
