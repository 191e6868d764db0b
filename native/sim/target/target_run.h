// SPDX-License-Identifier: Apache-2.0
// One run of the target suite: a real target in virtual time, well-behaved hosts (our initiator) whose data is judged,
// and rude ones that break every rule they can. The target must not crash, leak or hang, whatever a host does.
#pragma once

#include "sim/run.h"

namespace basalt::sim {

RunResult run_target(const RunOptions& options);

}  // namespace basalt::sim
