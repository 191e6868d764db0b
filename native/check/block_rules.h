// SPDX-License-Identifier: Apache-2.0
// The rules that a block's history is explained by: R0 and R1 judge alone; the others name what is wrong with a block
// that the search found to be wrong, with two or three operations that prove it, or judge a block that is too large for
// the search.
#pragma once

#include "check/block.h"

namespace basalt::check {

// R0, and of R1 what a stamp itself tells.
std::optional<Violation> check_shape(const Block& block);
// The rest of R1; `block.initial` is known.
std::optional<Violation> check_provenance(const Block& block);
// R2 to R6 and R8.
std::optional<Violation> check_rules(const Block& block);

}  // namespace basalt::check
