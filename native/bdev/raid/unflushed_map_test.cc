// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/unflushed_map.h"

#include <gtest/gtest.h>

namespace basalt::bdev {
namespace {

TEST(UnflushedMap, KnowsWhatWasWrittenUntilAFlushThatBeganLaterHasEnded) {
  UnflushedMap map;
  EXPECT_FALSE(map.has(0, 100));
  map.add(10, 12);
  EXPECT_TRUE(map.has(11, 20));
  EXPECT_FALSE(map.has(12, 20));
  EXPECT_FALSE(map.has(0, 10));
  ASSERT_TRUE(map.flush_begins());
  EXPECT_FALSE(map.flush_begins());
  EXPECT_TRUE(map.has(10, 11));  // not yet
  map.add(30, 31);               // not covered
  map.flush_ended(true);
  EXPECT_FALSE(map.has(10, 12));
  EXPECT_TRUE(map.has(30, 31));
}

TEST(UnflushedMap, AFlushThatMissedAMemberCountsForNothing) {
  UnflushedMap map;
  map.add(10, 12);
  ASSERT_TRUE(map.flush_begins());
  map.flush_ended(false);
  EXPECT_TRUE(map.has(10, 12));
}

TEST(UnflushedMap, FarBlocksShareABitAndLongRangesTakeAll) {
  UnflushedMap map;
  map.add(5, 6);
  EXPECT_TRUE(map.has(UnflushedMap::bit_count + 5, UnflushedMap::bit_count + 6));
  EXPECT_FALSE(map.has(UnflushedMap::bit_count + 6, UnflushedMap::bit_count + 7));
  map.add(7, 7 + 3 * UnflushedMap::bit_count);
  EXPECT_TRUE(map.has(0, 1));
}

}  // namespace
}  // namespace basalt::bdev
