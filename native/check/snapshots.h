// SPDX-License-Identifier: Apache-2.0
// R9. A snapshot is one read of all blocks of its parent, whose outcome is seen later: by reads of the snapshot, and by
// reads of clones where nothing of their own was written. All of these must see the same, for ever.
#pragma once

#include "check/block_set.h"

namespace basalt::check {

// Finds what the snapshots held, adds the reads that they are to their parents' blocks, and gives the clones' blocks
// their beginnings. A violation: a snapshot changed, or a clone does not begin as its snapshot.
std::optional<Violation> resolve_snapshots(BlockSet& blocks);
// Each snapshot is one instant over all its blocks. After resolve_snapshots().
std::optional<Violation> check_cuts(const BlockSet& blocks);

}  // namespace basalt::check
