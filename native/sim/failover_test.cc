// SPDX-License-Identifier: Apache-2.0
// Goal: failover cannot corrupt. Method: whole clusters in virtual time, each fault at the worst moment, then the
// checker over what hosts saw and over the replicas' contents.
#include <gtest/gtest.h>

#include "sim/cluster.h"

namespace basalt::sim {
namespace {

TEST(Failover, AClusterStartsServesAndKeepsItsReplicasEqual) {
  Cluster cluster(1, {});
  ASSERT_TRUE(cluster.start());
  for (uint64_t lba = 0; lba < 8; lba++)
    ASSERT_TRUE(cluster.wait(cluster.host().write(1, lba, 1)));
  ASSERT_TRUE(cluster.wait(cluster.host().read(1, 0, 8)));
  ASSERT_TRUE(cluster.converge());
  EXPECT_EQ(cluster.verdict(), "");
}

}  // namespace
}  // namespace basalt::sim
