// SPDX-License-Identifier: Apache-2.0
// Goal: whole clusters under random faults serve what was written, come to rest, and do so repeatably; what once failed
// does not fail again; and random runs see the bugs that are planted. Method: a short share of what `npm run sim` does
// for long; a failure prints the command that repeats it.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "sim/guard.h"
#include "sim/plan_file.h"
#include "sim/shrink.h"
#include "testing/rounds.h"

namespace basalt::sim {
namespace {

constexpr uint64_t seed_count = testing::rounds_here({.plain = 30, .asan = 12, .tsan = 4});
constexpr uint64_t bug_seeds_max = 60;
constexpr int limit_s = 300;

std::string about(const GuardedResult& result) {
  return "npm run sim -- --suite " + std::string(suite_name(result.options.suite)) + " --seed " +
         std::to_string(result.options.seed) + "\n" + result.run.summary + "\n" + result.run.explanation +
         result.output;
}

TEST(RandomRuns, ServeWhatWasWrittenAndComeToRest) {
  for (uint64_t seed = 1000; seed < 1000 + seed_count; seed++) {
    const GuardedResult result = run_guarded({.seed = seed}, limit_s);
    EXPECT_TRUE(result.passed()) << about(result);
  }
}

// What is made small must not fail for a reason of its own. Each of these loses unflushed writes when the only copy's
// machine loses power alone.
TEST(RandomRuns, WithOneCopyPromiseNoLess) {
  for (const uint64_t seed : {0x5, 0x10, 0x12, 0x14, 0x1f, 0x43, 0x4a, 0x4c}) {
    RunOptions options{.seed = seed};
    options.reduction.copies = 1;
    const GuardedResult result = run_guarded(options, limit_s);
    EXPECT_TRUE(result.passed()) << about(result);
  }
}

TEST(RandomRuns, OneSeedGivesOneHistory) {
  for (uint64_t seed = 2000; seed < 2003; seed++) {
    const RunOptions options{.seed = seed};
    EXPECT_EQ(run_guarded(options, limit_s).run.trace_hash, run_guarded(options, limit_s).run.trace_hash)
        << "seed " << seed;
  }
}

TEST(RandomRuns, AreResultsAlsoWhenTheyCrash) {
  Guard guard({.jobs = 2});
  guard.start(7, []() -> RunResult { BASALT_ASSERT(1 + 1 == 3); }, {});
  guard.start(8, [] { return RunResult{.explanation = "fine"}; }, {});
  std::map<uint64_t, GuardedResult> results;
  while (!guard.empty())
    results.insert(guard.wait().value());
  EXPECT_EQ(results[7].end, End::crashed);
  EXPECT_NE(results[7].output.find("1 + 1 == 3"), std::string::npos) << results[7].output;
  EXPECT_EQ(results[8].end, End::finished);
  EXPECT_EQ(results[8].run.explanation, "fine");
}

class PlantedBugRuns : public ::testing::TestWithParam<BugName> {};

TEST_P(PlantedBugRuns, AreCaughtWithinSomeTensOfSeeds) {
  for (uint64_t seed = 1; seed <= bug_seeds_max; seed++) {
    RunOptions options{.seed = seed};
    options.bugs.*GetParam().flag = true;
    if (!run_guarded(options, limit_s).passed()) return;
  }
  ADD_FAILURE() << "no violation in " << bug_seeds_max << " seeds: npm run sim -- --suite cluster --bug "
                << GetParam().name << " --seeds " << bug_seeds_max;
}

// Marks cleared before a flush show where members are plain disks (data/data_run_test.cc): an lvol flushes all it has
// with every mark that is written.
INSTANTIATE_TEST_SUITE_P(All, PlantedBugRuns,
                         ::testing::Values(BugName{"skip_fence", &PlantedBugs::skip_fence},
                                           BugName{"promote_before_takeover", &PlantedBugs::promote_before_takeover},
                                           BugName{"shrink_without_consent", &PlantedBugs::shrink_without_consent},
                                           BugName{"read_unequal", &PlantedBugs::read_unequal},
                                           BugName{"forget_epoch", &PlantedBugs::forget_epoch},
                                           BugName{"ignore_read_lease", &PlantedBugs::ignore_read_lease},
                                           BugName{"ignore_own_marks", &PlantedBugs::ignore_own_marks},
                                           BugName{"skip_marks", &PlantedBugs::skip_marks}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Regressions, StayFixed) {
  const std::filesystem::path folder = std::filesystem::path(BASALT_SOURCE_DIR) / "test/sim";
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    std::ifstream in(entry.path());
    std::ostringstream text;
    text << in.rdbuf();
    auto plan = parse_plan(text.str());
    ASSERT_TRUE(plan.ok()) << entry.path() << ": " << plan.error().message;
    EXPECT_EQ(plan_text(plan.value()), text.str()) << entry.path() << " is not in the form that the simulator writes";
    // Needs Node.js and the addon: src/sim/regressions.test.ts runs these.
    if (plan->options.suite == Suite::cluster_ts) continue;
    const GuardedResult result = run_guarded(plan->options, limit_s);
    EXPECT_TRUE(result.passed()) << entry.path() << "\n" << about(result);
    count++;
  }
  EXPECT_GT(count, 0u);
}

TEST(PlanFiles, AreReadBackAndRefusedWhenWrong) {
  PlanFile plan;
  plan.options.suite = Suite::data;
  plan.options.seed = 0xfedcba9876543210;
  plan.options.reduction.steps = {3, 7};
  plan.options.reduction.hosts = 1;
  plan.options.bugs.forget_epoch = true;
  plan.found = "R2: block 3";
  const std::string text = plan_text(plan);
  auto read = parse_plan(text);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(plan_text(read.value()), text);
  EXPECT_EQ(read->options.reduction, plan.options.reduction);
  EXPECT_EQ(parse_plan("[]").error().message, "not a JSON object");
  EXPECT_EQ(parse_plan(R"({"seed":"0x1"})").error().message, "suite: missing");
  EXPECT_EQ(parse_plan(R"({"suite":"data","seed":1})").error().message, "seed: a string, 0x...");
  EXPECT_EQ(parse_plan(R"({"suite":"data","seed":"0x1","reduction":{"step":[1]}})").error().message,
            "reduction.step: unknown");
}

TEST(Shrinking, LeavesWhatTheFailureNeeds) {
  // Fails with steps 4 and 9 together, client 2, and at least 12 operations.
  size_t tries = 0;
  const auto fails = [&tries](const RunOptions& options) {
    tries++;
    const Reduction& reduction = options.reduction;
    return reduction.has_step(4) && reduction.has_step(9) && reduction.has_client(2) &&
           reduction.ops_max.value_or(1000) >= 12;
  };
  const RunOptions small = shrink({{.seed = 5}, 25, 6}, fails, 500);
  EXPECT_EQ(small.reduction.steps, (std::vector<uint32_t>{4, 9}));
  EXPECT_EQ(small.reduction.clients, (std::vector<uint32_t>{2}));
  EXPECT_EQ(small.reduction.ops_max, 30u);
  EXPECT_EQ(small.reduction.hosts, 1u);
  EXPECT_LT(tries, 200u);
}

}  // namespace
}  // namespace basalt::sim
