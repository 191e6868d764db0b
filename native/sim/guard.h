// SPDX-License-Identifier: Apache-2.0
// Guard: runs seeds in child processes, some at a time, so that one which aborts, is stopped by a sanitizer, or hangs,
// is a result like any other. What a child counted and printed comes back with its result. Each child leads a process
// group: a Ctrl-C at the terminal reaches only us, and what a child has started ends with it.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/probe.h"
#include "sim/run.h"

namespace basalt::sim {

enum class End : uint8_t { finished, crashed, hung, stopped };

struct GuardedResult {
  RunOptions options;
  End end = End::finished;
  RunResult run;       // when finished
  std::string output;  // when crashed or hung: the last of what it said on stderr
  std::array<uint64_t, mark_count> marks{};
  double real_s = 0;
  double cpu_s = 0;
  bool passed() const { return end == End::finished && run.failure == Failure::none; }
};

class Guard {
 public:
  struct Options {
    size_t jobs = 1;
    int limit_s = 300;     // real time for one run; then it hangs
    bool verbose = false;  // children write to our stderr as they go
    int stop_fd = -1;      // readable: stop waiting
  };
  explicit Guard(const Options& options);
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  bool full() const;
  bool empty() const;
  // Not while full. `number` comes back with the result.
  void start(uint64_t number, const std::function<RunResult()>& run, const RunOptions& options);
  // Waits for one that has ended. Nothing: told to stop; those that run are killed with the Guard.
  std::optional<std::pair<uint64_t, GuardedResult>> wait();

 private:
  struct Child;
  const Options options_;
  std::vector<std::unique_ptr<Child>> children_;
};

// One run, alone.
GuardedResult run_guarded(const RunOptions& options, int limit_s, int stop_fd = -1);

}  // namespace basalt::sim
