// SPDX-License-Identifier: Apache-2.0
// Notes that members leave with their replicas: commands behind the real target's one-writer gate, kept in one
// attribute with it.
#include "bdev/nvmf/member.h"
#include "ns/gate_record.h"
#include "nvmf/transport/target_world_testing.h"

namespace basalt::bdev {
namespace {

using basalt::testing::TargetWorld;
using basalt::testing::TestDisk;

constexpr char replica_nqn[] = "nqn.2026-01.test:replica";

class MemberNote : public ::testing::TestWithParam<const char*> {
 protected:
  explicit MemberNote(bool one_writer = true) {
    subsystem = world.add_subsystem(replica_nqn, &disk, one_writer);
    address = world.listen(subsystem, trtype());
    if (is_link()) world.add_node_link(address);
  }
  ~MemberNote() override {
    disk.hold_attributes = false;
    for (auto& member : members)
      (void)world.net.run(member->close());
    world.net.run_void(links.close());
    world.close();
  }
  Member& made(const std::string& name) {
    MemberOptions options;
    options.name = name;
    options.address = address;
    options.subnqn = replica_nqn;
    options.hostnqn = basalt::testing::test_hostnqn;
    if (is_link()) options.link_nqn = basalt::testing::test_link_nqn;
    members.push_back(std::make_unique<Member>(world.host, world.transport(trtype()), options, &links));
    return *members.back();
  }
  Member& taken(const std::string& name, uint64_t epoch) {
    Member& member = made(name);
    EXPECT_TRUE(world.net.run(member.takeover(epoch, seconds(3))).ok());
    return member;
  }
  static bool is_link() { return std::string(GetParam()) == "LINK"; }
  static const char* trtype() { return is_link() ? "TCP" : GetParam(); }
  std::string write(Member& member, const std::string& note) {
    const Outcome outcome = world.net.run(member.write_note(note));
    return outcome.ok() ? "ok" : errc_name(outcome.error().code);
  }
  std::string read(Member& member) {
    const auto note = world.net.run(member.read_note());
    return note.ok() ? note.value() : std::string("! ") + errc_name(note.error().code);
  }
  static Task<void> keep(Task<Outcome> writing, bool& ended, Outcome& outcome) {
    outcome = co_await writing;
    ended = true;
  }
  static Task<void> take(Member& member, uint64_t epoch, bool& ended) {
    const auto taken = co_await member.takeover(epoch, seconds(3));
    ended = taken.ok();
  }

  TargetWorld world{35};
  Links links{world.host, world.tcp};
  TestDisk disk{world.home, 64, 1};
  nvmf::Subsystem* subsystem = nullptr;
  nvmf::HostAddress address;
  std::vector<std::unique_ptr<Member>> members;
};

TEST_P(MemberNote, IsKeptThroughTakeovers) {
  Member& first = taken("a", 3);
  EXPECT_EQ(read(first), "");
  const std::string longest(nvme::note_bytes_max, 'x');
  EXPECT_EQ(write(first, longest), "ok");
  EXPECT_EQ(read(first), longest);
  EXPECT_EQ(write(first, "short"), "ok");
  Member& second = taken("b", 4);
  EXPECT_EQ(read(second), "short");
  EXPECT_EQ(ns::decode_note(disk.attribute()).value(), "short");
  EXPECT_EQ(ns::highest_epoch(disk.attribute()).value(), 4u);
}

TEST_P(MemberNote, TheSameOneAgainWritesNothing) {
  Member& member = taken("a", 3);
  EXPECT_EQ(write(member, "note"), "ok");
  const size_t before = disk.attribute_count;
  EXPECT_EQ(write(member, "note"), "ok");
  EXPECT_EQ(disk.attribute_count, before);
}

TEST_P(MemberNote, AnOldEpochNeitherWritesNorReadsOne) {
  Member& old_one = taken("old", 3);
  EXPECT_EQ(write(old_one, "old"), "ok");
  taken("new", 4);
  EXPECT_NE(write(old_one, "late"), "ok");
  EXPECT_EQ(read(old_one).substr(0, 1), "!");
  EXPECT_EQ(ns::decode_note(disk.attribute()).value(), "old");
}

TEST_P(MemberNote, ATakeoverComesBeforeOneOrFindsItDurable) {
  Member& old_one = taken("old", 3);
  disk.hold_attributes = true;
  bool written = false;
  Outcome outcome = success();
  spawn(keep(old_one.write_note("last words"), written, outcome));
  world.net.run_for(milliseconds(20));
  Member& next = made("new");
  bool over = false;
  spawn(take(next, 4, over));
  world.net.run_for(milliseconds(20));
  EXPECT_FALSE(over);
  disk.hold_attributes = false;
  ASSERT_TRUE(world.net.run_until([&] { return over && written; }, seconds(10)));
  EXPECT_EQ(read(next), "last words");
  EXPECT_EQ(ns::highest_epoch(disk.attribute()).value(), 4u);
}

TEST_P(MemberNote, OneThatTheDiskDoesNotTakeIsNotPromised) {
  Member& member = taken("a", 3);
  EXPECT_EQ(write(member, "first"), "ok");
  disk.fail_attributes = true;
  EXPECT_NE(write(member, "second"), "ok");
  EXPECT_EQ(read(member), "first");
}

TEST_P(MemberNote, OneThatIsTooLongOrEmptyIsRefused) {
  Member& member = taken("a", 3);
  EXPECT_EQ(write(member, ""), errc_name(Errc::invalid_argument));
  EXPECT_EQ(write(member, std::string(nvme::note_bytes_max + 1, 'x')), errc_name(Errc::invalid_argument));
}

class MemberNoteOfVolume : public MemberNote {
 protected:
  MemberNoteOfVolume() : MemberNote(false) {}
};

TEST_P(MemberNoteOfVolume, WithoutAGateThereIsNone) {
  Member& member = taken("a", 3);
  EXPECT_EQ(write(member, "note"), errc_name(Errc::unsupported));
  EXPECT_EQ(read(member), std::string("! ") + errc_name(Errc::unsupported));
}

INSTANTIATE_TEST_SUITE_P(Transports, MemberNote, ::testing::Values("TCP", "LOOPBACK", "LINK"));
INSTANTIATE_TEST_SUITE_P(Transports, MemberNoteOfVolume, ::testing::Values("TCP"));

}  // namespace
}  // namespace basalt::bdev
