// SPDX-License-Identifier: Apache-2.0
// Goal: the simulator sees what it is for. Method: each known bug is planted and must be caught, by the history that it
// breaks - the same history is right without the bug - or by few random runs.
#include <gtest/gtest.h>

#include "sim/cluster.h"
#include "sim/intruder.h"

namespace basalt::sim {
namespace {

constexpr uint64_t lba = 3;

std::unique_ptr<Cluster> begin(const PlantedBugs& bugs, size_t hosts = 1) {
  ClusterShape shape;
  shape.hosts = hosts;
  shape.timing.grace = seconds(2);
  shape.bugs = bugs;
  auto cluster = std::make_unique<Cluster>(20261121, shape);
  EXPECT_TRUE(cluster->start());
  cluster->run_for(milliseconds(200));
  return cluster;
}
void written(Cluster& cluster) {
  EXPECT_TRUE(cluster.wait(cluster.host().write(1, lba, 1)));
}
// Asked from time to time: whichever member answers.
void read_often(Cluster& cluster) {
  for (int i = 0; i < 6; i++)
    EXPECT_TRUE(cluster.wait(cluster.host().read(1, lba, 1)));
}
// The rule that hosts saw broken, or "".
std::string rule(Cluster& cluster) {
  return cluster.verdict(false).substr(0, cluster.verdict(false).find(':'));
}
bool served_by(Cluster& cluster, int controller) {
  return cluster.run_until([&] { return cluster.active() == controller; });
}

// The old controller's write is still on its way to the replicas when the new one has acknowledged a newer one.
std::string stale_write(const PlantedBugs& bugs) {
  auto cluster = begin(bugs);
  written(*cluster);
  cluster->world().partition("c1", "d1", false);
  cluster->world().partition("c1", "d2", false);
  const OpIndex parked = cluster->host().write(1, lba, 1);
  cluster->run_for(milliseconds(5));
  cluster->controller(0).node().pause();
  cluster->world().cut_connections("c1", "c2");
  cluster->world().cut_connections("c1", "h1");
  EXPECT_TRUE(served_by(*cluster, 1));
  EXPECT_TRUE(cluster->wait(parked));
  written(*cluster);
  cluster->world().heal_all();
  cluster->run_for(milliseconds(10));
  read_often(*cluster);
  return rule(*cluster);
}

// Takeover follows takeover, with writes in between.
std::string repeated_takeovers(const PlantedBugs& bugs) {
  auto cluster = begin(bugs);
  for (size_t round = 0; round < 4; round++) {
    written(*cluster);
    cluster->controller(round % 2).kill();
    EXPECT_TRUE(served_by(*cluster, static_cast<int>((round + 1) % 2)));
    read_often(*cluster);
    cluster->controller(round % 2).start();
    cluster->run_for(milliseconds(300));
  }
  return rule(*cluster);
}

// Replicas restart while a controller of an epoch long past tries again.
std::string forgotten_epoch(const PlantedBugs& bugs) {
  auto cluster = begin(bugs);
  written(*cluster);
  cluster->controller(0).kill();
  EXPECT_TRUE(served_by(*cluster, 1));
  written(*cluster);
  cluster->controller(1).kill();
  for (size_t i = 0; i < 2; i++) {
    cluster->disk(i).kill();
    cluster->disk(i).start();
  }
  EXPECT_TRUE(cluster->run_until([&] { return cluster->disk(0).ready() && cluster->disk(1).ready(); }));
  for (size_t i = 0; i < 2; i++) {
    auto old = std::make_unique<Intruder>(*cluster, "x" + std::to_string(i));
    if (old->take(cluster->disk(i), "r0." + std::to_string(i), 1).ok()) old->io(bdev::IoType::write, lba);
    Intruder::kill(std::move(old));
  }
  EXPECT_TRUE(cluster->converge());
  read_often(*cluster);
  return rule(*cluster);
}

// A controller that has lost a member and the store is asked to write; then it dies with the member that it had.
std::string lonely_write(const PlantedBugs& bugs) {
  auto cluster = begin(bugs);
  written(*cluster);
  cluster->store().set_cut("c1", true);
  cluster->world().partition("c1", "d2");
  const OpIndex lonely = cluster->host().write(1, lba, 1);
  cluster->run_for(seconds(2));
  cluster->disk(0).kill();
  cluster->host().node().pause();
  cluster->controller(0).kill();
  EXPECT_TRUE(served_by(*cluster, 1));
  cluster->host().node().resume();
  read_often(*cluster);
  EXPECT_TRUE(cluster->wait(lonely));
  return rule(*cluster);
}

// A controller that is cut off from one of two members goes on being asked to read.
std::string outlived_lease(const PlantedBugs& bugs) {
  auto cluster = begin(bugs, 2);
  written(*cluster);
  cluster->world().partition("h2", "c2");
  cluster->world().partition("h1", "c1");
  cluster->divide();
  EXPECT_TRUE(served_by(*cluster, 1));
  written(*cluster);
  cluster->host(1).read(2, lba, 1);
  cluster->run_for(milliseconds(100));
  cluster->world().heal_all();
  cluster->store().heal();
  EXPECT_TRUE(cluster->run_until([&] { return cluster->log().pending_count == 0; }));
  return rule(*cluster);
}

// A write reached one member of two when controller and host stopped; another host reads.
std::string half_made_write(const PlantedBugs& bugs) {
  auto cluster = begin(bugs, 2);
  written(*cluster);
  for (const auto& attached : cluster->controller(0).assembly()->attached())
    attached->gate->hold_writes = attached->member.replica == "r0.0";
  cluster->host().write(1, lba, 1);
  cluster->run_for(milliseconds(20));
  cluster->host(0).node().pause();
  cluster->controller(0).kill();
  EXPECT_TRUE(served_by(*cluster, 1));
  for (int i = 0; i < 6; i++)
    EXPECT_TRUE(cluster->wait(cluster->host(1).read(2, lba, 1)));
  return rule(*cluster);
}

TEST(PlantedBugs, SkippingTheFenceIsCaughtByTheStaleWrite) {
  EXPECT_EQ(stale_write({}), "");
  EXPECT_NE(stale_write({.skip_fence = true}), "");
}

TEST(PlantedBugs, PromotingBeforeTheTakeoverIsCaughtByTheNextTakeover) {
  EXPECT_EQ(repeated_takeovers({}), "");
  EXPECT_NE(repeated_takeovers({.promote_before_takeover = true}), "");
}

TEST(PlantedBugs, AcceptingALowerEpochAfterARestartIsCaughtByAnOldController) {
  EXPECT_EQ(forgotten_epoch({}), "");
  EXPECT_EQ(forgotten_epoch({.forget_epoch = true}), "R0");
}

TEST(PlantedBugs, ShrinkingWithoutConsentIsCaughtByTheLonelyWrite) {
  EXPECT_EQ(lonely_write({}), "");
  EXPECT_EQ(lonely_write({.shrink_without_consent = true}), "R2");
}

TEST(PlantedBugs, IgnoringTheReadLeaseIsCaughtByTheReaderThatWasCutOff) {
  EXPECT_EQ(outlived_lease({}), "");
  EXPECT_EQ(outlived_lease({.ignore_read_lease = true}), "R2");
}

TEST(PlantedBugs, ReadingAnUnequalRegionIsCaughtByAHalfMadeWrite) {
  EXPECT_EQ(half_made_write({}), "");
  EXPECT_EQ(half_made_write({.read_unequal = true}), "R3");
}

}  // namespace
}  // namespace basalt::sim
