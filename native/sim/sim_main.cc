// SPDX-License-Identifier: Apache-2.0
// sim: random runs of stacks, targets and whole clusters in virtual time, after the regressions of test/sim. The last
// line is `N passed, N failed, trace <16 hex digits>`. Options: arguments.cc; exit codes: session.h, and 2 for wrong
// usage.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "sim/arguments.h"
#include "sim/plan_file.h"
#include "sim/session.h"

namespace {

using namespace basalt;
using namespace basalt::sim;
using Clock = std::chrono::steady_clock;

// A run with TypeScript agents costs as much as some of the others; among them it gets every third seed.
constexpr uint64_t cluster_ts_every = 3;

int usage(const std::string& problem) {
  std::fprintf(stderr, "sim: %s\n%s", problem.c_str(), usage_text());
  return 2;
}

Result<PlanFile> read_plan(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in || std::filesystem::is_directory(path)) return Error{Errc::not_found, path.string() + ": cannot be read"};
  auto plan = parse_plan(text.str());
  if (!plan.ok()) return Error{Errc::invalid_argument, path.string() + ": " + plan.error().message};
  return plan;
}

// The regressions run first, unless one run is asked for.
std::vector<std::filesystem::path> plans_of(const Arguments& arguments) {
  if (!arguments.plan.empty()) return {arguments.plan};
  std::vector<std::filesystem::path> paths;
  if (arguments.seed) return paths;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(arguments.regressions, none)) {
    if (entry.path().extension() == ".json") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

struct NamedPlan {
  RunOptions options;
  std::filesystem::path path;
};

// All files are read before anything runs: a wrong one is wrong usage.
Result<std::vector<NamedPlan>> read_plans(const Arguments& arguments) {
  std::vector<NamedPlan> plans;
  for (const auto& path : plans_of(arguments)) {
    auto plan = read_plan(path);
    if (!plan.ok()) return std::move(plan).error();
    const Suite suite = plan->options.suite;
    const bool asked = std::find(arguments.suites.begin(), arguments.suites.end(), suite) != arguments.suites.end();
    if (asked) plans.push_back({plan->options, path});
    if (!arguments.history.empty() && suite != Suite::cluster_ts)
      return Error{Errc::invalid_argument, "--history: only runs of suite cluster-ts write one"};
  }
  return plans;
}

void start_seeds(const Arguments& arguments, Session* session) {
  const auto end = arguments.minutes ? Clock::now() + std::chrono::minutes(static_cast<int64_t>(*arguments.minutes))
                                     : Clock::time_point::max();
  const uint64_t first = arguments.seed.value_or(1);
  const uint64_t unnamed = arguments.minutes ? UINT64_MAX : arguments.seed ? 1 : Arguments::seeds_default;
  const uint64_t runs = arguments.seeds.value_or(unnamed);
  for (uint64_t i = 0; i < runs && Clock::now() < end; i++) {
    for (const Suite suite : arguments.suites) {
      if (suite == Suite::cluster_ts && arguments.all_asked() && i % cluster_ts_every != 0) continue;
      if (session->stopped()) return;
      RunOptions options;
      options.seed = first + i;
      options.suite = suite;
      for (const std::string& bug : arguments.bugs)
        plant(bug, &options);
      char name[64];
      std::snprintf(name, sizeof(name), "%s 0x%llx", suite_name(suite), static_cast<unsigned long long>(options.seed));
      session->start(options, name, "");
    }
  }
}

int measure_speed(uint64_t virtual_s) {
  Guard guard({.limit_s = 600});
  guard.start(0, [virtual_s] { return run_speed(seconds(static_cast<int64_t>(virtual_s))); }, {});
  const GuardedResult result = guard.wait().value().second;
  if (!result.passed()) {
    std::printf("%s\n%s", result.run.explanation.c_str(), result.output.c_str());
    return 6;
  }
  const double virtual_time_s = static_cast<double>(result.run.virtual_ns) / 1e9;
  std::printf(
      "5 nodes: %.1f virtual s, %llu ops (%.0f per virtual s) in %.2f s of one core: %.0f virtual s per minute "
      "and core\n",
      virtual_time_s, static_cast<unsigned long long>(result.run.op_count),
      static_cast<double>(result.run.op_count) / virtual_time_s, result.cpu_s, virtual_time_s / result.cpu_s * 60);
  return 0;
}

}  // namespace

int main(int count, char** texts) {
  auto arguments = read_arguments({texts + 1, texts + count});
  if (!arguments.ok()) return usage(arguments.error().message);
  if (arguments->speed_s > 0) return measure_speed(arguments->speed_s);
  const auto plans = read_plans(arguments.value());
  if (!plans.ok()) return usage(plans.error().message);
  const Interrupt interrupt;
  Session session(arguments.value(), interrupt);
  for (const NamedPlan& plan : plans.value())
    session.start(plan.options, plan.path.filename().string(), plan.path.string());
  if (arguments->plan.empty()) start_seeds(arguments.value(), &session);
  return session.end();
}
