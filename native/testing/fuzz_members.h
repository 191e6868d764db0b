// SPDX-License-Identifier: Apache-2.0
// A world with the disks of a set: members called "a", "b", and so on.
#pragma once

#include "bdev/handle.h"
#include "testing/fuzz_world.h"

namespace basalt::testing {

struct FuzzMembers {
  static constexpr uint32_t block_bytes = 4096;

  FuzzMembers(uint64_t seed, size_t count, uint64_t disk_blocks) : world(seed) {
    for (size_t i = 0; i < count; i++) {
      const std::string name(1, static_cast<char>('a' + i));
      disks.push_back(std::make_unique<FuzzDisk>(world.home(), block_bytes, disk_blocks, name));
    }
  }
  bdev::Handle handle(size_t index) { return {*disks[index], world.home()}; }
  std::vector<bdev::Handle> handles(const std::vector<size_t>& indexes) {
    std::vector<bdev::Handle> out;
    for (const size_t index : indexes)
      out.push_back(handle(index));
    return out;
  }
  // What was opened over them.
  template <class Owned>
  void close(Owned& bdev) {
    const Outcome closed = world.run(bdev->close());
    BASALT_ASSERT(closed.ok());
    bdev.reset();
  }

  FuzzWorld world;
  std::vector<std::unique_ptr<FuzzDisk>> disks;
};

}  // namespace basalt::testing
