// SPDX-License-Identifier: Apache-2.0
// Goal: what is taken away piece by piece and what is deleted as a whole do not meet. Method: a disk that holds its
// requests keeps a removal waiting, and the subsystem is deleted meanwhile.
#include <optional>

#include "nvmf/transport/target_world_testing.h"

namespace basalt::testing {
namespace {

Task<void> record(Task<Outcome> task, std::optional<Outcome>* result) {
  result->emplace(co_await task);
}

struct HeldFlush : ns::NsIo {
  bool ended = false;
  HeldFlush() {
    type = bdev::IoType::flush;
    done = [](bdev::Io* io) { static_cast<HeldFlush*>(static_cast<ns::NsIo*>(io))->ended = true; };
  }
};

TEST(SubsystemRemoval, DeletionWaitsForANamespaceThatIsBeingRemoved) {
  TargetWorld world;
  TestDisk disk(world.home, 64, 1);
  disk.hold = true;
  nvmf::Subsystem* subsystem = world.add_subsystem(test_subnqn, &disk);
  HeldFlush flush;
  subsystem->find_namespace(1)->submit(&flush, world.home);
  std::optional<Outcome> removed;
  std::optional<Outcome> deleted;
  spawn(record(subsystem->remove_namespace(1), &removed));
  world.net.run_for(milliseconds(5));
  spawn(record(world.target->delete_subsystem(test_subnqn), &deleted));
  world.net.run_for(milliseconds(50));
  EXPECT_FALSE(removed.has_value());
  EXPECT_FALSE(deleted.has_value()) << "the disk still has a request of the subsystem's namespace";
  EXPECT_FALSE(flush.ended);
  disk.release();
  ASSERT_TRUE(world.net.run_until([&] { return removed.has_value() && deleted.has_value(); }, seconds(5)));
  EXPECT_TRUE(flush.ended);
  EXPECT_TRUE(removed->ok());
  EXPECT_TRUE(deleted->ok());
  EXPECT_EQ(world.target->find_subsystem(test_subnqn), nullptr);
}

class SubsystemRemovalOver : public ::testing::TestWithParam<const char*> {};

TEST_P(SubsystemRemovalOver, ASubsystemThatIsBeingDeletedRefusesPiecewiseRemoval) {
  TargetWorld world;
  TestDisk disk(world.home, 64, 1);
  disk.hold = true;
  nvmf::Subsystem* subsystem = world.add_subsystem(test_subnqn, &disk);
  const nvmf::HostAddress address = world.listen(subsystem, GetParam());
  HeldFlush flush;
  subsystem->find_namespace(1)->submit(&flush, world.home);
  std::optional<Outcome> removed;
  std::optional<Outcome> deleted;
  spawn(record(world.target->delete_subsystem(test_subnqn), &deleted));
  spawn(record(subsystem->remove_listener(world.as_listen(address, GetParam())), &removed));
  world.net.run_for(milliseconds(5));
  ASSERT_TRUE(removed.has_value());
  EXPECT_EQ(removed->error().code, Errc::closed);
  disk.release();
  ASSERT_TRUE(world.net.run_until([&] { return deleted.has_value(); }, seconds(5)));
  EXPECT_TRUE(deleted->ok());
}

INSTANTIATE_TEST_SUITE_P(All, SubsystemRemovalOver, ::testing::Values("TCP", "RDMA", "LOOPBACK"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace basalt::testing
