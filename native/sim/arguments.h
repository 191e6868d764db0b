// SPDX-License-Identifier: Apache-2.0
// What the command line of `sim` asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "sim/run.h"

namespace basalt::sim {

struct Arguments {
  std::vector<Suite> suites{std::begin(all_suites), std::end(all_suites)};
  std::optional<uint64_t> seeds;  // runs of each suite; given neither seeds, seed nor minutes: seeds_default
  std::optional<uint64_t> seed;   // the first; alone: the only one
  std::optional<uint64_t> minutes;
  uint64_t jobs = 1;
  uint64_t speed_s = 0;  // not 0: measure the speed, run nothing else
  bool verbose = false;
  bool shrink = true;
  bool keep = false;  // failing runs go to the regressions instead of `found`
  bool require_coverage = false;
  uint64_t crash_states = 0;  // so many distinct ones must have been judged at least
  std::string regressions = "test/sim";
  std::string found = ".cache/sim";
  std::string plan;
  std::string history;
  std::vector<std::string> bugs;  // planted into every run
  std::vector<std::string> worker = RunOptions{}.worker;

  static constexpr uint64_t seeds_default = 20;
  bool all_asked() const { return suites.size() == std::size(all_suites); }
};

// The error's message is for people, and complete.
Result<Arguments> read_arguments(const std::vector<std::string>& words);

const char* usage_text();

// Plants it into a run of that suite. False: no planted bug of the suite has this name.
bool plant(const std::string& name, RunOptions* options);

}  // namespace basalt::sim
