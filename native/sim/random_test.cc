// SPDX-License-Identifier: Apache-2.0
// Goal: whole clusters under random faults serve what was written, come to rest, and do so repeatably. Method: a short
// share of what `npm run sim` does for long; a failure prints the command that repeats it.
#include <gtest/gtest.h>

#include "sim/run.h"

namespace basalt::sim {
namespace {

constexpr uint64_t seed_count = 30;

class RandomRuns : public testing::TestWithParam<Suite> {};

TEST_P(RandomRuns, ServeWhatWasWrittenAndComeToRest) {
  for (uint64_t seed = 1000; seed < 1000 + seed_count; seed++) {
    const RunResult result = run_once({.seed = seed, .suite = GetParam()});
    EXPECT_EQ(result.failure, Failure::none)
        << "npm run sim -- --suite " << suite_name(GetParam()) << " --seed " << seed << "\n"
        << result.summary << "\n"
        << result.explanation;
  }
}

TEST_P(RandomRuns, OneSeedGivesOneHistory) {
  for (uint64_t seed = 2000; seed < 2003; seed++) {
    const RunOptions options{.seed = seed, .suite = GetParam()};
    EXPECT_EQ(run_once(options).trace_hash, run_once(options).trace_hash) << "seed " << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Suites, RandomRuns, testing::Values(Suite::data, Suite::cluster),
                         [](const auto& info) { return std::string(info.param == Suite::data ? "Data" : "Cluster"); });

}  // namespace
}  // namespace basalt::sim
