// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/parity_marks.h"

#include <gtest/gtest.h>

namespace basalt::bdev {
namespace {

constexpr uint32_t seat = 1;
constexpr uint32_t counted_on = 1u << seat;

TEST(ParityMarks, AreClearedWhenNobodyLacksTheRegionAndNothingWasWrittenSince) {
  ParityMarks marks(64, 4, 3);
  EXPECT_EQ(marks.region_count(), 16u);
  marks.set_lacks(seat, marks.regions_of(0, 8));
  marks.want(marks.all());
  EXPECT_FALSE(marks.durable(0, 1));
  marks.said(marks.wanted());
  EXPECT_TRUE(marks.durable(0, 64));
  const auto swept = marks.sweep_begins(counted_on);
  EXPECT_EQ(swept.count(), 14u);
  marks.write_begins(20, 1, 0);
  marks.write_ends(20, 1);
  const auto cleared = marks.sweep_ended(swept, counted_on);
  EXPECT_EQ(cleared.count(), 13u);
  EXPECT_TRUE(marks.durable(20, 1));
  EXPECT_FALSE(marks.durable(24, 1));
  EXPECT_TRUE(marks.durable(7, 1));
}

TEST(ParityMarks, WhatIsBeingWrittenOrWasNotFlushedIsNotSettled) {
  ParityMarks marks(64, 4, 3);
  marks.write_begins(0, 1, 0);
  marks.write_begins(9, 4, 0);
  marks.write_ends(9, 4);
  EXPECT_EQ(marks.unsettled().count(), 3u);
  marks.flush_begins();
  marks.write_ends(0, 1);
  marks.flush_ended(false);
  EXPECT_EQ(marks.unsettled().count(), 3u);
  marks.flush_begins();
  marks.flush_ended(true);
  EXPECT_TRUE(marks.unsettled().none());
}

TEST(ParityMarks, WhoIsAwayLacksWhatIsWritten) {
  ParityMarks marks(64, 4, 3);
  marks.write_begins(17, 1, counted_on);
  EXPECT_TRUE(marks.lacks(seat, 16));
  EXPECT_FALSE(marks.lacks(seat, 20));
}

TEST(ParityMarks, RegionsBecomeLargerWhenThereWouldBeTooMany) {
  ParityMarks marks(parity::mark_count_max, 1, 3);
  marks.write_begins(5, 1, 0);
  marks.write_begins(8, 2, 0);
  marks.grow(uint64_t{parity::mark_count_max} * 3);
  EXPECT_EQ(marks.region_strips(), 4u);
  EXPECT_EQ(marks.unsettled().count(), 2u);
  marks.write_ends(5, 1);
  marks.write_ends(8, 2);
  EXPECT_EQ(marks.unsettled(), marks.regions_of(4, 8));
}

TEST(ParityMarks, AreTheSameAfterADisk) {
  ParityMarks::Regions regions;
  for (const size_t region : {0u, 7u, 8u, 4097u, parity::mark_count_max - 1})
    regions.set(region);
  uint8_t bytes[parity::mark_count_max / 8];
  ParityMarks::write(regions, bytes);
  EXPECT_EQ(bytes[0], 0x81);
  EXPECT_EQ(ParityMarks::read(bytes), regions);
}

}  // namespace
}  // namespace basalt::bdev
