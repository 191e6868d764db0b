// SPDX-License-Identifier: Apache-2.0
// Goal: unmap and write-zeroes of a leg with parity give space back on every member, and survive what writes survive:
// a controller that dies at any step, with as many members out of reach as there is parity, and all caches lost.
// Method: members in memory whose requests are counted; one history cut at every step, for every set of lost members.
#include "bdev/raid/parity_leg_test_util.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t strip_blocks = 4;

// What members are asked for in place, and in the log.
struct Asked {
  uint64_t zeroed_blocks = 0;
  uint64_t zeroing_count = 0;
  uint64_t data_blocks = 0;
  uint64_t record_blocks = 0;
};

void watch(ParityLegRig& rig, std::vector<Asked>* asked) {
  const uint64_t first = rig.leg->raid().layout().first_block;
  for (size_t i = 0; i < rig.members.size(); i++) {
    rig.members[i]->on_effect = [=](const Io& io) {
      Asked& of = (*asked)[i];
      const bool zeroes = io.type == IoType::unmap || io.type == IoType::write_zeroes;
      if (zeroes) of.zeroing_count++;
      if (zeroes) of.zeroed_blocks += io.count_blocks;
      if (io.type == IoType::write && io.offset_blocks >= first) of.data_blocks += io.count_blocks;
      if (io.type == IoType::write && io.offset_blocks < first && io.offset_blocks >= parity::log_first_page)
        of.record_blocks += io.count_blocks;
    };
  }
}

bool zero(ParityLegRig& rig, IoType type, uint64_t block, uint32_t count_blocks) {
  PendingIo& op = rig.start(type, block, 0, count_blocks);
  return rig.ends(op) && op.io.status.ok();
}

bool flush_leg(ParityLegRig& rig) {
  PendingIo& op = rig.start(IoType::flush, 0);
  return rig.ends(op) && op.io.status.ok();
}

TEST(ParityLegUnmap, OfWholeStripesIsOneRequestAndOnePageOfLogOnEachMember) {
  for (const IoType type : {IoType::unmap, IoType::write_zeroes}) {
    ParityLegRig rig(2, 2);
    ASSERT_TRUE(rig.open({0, 1, 2, 3}).ok());
    for (uint64_t block = 0; block < parity_leg_blocks; block++)
      ASSERT_TRUE(rig.write(block, 0x11));
    std::vector<Asked> asked(rig.members.size());
    watch(rig, &asked);
    ASSERT_TRUE(zero(rig, type, 8, 48));
    for (size_t i = 0; i < 4; i++) {
      EXPECT_EQ(asked[i].zeroing_count, 1u);
      EXPECT_EQ(asked[i].zeroed_blocks, 6 * strip_blocks);
      EXPECT_EQ(asked[i].data_blocks, 0u);
      EXPECT_EQ(asked[i].record_blocks, 1u);
    }
    for (uint64_t block = 0; block < parity_leg_blocks; block++)
      EXPECT_EQ(rig.read(block), block < 8 || block >= 56 ? 0x11 : 0);
  }
}

// Piece by piece: each member ends without data, the parity too.
TEST(ParityLegUnmap, OfPartsOfAStripeGivesTheParityBackWithTheLastOfThem) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  for (uint64_t block = 0; block < 8; block++)
    ASSERT_TRUE(rig.write(block, static_cast<uint8_t>(0x21 + block)));
  std::vector<Asked> asked(rig.members.size());
  watch(rig, &asked);
  ASSERT_TRUE(zero(rig, IoType::unmap, 0, 3));
  ASSERT_TRUE(zero(rig, IoType::unmap, 3, 1));
  uint64_t data_blocks = 0;
  for (const Asked& of : asked)
    data_blocks += of.data_blocks;
  EXPECT_EQ(data_blocks, strip_blocks) << "the parity of what is left";
  ASSERT_TRUE(zero(rig, IoType::unmap, 4, 4));
  for (size_t i = 0; i < 3; i++)
    EXPECT_EQ(asked[i].zeroed_blocks, strip_blocks);
  data_blocks = 0;
  for (const Asked& of : asked)
    data_blocks += of.data_blocks;
  EXPECT_EQ(data_blocks, strip_blocks);
  for (uint64_t block = 0; block < 8; block++)
    EXPECT_EQ(rig.read(block), 0);
}

TEST(ParityLegUnmap, LeavesAMemberThatIsRebuiltAsThinAsTheOthers) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  for (uint64_t block = 0; block < 8; block++)
    ASSERT_TRUE(rig.write(block, 0x31));
  rig.leg->member_lost("a");
  rig.settle();
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  rig.settle();
  std::vector<Asked> asked(rig.members.size());
  watch(rig, &asked);
  ASSERT_TRUE(rig.leg->add_member(rig.handle(3)).ok());
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.copied.empty(); }, seconds(20)));
  EXPECT_EQ(asked[3].data_blocks, strip_blocks);
  EXPECT_EQ(asked[3].zeroed_blocks, parity_leg_blocks / 2 - strip_blocks);
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
}

// A member that takes zeroes as data alone.
TEST(ParityLegUnmap, IsAWriteWhereAMemberKnowsNoOther) {
  ParityLegRig rig(2, 1);
  rig.members[1]->allow(IoTypes{0x7});
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  ASSERT_TRUE(rig.write(9, 0x41));
  ASSERT_TRUE(zero(rig, IoType::unmap, 8, 16));
  EXPECT_TRUE(rig.failed.empty());
  EXPECT_EQ(rig.read(9), 0);
}

// One history until the controller dies, after so many steps; then members are out of reach and caches are lost, twice.
struct CutUnmap {
  uint32_t k = 2;
  uint32_t m = 1;
  uint64_t first = 8;
  uint32_t count = 24;
  bool after_write = false;   // and over it another one, partly
  bool before_write = false;  // and below it one whose record is in the log, too
  int unread = -1;            // the member that cannot read its page of the log, once the unmap has ended
  uint64_t steps = 0;
  uint32_t unreached = 0;
  uint32_t lost_later = 0;
  RaidPlantedBugs bugs;
  bool ended = false;
  std::vector<int> seen{};

  bool all_have_records() const {
    return !after_write && first % (k * strip_blocks) == 0 && count % (k * strip_blocks) == 0;
  }
  std::string run() {
    ParityLegRig rig(k, m);
    rig.planted.raid = bugs;
    std::vector<size_t> all;
    for (size_t i = 0; i < k + m; i++)
      all.push_back(i);
    if (!rig.open(all).ok()) return "it does not open";
    for (uint64_t block = 0; block < parity_leg_blocks; block++)
      if (!rig.write(block, static_cast<uint8_t>(block + 1))) return "it is not filled";
    if (!flush_leg(rig)) return "it is not flushed";
    if (before_write && !rig.write(first + 1, 0xe1)) return "it is not written before";
    uint64_t left = steps;
    uint64_t page = UINT64_MAX;
    const uint64_t log_end = rig.leg->raid().layout().first_block;
    for (auto& member : rig.members) {
      member->steps_left = &left;
      member->on_effect = [&page, log_end](const Io& io) {
        const bool in_log = io.offset_blocks >= parity::log_first_page && io.offset_blocks < log_end;
        if (io.type == IoType::write && in_log) page = io.offset_blocks;
      };
    }
    bool zeroed = zero(rig, IoType::unmap, first, count);
    bool written = false;
    if (after_write && zeroed) written = rig.write(first + 1, 0xf1);
    ended = left > 0;
    rig.die();
    // Of a write, records are on the parity members alone: a member that is out of reach is all that may be lost
    // besides.
    for (auto& member : rig.members) {
      if (!all_have_records() && unreached != 0) break;
      member->lose_cache([&](uint64_t block) { return (block * 2654435761u + steps) % 3 != 0; });
    }
    for (auto& member : rig.members)
      member->on_effect = {};
    if (unread >= 0 && zeroed) rig.members[static_cast<size_t>(unread)]->bad_block = page;
    std::string wrong = judge(rig, unreached, zeroed, written, "first");
    if (!wrong.empty()) return wrong;
    rig.die();
    return judge(rig, unreached | lost_later, zeroed, written, "second");
  }

  std::string judge(ParityLegRig& rig, uint32_t away, bool zeroed, bool written, const std::string& when) {
    std::vector<size_t> set;
    for (size_t i = 0; i < k + m; i++)
      if ((away >> i & 1) == 0) set.push_back(i);
    const Outcome opened = rig.open(set);
    if (!opened.ok()) return when + ": " + opened.error().message;
    std::vector<int> found;
    for (uint64_t block = 0; block < parity_leg_blocks; block++) {
      const int value = rig.read(block);
      found.push_back(value);
      const bool concerned = block >= first && block < first + count;
      const bool over = after_write && block == first + 1;
      const int before = before_write && block == first + 1 ? 0xe1 : static_cast<int>(block + 1);
      bool right = value == before && !(concerned && zeroed);
      right |= concerned && value == 0 && !(over && written);
      right |= over && zeroed && value == 0xf1;
      if (!right) return when + ": block " + std::to_string(block) + " gives " + std::to_string(value);
    }
    if (!seen.empty() && found != seen) return when + ": it is not what was seen before";
    seen = std::move(found);
    return "";
  }
};

// Every cut, or one of so many; until `stop` says so.
template <class Stop>
void every_cut(const CutUnmap& of, uint64_t stride, Stop&& stop) {
  for (uint32_t unreached = 0; unreached < 1u << (of.k + of.m); unreached++) {
    if (static_cast<uint32_t>(__builtin_popcount(unreached)) > of.m) continue;
    for (uint32_t later = 0; later < 1u << (of.k + of.m); later++) {
      // Who cannot read what may be in its log is as good as lost.
      const uint32_t lost_max = of.unread < 0 ? of.m : of.m - 1;
      if ((later & unreached) != 0 || static_cast<uint32_t>(__builtin_popcount(later | unreached)) > lost_max) continue;
      bool ended = false;
      for (uint64_t steps = (unreached + later) % stride; !ended; steps += stride) {
        CutUnmap one = of;
        one.steps = steps;
        one.unreached = unreached;
        one.lost_later = later;
        const std::string wrong = one.run();
        ended = one.ended;
        if (stop(one, wrong)) return;
      }
    }
  }
}

void expect_right(const CutUnmap& of) {
  uint64_t count = 0;
  every_cut(of, testing::cut_stride, [&](const CutUnmap& one, const std::string& wrong) {
    count++;
    EXPECT_EQ(wrong, "") << "steps " << one.steps << " unreached " << one.unreached << " later " << one.lost_later;
    return !wrong.empty();
  });
  EXPECT_GT(count, testing::cuts_here(50));
}

bool caught(CutUnmap of, const RaidPlantedBugs& bugs) {
  bool found = false;
  of.bugs = bugs;
  every_cut(of, 1, [&](const CutUnmap&, const std::string& wrong) { return found = !wrong.empty(); });
  return found;
}

TEST(ParityLegUnmap, OfManyStripesMayBeCutAtEveryStep) {
  expect_right({});
  expect_right({.k = 2, .m = 2, .count = 16});
}

TEST(ParityLegUnmap, WithEdgesMayBeCutAtEveryStep) {
  expect_right({.first = 6, .count = 21});
}

TEST(ParityLegUnmap, WithAWriteOverItMayBeCutAtEveryStep) {
  expect_right({.after_write = true});
  expect_right({.k = 2, .m = 2, .count = 16, .after_write = true});
}

// Nor is it undone by a page of the log that cannot be read: the other members have it.
TEST(ParityLegUnmap, IsNotUndoneByAnUnreadablePageOfLog) {
  for (int member = 0; member < 4; member++)
    expect_right({.k = 2, .m = 2, .count = 16, .before_write = true, .unread = member});
}

TEST(ParityLegUnmap, EachPlantedBugIsCaught) {
  EXPECT_TRUE(caught({}, {.no_record = true}));
  EXPECT_TRUE(caught({}, {.record_not_durable = true}));
  EXPECT_TRUE(caught({}, {.zeroes_on_some = true}));
  EXPECT_TRUE(caught({}, {.whole_without_record = true}));
  EXPECT_TRUE(caught({.after_write = true}, {.writes_over_zeroes = true}));
}

}  // namespace
}  // namespace basalt::bdev
