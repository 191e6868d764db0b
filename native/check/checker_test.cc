// SPDX-License-Identifier: Apache-2.0
// Goal: the checker finds each kind of violation, and nothing in histories that are right. Method: small histories by
// hand, known good and known bad for each rule; damaged copies of a simulated register's random histories.
#include "check/checker.h"

#include <gtest/gtest.h>

#include <random>

namespace basalt::check {
namespace {

constexpr uint64_t volume = 7;

BlockValue zero() {
  return {};
}
BlockValue value(uint64_t lba, uint64_t writer, uint64_t sequence) {
  return {BlockKind::stamp, {volume, lba, writer, sequence}};
}

class Builder {
 public:
  Builder() { history.volume = volume; }
  Op& add(OpType type, uint64_t lba, int64_t from, int64_t to, OpStatus status = OpStatus::ok) {
    Op op;
    op.id = history.ops.size();
    op.type = type;
    op.lba = lba;
    op.count_blocks = type == OpType::flush ? 0 : 1;
    op.invoked_ns = from;
    op.completed_ns = to;
    op.status = status;
    history.ops.push_back(op);
    return history.ops.back();
  }
  Builder& write(uint64_t sequence, int64_t from, int64_t to, OpStatus status = OpStatus::ok) {
    Op& op = add(OpType::write, 0, from, to, status);
    op.writer = 1;
    op.sequence = sequence;
    return *this;
  }
  Builder& unknown(uint64_t sequence, int64_t from) { return write(sequence, from, never_ns, OpStatus::info); }
  Builder& read(BlockValue seen, int64_t from, int64_t to) {
    add(OpType::read, 0, from, to).values = {seen};
    return *this;
  }
  Builder& read(uint64_t sequence, int64_t from, int64_t to) { return read(value(0, 1, sequence), from, to); }
  Builder& clear(int64_t from, int64_t to, OpStatus status = OpStatus::ok) {
    add(OpType::zero, 0, from, to, status);
    return *this;
  }
  Builder& flush(int64_t from, int64_t to) {
    add(OpType::flush, 0, from, to);
    return *this;
  }
  Builder& power_cut(int64_t at) {
    history.power_cuts.push_back({at});
    return *this;
  }
  // "" when the history is right, else the rule.
  std::string verdict() const {
    const auto violation = check_history(history);
    return violation ? violation->rule : "";
  }
  History history;
};

TEST(Stamp, ABlockTellsWhoWroteItAndWhetherItIsWhole) {
  std::vector<uint8_t> block(block_bytes);
  EXPECT_EQ(read_stamp(block.data()).kind, BlockKind::zero);
  const Stamp stamp{volume, 3, 1, 9};
  write_stamp(block.data(), stamp);
  EXPECT_EQ(read_stamp(block.data()), (BlockValue{BlockKind::stamp, stamp}));
  std::vector<uint8_t> other(block_bytes);
  write_stamp(other.data(), {volume, 3, 1, 10});
  std::copy_n(other.begin(), sector_bytes, block.begin() + 2 * sector_bytes);
  EXPECT_EQ(read_stamp(block.data()).kind, BlockKind::torn);
  std::fill_n(block.begin() + 2 * sector_bytes, sector_bytes, 0);
  EXPECT_EQ(read_stamp(block.data()).kind, BlockKind::torn);
  block[100] ^= 1;
  EXPECT_EQ(read_stamp(block.data()).kind, BlockKind::garbage);
}

TEST(Checker, FindsTornAndForeignBytes) {
  EXPECT_EQ(Builder().write(1, 0, 10).read(1, 20, 30).verdict(), "");
  EXPECT_EQ(Builder().write(1, 0, 10).read({BlockKind::torn, {volume, 0, 1, 1}}, 20, 30).verdict(), "R0");
  EXPECT_EQ(Builder().write(1, 0, 10).read({BlockKind::garbage, {}}, 20, 30).verdict(), "R0");
}

TEST(Checker, FindsValuesThatCannotBeThere) {
  EXPECT_EQ(Builder().write(1, 0, 10).read({BlockKind::stamp, {8, 0, 1, 1}}, 20, 30).verdict(), "R1");
  EXPECT_EQ(Builder().write(1, 0, 10).read({BlockKind::stamp, {volume, 5, 1, 1}}, 20, 30).verdict(), "R1");
  EXPECT_EQ(Builder().write(1, 0, 10).read(2, 20, 30).verdict(), "R1");
  EXPECT_EQ(Builder().write(1, 40, 50).read(1, 20, 30).verdict(), "R1");
  EXPECT_EQ(Builder().write(1, 0, 10, OpStatus::fail).read(1, 20, 30).verdict(), "R1");
}

TEST(Checker, FindsStaleReads) {
  EXPECT_EQ(Builder().write(1, 0, 10).write(2, 20, 30).read(1, 40, 50).verdict(), "R2");
  EXPECT_EQ(Builder().write(1, 0, 10).write(2, 20, 30).read(1, 25, 50).verdict(), "");  // concurrent
  EXPECT_EQ(Builder().unknown(1, 0).write(2, 20, 30).read(1, 40, 50).verdict(), "");    // may have come late
  EXPECT_EQ(Builder().write(1, 0, 10).unknown(2, 20).read(1, 40, 50).verdict(), "");    // may not have come
}

TEST(Checker, FindsFlipFlopsBetweenConcurrentWrites) {
  Builder good;
  good.write(1, 0, 100).write(2, 0, 100).read(1, 110, 120).read(1, 130, 140);
  EXPECT_EQ(good.verdict(), "");
  Builder bad;
  bad.write(1, 0, 100).write(2, 0, 100).read(1, 110, 120).read(2, 130, 140).read(1, 150, 160);
  EXPECT_EQ(bad.verdict(), "R3");
  // An unknown write that shows, goes and comes back; and one that was seen to lose.
  EXPECT_EQ(Builder().write(1, 0, 10).unknown(2, 20).read(2, 30, 40).read(1, 50, 60).verdict(), "R3");
  EXPECT_EQ(Builder().write(1, 0, 10).unknown(2, 20).read(1, 30, 40).read(2, 50, 60).verdict(), "");
  // A write lies wholly between two sights of another value.
  EXPECT_EQ(Builder().write(1, 0, 10).unknown(2, 5).read(2, 11, 12).write(3, 20, 30).read(2, 40, 50).verdict(), "R3");
}

TEST(Checker, HoldsAPowerCutToWhatWasFlushed) {
  EXPECT_EQ(Builder().write(1, 0, 10).flush(11, 12).write(2, 20, 30).power_cut(40).read(1, 50, 60).verdict(), "");
  EXPECT_EQ(Builder().write(1, 0, 10).flush(11, 12).write(2, 20, 30).power_cut(40).read(2, 50, 60).verdict(), "");
  EXPECT_EQ(Builder().write(1, 0, 10).write(2, 20, 30).flush(31, 32).power_cut(40).read(1, 50, 60).verdict(), "R4");
  EXPECT_EQ(Builder().write(1, 0, 10).flush(11, 12).power_cut(40).read(zero(), 50, 60).verdict(), "R4");
  EXPECT_EQ(Builder().write(1, 0, 10).flush(5, 12).power_cut(40).read(zero(), 50, 60).verdict(), "");
  EXPECT_EQ(Builder().write(1, 0, 10).power_cut(40).read(zero(), 50, 60).verdict(), "");
  Builder forced;
  forced.write(1, 0, 10);
  forced.history.ops[0].fua = true;
  EXPECT_EQ(forced.power_cut(40).read(zero(), 50, 60).verdict(), "R4");
  // What one cut took is not owed after the next, whatever was flushed in between.
  Builder twice;
  twice.write(1, 0, 10).flush(11, 12).write(2, 20, 30).power_cut(40).read(1, 50, 60).flush(61, 62).power_cut(70);
  EXPECT_EQ(twice.read(1, 80, 90).verdict(), "");
}

TEST(Checker, HoldsWhatWasReadAfterAPowerCut) {
  Builder two;
  two.write(1, 0, 10).flush(11, 12).write(2, 20, 30).power_cut(40);
  EXPECT_EQ(Builder(two).read(2, 50, 60).read(1, 70, 80).verdict(), "R5");
  EXPECT_EQ(Builder(two).read(1, 50, 60).read(2, 70, 80).verdict(), "R5");
  EXPECT_EQ(Builder(two).read(1, 50, 60).write(3, 70, 80).read(3, 90, 95).verdict(), "");
  EXPECT_EQ(Builder(two).read(1, 50, 60).write(3, 70, 80).read(1, 90, 95).verdict(), "R2");
  // A write that was in flight belongs to a live host, which resends it.
  EXPECT_EQ(Builder().write(1, 0, 10).write(2, 30, 55).power_cut(40).read(1, 50, 52).read(2, 60, 70).verdict(), "");
}

TEST(Checker, JudgesZeroes) {
  EXPECT_EQ(Builder().read(zero(), 0, 10).verdict(), "");
  EXPECT_EQ(Builder().write(1, 0, 10).read(zero(), 20, 30).verdict(), "R8");
  EXPECT_EQ(Builder().write(1, 0, 10).clear(12, 15).read(zero(), 20, 30).verdict(), "");
  EXPECT_EQ(Builder().write(1, 0, 10).clear(12, 15).read(1, 20, 30).verdict(), "R2");
  EXPECT_EQ(Builder().clear(0, 10).write(1, 12, 15).read(zero(), 20, 30).verdict(), "R8");
  EXPECT_EQ(Builder().write(1, 0, 10).clear(12, 15, OpStatus::fail).read(zero(), 20, 30).verdict(), "R8");
}

TEST(Checker, FindsReplicasThatDiffer) {
  Builder builder;
  builder.history.replicas = {{"a", 0, {zero(), value(1, 1, 1)}}, {"b", 0, {zero(), value(1, 1, 1)}}};
  EXPECT_EQ(builder.verdict(), "");
  builder.history.replicas.push_back({"c", 0, {zero(), zero()}});
  EXPECT_EQ(builder.verdict(), "R10");
  builder.history.replicas[2].leg = 1;
  EXPECT_EQ(builder.verdict(), "");
}

TEST(Checker, FindsWhatNeverEnds) {
  Builder builder;
  builder.unknown(1, 0).write(2, 0, 100);
  EXPECT_EQ(builder.verdict(), "");
  builder.history.healed_ns = 50;
  builder.history.bound_ns = 60;
  EXPECT_EQ(builder.verdict(), "R11");
  builder.history.ops[0].completed_ns = 105;
  EXPECT_EQ(builder.verdict(), "");
}

TEST(Checker, ExplainsWithTheOperationsThatProveIt) {
  const auto violation =
      check_history(Builder().write(1, 0, 10).write(2, 20, 30).write(3, 90, 99).read(1, 40, 50).history);
  ASSERT_TRUE(violation);
  EXPECT_NE(violation->explanation.find("w1#1"), std::string::npos);
  EXPECT_NE(violation->explanation.find("w1#2"), std::string::npos);
  EXPECT_EQ(violation->explanation.find("w1#3"), std::string::npos);
}

// A register that does each operation at one instant between its invocation and its completion.
History random_register(std::mt19937_64& random) {
  struct Step {
    int64_t at;
    size_t op;
  };
  Builder builder;
  std::vector<Step> steps;
  for (uint64_t i = 0; i < 60; i++) {
    const auto from = static_cast<int64_t>(random() % 1000);
    const auto effect = from + 1 + static_cast<int64_t>(random() % 40);
    const auto to = effect + 1 + static_cast<int64_t>(random() % 40);
    if (random() % 3 == 0) {
      const bool known = random() % 5 != 0;
      builder.write(i + 1, from, known ? to : never_ns, known ? OpStatus::ok : OpStatus::info);
    } else {
      builder.read(zero(), from, to);
    }
    steps.push_back({effect, builder.history.ops.size() - 1});
  }
  std::stable_sort(steps.begin(), steps.end(), [](const Step& one, const Step& other) { return one.at < other.at; });
  BlockValue now;
  for (const Step& step : steps) {
    Op& op = builder.history.ops[step.op];
    if (op.type == OpType::write) {
      now = value(0, op.writer, op.sequence);
    } else {
      op.values = {now};
    }
  }
  return builder.history;
}

TEST(Checker, AcceptsEveryHistoryOfARealRegisterAndMissesNoStaleOne) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  size_t damaged_count = 0;
  for (int round = 0; round < 400; round++) {
    History history = random_register(random);
    const auto violation = check_history(history);
    ASSERT_FALSE(violation) << violation->explanation;
    // The last read gets what was there long before.
    const Op* oldest = nullptr;
    Op* last = nullptr;
    for (Op& op : history.ops) {
      if (op.type == OpType::write && op.status == OpStatus::ok &&
          (oldest == nullptr || op.completed_ns < oldest->completed_ns)) {
        oldest = &op;
      }
      if (op.type == OpType::read && (last == nullptr || op.invoked_ns > last->invoked_ns)) last = &op;
    }
    if (oldest == nullptr || last == nullptr) continue;
    const bool overwritten = std::any_of(history.ops.begin(), history.ops.end(), [&](const Op& op) {
      return op.type == OpType::write && op.status == OpStatus::ok && op.invoked_ns > oldest->completed_ns &&
             op.completed_ns < last->invoked_ns;
    });
    if (!overwritten) continue;
    last->values = {value(0, oldest->writer, oldest->sequence)};
    EXPECT_TRUE(check_history(history));
    damaged_count++;
  }
  EXPECT_GT(damaged_count, 100u);
}

}  // namespace
}  // namespace basalt::check
