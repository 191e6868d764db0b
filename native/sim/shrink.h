// SPDX-License-Identifier: Apache-2.0
// Shrinks a failing run: leaves out nemesis steps, clients, operations and parts of the shape, as long as it goes on
// failing. Leaving things out changes what the world draws, so it is a search; what it gives has been seen to fail.
#pragma once

#include <functional>

#include "sim/run.h"

namespace basalt::sim {

struct ShrinkSubject {
  RunOptions options;
  uint32_t step_count = 0;
  uint32_t client_count = 0;
};

// `fails`: runs a candidate; true when it fails in the same way. At most `tries_max` candidates.
RunOptions shrink(const ShrinkSubject& subject, const std::function<bool(const RunOptions&)>& fails, size_t tries_max);

}  // namespace basalt::sim
