// SPDX-License-Identifier: Apache-2.0
// Members against the real target's one-writer gate: taking over fences the old association; failures are told at once.
#include "bdev/nvmf/member.h"

#include "nvmf/transport/target_world_testing.h"

namespace basalt::bdev {
namespace {

using basalt::testing::TargetWorld;
using basalt::testing::TestDisk;
using basalt::testing::TestIo;

struct Recorder : Member::Listener {
  std::vector<Error> failures;
  void member_failed(Member&, const Error& reason) override { failures.push_back(reason); }
};

class MemberTest : public ::testing::TestWithParam<const char*> {
 protected:
  MemberTest() {
    subsystem = world.add_subsystem("nqn.2026-01.test:replica", &disk, true);
    address = world.listen(subsystem, trtype());
    if (is_link()) world.add_node_link(address);
  }
  ~MemberTest() override {
    disk.release();
    for (auto& member : members)
      (void)world.net.run(member->close());
    world.net.run_void(links.close());
    world.close();
  }
  Member& make(const std::string& name) {
    MemberOptions options;
    options.name = name;
    options.address = address;
    options.subnqn = "nqn.2026-01.test:replica";
    options.hostnqn = basalt::testing::test_hostnqn;
    if (is_link()) options.link_nqn = basalt::testing::test_link_nqn;
    members.push_back(std::make_unique<Member>(world.host, world.transport(trtype()), options, &links));
    members.back()->set_listener(&recorder);
    return *members.back();
  }
  Result<MemberInfo> take(Member& member, uint64_t epoch, Duration timeout = seconds(3)) {
    return world.net.run(member.takeover(epoch, timeout));
  }
  // LINK: over TCP, by a link that they share.
  static bool is_link() { return std::string(GetParam()) == "LINK"; }
  static const char* trtype() { return is_link() ? "TCP" : GetParam(); }
  bool is_tcp() const { return std::string(trtype()) == "TCP"; }

  TargetWorld world{21};
  TestDisk disk{world.home, 1024, 1};
  nvmf::Subsystem* subsystem = nullptr;
  nvmf::HostAddress address;
  Recorder recorder;
  Links links{world.host, world.tcp};
  std::vector<std::unique_ptr<Member>> members;
};

TEST_P(MemberTest, TakesOverAndDoesIo) {
  Member& member = make("m");
  EXPECT_EQ(world.write(member, 0, 1, 1), nvme::status::host_path_error);
  const auto info = take(member, 5);
  ASSERT_TRUE(info.ok()) << info.error().message;
  EXPECT_EQ(info.value().incarnation, "incarnation-1");
  EXPECT_EQ(info.value().count_blocks, 1024u);
  EXPECT_EQ(info.value().block_size_bytes, 4096u);
  const Instant before = world.net.now();
  EXPECT_TRUE(world.write(member, 3, 20, 7).ok());
  EXPECT_EQ(world.read(member, 3, 20), 7);
  TestIo flush(IoType::flush, 0, 0);
  EXPECT_TRUE(world.io(member, flush).ok());
  EXPECT_GE(member.last_success_sent().ns, before.ns - 1000);
  EXPECT_LE(member.last_success_sent(), world.net.now());
}

TEST_P(MemberTest, ATakeoverFencesTheOldAssociation) {
  Member& old_one = make("old");
  ASSERT_TRUE(take(old_one, 5).ok());
  ASSERT_TRUE(world.write(old_one, 0, 1, 1).ok());
  Member& new_one = make("new");
  ASSERT_TRUE(take(new_one, 6).ok());
  const Instant success = old_one.last_success_sent();
  EXPECT_TRUE(world.write(old_one, 0, 1, 2).is(nvme::status::reservation_conflict));
  TestIo read(IoType::read, 0, 1);
  EXPECT_TRUE(world.io(old_one, read).is(nvme::status::reservation_conflict));
  EXPECT_EQ(old_one.last_success_sent(), success);
  EXPECT_EQ(world.read(new_one, 0, 1), 1);
  // The lower epoch cannot come back, and learns of the higher one.
  const auto back = take(old_one, 5);
  ASSERT_FALSE(back.ok());
  EXPECT_EQ(back.error().code, Errc::fenced);
  EXPECT_EQ(old_one.fencing_epoch(), 6u);
  // The same epoch's owner may, with a new association.
  ASSERT_TRUE(take(new_one, 6).ok());
  EXPECT_TRUE(world.write(new_one, 0, 1, 3).ok());
}

TEST_P(MemberTest, ATakeoverWaitsForAdmittedCommandsOfTheOldOne) {
  Member& old_one = make("old");
  ASSERT_TRUE(take(old_one, 5).ok());
  disk.hold = true;
  TestIo parked(IoType::write, 0, 1);
  old_one.submit(&parked);
  ASSERT_TRUE(world.net.run_until([&] { return disk.held.size() == 1; }));
  Member& new_one = make("new");
  std::optional<Result<MemberInfo>> result;
  spawn([](Member* member, std::optional<Result<MemberInfo>>* out) -> Task<void> {
    auto taken = co_await member->takeover(6, seconds(3));
    out->emplace(std::move(taken));
  }(&new_one, &result));
  world.net.run_for(milliseconds(400));
  EXPECT_FALSE(result.has_value());
  disk.release();
  ASSERT_TRUE(world.net.run_until([&] { return result.has_value(); }, seconds(1)));
  EXPECT_TRUE(result->ok());
}

TEST_P(MemberTest, ACommandWithoutAnswerIsAFailureAndEndsEverythingInFlight) {
  Member& member = make("m");
  ASSERT_TRUE(take(member, 5).ok());
  disk.hold = true;
  TestIo first(IoType::write, 0, 1);
  TestIo second(IoType::read, 8, 1);
  member.submit(&first);
  world.net.run_for(milliseconds(500));
  member.submit(&second);
  if (is_tcp()) {
    ASSERT_TRUE(world.net.run_until([&] { return first.ended && second.ended; }, milliseconds(520)));
  } else {
    world.net.run_for(milliseconds(520));
    disk.release();  // in process, memory is let go by the device only
    ASSERT_TRUE(world.net.run_until([&] { return first.ended && second.ended; }, milliseconds(100)));
  }
  EXPECT_EQ(first.status, nvme::status::host_path_error);
  EXPECT_EQ(second.status, nvme::status::host_path_error);
  world.net.run_for(milliseconds(1));
  ASSERT_EQ(recorder.failures.size(), 1u);
  EXPECT_EQ(recorder.failures[0].code, Errc::timed_out);
  EXPECT_FALSE(member.taken());
  EXPECT_EQ(world.write(member, 0, 1, 1), nvme::status::host_path_error);
  disk.release();
  ASSERT_TRUE(take(member, 5).ok());
  EXPECT_TRUE(world.write(member, 0, 1, 1).ok());
}

class MemberOverTcp : public MemberTest {};

TEST_P(MemberOverTcp, ABrokenConnectionFailsAtOnceAndDoesNotComeBackByItself) {
  Member& member = make("m");
  ASSERT_TRUE(take(member, 5).ok());
  disk.hold = true;
  TestIo io(IoType::write, 0, 1);
  member.submit(&io);
  ASSERT_TRUE(world.net.run_until([&] { return disk.held.size() == 1; }));
  world.net.cut(TargetWorld::port(address));
  ASSERT_TRUE(world.net.run_until([&] { return io.ended; }, milliseconds(5)));
  EXPECT_EQ(io.status, nvme::status::host_path_error);
  world.net.run_for(seconds(5));
  EXPECT_EQ(recorder.failures.size(), 1u);
  EXPECT_FALSE(member.taken());
}

TEST_P(MemberOverTcp, ATakeoverThatDoesNotEndTimesOut) {
  Member& old_one = make("old");
  ASSERT_TRUE(take(old_one, 5).ok());
  disk.hold = true;
  TestIo parked(IoType::write, 0, 1);
  old_one.submit(&parked);
  ASSERT_TRUE(world.net.run_until([&] { return disk.held.size() == 1; }));
  Member& new_one = make("new");
  const auto result = take(new_one, 6, milliseconds(300));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, Errc::timed_out) << result.error().message;
  EXPECT_EQ(world.write(new_one, 0, 1, 1), nvme::status::host_path_error);
  disk.release();
  ASSERT_TRUE(world.net.run_until([&] { return parked.ended; }));
}

TEST_P(MemberTest, AnUnreachableReplicaIsAnError) {
  Member& member = make("m");
  ASSERT_TRUE(world.net.run(subsystem->remove_listener(world.as_listen(address, trtype()))).ok());
  if (is_link()) ASSERT_TRUE(world.net.run(world.target->delete_subsystem(basalt::testing::test_link_nqn)).ok());
  const auto result = take(member, 5);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, Errc::unreachable);
  EXPECT_TRUE(recorder.failures.empty());
}

// The pulse goes by another listener of the same target, so that one of the two can be silent alone.
class FollowingMember : public MemberTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(pulse->start().ok());
    ASSERT_TRUE(world.net.run_until([&] { return pulse->beats(); }, seconds(3)));
  }
  void TearDown() override {
    world.net.run_void(pulse->stop());
    disk.release();
    for (auto& member : members)
      (void)world.net.run(member->close());
    members.clear();
  }
  Member& take_following(const std::string& name) {
    Member& member = make(name);
    EXPECT_TRUE(take(member, 5).ok());
    member.follow(pulse);
    return member;
  }
  bool await_failures(size_t count, Duration limit) {
    return world.net.run_until([&] { return recorder.failures.size() == count; }, limit);
  }

  nvmf::HostAddress pulse_address = world.listen(subsystem, trtype());
  std::shared_ptr<Pulse> pulse =
      std::make_shared<Pulse>(world.host, world.transport(trtype()),
                              PulseOptions{.address = pulse_address, .hostnqn = basalt::testing::test_hostnqn});
};

TEST_P(FollowingMember, AsksForItselfRarelyWhileThePulseBeats) {
  take_following("m");
  world.net.run_for(seconds(32));  // it has just asked, at half of the 30 s
  EXPECT_TRUE(recorder.failures.empty());
  world.net.freeze(true, TargetWorld::port(address));
  world.net.run_for(seconds(10));
  EXPECT_TRUE(recorder.failures.empty());
  EXPECT_TRUE(await_failures(1, seconds(25)));
}

TEST_P(FollowingMember, OneThatFollowsNothingNoticesSilenceByItself) {
  ASSERT_TRUE(take(make("m"), 5).ok());
  world.net.run_for(seconds(5));
  world.net.freeze(true, TargetWorld::port(address));
  EXPECT_TRUE(await_failures(1, milliseconds(1600)));
}

TEST_P(FollowingMember, NoticesASilentNodeWhenItsPulseStops) {
  take_following("m");
  world.net.run_for(seconds(5));
  world.net.refuse(TargetWorld::port(pulse_address), true);
  world.net.freeze(true);
  ASSERT_TRUE(await_failures(1, milliseconds(2600)));
  EXPECT_EQ(recorder.failures[0].code, Errc::timed_out);
}

TEST_P(FollowingMember, ALostPulseFailsNobodyWhoAnswers) {
  Member& member = take_following("m");
  world.net.run_for(seconds(5));
  world.net.refuse(TargetWorld::port(pulse_address), true);
  world.net.cut(TargetWorld::port(pulse_address));
  ASSERT_TRUE(world.net.run_until([&] { return !pulse->beats(); }, seconds(3)));
  world.net.run_for(seconds(5));
  EXPECT_TRUE(recorder.failures.empty());
  EXPECT_TRUE(world.write(member, 0, 1, 1).ok());
  // From now on it asks at its own pace.
  world.net.freeze(true, TargetWorld::port(address));
  EXPECT_TRUE(await_failures(1, milliseconds(1600)));
}

TEST_P(FollowingMember, ACommandWithoutAnswerIsAFailureWhateverThePulseSays) {
  Member& member = take_following("m");
  world.net.freeze(true, TargetWorld::port(address));
  TestIo io(IoType::write, 0, 1);
  member.submit(&io);
  EXPECT_TRUE(await_failures(1, milliseconds(1100)));
  EXPECT_TRUE(pulse->beats());
}

INSTANTIATE_TEST_SUITE_P(All, MemberTest, ::testing::Values("TCP", "LOOPBACK", "LINK"),
                         [](const auto& info) { return std::string(info.param); });

INSTANTIATE_TEST_SUITE_P(All, FollowingMember, ::testing::Values("TCP"),
                         [](const auto& info) { return std::string(info.param); });

INSTANTIATE_TEST_SUITE_P(All, MemberOverTcp, ::testing::Values("TCP", "LINK"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace basalt::bdev
