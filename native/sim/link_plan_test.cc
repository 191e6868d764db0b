// SPDX-License-Identifier: Apache-2.0
// Goal: some runs of clusters have bad ways between their nodes, the same for the same seed, until faults end; what
// they do is told. Method: plans of many seeds; one cluster under a bad one.
#include "sim/link_plan.h"

#include <gtest/gtest.h>

#include "sim/run.h"

namespace basalt::sim {
namespace {

constexpr Duration lease = milliseconds(300);

uint64_t count_of(const RunResult& result, const std::string& name) {
  for (const RareEvent& event : result.rare_events) {
    if (event.name == name) return event.count;
  }
  ADD_FAILURE() << name << " is not told";
  return 0;
}

TEST(LinkPlans, AreOfSomeSeedsAndTheSameEachTime) {
  size_t bad_count = 0;
  size_t losing_count = 0;
  size_t slow_count = 0;
  for (uint64_t seed = 1; seed <= 400; seed++) {
    const LinkPlan plan = LinkPlan::random(seed, lease);
    EXPECT_EQ(plan.summary(), LinkPlan::random(seed, lease).summary());
    EXPECT_EQ(plan.bad(), plan.worst.loss_chance > 0 || plan.worst.extra_delay > Duration{});
    bad_count += plan.bad();
    losing_count += plan.worst.loss_chance > 0;
    slow_count += plan.worst.extra_delay > Duration{};
  }
  EXPECT_GT(bad_count, 60u);
  EXPECT_LT(bad_count, 160u);
  EXPECT_GT(losing_count, 40u);
  EXPECT_GT(slow_count, 40u);
}

TEST(LinkPlans, HoldUntilFaultsEnd) {
  LinkPlan plan;
  plan.share = 1;
  plan.worst = {.loss_chance = 0.05, .retransmit = milliseconds(10), .extra_delay = milliseconds(1)};
  Cluster cluster(20261121, {});
  ASSERT_TRUE(cluster.start());
  plan.begin(cluster, 1);
  for (uint64_t lba = 0; lba < 40; lba++)
    EXPECT_TRUE(cluster.wait(cluster.host().write(1, lba, 1)));
  const env::SimWorld::LinkCounts bad = cluster.world().link_counts();
  EXPECT_GT(bad.lost, 0u);
  EXPECT_GT(bad.slowed, 0u);
  EXPECT_TRUE(cluster.converge());
  const env::SimWorld::LinkCounts healed = cluster.world().link_counts();
  for (uint64_t lba = 0; lba < 40; lba++)
    EXPECT_TRUE(cluster.wait(cluster.host().read(1, lba, 1)));
  EXPECT_EQ(cluster.world().link_counts().lost, healed.lost);
  EXPECT_EQ(cluster.world().link_counts().slowed, healed.slowed);
  EXPECT_EQ(cluster.verdict(), "");
}

// So that no run is counted which had none.
TEST(LinkPlans, AreToldOfARunThatHasOne) {
  uint64_t bad = 0;
  uint64_t good = 0;
  for (uint64_t seed = 1; bad == 0 || good == 0; seed++) {
    const RunResult result = run_cluster({.seed = seed, .reduction = {.steps = {{0}}, .ops_max = 20}});
    ASSERT_EQ(result.failure, Failure::none) << result.explanation;
    const uint64_t count = count_of(result, "fault_node_packet_lost") + count_of(result, "fault_node_link_slow");
    const bool told = result.summary.find("% of the ways") != std::string::npos;
    if (!told) EXPECT_EQ(count, 0u) << result.summary;
    (told && count > 0 ? bad : good)++;
    ASSERT_LT(seed, 60u);
  }
}

}  // namespace
}  // namespace basalt::sim
