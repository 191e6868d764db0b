// SPDX-License-Identifier: Apache-2.0
// Goal: the oracle of the data suite allows what a disk may do, and nothing else. Method: small histories by hand.
#include "sim/data/block_oracle.h"

#include <gtest/gtest.h>

namespace basalt::sim {
namespace {

using Ending = BlockOracle::Ending;

struct Bench {
  BlockOracle oracle{7, 4};
  std::vector<uint8_t> data = std::vector<uint8_t>(oracle_block_bytes);
  uint64_t write(uint64_t sequence, Ending ending = Ending::done) {
    const auto change = oracle.change_begins(1, 1, sequence);
    oracle.change_ends(change, 1, 1, ending);
    return change;
  }
  void flush() { oracle.flush_ends(oracle.flush_begins()); }
  void hold(uint64_t sequence, uint64_t volume = 7, uint64_t block = 1) {
    if (sequence == 0) {
      std::fill(data.begin(), data.end(), uint8_t{0});
    } else {
      fill_tagged(data.data(), volume, block, 1, sequence);
    }
  }
  bool readable(uint64_t sequence) {
    hold(sequence);
    return !oracle.judge_read(oracle.read_begins(), 1, data.data(), 1);
  }
  bool survives(uint64_t sequence, CrashRule rule) {
    hold(sequence);
    return !oracle.judge_crash(rule, 1, data.data(), 1);
  }
};

TEST(BlockOracle, OnlyTheLastCompletedWriteIsRead) {
  Bench bench;
  EXPECT_TRUE(bench.readable(0));
  EXPECT_FALSE(bench.readable(1));
  bench.write(1);
  bench.write(2);
  EXPECT_FALSE(bench.readable(0));
  EXPECT_FALSE(bench.readable(1));
  EXPECT_TRUE(bench.readable(2));
}

TEST(BlockOracle, AWriteInFlightMayOrMayNotBeRead) {
  Bench bench;
  bench.write(1);
  const auto change = bench.oracle.change_begins(1, 1, 2);
  EXPECT_TRUE(bench.readable(1));
  EXPECT_TRUE(bench.readable(2));
  bench.oracle.change_ends(change, 1, 1, Ending::done);
  EXPECT_FALSE(bench.readable(1));
}

TEST(BlockOracle, AReadThatBeganBeforeMayStillSeeTheOldValue) {
  Bench bench;
  bench.write(1);
  const uint64_t begun = bench.oracle.read_begins();
  bench.write(2);
  bench.hold(1);
  EXPECT_FALSE(bench.oracle.judge_read(begun, 1, bench.data.data(), 1));
  EXPECT_FALSE(bench.readable(1));
}

TEST(BlockOracle, OverlappingWritesEndInEitherOrder) {
  Bench bench;
  const auto one = bench.oracle.change_begins(1, 1, 1);
  const auto two = bench.oracle.change_begins(1, 1, 2);
  bench.oracle.change_ends(two, 1, 1, Ending::done);
  bench.oracle.change_ends(one, 1, 1, Ending::done);
  EXPECT_TRUE(bench.readable(1));
  EXPECT_TRUE(bench.readable(2));
  EXPECT_FALSE(bench.readable(0));
}

TEST(BlockOracle, APowerCutLeavesWhatWasFlushedOrAnythingSince) {
  Bench bench;
  bench.write(1);
  bench.write(2);
  bench.flush();
  EXPECT_TRUE(bench.survives(2, CrashRule::power_cut));
  EXPECT_FALSE(bench.survives(1, CrashRule::power_cut));
  EXPECT_FALSE(bench.survives(0, CrashRule::power_cut));
  bench.write(3);
  bench.write(4);
  for (uint64_t sequence : {2, 3, 4})
    EXPECT_TRUE(bench.survives(sequence, CrashRule::power_cut));
  EXPECT_FALSE(bench.survives(3, CrashRule::kill));
  EXPECT_TRUE(bench.survives(4, CrashRule::kill));
}

TEST(BlockOracle, AFlushCoversOnlyWhatHadEndedWhenItBegan) {
  Bench bench;
  const uint64_t begun = bench.oracle.flush_begins();
  bench.write(1);
  bench.oracle.flush_ends(begun);
  EXPECT_TRUE(bench.survives(0, CrashRule::power_cut));
  bench.flush();
  EXPECT_FALSE(bench.survives(0, CrashRule::power_cut));
}

TEST(BlockOracle, AForcedWriteSurvivesAlone) {
  Bench bench;
  bench.write(1);
  bench.write(2, Ending::forced);
  EXPECT_FALSE(bench.survives(1, CrashRule::power_cut));
  EXPECT_TRUE(bench.survives(2, CrashRule::power_cut));
}

TEST(BlockOracle, AFailedWriteStaysPossibleUntilItIsOverwrittenAndARefusedOneNeverIs) {
  Bench bench;
  bench.write(1);
  bench.write(2, Ending::unknown);
  bench.write(3, Ending::refused);
  EXPECT_TRUE(bench.readable(1));
  EXPECT_TRUE(bench.readable(2));
  EXPECT_FALSE(bench.readable(3));
}

TEST(BlockOracle, ForeignMisplacedAndBrokenBytesAreSeen) {
  Bench bench;
  bench.write(5);
  bench.hold(5, 8);
  EXPECT_TRUE(bench.oracle.judge_crash(CrashRule::kill, 1, bench.data.data(), 1));
  bench.hold(5, 7, 2);
  EXPECT_TRUE(bench.oracle.judge_crash(CrashRule::kill, 1, bench.data.data(), 1));
  bench.hold(5);
  EXPECT_FALSE(bench.oracle.judge_crash(CrashRule::kill, 1, bench.data.data(), 1));
  bench.data[700] ^= 1;
  EXPECT_TRUE(bench.oracle.judge_crash(CrashRule::kill, 1, bench.data.data(), 1));
}

TEST(BlockOracle, ACopyHoldsWhatWasThereAndMayLackWhatWasInFlight) {
  Bench bench;
  bench.write(1);
  bench.write(2);
  const uint64_t begun = bench.oracle.read_begins();
  const auto meanwhile = bench.oracle.change_begins(1, 1, 3);
  bench.oracle.change_ends(meanwhile, 1, 1, Ending::forced);
  BlockOracle copy = bench.oracle.copied(begun, 8);
  bench.oracle.read_ends(begun);
  bench.write(4);
  const auto readable = [&](uint64_t sequence) {
    bench.hold(sequence);
    return !copy.judge_read(copy.read_begins(), 1, bench.data.data(), 1);
  };
  EXPECT_TRUE(readable(2));
  EXPECT_TRUE(readable(3));
  EXPECT_FALSE(readable(1));
  EXPECT_FALSE(readable(4));
  // What is written to the copy replaces both.
  copy.change_ends(copy.change_begins(1, 1, 5), 1, 1, Ending::done);
  fill_tagged(bench.data.data(), 8, 1, 1, 5);
  EXPECT_FALSE(copy.judge_read(copy.read_begins(), 1, bench.data.data(), 1));
  EXPECT_FALSE(readable(2));
  EXPECT_FALSE(readable(3));
}

TEST(BlockOracle, SectorsOfATornBlockAreJudgedAndAdoptedOneByOne) {
  Bench bench;
  bench.write(1);
  bench.flush();
  bench.write(2);
  bench.hold(1);
  fill_tagged(bench.data.data(), 7, 1, 1, 2);
  std::vector<uint8_t> old(oracle_block_bytes);
  fill_tagged(old.data(), 7, 1, 1, 1);
  std::copy_n(old.begin(), oracle_sector_bytes, bench.data.begin());
  EXPECT_FALSE(bench.oracle.judge_crash(CrashRule::power_cut, 1, bench.data.data(), 1));
  bench.oracle.forget_history();
  bench.oracle.adopt(1, bench.data.data(), 1);
  EXPECT_FALSE(bench.oracle.judge_read(bench.oracle.read_begins(), 1, bench.data.data(), 1));
  EXPECT_FALSE(bench.readable(1));
  EXPECT_FALSE(bench.readable(2));
}

}  // namespace
}  // namespace basalt::sim
