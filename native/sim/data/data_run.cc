// SPDX-License-Identifier: Apache-2.0
#include "sim/data/data_run.h"

namespace basalt::sim {

RunResult run_data_stack(const RunOptions&) {
  RunResult result;
  result.failure = Failure::liveness;
  result.explanation = "this suite does not exist yet";
  return result;
}

}  // namespace basalt::sim
