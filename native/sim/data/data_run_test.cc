// SPDX-License-Identifier: Apache-2.0
// Goal: stacks of real bdevs keep their promises through crashes. Method: some random runs; `sim --suite data` does
// many.
#include "sim/data/data_run.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/probe.h"
#include "bdev/lvol/format.h"
#include "sim/data/stack.h"
#include "testing/rounds.h"

namespace basalt::sim {
namespace {

// `npm run sim -- --suite data` does many.
constexpr uint64_t seeds_of_a_run = testing::rounds_here({.plain = 8, .asan = 8, .tsan = 2});

TEST(DataRun, StacksKeepWhatTheyPromisedThroughEveryCrashState) {
  const char* given = std::getenv("BASALT_SEED");
  const char* given_count = std::getenv("BASALT_SEEDS");
  const uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 0) : 1;
  const uint64_t count = given_count != nullptr ? std::strtoull(given_count, nullptr, 0)
                         : given != nullptr     ? 1
                                                : seeds_of_a_run;
  uint64_t states = 0;
  for (uint64_t seed = first; seed < first + count; seed++) {
    RunOptions options;
    options.seed = seed;
    const RunResult result = run_data_stack(options);
    ASSERT_EQ(result.failure, Failure::none) << "seed " << seed << ": " << result.explanation << "\n" << result.summary;
    states += result.crash_state_count;
  }
  std::printf("%llu distinct crash states\n", static_cast<unsigned long long>(states));
  if (given == nullptr) {
    EXPECT_GE(states, count * 20);
  }
}

// How many of the seeds it takes until the bug shows; 0: never. `first` is the seed that is known to show it: when what
// a seed draws has changed and it does not any more, all others are tried.
uint64_t seeds_until_caught(const DataBugs& bugs, uint64_t seeds_max, uint64_t first = 1) {
  for (uint64_t tried = 0; tried < seeds_max; tried++) {
    RunOptions options;
    const uint64_t seed = (first - 1 + tried) % seeds_max + 1;
    options.seed = seed;
    if (run_data_stack(options, bugs).failure != Failure::none) {
      std::printf("caught by seed %llu\n", static_cast<unsigned long long>(seed));
      return seed;
    }
  }
  return 0;
}

TEST(DataRun, DisksThatLieAreCaught) {
  EXPECT_NE(seeds_until_caught({.lose_write_chance = 0.01}, 20), 0u);
  EXPECT_NE(seeds_until_caught({.misdirect_write_chance = 0.01}, 20), 0u);
  EXPECT_NE(seeds_until_caught({.ignore_flushes = true}, 20), 0u);
}

TEST(DataRun, BugsOfMirrorsAreCaught) {
  EXPECT_NE(seeds_until_caught({.leg = {.skip_marks = true}}, 10), 0u);
  EXPECT_NE(seeds_until_caught({.leg = {.clear_before_flush = true}}, 40), 0u);
  EXPECT_NE(seeds_until_caught({.leg = {.ignore_order = true}}, 40, 2), 0u);
  EXPECT_NE(seeds_until_caught({.leg = {.ack_before_flush = true}}, 20), 0u);
}

TEST(DataRun, BugsOfParityAreCaught) {
  EXPECT_NE(seeds_until_caught({.raid = {.no_record = true}}, 20), 0u);
  EXPECT_NE(seeds_until_caught({.raid = {.record_not_durable = true}}, 20), 0u);
}

TEST(DataRun, BugsOfLvstoresAreCaught) {
  EXPECT_NE(seeds_until_caught({.lvol = {.reuse_early = true}}, 40), 0u);
  EXPECT_NE(seeds_until_caught({.lvol = {.reuse_unzeroed = true}}, 40, 11), 0u);
}

TEST(DataRun, BugsOfChecksumsAreCaught) {
  EXPECT_NE(seeds_until_caught({.lvol = {.checksums = {.no_record = true}}}, 20), 0u);
  EXPECT_NE(seeds_until_caught({.lvol = {.checksums = {.record_not_durable = true}}}, 20), 0u);
  EXPECT_NE(seeds_until_caught({.lvol = {.checksums = {.trim_before_flush = true}}}, 40, 10), 0u);
}

// Tags belong to places: a write that went elsewhere, or nowhere, is found where it should be and where it is, answered
// from the other member of the mirror and rewritten; what nobody read, by a scrub. Without the verification it is read.
TEST(DataRun, MisdirectedWritesBelowChecksumsAreFoundAndRepairedAndNeverRead) {
  MarkTable marks;
  const CountMarks counting(marks);
  uint64_t misdirected = 0;
  uint64_t found = 0;
  constexpr uint64_t rounds = testing::rounds_here({.plain = 4, .asan = 2, .tsan = 1});
  for (uint64_t seed = 1; seed <= rounds; seed++) {
    RunOptions options;
    options.seed = seed;
    const RunResult result = run_data_stack(options, {.misdirect_below_checksums = true});
    ASSERT_EQ(result.failure, Failure::none) << "seed " << seed << ": " << result.explanation << "\n" << result.summary;
    misdirected += result.misdirected_count;
    found += result.mismatch_count;
  }
  std::printf("%llu writes went elsewhere, %llu blocks were found\n", static_cast<unsigned long long>(misdirected),
              static_cast<unsigned long long>(found));
  EXPECT_GT(misdirected, 10 * rounds / 4);
  EXPECT_GT(found, 20u);
  EXPECT_GT(marks.count(Mark::fault_write_elsewhere), 10 * rounds / 4);
  EXPECT_GT(marks.count(Mark::fault_write_lost), 0u);
  EXPECT_GT(marks.count(Mark::scrub_rewrote), 0u);
}

TEST(DataRun, BlocksThatNobodyVerifiesAreCaught) {
  EXPECT_NE(seeds_until_caught({.lvol = {.checksums = {.no_verify = true}}}, 40, 5), 0u);
}

TEST(DataRun, DamageThatAScrubLeavesIsCaught) {
  EXPECT_NE(seeds_until_caught({.scrub_mends_nothing = true}, 20), 0u);
}

// As small as it is at first.
TEST(StackPlan, APoolHasRoomOnADeviceThatGrows) {
  uint64_t grow = 0;
  for (uint64_t seed = 0; seed < 3000; seed++) {
    env::SimRandom random(seed);
    const StackPlan plan = random_plan(random);
    if (!plan.pool || !plan.top.grows) continue;
    grow++;
    const auto layout =
        bdev::lvs::Layout::make(plan.top.bytes_at_first() / bdev::lvs::block_bytes, Stack::cluster_bytes);
    EXPECT_TRUE(layout.ok()) << "seed " << seed << ": " << plan.to_string();
  }
  EXPECT_GT(grow, 30u);
}

TEST(DataRun, OneSeedGivesOneHistory) {
  RunOptions options;
  options.seed = 3;
  EXPECT_EQ(run_data_stack(options).trace_hash, run_data_stack(options).trace_hash);
}

}  // namespace
}  // namespace basalt::sim
