// SPDX-License-Identifier: Apache-2.0
// One run of the data suite: seed -> a random stack of real bdevs over simulated disks, a random workload mix on it,
// power cuts at every write and flush boundary, members and sectors that fail; after each, the stack is brought up
// again from what the disks hold and everything is read and judged. One thread, virtual time, one seed one history.
#pragma once

#include "sim/run.h"

namespace basalt::sim {

RunResult run_data_stack(const RunOptions& options);

}  // namespace basalt::sim
