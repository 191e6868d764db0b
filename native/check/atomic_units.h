// SPDX-License-Identifier: Apache-2.0
// R7. A device that declares an atomic unit of several blocks carries out a write inside one aligned unit as a whole:
// no read sees, and no power cut leaves, a part of it.
#pragma once

#include "check/block_set.h"

namespace basalt::check {

std::optional<Violation> check_atomic_units(const BlockSet& blocks);

}  // namespace basalt::check
