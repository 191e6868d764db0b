// SPDX-License-Identifier: Apache-2.0
// Snapshots as members ask for them: a command behind the real target's one-writer gate.
#include "bdev/nvmf/member.h"
#include "nvmf/transport/target_world_testing.h"

namespace basalt::bdev {
namespace {

using basalt::testing::TargetWorld;
using basalt::testing::TestDisk;

constexpr char replica_nqn[] = "nqn.2026-01.test:replica";

class MemberSnapshot : public ::testing::TestWithParam<const char*> {
 protected:
  explicit MemberSnapshot(bool one_writer = true) {
    subsystem = world.add_subsystem(replica_nqn, &disk, one_writer);
    address = world.listen(subsystem, trtype());
    if (is_link()) world.add_node_link(address);
  }
  ~MemberSnapshot() override {
    disk.hold_snapshots = disk.keep_snapshots = false;
    disk.release();
    for (auto& member : members)
      (void)world.net.run(member->close());
    world.net.run_void(links.close());
    world.close();
  }
  Member& taken(const std::string& name, uint64_t epoch) {
    MemberOptions options;
    options.name = name;
    options.address = address;
    options.subnqn = replica_nqn;
    options.hostnqn = basalt::testing::test_hostnqn;
    if (is_link()) options.link_nqn = basalt::testing::test_link_nqn;
    members.push_back(std::make_unique<Member>(world.host, world.transport(trtype()), options, &links));
    EXPECT_TRUE(world.net.run(members.back()->takeover(epoch, seconds(3))).ok());
    return *members.back();
  }
  static bool is_link() { return std::string(GetParam()) == "LINK"; }
  static const char* trtype() { return is_link() ? "TCP" : GetParam(); }
  struct Asked {
    bool ended = false;
    Outcome outcome = success();
  };
  static Task<void> ask(Member& member, std::string name, Asked& asked) {
    std::function<bool()> always;
    auto asking = member.snapshot(std::move(name), std::move(always));
    asked.outcome = co_await asking;
    asked.ended = true;
  }
  static Task<void> take(Member& member, bool& over) {
    const auto taken = co_await member.takeover(4, seconds(3));
    over = taken.ok();
  }
  void start(Member& member, const std::string& name, Asked& asked) { spawn(ask(member, name, asked)); }
  Outcome snapshot(Member& member, const std::string& name) {
    Asked asked;
    start(member, name, asked);
    EXPECT_TRUE(world.net.run_until([&] { return asked.ended; }, seconds(10)));
    return asked.outcome;
  }
  static std::string code_of(const Outcome& outcome) { return outcome.ok() ? "ok" : errc_name(outcome.error().code); }

  TargetWorld world{33};
  Links links{world.host, world.tcp};
  TestDisk disk{world.home, 64, 1};
  nvmf::Subsystem* subsystem = nullptr;
  nvmf::HostAddress address;
  std::vector<std::unique_ptr<Member>> members;
};

TEST_P(MemberSnapshot, HoldsWhatHadBeenWrittenAndNothingLater) {
  Member& member = taken("m", 3);
  ASSERT_TRUE(world.write(member, 0, 4, 1).ok());
  ASSERT_TRUE(world.net.run(member.prepare_snapshot()).ok());
  EXPECT_EQ(disk.prepare_count, 1u);
  EXPECT_EQ(code_of(snapshot(member, "s1")), "ok");
  ASSERT_TRUE(world.write(member, 0, 4, 2).ok());
  ASSERT_TRUE(disk.snapshots.contains("s1"));
  EXPECT_EQ(disk.snapshots["s1"][0], 1);
  EXPECT_EQ(disk.bytes[0], 2);
}

TEST_P(MemberSnapshot, ANameThatIsTakenOrTooLongIsRefused) {
  Member& member = taken("m", 3);
  EXPECT_EQ(code_of(snapshot(member, std::string(63, 'a'))), "ok");
  EXPECT_TRUE(disk.snapshots.contains(std::string(63, 'a')));
  EXPECT_EQ(code_of(snapshot(member, std::string(63, 'a'))), errc_name(Errc::invalid_argument));
  EXPECT_EQ(code_of(snapshot(member, std::string(64, 'a'))), errc_name(Errc::invalid_argument));
}

TEST_P(MemberSnapshot, AnOldEpochMakesNone) {
  Member& old_one = taken("old", 3);
  taken("new", 4);
  EXPECT_EQ(code_of(snapshot(old_one, "s1")), errc_name(Errc::fenced));
  EXPECT_TRUE(disk.snapshots.empty());
  EXPECT_EQ(disk.snapshots_begun, 0u);
}

TEST_P(MemberSnapshot, ATakeoverRefusesOneThatHasNotBegun) {
  Member& old_one = taken("old", 3);
  disk.hold_snapshots = true;
  Asked asked;
  start(old_one, "s1", asked);
  world.net.run_for(milliseconds(20));
  taken("new", 4);  // does not wait for it
  disk.hold_snapshots = false;
  EXPECT_TRUE(world.net.run_until([&] { return asked.ended; }, seconds(10)));
  EXPECT_EQ(code_of(asked.outcome), errc_name(Errc::fenced));
  EXPECT_TRUE(disk.snapshots.empty());
}

TEST_P(MemberSnapshot, ATakeoverWaitsForOneThatHasBegun) {
  Member& old_one = taken("old", 3);
  disk.keep_snapshots = true;
  Asked asked;
  start(old_one, "s1", asked);
  ASSERT_TRUE(world.net.run_until([&] { return disk.snapshots_begun == 1; }, seconds(10)));
  MemberOptions options;
  options.name = "new";
  options.address = address;
  options.subnqn = replica_nqn;
  options.hostnqn = basalt::testing::test_hostnqn;
  if (is_link()) options.link_nqn = basalt::testing::test_link_nqn;
  members.push_back(std::make_unique<Member>(world.host, world.transport(trtype()), options, &links));
  bool over = false;
  spawn(take(*members.back(), over));
  world.net.run_for(milliseconds(300));
  EXPECT_FALSE(over);
  EXPECT_FALSE(asked.ended);
  disk.keep_snapshots = false;
  EXPECT_TRUE(world.net.run_until([&] { return over && asked.ended; }, seconds(10)));
  EXPECT_EQ(code_of(asked.outcome), "ok");
  EXPECT_TRUE(disk.snapshots.contains("s1"));
}

// In process, a command that was begun is waited for.
class SnapshotOverTcp : public MemberSnapshot {};

TEST_P(SnapshotOverTcp, IsOpenWhetherItWasMadeWhenTheAssociationIsLost) {
  Member& member = taken("m", 3);
  disk.keep_snapshots = true;
  Asked asked;
  start(member, "s1", asked);
  ASSERT_TRUE(world.net.run_until([&] { return disk.snapshots_begun == 1; }, seconds(10)));
  member.fail({Errc::closed, "the test ends it"});
  EXPECT_TRUE(world.net.run_until([&] { return asked.ended; }, seconds(10)));
  EXPECT_EQ(code_of(asked.outcome), errc_name(Errc::unreachable));
  disk.keep_snapshots = false;
  EXPECT_TRUE(world.net.run_until([&] { return disk.snapshots.contains("s1"); }, seconds(10)));
  EXPECT_EQ(code_of(snapshot(member, "s2")), errc_name(Errc::unreachable));
}

class SnapshotWithoutGate : public MemberSnapshot {
 protected:
  SnapshotWithoutGate() : MemberSnapshot(false) {}
};

TEST_P(SnapshotWithoutGate, IsNoCommandOfAVolume) {
  Member& member = taken("m", 3);
  EXPECT_EQ(code_of(snapshot(member, "s1")), errc_name(Errc::unsupported));
  EXPECT_EQ(code_of(world.net.run(member.prepare_snapshot())), errc_name(Errc::unsupported));
  EXPECT_TRUE(disk.snapshots.empty());
}

INSTANTIATE_TEST_SUITE_P(Transports, MemberSnapshot, ::testing::Values("TCP", "LOOPBACK", "LINK"),
                         [](const auto& info) { return std::string(info.param); });
INSTANTIATE_TEST_SUITE_P(Transports, SnapshotOverTcp, ::testing::Values("TCP", "LINK"),
                         [](const auto& info) { return std::string(info.param); });
INSTANTIATE_TEST_SUITE_P(Transports, SnapshotWithoutGate, ::testing::Values("TCP"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace basalt::bdev
