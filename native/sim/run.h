// SPDX-License-Identifier: Apache-2.0
// One random run: seed -> shape, knobs, workload mix, nemeses within what redundancy promises -> stop the faults ->
// come to rest -> check. The same seed gives the same history, and so the same trace hash.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "sim/planted_bugs.h"

namespace basalt::sim {

enum class Suite : uint8_t {
  data,     // disks, replicas and the store fail; controllers stay, and several clients may write the same block
  cluster,  // controllers and networks fail too; each block has one writer
};
std::optional<Suite> suite_from(const std::string& name);
const char* suite_name(Suite suite);

enum class Failure : uint8_t { none, liveness, correctness };

struct RunResult {
  Failure failure = Failure::none;
  std::string explanation;
  std::string summary;  // shape, what was asked and what went wrong on purpose
  uint64_t trace_hash = 0;
  uint64_t op_count = 0;
  uint64_t takeover_count = 0;
  uint64_t crash_state_count = 0;  // distinct states of disks that were recovered from and judged
};

struct RunOptions {
  uint64_t seed = 1;
  Suite suite = Suite::cluster;
  PlantedBugs bugs;
  bool verbose = false;  // each nemesis as it strikes, on stderr
};

RunResult run_once(const RunOptions& options);

}  // namespace basalt::sim
