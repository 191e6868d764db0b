// SPDX-License-Identifier: Apache-2.0
// All blocks of all devices of a history, as the rules look at them.
#pragma once

#include <deque>

#include "check/block.h"

namespace basalt::check {

struct BlockPlace {
  uint32_t device = 0;
  uint64_t lba = 0;
  auto operator<=>(const BlockPlace&) const = default;
};

struct BlockSet {
  explicit BlockSet(const History& history);
  BlockSet(const BlockSet&) = delete;
  BlockSet& operator=(const BlockSet&) = delete;

  Block& at(const BlockPlace& place) {
    return blocks.try_emplace(place, devices[place.device], place.lba).first->second;
  }
  const Block* find(const BlockPlace& place) const {
    const auto found = blocks.find(place);
    return found == blocks.end() ? nullptr : &found->second;
  }
  const History& history;
  std::vector<DeviceFacts> devices;
  std::map<BlockPlace, Block> blocks;
  std::deque<Op> made;  // the reads that snapshots are
};

}  // namespace basalt::check
