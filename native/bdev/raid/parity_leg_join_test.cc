// SPDX-License-Identifier: Apache-2.0
// Goal: a controller may die at every step of a member's join to a leg with parity, while partial stripes are being
// written: whoever opens the members that were there before, alone, finds each block old or new, and what was
// acknowledged.
// Method: the joining member has its superblock of the new epoch, and some of the others do not have theirs yet; writes
// begin, and the controller dies after so many steps. Then members are out of reach, as many as there is parity left.
#include "bdev/raid/parity_leg_test_util.h"
#include "bdev/raid/superblock_test_util.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

// What is being written: a part of one strip in each of the first stripes.
constexpr uint64_t stripes_written = 3;

struct CutJoin {
  uint32_t k = 2;
  uint32_t m = 1;
  uint32_t gone = 0;       // whose place is taken
  uint32_t told = 0;       // members whose superblocks are of the new epoch, too
  uint32_t unreached = 0;  // afterwards
  bool power = false;      // all caches are lost with the controller
  uint64_t steps = 0;
  RaidPlantedBugs bugs{};
  bool ended = false;  // before the controller died

  uint32_t member_count() const { return k + m; }
  uint32_t joiner() const { return k + m; }
  uint64_t written_block(uint64_t stripe) const { return stripe * 4 * k + 4 * (stripe % k) + 1; }
  static uint8_t old_value(uint64_t stripe) { return static_cast<uint8_t>(0xa0 + stripe); }
  static uint8_t new_value(uint64_t stripe) { return static_cast<uint8_t>(0xd0 + stripe); }

  std::string run() {
    ParityLegRig rig(k, m, 1);
    rig.planted.raid = bugs;
    std::vector<size_t> all(member_count());
    for (size_t i = 0; i < all.size(); i++)
      all[i] = i;
    if (const Outcome opened = rig.open(all); !opened.ok()) return opened.error().message;
    for (uint64_t stripe = 0; stripe < stripes_written; stripe++)
      if (!rig.write(stripe * 4 * k, old_value(stripe), 4 * k)) return "it is not filled";
    if (!rig.ends(rig.start(IoType::flush, 0))) return "it is not flushed";
    leave(rig);
    // Their regions are marked by that, so that they need not wait for who writes superblocks.
    for (uint64_t stripe = 0; stripe < stripes_written; stripe++)
      if (!rig.write(written_block(stripe), old_value(stripe))) return "it is not written to";
    if (!begin_join(rig)) return "the join does not begin";
    uint64_t left = steps;
    for (auto& member : rig.members)
      member->steps_left = &left;
    std::vector<PendingIo*> writes;
    for (uint64_t stripe = 0; stripe < stripes_written; stripe++)
      writes.push_back(&rig.start(IoType::write, written_block(stripe), new_value(stripe)));
    rig.settle();
    ended = left > 0;
    std::vector<bool> acknowledged;
    for (const PendingIo* write : writes)
      acknowledged.push_back(write->done && write->io.status.ok());
    rig.die();
    for (auto& member : rig.members) {
      member->holds = nullptr;
      if (power) member->lose_cache([&](uint64_t block) { return (block * 2654435761u + steps) % 3 != 0; });
    }
    // Nobody has flushed it, and more caches are lost than there is parity left.
    if (power) acknowledged.assign(stripes_written, false);
    return judge(rig, acknowledged);
  }

 private:
  static uint64_t epoch_of(const ScriptedMember& member) {
    uint64_t epoch = 0;
    for (const uint32_t page : parity::superblock_pages) {
      parity::Superblock superblock;
      std::memcpy(&superblock, member.contents.data() + size_t{page} * parity::page_bytes, sizeof(superblock));
      if (parity::check(superblock) == parity::PageState::valid) epoch = std::max(epoch, superblock.epoch);
    }
    return epoch;
  }
  void leave(ParityLegRig& rig) const {
    ScriptedMember& member = *rig.members[gone];
    member.status = nvme::status::host_path_error;
    rig.leg->member_lost(member.info().name);
    rig.settle();
    EXPECT_TRUE(rig.leg->remove_member(member.info().name).ok());
    rig.settle();
    member.status = nvme::status::success;
  }
  bool begin_join(ParityLegRig& rig) const {
    uint64_t epoch = 0;
    for (const auto& member : rig.members)
      epoch = std::max(epoch, epoch_of(*member));
    for (uint32_t i = 0; i < member_count(); i++)
      if ((told >> i & 1) == 0) rig.members[i]->holds = [epoch](const Io& io) { return names_epoch_above(io, epoch); };
    if (!rig.leg->add_member(rig.handle(joiner())).ok()) return false;
    return rig.fixture.run_until(
        [&] {
          bool begun = epoch_of(*rig.members[joiner()]) > epoch;
          for (uint32_t i = 0; i < member_count(); i++)
            if (i != gone) begun = begun && ((told >> i & 1) != 0 || !rig.members[i]->held.empty());
          return begun;
        },
        seconds(5));
  }
  std::string judge(ParityLegRig& rig, const std::vector<bool>& acknowledged) const {
    std::vector<size_t> set;
    for (size_t i = 0; i < member_count(); i++)
      if (i != gone && (unreached >> i & 1) == 0) set.push_back(i);
    if (const Outcome opened = rig.open(set); !opened.ok()) return opened.error().message;
    for (uint64_t block = 0; block < stripes_written * 4 * k; block++) {
      const int value = rig.read(block);
      const uint64_t stripe = block / (uint64_t{4} * k);
      const bool concerned = block == written_block(stripe);
      bool right = value == old_value(stripe) && !(concerned && acknowledged[stripe]);
      right |= concerned && value == new_value(stripe);
      if (!right) return "block " + std::to_string(block) + " gives " + std::to_string(value);
    }
    return "";
  }
};

// Nobody or one is told, any who are out of reach, and every step or one of so many; until `stop` says so.
template <class Stop>
void every_cut(CutJoin cut, uint64_t stride, Stop&& stop) {
  for (cut.gone = 0; cut.gone < cut.member_count(); cut.gone++) {
    for (cut.told = 0; cut.told < 1u << cut.member_count(); cut.told++) {
      if ((cut.told >> cut.gone & 1) != 0 || cut.told > 1) continue;
      for (cut.unreached = 0; cut.unreached < 1u << cut.member_count(); cut.unreached++) {
        const auto unreached_count = static_cast<uint32_t>(__builtin_popcount(cut.unreached));
        if ((cut.unreached >> cut.gone & 1) != 0 || unreached_count >= cut.m) continue;
        cut.ended = false;
        for (cut.steps = (cut.gone + cut.unreached) % stride; !cut.ended; cut.steps += stride)
          if (stop(cut)) return;
      }
    }
  }
}

uint64_t expect_right(const CutJoin& of) {
  uint64_t count = 0;
  every_cut(of, testing::cut_stride, [&](CutJoin& one) {
    count++;
    const std::string wrong = one.run();
    EXPECT_EQ(wrong, "") << "gone " << one.gone << " told " << one.told << " unreached " << one.unreached << " steps "
                         << one.steps;
    return !wrong.empty();
  });
  return count;
}

TEST(ParityLegJoin, MayBeCutAtEveryStepOfWritesThatAreUnderWay) {
  EXPECT_GT(expect_right({}), testing::cuts_here(40));
  EXPECT_GT(expect_right({.power = true}), testing::cuts_here(40));
}

bool caught(CutJoin of, const RaidPlantedBugs& bugs) {
  bool found = false;
  of.bugs = bugs;
  every_cut(of, 1, [&](CutJoin& one) { return found = !one.run().empty(); });
  return found;
}

TEST(ParityLegJoin, EachPlantedBugIsCaught) {
  EXPECT_TRUE(caught({}, {.record_epoch_early = true}));
  EXPECT_TRUE(caught({.power = true}, {.record_epoch_early = true}));
  EXPECT_TRUE(caught({.m = 2}, {.record_epoch_early = true}));
  EXPECT_TRUE(caught({}, {.no_record = true}));
}

TEST(ParityLegJoin, OfAsManyAsThereIsParityMayBeCutAtEveryStep) {
  EXPECT_GT(expect_right({.m = 2}), testing::cuts_here(200));
}

}  // namespace
}  // namespace basalt::bdev
