// SPDX-License-Identifier: Apache-2.0
#include "bench/meter.h"

#include <gtest/gtest.h>

namespace basalt::bench {
namespace {

TEST(Histogram, percentiles_are_within_two_percent) {
  Histogram histogram;
  for (uint64_t ns = 1; ns <= 100'000; ns++)
    histogram.add(ns);
  EXPECT_NEAR(histogram.percentile_us(0.5), 50, 1);
  EXPECT_NEAR(histogram.percentile_us(0.99), 99, 2);
  EXPECT_EQ(histogram.percentile_us(0), 0.001);
}

TEST(Histogram, takes_the_shortest_and_the_longest_latency) {
  Histogram histogram;
  histogram.add(0);
  histogram.add(UINT64_MAX);
  EXPECT_EQ(histogram.percentile_us(0), 0);
  EXPECT_GT(histogram.percentile_us(0.9), 1e15);
  EXPECT_EQ(Histogram().percentile_us(0.5), 0);
}

TEST(Meter, speed_is_that_of_the_fast_windows) {
  // Half of the time nothing is done, as when a neighbour has the processor: the speed is that of the other half.
  Meter meter("");
  const Instant begin{seconds(5).ns};
  meter.start(begin, milliseconds(100));
  for (int64_t ms = 0; ms < 50; ms++) {
    for (int64_t i = 0; i < 200; i++)
      meter.complete(begin + milliseconds(ms) + microseconds(i), microseconds(10));
  }
  EXPECT_FALSE(meter.over(begin + milliseconds(99)));
  EXPECT_TRUE(meter.over(begin + milliseconds(100)));
  meter.finish(begin + milliseconds(100));
  const std::string report = meter.report();
  EXPECT_NE(report.find("\"speed_iops\":200000,\"mean_iops\":100000"), std::string::npos) << report;
}

}  // namespace
}  // namespace basalt::bench
