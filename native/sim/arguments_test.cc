// SPDX-License-Identifier: Apache-2.0
// Goal: the command line means one thing, and what is wrong with it is said exactly.
#include "sim/arguments.h"

#include <gtest/gtest.h>

namespace basalt::sim {
namespace {

using Words = std::vector<std::string>;

Arguments read(const Words& words) {
  auto arguments = read_arguments(words);
  EXPECT_TRUE(arguments.ok()) << arguments.error().message;
  return arguments.ok() ? arguments.value() : Arguments{};
}

TEST(Arguments, AreAllSuitesAndTheRegressionsWhenNothingIsSaid) {
  const Arguments arguments = read({});
  EXPECT_EQ(arguments.suites, (std::vector<Suite>{Suite::data, Suite::target, Suite::cluster, Suite::cluster_ts}));
  EXPECT_FALSE(arguments.seed || arguments.seeds || arguments.minutes);
  EXPECT_EQ(arguments.regressions, "test/sim");
  EXPECT_EQ(arguments.found, ".cache/sim");
}

TEST(Arguments, NameSuitesSeedsAndTimes) {
  const Arguments arguments =
      read({"--suite", "cluster-ts", "--seeds", "200", "--seed", "0xff", "--minutes", "3", "--bug", "skip_fence"});
  EXPECT_EQ(arguments.suites, (std::vector<Suite>{Suite::cluster_ts}));
  EXPECT_EQ(arguments.seeds, 200u);
  EXPECT_EQ(arguments.seed, 0xffu);
  EXPECT_EQ(arguments.minutes, 3u);
  EXPECT_EQ(arguments.bugs, Words{"skip_fence"});
  EXPECT_EQ(arguments.crash_states, 0u);
  EXPECT_EQ(read({"--suite", "data", "--crash-states", "10000"}).crash_states, 10'000u);
}

TEST(Arguments, ANightIsAnHourThatReachesEverything) {
  EXPECT_EQ(read({"--nightly"}).minutes, 60u);
  EXPECT_TRUE(read({"--nightly"}).require_coverage);
  EXPECT_EQ(read({"--nightly", "--minutes", "5"}).minutes, 5u);
  EXPECT_FALSE(read({"--seeds", "9", "--nightly"}).minutes);
}

TEST(Arguments, AreRefusedWithTheOptionAndWhatWouldBeRight) {
  const std::pair<Words, std::string> wrong[] = {
      {{"--sweets"}, "--sweets: unknown option"},
      {{"12"}, "12: unknown option"},
      {{"--seeds"}, "--seeds: its value is missing"},
      {{"--seeds", "0"}, "--seeds: a number of at least 1, not '0'"},
      {{"--seeds", "-1"}, "--seeds: a number of at least 1, not '-1'"},
      {{"--seeds", "1x"}, "--seeds: a number of at least 1, not '1x'"},
      {{"--seeds", ""}, "--seeds: a number of at least 1, not ''"},
      {{"--seed", "0x"}, "--seed: a number, decimal or 0x..., not '0x'"},
      {{"--seed", "0x10000000000000000"}, "--seed: a number, decimal or 0x..., not '0x10000000000000000'"},
      {{"--minutes", "0"}, "--minutes: a number from 1 to 1000000, not '0'"},
      {{"--suite", "disk"}, "--suite: data, target, cluster, cluster-ts or all, not 'disk'"},
      {{"--plan", ""}, "--plan: a path, not ''"},
      {{"--plan", "a.json", "--seed", "1"}, "--plan: says what runs; --seed does not go with it"},
      {{"--speed", "3", "--suite", "data"}, "--speed: says what runs; --suite does not go with it"},
      {{"--suite", "data", "--bug", "skip_fence"},
       "--bug: suite data has no planted bug 'skip_fence'; it has skip_marks, clear_before_flush, ignore_own_marks, "
       "reuse_early, reuse_unzeroed"},
      {{"--suite", "cluster", "--require-coverage"},
       "--require-coverage: only all suites together reach every rare event; leave out --suite"},
      {{"--suite", "cluster", "--crash-states", "10000"}, "--crash-states: only the suite data has crash states"},
      {{"--plan", "a.json", "--crash-states", "5"}, "--plan: says what runs; --crash-states does not go with it"},
      {{"--history", "h"}, "--history: needs one run, --plan FILE or --suite cluster-ts --seed N"},
  };
  for (const auto& [words, message] : wrong) {
    const auto arguments = read_arguments(words);
    ASSERT_FALSE(arguments.ok()) << message;
    EXPECT_EQ(arguments.error().message, message);
  }
  const auto no_bug = read_arguments({"--suite", "cluster-ts", "--bug", "skip_marks"});
  ASSERT_FALSE(no_bug.ok());
  EXPECT_TRUE(no_bug.error().message.starts_with("--bug: suite cluster-ts has no planted bug 'skip_marks'; it has "))
      << no_bug.error().message;
}

}  // namespace
}  // namespace basalt::sim
