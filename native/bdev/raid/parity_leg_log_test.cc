// SPDX-License-Identifier: Apache-2.0
// Goal: pages of a leg's log that cannot be read, or that are not whole, never make blocks of anything but old or new
// contents, whoever is lost afterwards; where nobody can tell, that is an exact error.
// Method: a controller dies at every step of a write; what a member of the stripe's parity has of the record is spoiled
// then. The next controller may die at every step, too. At last as many members are lost as there is parity.
#include "bdev/raid/parity_leg_test_util.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t stripes_filled = 4;
constexpr uint64_t stripe_written = 1;
constexpr uint8_t value_before = 0x51;
constexpr uint8_t value_new = 0x52;
constexpr uint64_t no_end = UINT64_MAX;

struct SpoiledLog {
  uint32_t k = 2;
  uint32_t m = 1;
  uint32_t spoiled_parity = 0;  // whose copy
  uint64_t page = 0;            // of the slot
  bool damaged = false;         // else unreadable
  bool before = true;           // a record of the same block is in the log, too
  uint64_t steps = 0;
  uint64_t open_steps = no_end;  // of the next controller
  uint32_t lost_then = 0;        // when that one has died
  uint32_t lost_at_last = 0;
  RaidPlantedBugs bugs{};
  bool ended = false;       // the write, before its controller died
  bool open_ended = false;  // the next one opened it, before it died
  bool in_place = false;    // something of the write
  bool doubted = false;     // when the next one died, superblocks said that parity may be wrong
  bool written = false;     // acknowledged
  std::vector<int> seen{};

  uint64_t block() const { return stripe_written * 4 * k + 1; }
  uint32_t member_of(uint32_t role) const { return (role + (k + m) - stripe_written % (k + m)) % (k + m); }
  uint32_t spoiled() const { return member_of(k + spoiled_parity); }

  std::string run() {
    ParityLegRig rig(k, m, 0);
    rig.leg_blocks = stripes_filled * 4 * k;
    rig.planted.raid = bugs;
    if (const Outcome opened = open_without(rig, 0); !opened.ok()) return opened.error().message;
    for (uint64_t stripe = 0; stripe < stripes_filled; stripe++)
      if (!rig.write(stripe * 4 * k, old_value(stripe), 4 * k)) return "it is not filled";
    if (!rig.ends(rig.start(IoType::flush, 0))) return "it is not flushed";
    // Until the log knows of nothing else of that stripe, and has room, so that the write's first steps are its
    // records.
    for (int i = 0; i < 8; i++)
      if (!rig.write(block() + 4 * k, old_value(stripe_written + 1))) return "another one is not written";
    rig.settle();
    if (before && !rig.write(block(), value_before)) return "it is not written before";
    const uint64_t slot = cut_write(rig);
    spoil(rig, slot);
    uint64_t left = open_steps;
    for (auto& member : rig.members)
      member->steps_left = open_steps == no_end ? nullptr : &left;
    const Outcome opened = open_without(rig, 0);
    open_ended = left > 0;
    if (!opened.ok() && open_ended) return "the next one: " + opened.error().message;
    if (opened.ok()) rig.die();
    for (auto& member : rig.members)
      member->steps_left = nullptr;
    doubted = says_doubtful(rig);
    std::string wrong = judge(rig, lost_then, "then");
    if (!wrong.empty()) return wrong;
    if (!rig.fixture.run_until([&] { return !rig.leg->raid().resyncing(); }, seconds(5))) return "it is not made right";
    rig.settle();
    rig.die();
    if (says_doubtful(rig)) return "it stays doubtful";
    return judge(rig, lost_then | lost_at_last, "at last");
  }

  // The newest of them.
  bool says_doubtful(ParityLegRig& rig) const {
    parity::Superblock newest{};
    for (uint32_t i = 0; i < k + m; i++) {
      for (const uint32_t page : parity::superblock_pages) {
        parity::Superblock superblock;
        std::memcpy(&superblock, &rig.members[i]->contents[size_t{page} * parity::page_bytes], sizeof(superblock));
        const bool valid = parity::check(superblock) == parity::PageState::valid;
        if (valid && superblock.generation > newest.generation) newest = superblock;
      }
    }
    return newest.doubtful != 0;
  }
  static uint8_t old_value(uint64_t stripe) { return static_cast<uint8_t>(0xa0 + stripe); }
  Outcome open_without(ParityLegRig& rig, uint32_t lost) const {
    std::vector<size_t> set;
    for (size_t i = 0; i < k + m; i++)
      if ((lost >> i & 1) == 0) set.push_back(i);
    return rig.open(set);
  }
  // The page at which the last record begins.
  uint64_t cut_write(ParityLegRig& rig) {
    const uint64_t log_end = rig.leg->raid().layout().first_block;
    uint64_t slot = 0;
    uint64_t left = steps;
    for (auto& member : rig.members) {
      member->steps_left = &left;
      member->on_effect = [&slot, log_end, this](const Io& io) {
        if (io.type != IoType::write || io.offset_blocks < parity::log_first_page) return;
        if (io.offset_blocks < log_end) slot = io.offset_blocks;
        in_place |= io.offset_blocks >= log_end;
      };
    }
    PendingIo& write = rig.start(IoType::write, block(), value_new);
    rig.settle();
    ended = left > 0;
    written = write.done && write.io.status.ok();
    rig.die();
    for (auto& member : rig.members)
      member->on_effect = {};
    return slot;
  }
  void spoil(ParityLegRig& rig, uint64_t slot) const {
    ScriptedMember& member = *rig.members[spoiled()];
    if (slot == 0) return;
    if (damaged) {
      member.contents[(slot + page) * block_bytes + 60] ^= 1;
    } else {
      member.bad_block = slot + page;
    }
  }
  std::string judge(ParityLegRig& rig, uint32_t lost, const std::string& when) {
    if (const Outcome opened = open_without(rig, lost); !opened.ok()) return when + ": " + opened.error().message;
    std::vector<int> found;
    for (uint64_t at = 0; at < stripes_filled * 4 * k; at++) {
      const int value = rig.read(at);
      found.push_back(value);
      bool right = at != block() && value == old_value(at / (uint64_t{4} * k));
      const uint8_t value_old = before ? value_before : old_value(stripe_written);
      right |= at == block() && (value == value_new || (!written && value == value_old));
      if (!right) return when + ": block " + std::to_string(at) + " gives " + std::to_string(value);
    }
    if (!seen.empty() && seen != found) return when + ": it is not what was seen before";
    seen = std::move(found);
    return "";
  }
};

std::string to_string(const SpoiledLog& one) {
  return std::to_string(one.k) + "+" + std::to_string(one.m) + ", parity " + std::to_string(one.spoiled_parity) +
         ", page " + std::to_string(one.page) + (one.damaged ? ", damaged" : "") + ", steps " +
         std::to_string(one.steps) + ", open_steps " + std::to_string(one.open_steps) + ", lost then " +
         std::to_string(one.lost_then) + ", at last " + std::to_string(one.lost_at_last);
}

// Every step of the write, and everybody who may be lost at last; until `stop` says so.
template <class Stop>
void every_cut(SpoiledLog of, uint64_t stride, Stop&& stop) {
  const auto lost_count = [](uint32_t lost) { return static_cast<uint32_t>(__builtin_popcount(lost)); };
  for (of.spoiled_parity = 0; of.spoiled_parity < of.m; of.spoiled_parity++) {
    for (of.page = 0; of.page < 3; of.page++) {
      for (of.lost_at_last = 0; of.lost_at_last < 1u << (of.k + of.m); of.lost_at_last++) {
        if (lost_count(of.lost_at_last | of.lost_then) != of.m || (of.lost_at_last & of.lost_then) != 0) continue;
        of.ended = false;
        // Some of the steps, others of them where others are lost.
        for (of.steps = (of.lost_at_last + of.page) % (of.m * stride); !of.ended; of.steps += of.m * stride) {
          SpoiledLog one = of;
          const bool stopped = stop(one);
          of.ended = one.ended;
          if (stopped) return;
        }
      }
    }
  }
}

uint64_t expect_right(const SpoiledLog& of) {
  uint64_t count = 0;
  every_cut(of, testing::cut_stride, [&](SpoiledLog& one) {
    count++;
    const std::string wrong = one.run();
    EXPECT_EQ(wrong, "") << to_string(one);
    return !wrong.empty();
  });
  return count;
}

bool caught(SpoiledLog of, const RaidPlantedBugs& bugs) {
  bool found = false;
  of.bugs = bugs;
  every_cut(of, 1, [&](SpoiledLog& one) { return found = !one.run().empty(); });
  return found;
}

TEST(ParityLegLog, AnUnreadableCopyIsMadeGoodFromTheOther) {
  EXPECT_GT(expect_right({.m = 2}), testing::cuts_here(60));
}

TEST(ParityLegLog, ADamagedCopyIsMadeGoodFromTheOther) {
  EXPECT_GT(expect_right({.m = 2, .damaged = true}), testing::cuts_here(50));
}

TEST(ParityLegLog, WithTheOnlyCopyUnreadableParityIsMadeRight) {
  EXPECT_GT(expect_right({}), testing::cuts_here(15));
}

// Whose record it was the superblocks say until it is done.
TEST(ParityLegLog, ParityIsMadeRightAlsoByAControllerAfterTheNext) {
  for (const uint32_t m : {1u, 2u}) {
    uint64_t doubted_count = 0;
    SpoiledLog of{.m = m};
    bool open_ended = false;
    for (of.open_steps = 0; !open_ended; of.open_steps++) {
      for (uint32_t lost = 0; lost < of.k + of.m; lost++) {
        SpoiledLog one = of;
        one.steps = m + 1;  // the records, and one strip
        one.lost_at_last = 1u << lost | (m == 2 ? 1u << (lost + 1) % (of.k + m) : 0);
        EXPECT_EQ(one.run(), "") << to_string(one);
        open_ended = one.open_ended;
        doubted_count += one.doubted ? 1 : 0;
        EXPECT_TRUE(one.in_place);
      }
    }
    EXPECT_EQ(doubted_count > 0, m == 1);
  }
}

// The copy was torn, and nothing has changed in place: no fault of any member. The next controller is cut short while
// it carries the write out, and who had the whole copy is lost then, with another one.
TEST(ParityLegLog, ATornCopyIsRestoredBeforeTheWriteIsCarriedOut) {
  for (const bool broken : {false, true}) {
    bool wrong = false;
    uint64_t count = 0;
    for (uint32_t torn = 0; torn < 2; torn++) {
      for (uint32_t other = 0; other < 4; other++) {
        bool open_ended = false;
        for (uint64_t open_steps = 0; !open_ended; open_steps++) {
          SpoiledLog one{.m = 2,
                         .spoiled_parity = torn,
                         .page = 1,
                         .damaged = true,
                         .before = false,
                         .steps = 2,
                         .open_steps = open_steps};
          one.bugs.copies_not_restored = broken;
          if (other == one.spoiled()) break;
          one.lost_then = 1u << one.member_of(2 + 1 - torn) | 1u << other;
          const std::string found = one.run();
          EXPECT_FALSE(one.in_place);
          EXPECT_TRUE(broken || found.empty()) << found << "; " << to_string(one);
          wrong |= !found.empty();
          open_ended = one.open_ended;
          count++;
        }
      }
    }
    EXPECT_EQ(wrong, broken);
    EXPECT_GT(count, 20u);
  }
}

// A data strip is gone, and what the record said of it.
TEST(ParityLegLog, IsRefusedWhereNobodyCanTellAnyMore) {
  for (const uint64_t page : {0u, 1u}) {
    SpoiledLog one{.page = page, .steps = 2};
    ParityLegRig rig(one.k, one.m, 0);
    rig.leg_blocks = stripes_filled * 4 * one.k;
    ASSERT_TRUE(one.open_without(rig, 0).ok());
    ASSERT_TRUE(rig.write(one.block(), value_before));
    one.spoil(rig, one.cut_write(rig));
    ASSERT_TRUE(one.in_place);
    std::vector<std::vector<uint8_t>> before;
    for (const auto& member : rig.members)
      before.push_back(member->contents);
    const Outcome refused = one.open_without(rig, 1u << one.member_of(1));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, Errc::io);
    EXPECT_NE(refused.error().message.find("cannot read a page"), std::string::npos) << refused.error().message;
    for (size_t i = 0; i < rig.members.size(); i++)
      EXPECT_EQ(before[i], rig.members[i]->contents);
    // With that member it is had.
    EXPECT_TRUE(one.open_without(rig, 0).ok());
  }
}

TEST(ParityLegLog, EachPlantedBugIsCaught) {
  EXPECT_TRUE(caught({.m = 2}, {.skip_incomplete = true}));
  EXPECT_TRUE(caught({.m = 2, .damaged = true}, {.skip_incomplete = true}));
  EXPECT_TRUE(caught({}, {.hidden_ignored = true}));
}

}  // namespace
}  // namespace basalt::bdev
