// SPDX-License-Identifier: Apache-2.0
// For tests that stop superblocks of raids on their way.
#pragma once

#include <algorithm>

#include "bdev/raid/raid_parity.h"

namespace basalt::bdev {

// A superblock is being written that is of a later epoch.
inline bool names_epoch_above(const Io& io, uint64_t epoch) {
  const auto& pages = parity::superblock_pages;
  if (io.type != IoType::write || std::find(std::begin(pages), std::end(pages), io.offset_blocks) == std::end(pages))
    return false;
  parity::Superblock superblock;
  iovec_copy_out(io.iov, io.iov_count, &superblock);
  return superblock.epoch > epoch;
}

}  // namespace basalt::bdev
