// SPDX-License-Identifier: Apache-2.0
// Goal: failover cannot corrupt. Method: whole clusters in virtual time, each fault at the worst moment, then the
// checker over what hosts saw and over the replicas' contents.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "sim/cluster.h"
#include "sim/intruder.h"

namespace basalt::sim {
namespace {

constexpr uint64_t default_seed = 20261121;

ClusterShape quick() {
  ClusterShape shape;
  shape.timing.grace = seconds(2);
  return shape;
}

// A started cluster whose first controller is active.
class FailoverTest : public ::testing::Test {
 protected:
  void begin(const ClusterShape& shape, uint64_t seed = default_seed) {
    cluster_ = std::make_unique<Cluster>(seed, shape);
    ASSERT_TRUE(cluster_->start());
    ASSERT_EQ(cluster_->active(), 0);
    cluster_->run_for(milliseconds(200));  // the controllers have found each other
  }
  Cluster& cluster() { return *cluster_; }
  SimHost& host() { return cluster_->host(); }
  OpIndex written(uint64_t lba, uint32_t count_blocks = 1) {
    const OpIndex index = host().write(1, lba, count_blocks);
    EXPECT_TRUE(cluster().wait(index));
    EXPECT_EQ(cluster().op(index).status, OpStatus::ok);
    return index;
  }
  OpIndex flushed() {
    const OpIndex index = host().flush(1);
    EXPECT_TRUE(cluster().wait(index));
    return index;
  }
  BlockValue seen(uint64_t lba) {
    const OpIndex index = host().read(1, lba, 1);
    EXPECT_TRUE(cluster().wait(index));
    return cluster().op(index).values.empty() ? BlockValue{BlockKind::garbage, {}} : cluster().op(index).values[0];
  }
  // The block holds that write's value, whichever member is asked.
  void expect_value(uint64_t lba, OpIndex write) {
    for (int i = 0; i < 6; i++) {
      EXPECT_EQ(seen(lba).stamp.sequence, cluster().op(write).sequence) << "read " << i;
    }
  }
  // The stamp's sequence in each replica of leg 0, now.
  uint64_t in_replica(const std::string& replica, uint64_t lba) { return cluster().image(replica)[lba].stamp.sequence; }
  bool standby_serves(Duration limit = seconds(30)) {
    return cluster().run_until([&] { return cluster().active() == 1; }, limit);
  }
  HoldBdev& gate(size_t controller, const std::string& replica) {
    for (const auto& attached : cluster().controller(controller).assembly()->attached()) {
      if (attached->member.replica == replica) return *attached->gate;
    }
    BASALT_ASSERT(false);
    return *cluster().controller(controller).assembly()->attached()[0]->gate;
  }
  void expect_sound() {
    EXPECT_TRUE(cluster().converge());
    for (uint64_t lba = 0; lba < cluster().count_blocks(); lba += 16) {
      for (int i = 0; i < 2; i++)
        EXPECT_TRUE(cluster().wait(host().read(1, lba, 16)));
    }
    EXPECT_EQ(cluster().verdict(), "");
  }

 private:
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(FailoverTest, AClusterStartsServesAndKeepsItsReplicasEqual) {
  begin(quick());
  for (uint64_t lba = 0; lba < 8; lba++)
    written(lba);
  expect_sound();
}

// ---- a kill between the two member writes --------------------------------------------------------------------------

class KillBetweenMemberWrites : public FailoverTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(KillBetweenMemberWrites, ReadsNeverFlipFlopAndBothMembersAreEqualAfterwards) {
  begin(quick());
  const OpIndex older = written(5);
  // The write reaches one member; the controller dies before it reaches the other; the host never asks again.
  const std::string holds_back = GetParam();
  const std::string gets = holds_back == "r0.0" ? "r0.1" : "r0.0";
  gate(0, holds_back).hold_writes = true;
  const OpIndex torn = host().write(1, 5, 1);
  ASSERT_TRUE(cluster().run_until([&] { return gate(0, holds_back).held_count() == 1; }));
  cluster().run_for(milliseconds(20));
  ASSERT_EQ(in_replica(gets, 5), cluster().op(torn).sequence);
  ASSERT_EQ(in_replica(holds_back, 5), cluster().op(older).sequence);
  // The host is stopped too, so that its resending does not hide the difference.
  cluster().host().node().pause();
  cluster().controller(0).kill();
  ASSERT_TRUE(standby_serves());
  cluster().host().node().resume();
  // A second reader sees the block while the first one's write is on its way again: what it saw once stays.
  std::vector<uint64_t> values;
  for (int i = 0; i < 12; i++)
    values.push_back(seen(5).stamp.sequence);
  ASSERT_TRUE(cluster().wait(torn));
  expect_value(5, torn);
  for (size_t i = 1; i < values.size(); i++)
    EXPECT_GE(values[i], values[i - 1]) << "read " << i << " went back";
  expect_sound();
  EXPECT_EQ(in_replica("r0.0", 5), in_replica("r0.1", 5));
}
INSTANTIATE_TEST_SUITE_P(EitherMember, KillBetweenMemberWrites, ::testing::Values("r0.0", "r0.1"),
                         [](const auto& info) { return std::string(info.param) == "r0.0" ? "First" : "Second"; });

TEST_F(FailoverTest, AHalfMadeWriteWhoseHostIsGoneReadsTheSameFromThenOn) {
  ClusterShape shape = quick();
  shape.hosts = 2;
  begin(shape);
  const OpIndex older = written(5);
  gate(0, "r0.0").hold_writes = true;
  const OpIndex torn = host().write(1, 5, 1);
  ASSERT_TRUE(cluster().run_until([&] { return gate(0, "r0.0").held_count() == 1; }));
  cluster().run_for(milliseconds(20));
  cluster().host(0).node().pause();  // for good, as far as this test goes
  cluster().controller(0).kill();
  ASSERT_TRUE(standby_serves());
  uint64_t first = 0;
  for (int i = 0; i < 12; i++) {
    const OpIndex read = cluster().host(1).read(2, 5, 1);
    ASSERT_TRUE(cluster().wait(read));
    const uint64_t sequence = cluster().op(read).values.at(0).stamp.sequence;
    EXPECT_TRUE(sequence == cluster().op(older).sequence || sequence == cluster().op(torn).sequence);
    if (i == 0) first = sequence;
    EXPECT_EQ(sequence, first);
  }
  EXPECT_EQ(in_replica("r0.0", 5), in_replica("r0.1", 5));
  EXPECT_EQ(cluster().verdict(false), "");
}

// ---- the seven-step stale write ------------------------------------------------------------------------------------

// The old controller is stopped with a write parked somewhere; the host's retry goes through the standby, newer writes
// follow, the old one goes on.
class StaleWrite : public FailoverTest {
 protected:
  void outlive(OpIndex parked, uint64_t lba, const std::function<void()>& release) {
    ASSERT_FALSE(cluster().done(parked));
    ASSERT_TRUE(standby_serves());
    ASSERT_TRUE(cluster().wait(parked));
    EXPECT_EQ(cluster().op(parked).status, OpStatus::ok);
    const OpIndex newer = written(lba);
    expect_value(lba, newer);
    const uint64_t old_epoch = cluster().controller(0).epoch();
    const uint64_t completed_before = cluster().log().ops.size() - cluster().log().pending_count;
    release();
    cluster().controller(0).node().resume();
    cluster().run_for(seconds(2));
    // The released one acknowledged nothing, and knows its place.
    EXPECT_EQ(cluster().log().ops.size() - cluster().log().pending_count, completed_before);
    EXPECT_NE(cluster().controller(0).epoch(), old_epoch);
    expect_value(lba, newer);
    expect_sound();
    EXPECT_EQ(in_replica("r0.0", lba), cluster().op(newer).sequence);
    EXPECT_EQ(in_replica("r0.1", lba), cluster().op(newer).sequence);
  }
  uint64_t conflicts() { return cluster().disk(0).conflict_count() + cluster().disk(1).conflict_count(); }
};

TEST_F(StaleWrite, ParkedInTheHostsConnectionDoesNotLand) {
  begin(quick());
  written(3);
  cluster().controller(0).node().pause();  // what arrives from now on stays unread in its socket
  const OpIndex parked = host().write(1, 3, 1);
  cluster().run_for(milliseconds(5));
  outlive(parked, 3, [] {});
}

TEST_F(StaleWrite, ParkedInsideTheControllerIsRefusedByTheReplicas) {
  begin(quick());
  written(3);
  gate(0, "r0.0").hold_writes = gate(0, "r0.1").hold_writes = true;
  const OpIndex parked = host().write(1, 3, 1);
  ASSERT_TRUE(cluster().run_until([&] { return gate(0, "r0.1").held_count() == 1; }));
  cluster().controller(0).node().pause();
  outlive(parked, 3, [&] {
    gate(0, "r0.0").release();
    gate(0, "r0.1").release();
  });
}

TEST_F(StaleWrite, ParkedInTheMembersSocketsGetsReservationConflict) {
  begin(quick());
  written(3);
  // Bytes from the old controller to the disk nodes are on their way for as long as it pleases the network.
  cluster().world().partition("c1", "d1", false);
  cluster().world().partition("c1", "d2", false);
  const OpIndex parked = host().write(1, 3, 1);
  cluster().run_for(milliseconds(5));
  cluster().controller(0).node().pause();
  // Noticed at once, so that the replicas have not yet given up the old controller's connections.
  cluster().world().cut_connections("c1", "c2");
  cluster().world().cut_connections("c1", "h1");
  const uint64_t before = conflicts();
  outlive(parked, 3, [&] {
    cluster().world().heal_all();
    cluster().run_for(milliseconds(10));
    EXPECT_GE(conflicts(), before + 2);  // the late writes have come, and were refused
  });
}

TEST_F(StaleWrite, ParkedInAReplicasDiskIsDrainedBeforeTheTakeoverCompletes) {
  begin(quick());
  written(3);
  cluster().disk(0).disk().hang = true;
  const OpIndex parked = host().write(1, 3, 1);
  cluster().run_for(milliseconds(5));
  cluster().controller(0).node().pause();
  // Shorter than a takeover's deadline: it waits for the old write's end.
  cluster().run_for(milliseconds(1000));
  EXPECT_EQ(cluster().active(), -1);
  cluster().disk(0).disk().hang = false;
  outlive(parked, 3, [] {});
  EXPECT_EQ(cluster().store().present().value.legs[0].size(), 2u);
}

TEST_F(StaleWrite, ParkedInADiskThatHangsForLongCostsTheReplicaItsPlace) {
  begin(quick());
  written(3);
  cluster().disk(0).disk().hang = true;
  const OpIndex parked = host().write(1, 3, 1);
  cluster().run_for(milliseconds(5));
  cluster().controller(0).node().pause();
  outlive(parked, 3, [&] {
    EXPECT_EQ(cluster().store().present().value.legs[0].size(), 1u);
    cluster().disk(0).disk().hang = false;
  });
}

TEST_F(FailoverTest, LateBytesOnAHostsOldConnectionToTheSameControllerAreDiscarded) {
  ClusterShape shape = quick();
  shape.controllers = 1;
  begin(shape);
  written(3);
  cluster().world().partition("h1", "c1", false);  // the write is on its way
  const OpIndex late = host().write(1, 3, 1);
  cluster().run_for(milliseconds(600));  // the keep-alive gives up and the connection ends, but for its bytes
  cluster().world().heal_all();
  ASSERT_TRUE(cluster().wait(late));
  const OpIndex newer = written(3);
  cluster().run_for(seconds(2));
  expect_value(3, newer);
  expect_sound();
}

// ---- one writer, durably -------------------------------------------------------------------------------------------

TEST_F(FailoverTest, ADiskNodesRestartDoesNotReopenTheGate) {
  begin(quick());
  const OpIndex kept = written(3);
  cluster().controller(0).kill();
  ASSERT_TRUE(standby_serves());
  const uint64_t epoch = cluster().store().present().value.epoch;
  ASSERT_GE(epoch, 2u);
  // Nobody drives the volume while the replica's process starts anew.
  cluster().controller(1).kill();
  cluster().disk(0).kill();
  cluster().disk(0).start();
  ASSERT_TRUE(cluster().run_until([&] { return cluster().disk(0).ready(); }));
  auto intruder = std::make_unique<Intruder>(cluster(), "x1");
  auto lower = intruder->take(cluster().disk(0), "r0.0", epoch - 1);
  ASSERT_FALSE(lower.ok());
  EXPECT_EQ(lower.error().code, Errc::fenced);
  // State-changing calls judge by the same record.
  auto recorded = ns::highest_epoch(cluster().disk(0).lvol("r0.0")->attribute());
  ASSERT_TRUE(recorded.ok());
  EXPECT_EQ(*recorded, epoch);
  // The old association of the same epoch is out as soon as a new one of that epoch has come.
  ASSERT_TRUE(intruder->take(cluster().disk(0), "r0.0", epoch).ok());
  EXPECT_TRUE(intruder->io(bdev::IoType::read, 3).ok());
  auto successor = std::make_unique<Intruder>(cluster(), "x2");
  ASSERT_TRUE(successor->take(cluster().disk(0), "r0.0", epoch).ok());
  EXPECT_TRUE(intruder->io(bdev::IoType::write, 3).is(nvme::status::reservation_conflict));
  EXPECT_TRUE(intruder->io(bdev::IoType::read, 3).is(nvme::status::reservation_conflict));
  EXPECT_TRUE(intruder->io(bdev::IoType::unmap, 3).is(nvme::status::reservation_conflict));
  EXPECT_TRUE(intruder->io(bdev::IoType::flush, 3).is(nvme::status::reservation_conflict));
  Intruder::kill(std::move(intruder));
  Intruder::kill(std::move(successor));
  ASSERT_TRUE(cluster().converge());
  expect_value(3, kept);
  expect_sound();
}

// ---- leases --------------------------------------------------------------------------------------------------------

TEST_F(FailoverTest, ATakeoverOfOneOfTwoMembersWaitsAFullLease) {
  ClusterShape shape = quick();
  shape.lease = milliseconds(900);
  begin(shape);
  written(3);
  Instant shrunk;
  cluster().store().on_change = [&](const Leadership& now) {
    if (now.controller == "c2" && now.legs[0].size() == 1 && shrunk.ns == 0) shrunk = cluster().world().now();
  };
  cluster().divide();
  ASSERT_TRUE(standby_serves());
  ASSERT_NE(shrunk.ns, 0);
  EXPECT_GE((cluster().world().now() - shrunk).to_ms(), 880);
  const OpIndex newer = written(3);
  expect_value(3, newer);
  expect_sound();
}

TEST_F(FailoverTest, AControllerThatIsCutOffFromOneMemberAnswersNoReadAfterItsLease) {
  ClusterShape shape = quick();
  shape.hosts = 2;
  begin(shape);
  written(3);
  // The second host sees the old controller only, the first one the new one only.
  cluster().world().partition("h2", "c2");
  cluster().divide();
  cluster().world().partition("h1", "c1");
  ASSERT_TRUE(standby_serves());
  const OpIndex newer = written(3);
  const OpIndex stale = cluster().host(1).read(2, 3, 1);
  cluster().run_for(seconds(3));
  EXPECT_FALSE(cluster().done(stale));
  cluster().world().heal_all();
  cluster().store().heal();
  ASSERT_TRUE(cluster().wait(stale));
  EXPECT_EQ(cluster().op(stale).values[0].stamp.sequence, cluster().op(newer).sequence);
  expect_sound();
}

TEST_F(FailoverTest, APausedControllerAnswersNoReadThatItHadFetchedBefore) {
  ClusterShape shape = quick();
  shape.hosts = 2;
  begin(shape);
  written(3);
  // A read is stopped with its data in the old controller's hand: in its sockets, for it to find when it goes on.
  cluster().world().partition("d1", "c1", false);
  cluster().world().partition("d2", "c1", false);
  const OpIndex stale = cluster().host(1).read(2, 3, 1);
  cluster().run_for(milliseconds(2));
  cluster().controller(0).node().pause();
  cluster().world().heal_all();
  cluster().run_for(milliseconds(2));
  cluster().world().partition("h2", "c2");
  cluster().divide();
  cluster().world().partition("h1", "c1");
  ASSERT_TRUE(standby_serves());
  const OpIndex newer = written(3);
  ASSERT_FALSE(cluster().done(stale));
  cluster().controller(0).node().resume();
  cluster().run_for(milliseconds(300));
  EXPECT_FALSE(cluster().done(stale)) << "answered " << cluster().op(stale).values.at(0).to_string();
  cluster().world().heal_all();
  cluster().store().heal();
  ASSERT_TRUE(cluster().wait(stale));
  expect_value(3, newer);
  expect_sound();
}

// The old controller let a member in, and was cut off before it heard that the store agreed. The new one has that
// member alone.
TEST_F(FailoverTest, AMemberWhoseJoiningIsNotKnownToBeCommittedGivesLeasesToo) {
  ClusterShape shape = quick();
  shape.hosts = 2;
  begin(shape);
  written(3);
  cluster().disk(1).kill();
  ASSERT_TRUE(cluster().run_until([&] { return cluster().store().present().value.legs[0].size() == 1; }));
  cluster().disk(1).start();
  // The swap that lets r0.1 in happens; its answer never arrives.
  bool joined = false;
  cluster().store().on_change = [&](const Leadership& now) {
    if (now.legs[0].size() != 2 || joined) return;
    joined = true;
    cluster().divide();
    cluster().world().partition("h2", "c2");
    cluster().world().partition("h1", "c1");
  };
  ASSERT_TRUE(cluster().run_until([&] { return joined; }));
  ASSERT_TRUE(standby_serves());
  const OpIndex newer = written(3);
  const OpIndex stale = cluster().host(1).read(2, 3, 1);
  cluster().run_for(seconds(3));
  EXPECT_FALSE(cluster().done(stale)) << "answered " << cluster().op(stale).values.at(0).to_string();
  cluster().world().heal_all();
  cluster().store().heal();
  ASSERT_TRUE(cluster().wait(stale));
  EXPECT_EQ(cluster().op(stale).values[0].stamp.sequence, cluster().op(newer).sequence);
  expect_sound();
}

// ---- members that come back ----------------------------------------------------------------------------------------

TEST_F(FailoverTest, AMemberWhoseProcessRestartedHasLeftAndReturnsByAFullCopy) {
  begin(quick());
  const OpIndex first = written(3);
  cluster().disk(1).kill();
  cluster().disk(1).start();
  EXPECT_FALSE(cluster().redundant()) << "whether its controller has noticed or not";
  const OpIndex second = written(4);
  ASSERT_TRUE(cluster().run_until([&] { return cluster().redundant(); }));
  EXPECT_EQ(in_replica("r0.1", 3), cluster().op(first).sequence);
  EXPECT_EQ(in_replica("r0.1", 4), cluster().op(second).sequence);
  const Leadership& now = cluster().store().present().value;
  EXPECT_EQ(now.legs[0].size(), 2u);
  EXPECT_EQ(now.epoch, 1u);  // no takeover was needed
  expect_sound();
}

TEST_F(FailoverTest, ARestartedMemberThatMissedATakeoverIsCopiedAndNotBelieved) {
  begin(quick());
  const OpIndex older = written(3);
  // d2's process dies with the controller; its replica comes back with another incarnation.
  cluster().disk(1).kill();
  cluster().controller(0).kill();
  cluster().disk(1).start();
  ASSERT_TRUE(standby_serves());
  EXPECT_EQ(cluster().store().present().value.legs[0].size(), 1u);
  const OpIndex newer = written(4);
  ASSERT_TRUE(cluster().run_until([&] { return cluster().redundant(); }));
  EXPECT_EQ(in_replica("r0.1", 3), cluster().op(older).sequence);
  EXPECT_EQ(in_replica("r0.1", 4), cluster().op(newer).sequence);
  expect_sound();
}

// ---- the store -----------------------------------------------------------------------------------------------------

TEST_F(FailoverTest, AShrinkWhoseOutcomeIsUnknownIsFoundOutAndLosesNothing) {
  begin(quick());
  written(3);
  cluster().store().set_answers_lost(true);
  cluster().disk(1).kill();
  const OpIndex waiting = host().write(1, 3, 1);
  ASSERT_TRUE(cluster().run_until([&] { return cluster().store().present().value.legs[0].size() == 1; }));
  cluster().run_for(milliseconds(300));
  EXPECT_FALSE(cluster().done(waiting));  // the swap happened, but nobody knows
  cluster().store().heal();
  ASSERT_TRUE(cluster().wait(waiting));
  expect_value(3, waiting);
  expect_sound();
}

TEST_F(FailoverTest, WithoutTheStoreIoGoesOnUntilItNeedsAChangeOfTheSet) {
  begin(quick());
  cluster().store().set_away(true);
  for (int i = 0; i < 10; i++) {
    written(3);
    cluster().run_for(seconds(3));
  }
  EXPECT_EQ(cluster().active(), 0);
  cluster().disk(1).kill();
  const OpIndex waiting = host().write(1, 3, 1);
  cluster().run_for(seconds(20));
  EXPECT_FALSE(cluster().done(waiting));
  cluster().store().heal();
  ASSERT_TRUE(cluster().wait(waiting));
  expect_value(3, waiting);
  expect_sound();
}

TEST_F(FailoverTest, ACallOfTheStoreThatIsLateDoesNotGiveTheVolumeToTwo) {
  ClusterShape shape = quick();
  shape.store.late_chance = 0.5;
  shape.store.answer_lost_chance = 0.3;
  begin(shape);
  for (int round = 0; round < 4; round++) {
    const int active = cluster().active();
    ASSERT_GE(active, 0);
    written(static_cast<uint64_t>(round));
    cluster().controller(static_cast<size_t>(active)).kill();
    written(static_cast<uint64_t>(round));
    cluster().controller(static_cast<size_t>(active)).start();
    ASSERT_TRUE(cluster().converge());
  }
  expect_sound();
}

// ---- everything at once --------------------------------------------------------------------------------------------

class KillEverything : public FailoverTest, public ::testing::WithParamInterface<int> {};

TEST_P(KillEverything, ARestartInAnyOrderServesTheSameBytes) {
  ClusterShape shape = quick();
  shape.legs = 2;
  begin(shape, default_seed + static_cast<uint64_t>(GetParam()));
  std::vector<OpIndex> writes;
  for (uint64_t lba = 0; lba < 32; lba++)
    writes.push_back(written(lba));
  for (size_t i = 0; i < 2; i++) {
    cluster().controller(i).kill();
    cluster().disk(i).kill();
  }
  // One after the other, in every order.
  std::vector<int> order = {0, 1, 2, 3};
  for (int i = 0; i < GetParam(); i++)
    std::next_permutation(order.begin(), order.end());
  for (const int which : order) {
    cluster().run_for(milliseconds(300));
    if (which < 2) {
      cluster().disk(static_cast<size_t>(which)).start();
    } else {
      cluster().controller(static_cast<size_t>(which) - 2).start();
    }
  }
  ASSERT_TRUE(cluster().run_until([&] { return cluster().redundant(); }));
  for (uint64_t lba = 0; lba < 32; lba++)
    EXPECT_EQ(seen(lba).stamp.sequence, cluster().op(writes[lba]).sequence);
  expect_sound();
}
INSTANTIATE_TEST_SUITE_P(Orders, KillEverything, ::testing::Range(0, 24));

TEST_F(FailoverTest, APowerCutOfEverythingKeepsWhatWasFlushed) {
  for (uint64_t seed = 1; seed <= 10; seed++) {
    begin(quick(), seed);
    std::vector<OpIndex> kept;
    for (uint64_t lba = 0; lba < 16; lba++)
      kept.push_back(written(lba));
    flushed();
    for (uint64_t lba = 16; lba < 32; lba++)
      written(lba);
    cluster().power_cut_everything();
    cluster().run_for(milliseconds(100));
    ASSERT_TRUE(cluster().converge());
    for (uint64_t lba = 0; lba < 16; lba++)
      EXPECT_EQ(seen(lba).stamp.sequence, cluster().op(kept[lba]).sequence) << "seed " << seed;
    expect_sound();
  }
}

}  // namespace
}  // namespace basalt::sim
