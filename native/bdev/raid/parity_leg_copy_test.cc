// SPDX-License-Identifier: Apache-2.0
// Goal: copies of a leg's members, cut while nothing was in flight, are a leg of their own: whichever k of them are
// there, whatever step a controller that makes them its own dies at; and what a place held is recomputed from others.
// Method: members in memory; a cut takes their contents as they are. Controllers of the copy with a budget of steps,
// two after one another, then members are lost, and what is left is compared with what may be read.
#include <array>
#include <bit>
#include <map>
#include <set>

#include "bdev/raid/parity_leg_test_util.h"
#include "bdev/raid/parity_member.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t copied_blocks = 32;

void fill_copied(ParityLegRig& rig) {
  for (uint64_t block = 0; block < copied_blocks; block++)
    ASSERT_TRUE(rig.write(block, static_cast<uint8_t>(block + 1)));
}

void expect_copied(ParityLegRig& rig, const std::string& when) {
  for (uint64_t block = 0; block < copied_blocks; block++)
    ASSERT_EQ(rig.read(block), static_cast<int>(block + 1)) << when << ": block " << block;
}

// What the members hold becomes that of the copy's. No two simulated machines draw the same numbers, as none do.
void cut_into(const ParityLegRig& source, ParityLegRig& copy) {
  static size_t cut_count = 0;
  std::vector<uint8_t> drawn(16 * ++cut_count);
  copy.fixture.reactor.env().random(drawn.data(), drawn.size());
  for (size_t i = 0; i < source.members.size(); i++)
    copy.members[i]->contents = source.members[i]->contents;
  copy.identity = "clone/0";
  copy.origin = source.identity;
}

std::vector<size_t> all_but(uint32_t lost, size_t count) {
  std::vector<size_t> set;
  for (size_t i = 0; i < count; i++)
    if ((lost >> i & 1) == 0) set.push_back(i);
  return set;
}

TEST(ParityLegCopy, ReadsAndIsWrittenFromAnyDataCountOfTheCopies) {
  for (uint32_t lost = 0; lost < 16; lost++) {
    if (std::popcount(lost) > 2) continue;
    ParityLegRig source(2, 2);
    ParityLegRig copy(2, 2);
    ASSERT_TRUE(source.open({0, 1, 2, 3}).ok());
    fill_copied(source);
    auto equal = source.leg->equal_members();
    ASSERT_TRUE(equal.ok() && equal->size() == 4);
    cut_into(source, copy);
    ASSERT_TRUE(source.write(3, 0x71));
    ASSERT_TRUE(copy.open(all_but(lost, 4)).ok()) << "without " << lost;
    expect_copied(copy, "without " + std::to_string(lost));
    ASSERT_TRUE(copy.write(4, 0x72));
    copy.die();
    ASSERT_TRUE(copy.open(all_but(lost, 4)).ok());
    EXPECT_EQ(copy.read(4), 0x72);
    EXPECT_EQ(copy.read(3), 4);
    EXPECT_EQ(source.read(3), 0x71);
    EXPECT_EQ(source.read(4), 5);
  }
}

TEST(ParityLegCopy, HasTheMembersThatTheCutHad) {
  ParityLegRig source(2, 2);
  ASSERT_TRUE(source.open({0, 1, 2, 3}).ok());
  fill_copied(source);
  ASSERT_TRUE(source.leg->remove_member("b").ok());
  ASSERT_TRUE(source.write(0, 1) && source.write(8, 9)) << "which b misses";
  auto equal = source.leg->equal_members();
  ASSERT_TRUE(equal.ok());
  EXPECT_EQ(*equal, (std::vector<std::string>{"a", "c", "d"}));
  ParityLegRig copy(2, 2);
  cut_into(source, copy);
  ASSERT_TRUE(copy.open({0, 2, 3}).ok());
  expect_copied(copy, "without the one that was away");
  // It comes, blank or not, by a rebuild.
  ASSERT_TRUE(copy.leg->add_member(copy.handle(1)).ok());
  ASSERT_TRUE(copy.fixture.run_until([&] { return !copy.copied.empty(); }));
  ASSERT_TRUE(copy.leg->commit_member("b").ok());
  copy.die();
  ASSERT_TRUE(copy.open({1, 2}).ok());
  expect_copied(copy, "from the one that was rebuilt");
}

// What it said before it was rebuilt is in neither slot by then: it would prove that nothing was written.
TEST(ParityLegCopy, HasNoMemberThatStillNamesTheOriginOnceItWasRebuilt) {
  for (const uint32_t page : parity::superblock_pages) {
    ParityLegRig source(2, 1);
    ASSERT_TRUE(source.open({0, 1, 2}).ok());
    fill_copied(source);
    ParityLegRig copy(2, 1);
    cut_into(source, copy);
    ASSERT_TRUE(copy.open({0, 2}).ok());
    ASSERT_TRUE(copy.leg->add_member(copy.handle(1)).ok());
    ASSERT_TRUE(copy.fixture.run_until([&] { return !copy.copied.empty(); }));
    ASSERT_TRUE(copy.leg->commit_member("b").ok());
    ASSERT_TRUE(copy.write(3, 0x33));
    copy.die();
    copy.members[1]->bad_block = page;
    const Outcome opened = copy.open({0, 1, 2});
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    EXPECT_EQ(copy.read(3), 0x33) << "without page " << page;
    EXPECT_EQ(copy.leg->raid().parity_stats().replayed_count, 1u) << "without page " << page;
  }
}

TEST(ParityLegCopy, IsACopyOfACopy) {
  ParityLegRig source(2, 1);
  ASSERT_TRUE(source.open({0, 1, 2}).ok());
  fill_copied(source);
  ParityLegRig copy(2, 1);
  cut_into(source, copy);
  ASSERT_TRUE(copy.open({0, 1, 2}).ok());
  ASSERT_TRUE(copy.write(0, 0x51));
  ParityLegRig second(2, 1);
  cut_into(copy, second);
  second.identity = "second/0";
  ASSERT_TRUE(second.open({0, 1}).ok());
  EXPECT_EQ(second.read(0), 0x51);
  EXPECT_EQ(second.read(1), 2);
}

TEST(ParityLegCopy, OfALegThatNothingWasWrittenToIsZeroes) {
  ParityLegRig source(2, 1);
  ASSERT_TRUE(source.open({0, 1, 2}).ok());
  ParityLegRig copy(2, 1);
  cut_into(source, copy);
  ASSERT_TRUE(copy.open({1, 2}).ok());
  EXPECT_EQ(copy.read(7), 0);
  ASSERT_TRUE(copy.write(7, 0x17));
  copy.die();
  ASSERT_TRUE(copy.open({1, 2}).ok());
  EXPECT_EQ(copy.read(7), 0x17);
}

// Wait: it may be of the set by the time that the others are cut.
TEST(ParityLegCopy, IsNotCutWhileAMemberFailedOrIsAboutToJoin) {
  ParityLegRig rig(2, 1);
  ASSERT_TRUE(rig.open({0, 1, 2}).ok());
  fill_copied(rig);
  ASSERT_TRUE(rig.leg->remove_member("a").ok());
  ASSERT_TRUE(rig.fixture.run_until([&] { return rig.leg->add_member(rig.handle(3)).ok(); }));
  ASSERT_TRUE(rig.fixture.run_until([&] { return !rig.copied.empty(); }));
  EXPECT_EQ(rig.leg->equal_members().error().code, Errc::busy);
  ASSERT_TRUE(rig.leg->commit_member("d").ok());
  EXPECT_TRUE(rig.leg->equal_members().ok());
  rig.leg->member_lost("d");
  EXPECT_EQ(rig.leg->equal_members().error().code, Errc::busy);
  rig.leg->fence();
  EXPECT_EQ(rig.leg->equal_members().error().code, Errc::fenced);
}

TEST(ParityLegCopy, RefusesWhatIsNoCopyOfItsOrigin) {
  ParityLegRig source(2, 1);
  ASSERT_TRUE(source.open({0, 1, 2}).ok());
  fill_copied(source);
  const auto refusal = [&](const std::function<void(ParityLegRig&)>& spoil) {
    ParityLegRig copy(2, 1);
    cut_into(source, copy);
    spoil(copy);
    std::vector<std::vector<uint8_t>> before;
    for (const auto& member : copy.members)
      before.push_back(member->contents);
    const Outcome opened = copy.open({0, 1, 2});
    for (size_t i = 0; i < before.size(); i++)
      EXPECT_TRUE(copy.members[i]->contents == before[i]) << "nothing was written";
    EXPECT_FALSE(opened.ok());
    return opened ? Errc::exists : opened.error().code;
  };
  const auto blank = [](ParityLegRig& copy) { copy.members[1]->fill(0, 0, 64); };
  EXPECT_EQ(refusal(blank), Errc::corrupt);
  const auto twice = [](ParityLegRig& copy) { copy.members[1]->contents = copy.members[0]->contents; };
  EXPECT_EQ(refusal(twice), Errc::corrupt);
  EXPECT_EQ(refusal([](ParityLegRig& copy) { copy.origin = "another/0"; }), Errc::not_found);
  EXPECT_EQ(refusal([](ParityLegRig& copy) { copy.origin = copy.identity; }), Errc::invalid_argument);
  EXPECT_EQ(refusal([](ParityLegRig& copy) { copy.leg_blocks = 128; }), Errc::corrupt);
}

// A controller that died between the two slots left the origin's name in one.
TEST(ParityLegCopy, SaysWhoseItIsInBothSlotsBeforeItIsWritten) {
  for (const uint64_t steps : {3, 1000}) {
    for (const uint32_t page : parity::superblock_pages) {
      ParityLegRig source(2, 1);
      ASSERT_TRUE(source.open({0, 1, 2}).ok());
      fill_copied(source);
      ParityLegRig copy(2, 1);
      cut_into(source, copy);
      uint64_t steps_left = steps;
      for (auto& member : copy.members)
        member->steps_left = &steps_left;
      if (copy.open({0, 1, 2}).ok()) {
        ASSERT_TRUE(copy.write(1, 0x44));
        copy.die();
      }
      for (auto& member : copy.members)
        member->steps_left = nullptr;
      if (steps == 3) {
        ASSERT_TRUE(copy.open({0, 1, 2}).ok());
        ASSERT_TRUE(copy.write(1, 0x44));
        copy.die();
      }
      copy.members[1]->contents[page * block_bytes + 200] ^= 1;
      ASSERT_TRUE(copy.open({0, 1, 2}).ok()) << "without page " << page;
      EXPECT_EQ(copy.read(1), 0x44);
      EXPECT_EQ(copy.read(2), 3);
      // Nor has it begun again: then what is in the log would not count.
      EXPECT_EQ(copy.leg->raid().parity_stats().replayed_count, 1u);
    }
  }
}

// One page that cannot be read, of each member in turn: what is there says enough.
TEST(ParityLegCopy, OpensThoughASuperblockOfOneCannotBeRead) {
  for (const bool written : {true, false}) {
    for (size_t member = 0; member < 3; member++) {
      for (const uint32_t page : parity::superblock_pages) {
        const std::string when = std::string(written ? "" : "blank ") + "without page " + std::to_string(page) +
                                 " of " + std::to_string(member);
        ParityLegRig source(2, 1);
        ASSERT_TRUE(source.open({0, 1, 2}).ok());
        if (written) fill_copied(source);
        ParityLegRig copy(2, 1);
        cut_into(source, copy);
        copy.members[member]->bad_block = page;
        const Outcome begun = copy.open({0, 1, 2});
        ASSERT_TRUE(begun.ok()) << when << ": " << begun.error().message;
        if (written) expect_copied(copy, when);
        ASSERT_TRUE(copy.write(1, 0x44));
        copy.die();
        copy.members[member]->bad_block = page;
        const Outcome opened = copy.open({0, 1, 2});
        ASSERT_TRUE(opened.ok()) << when << ": " << opened.error().message;
        EXPECT_EQ(copy.read(1), 0x44) << when;
        // Nor has it begun again: then what is in the log would not count.
        EXPECT_EQ(copy.leg->raid().parity_stats().replayed_count, 1u) << when;
      }
    }
  }
}

// The only one that names the origin by now: all others say the new name, in one slot.
TEST(ParityLegCopy, BeginsAgainWhereTheOnlyOneThatNamesTheOriginHasASuperblockThatCannotBeRead) {
  for (const uint32_t page : parity::superblock_pages) {
    for (uint64_t steps = 1; steps < 6; steps++) {
      ParityLegRig source(2, 1);
      ASSERT_TRUE(source.open({0, 1, 2}).ok());
      fill_copied(source);
      ParityLegRig copy(2, 1);
      cut_into(source, copy);
      uint64_t left = steps;
      for (auto& member : copy.members)
        member->steps_left = &left;
      ASSERT_FALSE(copy.open({0, 1, 2}).ok());
      for (auto& member : copy.members)
        member->steps_left = nullptr;
      copy.members[2]->bad_block = page;
      const Outcome opened = copy.open({0, 1, 2});
      ASSERT_TRUE(opened.ok()) << steps << " steps, page " << page << ": " << opened.error().message;
      expect_copied(copy, std::to_string(steps));
    }
  }
}

// Of a copy that was written to, a member that says it never was is not believed.
TEST(ParityLegCopy, ThatWasWrittenToDoesNotBeginAgain) {
  ParityLegRig source(2, 1);
  ASSERT_TRUE(source.open({0, 1, 2}).ok());
  fill_copied(source);
  ParityLegRig copy(2, 1);
  cut_into(source, copy);
  ASSERT_TRUE(copy.open({0, 1, 2}).ok());
  for (int turn = 0; turn < 12; turn++)
    ASSERT_TRUE(copy.write(0, static_cast<uint8_t>(0x40 + turn)));
  copy.die();
  copy.members[2]->contents = source.members[2]->contents;
  EXPECT_EQ(copy.open({0, 1, 2}).error().code, Errc::corrupt);
  ASSERT_TRUE(copy.open({0, 1}).ok());
  EXPECT_EQ(copy.read(0), 0x4b);
}

// A superblock that cannot be read; none.
struct BadPage {
  size_t member = SIZE_MAX;
  uint32_t page = 0;
};

// One history: two controllers of the copy, each with so many steps, write beside and over each other.
class CopyLives {
 public:
  CopyLives(const ParityLegRig& source, const RaidPlantedBugs& bugs) : rig_(source.k, source.m) {
    cut_into(source, rig_);
    rig_.planted.raid = bugs;
    for (uint64_t block = 0; block < copied_blocks; block++)
      may_[block] = {static_cast<int>(block + 1)};
  }
  // Until it is written.
  void spoil(const BadPage& bad) {
    if (bad.member < rig_.members.size()) rig_.members[bad.member]->bad_block = bad.page;
  }
  void live(uint64_t steps, uint8_t value) {
    for (auto& member : rig_.members)
      member->steps_left = &steps;
    if (rig_.open(all_but(0, width())).ok()) {
      std::map<uint64_t, PendingIo*> writes;
      for (const uint64_t block : {1, 6, 13}) {
        may_[block].insert(value);
        writes[block] = &rig_.start(IoType::write, block, value);
      }
      rig_.settle();
      for (const auto& [block, write] : writes)
        if (write->done && write->io.status.ok()) may_[block] = {value};
      rig_.die();
    }
    for (auto& member : rig_.members)
      member->steps_left = nullptr;
    rig_.leg.reset();
  }
  // Empty: all is as it may be.
  std::string problem(uint32_t lost) {
    const Outcome opened = rig_.open(all_but(lost, width()));
    if (!opened) return opened.error().message;
    for (const auto& [block, values] : may_) {
      const int value = rig_.read(block);
      if (!values.contains(value)) return "block " + std::to_string(block) + " gives " + std::to_string(value);
    }
    return "";
  }
  size_t width() const { return rig_.k + rig_.m; }

 private:
  ParityLegRig rig_;
  std::map<uint64_t, std::set<int>> may_;
};

struct CopyShape {
  uint32_t k;
  uint32_t m;
};

// What they may lose in the end, and what cannot be read before the first, the second and the last opening.
struct CopyLosses {
  uint32_t lost;
  std::array<BadPage, 3> bad;
};

// How many histories went wrong, when one of so many is tried.
int wrong_histories(const CopyShape& shape, const std::vector<CopyLosses>& losses, uint64_t stride,
                    const RaidPlantedBugs& bugs, std::string* first) {
  ParityLegRig source(shape.k, shape.m);
  EXPECT_TRUE(source.open(all_but(0, shape.k + shape.m)).ok());
  for (uint64_t block = 0; block < copied_blocks; block++)
    EXPECT_TRUE(source.write(block, static_cast<uint8_t>(block + 1)));
  int wrong = 0;
  uint64_t history = 0;
  // Superblocks in both slots, then three writes, each with its records.
  const uint64_t steps_max = 2 * (shape.k + shape.m) + 3 * (2 * shape.m + 1);
  for (uint64_t steps = 0; steps <= steps_max; steps++) {
    // In the first slots, and in what comes after them.
    for (const uint64_t then : {uint64_t{2}, uint64_t{shape.k + shape.m + 4}}) {
      for (const CopyLosses& each : losses) {
        if (history++ % stride != 0) continue;
        CopyLives lives(source, bugs);
        lives.spoil(each.bad[0]);
        lives.live(steps, 0x60);
        lives.spoil(each.bad[1]);
        lives.live(then, 0x61);
        lives.spoil(each.bad[2]);
        const std::string problem = lives.problem(each.lost);
        if (problem.empty()) continue;
        if (wrong++ == 0) {
          *first = problem + " after " + std::to_string(steps) + " and " + std::to_string(then) + " steps without " +
                   std::to_string(each.lost);
          for (const BadPage& bad : each.bad)
            if (bad.member != SIZE_MAX) {
              *first += ", page " + std::to_string(bad.page) + " of " + std::to_string(bad.member) +
                        " unreadable before opening " + std::to_string(&bad - each.bad.data());
            }
        }
      }
    }
  }
  return wrong;
}

std::vector<CopyLosses> losses_of(const CopyShape& shape, uint32_t lost_count) {
  std::vector<CopyLosses> all;
  for (uint32_t lost = 0; lost < 1u << (shape.k + shape.m); lost++)
    if (static_cast<uint32_t>(std::popcount(lost)) == lost_count) all.push_back({lost, {}});
  return all;
}

TEST(ParityLegCopy, IsWholeWhateverStepItsControllersDieAt) {
  for (const CopyShape shape : {CopyShape{2, 1}, CopyShape{2, 2}}) {
    std::string first;
    EXPECT_EQ(wrong_histories(shape, losses_of(shape, shape.m), testing::cut_stride, {}, &first), 0) << first;
  }
}

// A page that cannot be read counts as one of the members that may be lost.
TEST(ParityLegCopy, IsWholeWhateverStepItsControllersDieAtAndWhicheverSuperblockCannotBeRead) {
  for (const CopyShape shape : {CopyShape{2, 1}, CopyShape{2, 2}}) {
    std::vector<CopyLosses> losses;
    for (const CopyLosses& some : losses_of(shape, shape.m - 1)) {
      for (size_t member = 0; member < shape.k + shape.m; member++) {
        for (const uint32_t page : parity::superblock_pages) {
          for (size_t opening = 0; opening < some.bad.size(); opening++) {
            // Of the larger shape, what a controller that died left.
            if (shape.m > 1 && opening != 1) continue;
            CopyLosses with = some;
            with.bad[opening] = {member, page};
            losses.push_back(with);
          }
        }
      }
    }
    std::string first;
    EXPECT_EQ(wrong_histories(shape, losses, testing::cut_stride, {}, &first), 0) << first;
  }
}

TEST(ParityLegCopy, ThatIsWrittenBeforeItSaysWhoseItIsIsNoticed) {
  std::string first;
  const CopyShape shape{2, 1};
  EXPECT_GT(wrong_histories(shape, losses_of(shape, 1), 1, {.begin_unsaid = true}, &first), 0)
      << "or the test above finds nothing";
}

Task<nvme::Status> do_one(Handle handle, Io& io) {
  co_return co_await io_wait(handle, io);
}

std::vector<uint8_t> read_whole(ParityLegRig& rig, Bdev& bdev) {
  std::vector<uint8_t> bytes(bdev.info().count_blocks * block_bytes);
  // Pieces of an odd number of blocks begin and end within strips.
  constexpr uint64_t piece_blocks = 37;
  for (uint64_t block = 0; block < bdev.info().count_blocks; block += piece_blocks) {
    Io io;
    Iovec iov;
    io.type = IoType::read;
    io.offset_blocks = block;
    io.count_blocks = static_cast<uint32_t>(std::min(piece_blocks, bdev.info().count_blocks - block));
    iov = {bytes.data() + block * block_bytes, size_t{io.count_blocks} * block_bytes};
    io.iov = &iov;
    io.iov_count = 1;
    EXPECT_TRUE(rig.fixture.run(do_one(Handle(bdev, rig.fixture.reactor), io)).ok());
  }
  return bytes;
}

TEST(ParityMember, HoldsWhatItsPlaceHeldAndIsOneOfTheCopies) {
  for (const CopyShape shape : {CopyShape{2, 1}, CopyShape{3, 2}}) {
    const size_t width = shape.k + shape.m;
    ParityLegRig source(shape.k, shape.m);
    ASSERT_TRUE(source.open(all_but(0, width)).ok());
    fill_copied(source);
    for (uint32_t place = 0; place < width; place++) {
      ParityLegRig copy(shape.k, shape.m);
      cut_into(source, copy);
      std::vector<Handle> others;
      for (size_t i = width; i-- > 0;)
        if (i != place && others.size() < shape.k) others.push_back(copy.handle(i));
      auto opened = copy.fixture.run(
          ParityMemberBdev::open(copy.fixture.reactor, {.name = "r", .uuid = {}, .place = place}, others));
      ASSERT_TRUE(opened.ok()) << opened.error().message;
      std::vector<uint8_t> bytes = read_whole(copy, **opened);
      ASSERT_EQ(bytes.size(), copy.members[place]->contents.size());
      copy.members[place]->contents = std::move(bytes);
      EXPECT_TRUE(copy.fixture.run((*opened)->close()).ok());
      // With the k-1 first others.
      std::vector<size_t> set{place};
      for (size_t i = 0; i < width && set.size() < shape.k; i++)
        if (i != place) set.push_back(i);
      ASSERT_TRUE(copy.open(set).ok());
      expect_copied(copy, "with place " + std::to_string(place) + " recomputed");
    }
  }
}

TEST(ParityMember, RefusesWhatItCannotBeMadeOfAndSaysWhatCannotBeRead) {
  ParityLegRig source(2, 1);
  ASSERT_TRUE(source.open({0, 1, 2}).ok());
  fill_copied(source);
  const auto open = [&](uint32_t place, std::vector<Handle> copies) {
    return source.fixture.run(
        ParityMemberBdev::open(source.fixture.reactor, {.name = "r", .uuid = {}, .place = place}, std::move(copies)));
  };
  EXPECT_EQ(open(0, {source.handle(1)}).error().code, Errc::invalid_argument) << "too few";
  source.members[3]->contents = source.members[1]->contents;
  EXPECT_EQ(open(0, {source.handle(1), source.handle(2), source.handle(3)}).error().code, Errc::invalid_argument)
      << "two of one place";
  source.members[3]->fill(0, 0, 64);
  EXPECT_EQ(open(3, {source.handle(0), source.handle(1)}).error().code, Errc::invalid_argument) << "no such place";
  EXPECT_EQ(open(0, {source.handle(1), source.handle(3)}).error().code, Errc::not_found) << "a blank one";
  auto opened = open(0, {source.handle(1), source.handle(2)});
  ASSERT_TRUE(opened.ok());
  std::vector<uint8_t> page(block_bytes);
  Iovec iov{page.data(), page.size()};
  Io io;
  io.type = IoType::write;
  io.count_blocks = 1;
  io.iov = &iov;
  io.iov_count = 1;
  const Handle handle(**opened, source.fixture.reactor);
  EXPECT_FALSE(source.fixture.run(do_one(handle, io)).ok());
  io.type = IoType::read;
  source.members[2]->bad_block = source.leg->raid().layout().first_block + 2;
  io.offset_blocks = source.members[2]->bad_block;
  EXPECT_TRUE(source.fixture.run(do_one(handle, io)).is(nvme::status::unrecovered_read_error));
  EXPECT_TRUE(source.fixture.run((*opened)->close()).ok());
}

// What its place held, in strips, as `bdev` gives it.
void expect_place(ParityLegRig& rig, const ParityLegRig& of, uint32_t place, Bdev& bdev, const std::string& when) {
  const std::vector<uint8_t> bytes = read_whole(rig, bdev);
  const uint64_t begin = of.leg->raid().layout().first_block * block_bytes;
  const std::vector<uint8_t>& held = of.members[place]->contents;
  EXPECT_TRUE(
      std::equal(bytes.begin() + static_cast<int64_t>(begin), bytes.end(), held.begin() + static_cast<int64_t>(begin)))
      << when;
}

// Each block of other copies: none of them could be read as a whole, nor those blocks by one request.
TEST(ParityMember, IsReadThoughEveryCopyHasAPlaceThatCannotBeRead) {
  ParityLegRig source(2, 2);
  ASSERT_TRUE(source.open({0, 1, 2, 3}).ok());
  fill_copied(source);
  const uint64_t first = source.leg->raid().layout().first_block;
  for (const bool having : {true, false}) {
    ParityLegRig copy(2, 2);
    cut_into(source, copy);
    for (size_t i = 0; i < 4; i++)
      copy.members[i]->bad_block = first + 2 * i + 5;
    std::vector<Handle> copies{copy.handle(1), copy.handle(2), copy.handle(3)};
    if (having) copies.push_back(copy.handle(0));
    auto opened = copy.fixture.run(
        ParityMemberBdev::open(copy.fixture.reactor, {.name = "r", .uuid = {}, .place = 0}, std::move(copies)));
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    expect_place(copy, source, 0, **opened, having ? "with the one that has it" : "from others");
    EXPECT_TRUE(copy.fixture.run((*opened)->close()).ok());
  }
}

TEST(ParityMember, CountsACopyWhoseSuperblocksCannotBeReadForNothing) {
  ParityLegRig source(2, 1);
  ASSERT_TRUE(source.open({0, 1, 2}).ok());
  fill_copied(source);
  for (size_t dead = 0; dead < 3; dead++) {
    ParityLegRig copy(2, 1);
    cut_into(source, copy);
    copy.members[dead]->status = nvme::status::unrecovered_read_error;
    const auto open = [&](std::vector<Handle> copies) {
      return copy.fixture.run(
          ParityMemberBdev::open(copy.fixture.reactor, {.name = "r", .uuid = {}, .place = 1}, std::move(copies)));
    };
    auto opened = open({copy.handle(0), copy.handle(1), copy.handle(2)});
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    expect_place(copy, source, 1, **opened, "without " + std::to_string(dead));
    EXPECT_TRUE(copy.fixture.run((*opened)->close()).ok());
    if (dead != 1) {
      EXPECT_EQ(open({copy.handle(0), copy.handle(2)}).error().code, Errc::io) << "which is too few";
    }
  }
}

// A copy that has the place is read alone; one that is said to have it and does not is no source.
TEST(ParityMember, IsTheCopyThatHasThePlaceByItsOwnWord) {
  ParityLegRig source(2, 1);
  ASSERT_TRUE(source.open({0, 1, 2}).ok());
  fill_copied(source);
  ParityLegRig copy(2, 1);
  cut_into(source, copy);
  const auto open = [&](uint32_t place) {
    return copy.fixture.run(
        ParityMemberBdev::open(copy.fixture.reactor, {.name = "r", .uuid = {}, .place = place}, {copy.handle(2)}));
  };
  auto opened = open(2);
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  EXPECT_TRUE(read_whole(copy, **opened) == copy.members[2]->contents);
  // Its superblocks are made up where they cannot be read.
  copy.members[2]->bad_block = parity::superblock_pages[1];
  copy.members[0]->contents = read_whole(copy, **opened);
  EXPECT_TRUE(copy.fixture.run((*opened)->close()).ok());
  ASSERT_TRUE(copy.open({0, 1}).ok());
  expect_copied(copy, "with a copy of a copy of which a superblock could not be read");
  EXPECT_EQ(open(1).error().code, Errc::invalid_argument);
}

}  // namespace
}  // namespace basalt::bdev
