// SPDX-License-Identifier: Apache-2.0
// sim: random runs of whole clusters. The last line is `N passed, N failed, trace <16 hex digits>`.
//
//   sim [--suite data|cluster|all] [--seeds N] [--seed 0x...] [--minutes M] [--verbose]
//
// Exit codes: 0 all passed, 2 wrong usage, 3 liveness, 4 correctness (both: 4), 5 a seed that gave two histories; a
// crash ends by its signal, after the seed was printed.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "sim/run.h"

namespace {

using basalt::sim::Failure;
using basalt::sim::RunOptions;
using basalt::sim::RunResult;
using basalt::sim::Suite;

struct Arguments {
  bool data = true;
  bool cluster = true;
  uint64_t seeds = 20;
  uint64_t seed = 0;
  bool one_seed = false;
  uint64_t minutes = 0;  // 0: no limit
  bool verbose = false;
};

int usage(const std::string& problem) {
  std::fprintf(stderr,
               "sim: %s\nusage: sim [--suite data|cluster|all] [--seeds N] [--seed 0x...] [--minutes M] "
               "[--verbose]\n",
               problem.c_str());
  return 2;
}

bool read_number(const char* text, uint64_t* out) {
  char* end = nullptr;
  *out = std::strtoull(text, &end, 0);
  return *text != '\0' && *text != '-' && *end == '\0';
}

// 0: go on.
int read_arguments(int count, char** texts, Arguments* out) {
  for (int i = 1; i < count; i++) {
    const std::string name = texts[i];
    if (name == "--verbose") {
      out->verbose = true;
      continue;
    }
    if (i + 1 == count) return usage(name + ": a value is missing");
    const char* value = texts[++i];
    if (name == "--suite") {
      const std::string suite = value;
      if (suite != "all" && !basalt::sim::suite_from(suite)) {
        return usage("--suite: data, cluster or all, not '" + suite + "'");
      }
      out->data = suite == "data" || suite == "all";
      out->cluster = suite == "cluster" || suite == "all";
    } else if (name == "--seeds") {
      if (!read_number(value, &out->seeds) || out->seeds == 0) return usage("--seeds: a number of at least 1");
    } else if (name == "--seed") {
      if (!read_number(value, &out->seed)) return usage("--seed: a number, 0x... or decimal");
      out->one_seed = true;
    } else if (name == "--minutes") {
      if (!read_number(value, &out->minutes) || out->minutes == 0) return usage("--minutes: a number of at least 1");
    } else {
      return usage("unknown option " + name);
    }
  }
  return 0;
}

struct Totals {
  uint64_t passed = 0;
  uint64_t failed = 0;
  uint64_t trace = 0xcbf29ce484222325;
  bool liveness = false;
  bool correctness = false;
  bool unstable = false;
};

void run(const Arguments& arguments, Suite suite, uint64_t seed, bool twice, Totals* totals) {
  RunOptions options;
  options.seed = seed;
  options.suite = suite;
  options.verbose = arguments.verbose;
  const auto seed_number = static_cast<unsigned long long>(seed);
  // Before it runs, so that a crash has a seed too.
  std::printf("suite %s seed 0x%llx: ", basalt::sim::suite_name(suite), seed_number);
  std::fflush(stdout);
  const RunResult result = basalt::sim::run_once(options);
  totals->trace = (totals->trace ^ result.trace_hash) * 0x100000001b3;
  bool stable = true;
  if (twice) stable = basalt::sim::run_once(options).trace_hash == result.trace_hash;
  const bool passed = result.failure == Failure::none && stable;
  std::printf("%s trace %016llx; %llu ops, %llu takeovers; %s\n", passed ? "passed" : "FAILED",
              static_cast<unsigned long long>(result.trace_hash), static_cast<unsigned long long>(result.op_count),
              static_cast<unsigned long long>(result.takeover_count), result.summary.c_str());
  if (!stable) std::printf("  the same seed gave another history\n");
  if (!result.explanation.empty()) {
    std::printf("%s\n  again: npm run sim -- --suite %s --seed 0x%llx --verbose\n", result.explanation.c_str(),
                basalt::sim::suite_name(suite), seed_number);
  }
  (passed ? totals->passed : totals->failed)++;
  totals->liveness |= result.failure == Failure::liveness;
  totals->correctness |= result.failure == Failure::correctness;
  totals->unstable |= !stable;
}

}  // namespace

int main(int count, char** texts) {
  Arguments arguments;
  if (const int code = read_arguments(count, texts, &arguments); code != 0) return code;
  using Clock = std::chrono::steady_clock;
  const auto end = arguments.minutes == 0
                       ? Clock::time_point::max()
                       : Clock::now() + std::chrono::minutes(static_cast<int64_t>(arguments.minutes));
  const uint64_t runs = arguments.one_seed ? 1 : arguments.minutes != 0 ? UINT64_MAX : arguments.seeds;
  Totals totals;
  for (uint64_t i = 0; i < runs && Clock::now() < end; i++) {
    const uint64_t seed = arguments.one_seed ? arguments.seed : i + 1;
    // Some seeds twice: one seed must give one history.
    const bool twice = i % 20 == 0;
    if (arguments.data) run(arguments, Suite::data, seed, twice, &totals);
    if (arguments.cluster) run(arguments, Suite::cluster, seed, twice, &totals);
  }
  std::printf("%llu passed, %llu failed, trace %016llx\n", static_cast<unsigned long long>(totals.passed),
              static_cast<unsigned long long>(totals.failed), static_cast<unsigned long long>(totals.trace));
  if (totals.correctness) return 4;
  if (totals.liveness) return 3;
  return totals.unstable ? 5 : 0;
}
