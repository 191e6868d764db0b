// SPDX-License-Identifier: Apache-2.0
// Finds few operations that prove a violation which the search found and no rule names: takes operations away as long
// as the block stays wrong.
#pragma once

#include "check/block.h"

namespace basalt::check {

// `stuck`: where the search ended. The rule is told by what is left.
Violation prove(const Block& block, const Op& stuck, uint64_t steps_max);

}  // namespace basalt::check
