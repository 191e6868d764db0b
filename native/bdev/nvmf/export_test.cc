// SPDX-License-Identifier: Apache-2.0
// Exports: several namespaces over one bdev, each behind a gate of its own that lives in memory (decision 020). Members
// of other nodes take them over by the link that they share, and what an earlier holder left behind reaches nobody.
#include <optional>

#include "bdev/nvmf/link_world_testing.h"

namespace basalt::bdev {
namespace {

using testing::LinkWorld;
using testing::TestDisk;
using testing::TestIo;

class ExportTest : public LinkWorld {
 protected:
  static constexpr uint64_t floor = 7;
  ~ExportTest() override {
    part.release();
    for (auto& member : members)
      (void)world.net.run(member->close());
    members.clear();
    world.net.run_void(links.close());
    world.close();
  }
  void open(const std::string& front, uint64_t epoch) {
    nvmf::Subsystem* made = world.add_subsystem(front, &part, true, epoch);
    EXPECT_TRUE(world.net.run(made->add_listener(world.as_listen(address, "TCP"))).ok());
  }
  void shut(const std::string& front) { EXPECT_TRUE(world.net.run(world.target->delete_subsystem(front)).ok()); }
  Member& of(const std::string& name, const std::string& front) {
    MemberOptions options;
    options.name = name;
    options.address = address;
    options.subnqn = front;
    options.hostnqn = testing::test_hostnqn;
    options.link_nqn = testing::test_link_nqn;
    members.push_back(std::make_unique<Member>(world.host, world.tcp, options, &links));
    members.back()->set_listener(&recorder);
    return *members.back();
  }
  Member& held(const std::string& name, const std::string& front, uint64_t epoch) {
    Member& member = of(name, front);
    const auto result = take(member, epoch);
    EXPECT_TRUE(result.ok()) << result.error().message;
    return member;
  }

  const std::string a = "nqn.2026-01.test:front-a";
  const std::string b = "nqn.2026-01.test:front-b";
  TestDisk part{world.home, 1024, 99};
};

TEST_F(ExportTest, ObeysNoEpochBelowTheOneThatItWasOpenedWith) {
  open(a, floor);
  Member& early = of("early", a);
  const auto refused = take(early, floor - 1);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::fenced);
  Member& present = held("present", a, floor);
  EXPECT_TRUE(present.shares_link());
  EXPECT_TRUE(world.write(present, 3, 1, 1).ok());
  EXPECT_EQ(part.bytes[3 * 4096], 1);
}

TEST_F(ExportTest, KeepsNothingOnTheBdev) {
  open(a, floor);
  (void)held("m", a, floor + 5);
  EXPECT_EQ(part.attribute(), "");
}

TEST_F(ExportTest, FrontsWriteOneBdevAtOnceAndEachIsTakenOverByItself) {
  open(a, floor);
  open(b, 2);
  Member& one = held("one", a, floor);
  Member& other = held("other", b, 2);
  EXPECT_TRUE(world.write(one, 0, 1, 1).ok());
  EXPECT_TRUE(world.write(other, 1, 1, 2).ok());
  EXPECT_EQ(world.read(one, 1, 1), 2);
  Member& next = held("next", a, floor + 1);
  EXPECT_TRUE(world.write(one, 0, 1, 9).is(nvme::status::reservation_conflict));
  EXPECT_TRUE(world.write(next, 0, 1, 3).ok());
  EXPECT_TRUE(world.write(other, 1, 1, 4).ok());
  EXPECT_EQ(part.bytes[0], 3);
  EXPECT_EQ(part.bytes[4096], 4);
}

// In the owner: the part has it, and waits for its own replicas.
TEST_F(ExportTest, ATakeoverWaitsForWhatTheOwnerHasOfTheEarlierHolderAndOfNobodyElse) {
  open(a, floor);
  open(b, floor);
  Member& old_one = held("old", a, floor);
  Member& other = held("other", b, floor);
  part.hold = true;
  TestIo parked(IoType::write, 0, 1);
  old_one.submit(&parked);
  ASSERT_TRUE(await([&] { return part.held.size() == 1; }));
  bdev::Io* const first = part.held.front();
  Member& next = of("next", a);
  std::optional<Result<MemberInfo>> result;
  spawn([](Member* member, std::optional<Result<MemberInfo>>* out) -> Task<void> {
    auto taken = co_await member->takeover(floor + 1, seconds(3));
    out->emplace(std::move(taken));
  }(&next, &result));
  world.net.run_for(milliseconds(100));
  EXPECT_FALSE(result.has_value());
  // What comes meanwhile is refused, and the other front goes on.
  EXPECT_TRUE(world.write(old_one, 1, 1, 9).is(nvme::status::reservation_conflict));
  TestIo elsewhere(IoType::write, 2, 1);
  other.submit(&elsewhere);
  ASSERT_TRUE(await([&] { return part.held.size() == 2; }));
  part.held.pop_front();
  part.serve(first);
  ASSERT_TRUE(await([&] { return result.has_value(); }));
  EXPECT_TRUE(result->ok());
  EXPECT_TRUE(parked.ended);
  EXPECT_FALSE(elsewhere.ended);
  part.release();
  ASSERT_TRUE(await([&] { return elsewhere.ended; }));
}

// An owner that comes anew opens the export with the epoch that is in force by then.
TEST_F(ExportTest, WhoeverHeldItUnderAnEarlierEpochFindsItShutWhenItIsOpenedAnew) {
  open(a, floor);
  Member& old_one = held("old", a, floor);
  shut(a);
  EXPECT_FALSE(world.write(old_one, 0, 1, 9).ok());
  open(a, floor + 1);
  Member& back = of("back", a);
  const auto refused = take(back, floor);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::fenced);
  Member& next = held("next", a, floor + 1);
  EXPECT_TRUE(world.write(next, 0, 1, 1).ok());
  EXPECT_EQ(part.bytes[0], 1);
}

}  // namespace
}  // namespace basalt::bdev
