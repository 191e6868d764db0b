// SPDX-License-Identifier: Apache-2.0
// Goal: no host, however rude, crashes the target, makes it leak or hang, or touches the data of another host. Method:
// some random runs; `sim --suite target` does many.
#include "sim/target/target_run.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace basalt::sim {
namespace {

TEST(TargetRun, RudeHostsHurtOnlyThemselves) {
  const char* given = std::getenv("BASALT_SEED");
  const char* given_count = std::getenv("BASALT_SEEDS");
  const uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 0) : 1;
  const uint64_t count = given_count != nullptr ? std::strtoull(given_count, nullptr, 0) : given != nullptr ? 1 : 10;
  for (uint64_t seed = first; seed < first + count; seed++) {
    RunOptions options;
    options.seed = seed;
    const RunResult result = run_target(options);
    EXPECT_EQ(result.failure, Failure::none) << "seed " << seed << ": " << result.explanation << "\n" << result.summary;
    if (given != nullptr || given_count != nullptr)
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), result.summary.c_str());
  }
}

// An old copy lies on a path that is late, and lands on what was written since over another one.
TEST(TargetRun, AHostThatResendsAtOnceIsCaught) {
  constexpr uint64_t seeds_max = 60;
  for (uint64_t seed = 1; seed <= seeds_max; seed++) {
    RunOptions options;
    options.seed = seed;
    options.bugs.resend_at_once = true;
    const RunResult result = run_target(options);
    if (result.failure == Failure::none) continue;
    EXPECT_EQ(result.failure, Failure::correctness) << result.explanation;
    std::printf("caught by seed %llu\n", static_cast<unsigned long long>(seed));
    return;
  }
  ADD_FAILURE() << "no violation in " << seeds_max
                << " seeds: npm run sim -- --suite target --bug resend_at_once --seeds " << seeds_max;
}

TEST(TargetRun, OneSeedGivesOneHistory) {
  RunOptions options;
  options.seed = 4;
  EXPECT_EQ(run_target(options).trace_hash, run_target(options).trace_hash);
}

}  // namespace
}  // namespace basalt::sim
