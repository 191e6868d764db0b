// SPDX-License-Identifier: Apache-2.0
// Session: all runs of one call of `sim`, each in a process of its own: tells their results in the order of their
// numbers, whatever order they end in, makes failing ones small and files of them, and adds everything up.
#pragma once

#include <array>
#include <chrono>
#include <map>
#include <set>
#include <string>

#include "sim/arguments.h"
#include "sim/guard.h"
#include "sim/interrupt.h"

namespace basalt::sim {

class Session {
 public:
  Session(const Arguments& arguments, const Interrupt& interrupt);

  // `path`: the file that the run comes from; "": drawn from a seed.
  void start(RunOptions options, const std::string& name, const std::string& path);
  // Nothing more is started.
  bool stopped() const { return stopped_ || interrupt_.seen(); }
  // Waits for those that run, tells the sums, gives the exit code: 130 interrupted, 6 a crash or a hang, 4 correctness,
  // 3 liveness, 5 a seed that gave two histories, 7 a rare event that was never reached, or too few crash states.
  int end();

 private:
  struct Named {
    std::string name;
    std::string path;
  };
  struct Total {
    uint64_t runs = 0;
    double virtual_s = 0;
    uint64_t ops = 0;
    uint64_t crash_states = 0;
    double cpu_s = 0;
  };
  struct Event {
    std::string text;
    uint64_t count = 0;
  };

  void take_one();
  void tell(const GuardedResult& result, const Named& named);
  void count(const GuardedResult& result, bool stable, bool passed);
  void write_plan(const GuardedResult& failed, const Named& named);
  RunOptions smaller(const GuardedResult& failed);
  GuardedResult again(const RunOptions& options);
  void tell_interrupted();
  void tell_totals() const;
  std::vector<std::string> report_coverage() const;  // what was never reached

  const Arguments& arguments_;
  const Interrupt& interrupt_;
  Guard guard_;
  const std::chrono::steady_clock::time_point began_;
  bool stopped_ = false;
  uint64_t next_number_ = 0;
  uint64_t told_number_ = 0;
  std::map<uint64_t, Named> names_;  // of those that were not told yet
  std::map<uint64_t, GuardedResult> waiting_;
  std::map<Suite, Total> totals_;
  std::map<std::string, Event> events_;
  uint64_t passed_ = 0;
  uint64_t failed_ = 0;
  uint64_t trace_ = 0xcbf29ce484222325;
  bool crash_ = false;
  bool liveness_ = false;
  bool correctness_ = false;
  bool unstable_ = false;
};

}  // namespace basalt::sim
