// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "bdev/raid/raid_parity_internal.h"
#include "bdev/raid/raid_rig_test_util.h"

namespace basalt::bdev {
namespace {

Task<uint32_t> read_each_block(Handle disk, const PageMemory& memory, uint32_t count) {
  Fan reads(count);
  for (uint32_t block = 0; block < count; block++)
    reads.add(disk, IoType::read, block, 1, memory.page(block));
  co_await reads;
  uint32_t succeeded = 0;
  for (size_t i = 0; i < reads.count(); i++)
    succeeded += reads.status(i).ok() ? 1 : 0;
  co_return succeeded;
}

// The pages of marks of a large leg are read from all of its members at once.
TEST(Fan, TakesMoreRequestsThanThereAreMembers) {
  constexpr uint32_t count = 9 * ParityCodec::strip_count_max;
  RaidRig rig({3, 1, 65536});
  CutDisk& disk = *rig.disks[0];
  for (uint32_t block = 0; block < count; block++)
    disk.contents()[size_t{block} * RaidRig::block_bytes] = static_cast<uint8_t>(block);
  const PageMemory memory(count);
  EXPECT_EQ(rig.fixture.run(read_each_block(rig.handle(0), memory, count)), count);
  for (uint32_t block = 0; block < count; block++)
    EXPECT_EQ(memory.page(block)[0], static_cast<uint8_t>(block));
}

}  // namespace
}  // namespace basalt::bdev
