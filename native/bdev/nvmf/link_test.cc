// SPDX-License-Identifier: Apache-2.0
// Members that share a link, against the real target over sockets in memory: what one does, or suffers, is its own;
// what an old epoch left behind on the shared connections reaches nobody.
#include <cstring>

#include "bdev/nvmf/link_world_testing.h"
#include "nvmf/transport/tcp/fake_target_testing.h"

namespace basalt::bdev {
namespace {

using basalt::testing::FakeConnection;
using basalt::testing::TargetWorld;
using basalt::testing::test_hostnqn;
using basalt::testing::test_link_nqn;
using testing::LinkWorld;
using testing::TestIo;

class LinkTest : public LinkWorld {};

TEST_F(LinkTest, AllMembersOnANodeShareOneAssociation) {
  for (size_t i = 0; i < replica_count; i++) {
    Member& member = taken("m" + std::to_string(i), i, 5 + i);
    EXPECT_TRUE(member.shares_link());
    EXPECT_TRUE(world.write(member, i, 1, static_cast<uint8_t>(i + 1)).ok());
  }
  EXPECT_EQ(link->controllers().size(), 1u);
  for (nvmf::Subsystem* replica : replicas)
    EXPECT_TRUE(replica->controllers().empty());
  for (size_t i = 0; i < replica_count; i++) {
    EXPECT_EQ(world.read(*members[i], i, 1), static_cast<int>(i + 1));
    EXPECT_EQ(disks[i]->bytes[i * 4096], i + 1);
  }
  ASSERT_EQ(links.list().size(), 1u);
  EXPECT_EQ(links.list()[0].member_count, replica_count);
  EXPECT_EQ(links.list()[0].connection_count, 5u);
}

// As attachments do that are told the names of keys.
TEST_F(LinkTest, MembersThatReadTheSameKeysAnewShareOneAssociation) {
  const auto secret = [](const char* text) {
    return std::make_shared<const nvmf::auth::Secret>(nvmf::auth::Secret::parse(text).value());
  };
  const char* const one = "DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:";
  const char* const other = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
  const auto take_with = [&](const char* text, size_t replica) {
    MemberOptions options = make("as" + std::to_string(replica), replica).options();
    options.name = "m" + std::to_string(replica);
    options.authentication.host = secret(text);
    members.push_back(std::make_unique<Member>(world.host, world.tcp, options, &links));
    return take(*members.back(), 5).ok() && members.back()->shares_link();
  };
  EXPECT_TRUE(take_with(one, 0) && take_with(one, 1) && take_with(one, 2));
  EXPECT_EQ(links.list().size(), 1u);
  EXPECT_TRUE(take_with(other, 3));
  EXPECT_EQ(links.list().size(), 2u) << "who came by another key has proven something else";
}

TEST_F(LinkTest, MembersThatComeAtOnceConnectOnce) {
  size_t taken_count = 0;
  for (size_t i = 0; i < replica_count; i++) {
    spawn([](Member* member, size_t* count) -> Task<void> {
      auto result = co_await member->takeover(5, seconds(3));
      if (result.ok()) ++*count;
    }(&make("m" + std::to_string(i), i), &taken_count));
  }
  ASSERT_TRUE(await([&] { return taken_count == replica_count; }));
  EXPECT_EQ(link->controllers().size(), 1u);
}

TEST_F(LinkTest, TheIncarnationIsTheReplicasOwn) {
  EXPECT_EQ(take(make("m", 0), 5).value().incarnation, "incarnation-1");
}

TEST_F(LinkTest, TheLastMemberThereTakesTheLinkAlong) {
  Member& a = taken("a", 0);
  Member& b = taken("b", 1);
  ASSERT_TRUE(world.net.run(a.close()).ok());
  EXPECT_EQ(links.list().size(), 1u);
  ASSERT_TRUE(world.net.run(b.close()).ok());
  EXPECT_TRUE(links.list().empty());
  EXPECT_TRUE(await([&] { return link->controllers().empty(); }));
}

TEST_F(LinkTest, ATakeoverByTheSameNodeRefusesTheOldEpochOnTheSameConnections) {
  Member& old_one = taken("old", 0, 5);
  ASSERT_TRUE(world.write(old_one, 0, 1, 1).ok());
  Member& new_one = taken("new", 0, 6);
  EXPECT_TRUE(world.write(old_one, 0, 1, 2).is(nvme::status::reservation_conflict));
  TestIo read(IoType::read, 0, 1);
  EXPECT_TRUE(world.io(old_one, read).is(nvme::status::reservation_conflict));
  EXPECT_EQ(world.read(new_one, 0, 1), 1);
  EXPECT_EQ(link->controllers().size(), 1u);
  EXPECT_TRUE(recorder.failed.empty());
}

// In the replica's own queue: the device has it.
TEST_F(LinkTest, ATakeoverWaitsForWhatTheOldEpochHasAtThatReplicaAndForNothingElse) {
  Member& old_one = taken("old", 0, 5);
  Member& other = taken("other", 1, 5);
  disks[0]->hold = disks[1]->hold = true;
  TestIo parked(IoType::write, 0, 1);
  TestIo elsewhere(IoType::write, 0, 1);
  old_one.submit(&parked);
  other.submit(&elsewhere);
  ASSERT_TRUE(await([&] { return disks[0]->held.size() == 1 && disks[1]->held.size() == 1; }));
  Member& new_one = make("new", 0);
  std::optional<Result<MemberInfo>> result;
  spawn([](Member* member, std::optional<Result<MemberInfo>>* out) -> Task<void> {
    auto taken = co_await member->takeover(6, seconds(3));
    out->emplace(std::move(taken));
  }(&new_one, &result));
  world.net.run_for(milliseconds(400));
  EXPECT_FALSE(result.has_value());
  disks[0]->release();
  ASSERT_TRUE(await([&] { return result.has_value(); }, milliseconds(100)));
  EXPECT_TRUE(result->ok());
  EXPECT_FALSE(elsewhere.ended);
  disks[1]->release();
  ASSERT_TRUE(await([&] { return elsewhere.ended; }));
  EXPECT_TRUE(elsewhere.status.ok());
  EXPECT_TRUE(other.taken());
}

// What goes on at the device when its node has let go of it.
TEST_F(LinkTest, AReplicaThatDoesNotAnswerFailsAloneAndLeavesRoomForOthers) {
  Member& slow = taken("slow", 0);
  std::vector<Member*> others;
  for (size_t i = 1; i < replica_count; i++)
    others.push_back(&taken("m" + std::to_string(i), i));
  disks[0]->hold = true;
  std::vector<std::unique_ptr<TestIo>> ios;
  for (uint32_t i = 0; i < 200; i++) {
    ios.push_back(std::make_unique<TestIo>(i % 2 == 0 ? IoType::write : IoType::read, i, 1));
    std::fill(ios.back()->data.begin(), ios.back()->data.end(), 9);
    slow.submit(ios.back().get());
  }
  world.net.run_for(milliseconds(500));
  for (Member* other : others) {
    TestIo io(IoType::write, 0, 1);
    other->submit(&io);
    EXPECT_TRUE(await([&] { return io.ended; }, milliseconds(50)));
  }
  ASSERT_TRUE(await([&] { return !recorder.failed.empty(); }, milliseconds(700)));
  EXPECT_EQ(recorder.failed, std::vector<std::string>{"slow"});
  EXPECT_EQ(recorder.reasons[0].code, Errc::timed_out);
  for (const auto& io : ios) {
    EXPECT_TRUE(io->ended);
    EXPECT_EQ(io->status, nvme::status::host_path_error);
  }
  // Their memory is nobody's now: what the device says of them late has nowhere to go.
  ios.clear();
  disks[0]->release();
  world.net.run_for(milliseconds(100));
  for (Member* other : others)
    EXPECT_TRUE(other->taken() && world.write(*other, 1, 1, 3).ok());
  EXPECT_EQ(link->controllers().size(), 1u);
  EXPECT_TRUE(take(slow, 5).ok());
  EXPECT_TRUE(world.write(slow, 0, 4, 4).ok());
  EXPECT_EQ(world.read(slow, 0, 4), 4);
}

TEST_F(LinkTest, AWriteIsLetGoWhileTheNodeAsksForItsData) {
  Member& member = taken("m", 0);
  Member& other = taken("other", 1);
  for (int round = 0; round < 8; round++) {
    auto io = std::make_unique<TestIo>(IoType::write, 0, 256);
    std::fill(io->data.begin(), io->data.end(), 7);
    member.submit(io.get());
    world.net.run_for(microseconds(round * 20));
    member.fail({Errc::closed, "let go"});
    ASSERT_TRUE(await([&] { return io->ended; }));
    io.reset();
    world.net.run_for(milliseconds(5));
    EXPECT_TRUE(world.write(other, 1, 1, 3).ok());
    ASSERT_TRUE(take(member, 6 + static_cast<uint64_t>(round)).ok());
  }
  EXPECT_TRUE(world.write(member, 0, 256, 5).ok());
  EXPECT_EQ(world.read(member, 0, 256), 5);
}

TEST_F(LinkTest, WithTooMuchLetGoTheLinkEndsAndEverybodyIsTold) {
  Member& other = taken("other", 7);
  std::vector<Member*> slow;
  // One queue has them all in the end.
  for (size_t i = 0; i < 5; i++) {
    disks[i]->hold = false;
    slow.push_back(&taken("slow" + std::to_string(i), i));
  }
  std::vector<std::unique_ptr<TestIo>> ios;
  for (size_t i = 0; i < slow.size(); i++) {
    disks[i]->hold = true;
    for (uint32_t n = 0; n < 63; n++) {
      ios.push_back(std::make_unique<TestIo>(IoType::read, n, 1));
      slow[i]->submit(ios.back().get());
    }
  }
  ASSERT_TRUE(await([&] { return recorder.failed.size() == 6; }, seconds(2)));
  EXPECT_FALSE(other.taken());
  for (const auto& io : ios)
    EXPECT_TRUE(io->ended && io->status == nvme::status::host_path_error);
  for (size_t i = 0; i < slow.size(); i++)
    disks[i]->release();
  EXPECT_TRUE(take(other, 5).ok());
  EXPECT_TRUE(world.write(other, 0, 1, 1).ok());
}

// A replica whose device hangs is asked for again and again, and each request that is given up keeps its place.
TEST_F(LinkTest, TakeoversThatNeverEndLeaveTheLinkToOthers) {
  Member& hung = taken("hung", 0, 5);
  Member& other = taken("other", 1);
  disks[0]->hold = true;
  TestIo parked(IoType::write, 0, 1);
  hung.submit(&parked);
  ASSERT_TRUE(await([&] { return disks[0]->held.size() == 1; }));
  size_t own_count = 0;
  for (uint64_t i = 0; i < 80; i++) {
    Member& again = make("again" + std::to_string(i), 0);
    const auto result = take(again, 6 + i, milliseconds(100));
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, Errc::timed_out) << result.error().message;
    own_count = std::max(own_count, replicas[0]->controllers().size());
    EXPECT_TRUE(world.write(other, 0, 1, 1).ok());
  }
  EXPECT_GT(own_count, 0u);  // from some number on they come alone
  EXPECT_TRUE(other.taken());
  disks[0]->release();
  ASSERT_TRUE(await([&] { return parked.ended; }));
  Member& last = make("last", 0);
  // Those that wait there end one after another, and make room for more registrants.
  bool again = false;
  for (int i = 0; i < 100 && !again; i++) {
    world.net.run_for(milliseconds(10));
    again = take(last, 100).ok();
  }
  ASSERT_TRUE(again);
  EXPECT_TRUE(world.write(last, 0, 1, 3).ok());
}

TEST_F(LinkTest, ManyTakeoversAtOnceTakeTurns) {
  size_t ended = 0;
  size_t taken_count = 0;
  for (size_t i = 0; i < 200; i++) {
    spawn([](Member* member, uint64_t epoch, size_t* good, size_t* all) -> Task<void> {
      auto result = co_await member->takeover(epoch, seconds(20));
      if (result.ok() && member->shares_link()) ++*good;
      ++*all;
    }(&make("m" + std::to_string(i), i % replica_count), 1 + i, &taken_count, &ended));
  }
  ASSERT_TRUE(await([&] { return ended == 200; }, seconds(60)));
  EXPECT_GT(taken_count, 0u);
  EXPECT_EQ(link->controllers().size(), 1u);
  for (size_t i = 200 - replica_count; i < 200; i++)
    EXPECT_TRUE(members[i]->taken());
}

TEST_F(LinkTest, ALostLinkFailsAllItsMembersAndTheNextOneServesThem) {
  for (size_t i = 0; i < replica_count; i++)
    taken("m" + std::to_string(i), i);
  disks[3]->hold = true;
  TestIo io(IoType::write, 0, 1);
  members[3]->submit(&io);
  ASSERT_TRUE(await([&] { return disks[3]->held.size() == 1; }));
  world.net.cut(TargetWorld::port(address));
  ASSERT_TRUE(await([&] { return recorder.failed.size() == replica_count; }, milliseconds(20)));
  EXPECT_TRUE(io.ended);
  disks[3]->release();
  for (auto& member : members)
    EXPECT_TRUE(take(*member, 5).ok());
  ASSERT_TRUE(await([&] { return link->controllers().size() == 1; }));
  EXPECT_EQ(links.list().size(), 1u);
}

TEST_F(LinkTest, NoticesASilentNodeByItself) {
  taken("a", 0);
  taken("b", 1);
  world.net.run_for(seconds(5));
  world.net.freeze(true, TargetWorld::port(address));
  EXPECT_TRUE(await([&] { return recorder.failed.size() == 2; }, milliseconds(1600)));
}

TEST_F(LinkTest, AStoppedHostIsWaitedForLongerThanItsOwnPatience) {
  Member& member = taken("m", 0);
  world.net.run_for(seconds(5));
  EXPECT_TRUE(member.taken());
  EXPECT_EQ(link->controllers().size(), 1u);
}

TEST_F(LinkTest, ANamespaceThatGoesFailsItsMemberAlone) {
  taken("a", 0);
  Member& b = taken("b", 1);
  ASSERT_TRUE(world.net.run(replicas[0]->remove_namespace(1)).ok());
  ASSERT_TRUE(await([&] { return !recorder.failed.empty(); }));
  EXPECT_EQ(recorder.failed, std::vector<std::string>{"a"});
  EXPECT_EQ(recorder.reasons[0].code, Errc::not_found);
  EXPECT_TRUE(world.write(b, 0, 1, 1).ok());
}

TEST_F(LinkTest, ASubsystemIsDeletedUnderItsMembersLoad) {
  Member& a = taken("a", 0);
  Member& b = taken("b", 1);
  TestIo io(IoType::write, 0, 1);
  disks[0]->hold = true;
  a.submit(&io);
  ASSERT_TRUE(await([&] { return disks[0]->held.size() == 1; }));
  bool deleted = false;
  spawn([](nvmf::Target* target, bool* done) -> Task<void> {
    auto outcome = co_await target->delete_subsystem(nqn_of(0));
    *done = outcome.ok();
  }(world.target.get(), &deleted));
  world.net.run_for(milliseconds(20));
  EXPECT_FALSE(deleted);  // the device has a command of it
  disks[0]->release();
  ASSERT_TRUE(await([&] { return deleted; }));
  EXPECT_TRUE(await([&] { return io.ended && !recorder.failed.empty(); }));
  EXPECT_EQ(recorder.failed, std::vector<std::string>{"a"});
  EXPECT_TRUE(world.write(b, 0, 1, 1).ok());
}

TEST_F(LinkTest, AMemberThatMayWaitForLongHasLittleOnTheLinkAndHoldsUpNobody) {
  Member& hasty = taken("hasty", 0);
  Member& patient = make("patient", 1, seconds(600));
  ASSERT_TRUE(take(patient, 5).ok());
  std::vector<std::unique_ptr<TestIo>> ios;
  disks[0]->hold = disks[1]->hold = true;
  for (Member* member : {&hasty, &patient}) {
    for (int i = 0; i < 200; i++)
      member->submit(ios.emplace_back(std::make_unique<TestIo>(IoType::write, i, 1)).get());
  }
  ASSERT_TRUE(await([&] { return disks[0]->held.size() == 63 && disks[1]->held.size() == 15; }));
  // Longer than a hasty one may take, and than a front waited for its parts once: nothing has failed but that.
  world.net.run_for(seconds(5));
  EXPECT_EQ(recorder.failed, std::vector<std::string>{"hasty"});
  EXPECT_EQ(disks[1]->held.size(), 15u);
  Member& other = taken("other", 2);
  EXPECT_TRUE(world.write(other, 0, 1, 1).ok());
  for (size_t i : {0, 1}) {
    disks[i]->hold = false;
    disks[i]->release();
  }
  ASSERT_TRUE(await([&] { return std::all_of(ios.begin(), ios.end(), [](const auto& io) { return io->ended; }); }));
  EXPECT_TRUE(std::all_of(ios.begin() + 200, ios.end(), [](const auto& io) { return io->status.ok(); }));
}

TEST_F(LinkTest, AMemberGrowsWithItsReplica) {
  Member& a = taken("a", 0);
  Member& b = taken("b", 1);
  disks[0]->resize(2048);
  ASSERT_TRUE(await([&] { return a.info().count_blocks == 2048; }));
  EXPECT_EQ(b.info().count_blocks, 1024u);
  EXPECT_TRUE(world.write(a, 2000, 1, 1).ok());
}

TEST_F(LinkTest, WithoutALinkAMemberHasAnAssociationOfItsOwn) {
  ASSERT_TRUE(world.net.run(world.target->delete_subsystem(test_link_nqn)).ok());
  Member& a = taken("a", 0);
  EXPECT_FALSE(a.shares_link());
  EXPECT_EQ(replicas[0]->controllers().size(), 1u);
  EXPECT_TRUE(world.write(a, 0, 1, 1).ok());
  // It is not asked each time.
  taken("b", 1);
  EXPECT_TRUE(links.list().empty());
}

// A node that starts, or a controller that has just joined: what came first must not be the reason that all have
// connections of their own.
TEST_F(LinkTest, ANodeThatLetsTheHostInAfterAllIsAskedAgainSoon) {
  ASSERT_TRUE(world.net.run(link->set_allow_any_host(false)).ok());
  EXPECT_FALSE(taken("a", 0).shares_link());
  EXPECT_FALSE(taken("b", 1).shares_link());
  ASSERT_TRUE(link->add_host(test_hostnqn).ok());
  world.net.run_for(seconds(2));
  EXPECT_TRUE(taken("c", 2).shares_link());
  ASSERT_TRUE(world.net.run(world.target->delete_subsystem(test_link_nqn)).ok());
  EXPECT_FALSE(taken("d", 3).shares_link());
  world.add_node_link(address);
  world.net.run_for(seconds(2));
  EXPECT_TRUE(taken("e", 4).shares_link());
}

TEST_F(LinkTest, WhomAReplicaDoesNotAdmitALinkDoesNotHelp) {
  ASSERT_TRUE(world.net.run(replicas[0]->set_allow_any_host(false)).ok());
  const auto refused = take(make("a", 0), 5);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::permission);
  ASSERT_TRUE(replicas[0]->add_host(test_hostnqn).ok());
  EXPECT_TRUE(take(*members[0], 5).ok());
  EXPECT_TRUE(members[0]->shares_link());
  // Whoever is put out is out at once.
  ASSERT_TRUE(world.net.run(replicas[0]->remove_host(test_hostnqn)).ok());
  EXPECT_TRUE(await([&] { return recorder.failed.size() == 1; }));
}

// It is the replica that says so: connections of the member's own would be refused, or miss the link by a moment.
TEST_F(LinkTest, AReplicaThatIsNotThereYetIsNotLookedForWithoutTheLink) {
  Member& other = taken("a", 1);
  ASSERT_TRUE(world.net.run(world.target->delete_subsystem(nqn_of(0))).ok());
  const auto early = take(make("b", 0), 5);
  ASSERT_FALSE(early.ok());
  EXPECT_EQ(early.error().code, Errc::not_found);
  EXPECT_NE(early.error().message.find("Attach"), std::string::npos) << early.error().message;
  EXPECT_TRUE(other.taken());
}

TEST_F(LinkTest, AReplicaThatAsksForMoreThanTheLinkHasProvenIsReachedWithoutIt) {
  auto secret = nvmf::auth::Secret::parse("DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:");
  ASSERT_TRUE(secret.ok());
  const auto key = std::make_shared<const nvmf::auth::Secret>(std::move(secret).value());
  ASSERT_TRUE(replicas[0]->add_host(test_hostnqn, {key, nullptr, "key", ""}).ok());
  ASSERT_TRUE(world.net.run(replicas[0]->set_allow_any_host(false)).ok());
  const auto without = take(make("a", 0), 5);
  ASSERT_FALSE(without.ok());
  EXPECT_EQ(without.error().code, Errc::permission);
  MemberOptions options = members[0]->options();
  options.name = "b";
  options.authentication.host = key;
  members.push_back(std::make_unique<Member>(world.host, world.tcp, options, &links));
  const auto result = take(*members.back(), 6);
  EXPECT_TRUE(result.ok()) << result.error().message;
  EXPECT_FALSE(members.back()->shares_link());
}

TEST_F(LinkTest, TheLinkOfAnEngineThatStopsEndsWithItsMembers) {
  Member& a = taken("a", 0);
  ASSERT_TRUE(world.net.run(world.target->delete_subsystem(test_link_nqn)).ok());
  EXPECT_TRUE(await([&] { return recorder.failed.size() == 1; }));
  EXPECT_FALSE(a.taken());
}

// A node that numbers attachments as it likes. A number is what tells them apart here as well: one that is none, or
// that another has, must hurt only who got it.
class OddNumbersTest : public ::testing::Test {
 protected:
  OddNumbersTest() {
    world.net.run_for(milliseconds(1));
    node.on_command = [this](FakeConnection& connection, const nvme::Command& command, const std::vector<uint8_t>&) {
      if (command.opcode == static_cast<uint8_t>(nvme::NvmOpcode::reservation_report)) {
        connection.give(command, std::vector<uint8_t>(command.sgl.length_bytes));
        return true;
      }
      if (connection.qid != 0) return false;
      switch (static_cast<nvme::AdminOpcode>(command.opcode)) {
        case nvme::AdminOpcode::link_attach:
          connection.respond(command.cid, nvme::status::success, numbers[attach_count++ % numbers.size()]);
          return true;
        case nvme::AdminOpcode::link_detach:
          detached.push_back(command.nsid);
          return false;
        case nvme::AdminOpcode::link_describe: {
          nvme::LinkDescription description{};
          description.block_size_bytes = 4096;
          description.count_blocks = 1024;
          std::vector<uint8_t> bytes(sizeof(description));
          std::memcpy(bytes.data(), &description, sizeof(description));
          connection.give(command, bytes);
          return true;
        }
        default:
          return false;
      }
    };
  }
  ~OddNumbersTest() override {
    for (auto& member : members)
      (void)world.net.run(member->close());
    world.net.run_void(links.close());
    world.close();
  }
  Member& add() {
    MemberOptions options;
    options.name = "m" + std::to_string(members.size());
    options.address = {"127.0.0.1", "5555"};
    options.subnqn = "nqn.2026-01.test:replica";
    options.hostnqn = test_hostnqn;
    options.link_nqn = test_link_nqn;
    members.push_back(std::make_unique<Member>(world.host, world.tcp, options, &links));
    members.back()->set_listener(&recorder);
    return *members.back();
  }
  Result<MemberInfo> take(Member& member) { return world.net.run(member.takeover(5, seconds(3))); }

  TargetWorld world{45};
  basalt::testing::FakeTarget node{world.net, world.home, 5555};
  std::vector<uint32_t> numbers = {1};
  size_t attach_count = 0;
  std::vector<uint32_t> detached;
  testing::Recorder recorder;
  Links links{world.host, world.tcp};
  std::vector<std::unique_ptr<Member>> members;
};

TEST_F(OddNumbersTest, ANumberThatIsNoneIsNoAttachment) {
  for (const uint32_t none : {0u, UINT32_MAX}) {
    numbers = {none};
    const auto refused = take(add());
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, Errc::io);
    EXPECT_NE(refused.error().message.find("number"), std::string::npos) << refused.error().message;
  }
  EXPECT_TRUE(detached.empty());
}

TEST_F(OddNumbersTest, ANumberThatAnotherHasStaysTheOthers) {
  Member& first = add();
  const auto took = take(first);
  ASSERT_TRUE(took.ok()) << took.error().message;
  Member& second = add();
  const auto refused = take(second);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::io);
  ASSERT_TRUE(world.net.run(second.close()).ok());
  EXPECT_TRUE(detached.empty());
  EXPECT_TRUE(first.taken());
  EXPECT_TRUE(world.write(first, 0, 1, 1).ok());
  // It is the first one that is told.
  node.connections.clear();
  ASSERT_TRUE(world.net.run_until([&] { return recorder.failed.size() == 1; }));
  EXPECT_EQ(recorder.failed[0], "m0");
}

}  // namespace
}  // namespace basalt::bdev
