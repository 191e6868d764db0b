// SPDX-License-Identifier: Apache-2.0
#include "runtime/spin_time.h"

#include <gtest/gtest.h>

namespace basalt {
namespace {

constexpr Duration longest = microseconds(50);

TEST(SpinTime, IsTheLongestToBeginWith) {
  EXPECT_EQ(SpinTime(longest).current(), longest);
}

TEST(SpinTime, EndsWhenWorkKeepsComingTooLateAndComesBackWhenItIsSoon) {
  SpinTime spin(longest);
  for (int i = 0; i < 5; i++)
    spin.idle_lasted(microseconds(51));
  EXPECT_EQ(spin.current(), Duration{});
  spin.idle_lasted(microseconds(50));
  EXPECT_EQ(spin.current(), microseconds(10));
  for (int i = 0; i < 3; i++)
    spin.idle_lasted(microseconds(5));
  EXPECT_EQ(spin.current(), longest);
}

TEST(SpinTime, OneLateArrivalAmongSoonOnesChangesLittle) {
  SpinTime spin(longest);
  spin.idle_lasted(seconds(60));
  EXPECT_EQ(spin.current(), microseconds(25));
  spin.idle_lasted(microseconds(30));
  EXPECT_EQ(spin.current(), longest);
}

TEST(SpinTime, NeverBeginsWhereNothingIsAllowed) {
  SpinTime spin(Duration{});
  spin.idle_lasted(Duration{});
  EXPECT_EQ(spin.current(), Duration{});
}

}  // namespace
}  // namespace basalt
