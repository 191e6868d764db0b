// SPDX-License-Identifier: Apache-2.0
// LinkWorld: a node with replicas and a link, and members of another one that share it.
#pragma once

#include <string>
#include <vector>

#include "bdev/nvmf/member.h"
#include "nvmf/transport/target_world_testing.h"

namespace basalt::bdev::testing {

using basalt::testing::TargetWorld;
using basalt::testing::test_hostnqn;
using basalt::testing::test_link_nqn;
using basalt::testing::TestDisk;
using basalt::testing::TestIo;

struct Recorder : Member::Listener {
  std::vector<std::string> failed;
  std::vector<Error> reasons;
  void member_failed(Member& member, const Error& reason) override {
    failed.push_back(member.options().name);
    reasons.push_back(reason);
  }
};

class LinkWorld : public ::testing::Test {
 protected:
  explicit LinkWorld(bool planted_ignore_epoch = false) {
    for (uint8_t i = 0; i < replica_count; i++) {
      disks.push_back(std::make_unique<TestDisk>(world.home, 1024, static_cast<uint8_t>(i + 1)));
      replicas.push_back(world.add_subsystem(nqn_of(i), disks.back().get(), true));
      if (i == 0) {
        address = world.listen(replicas[0], "TCP");
      } else {
        EXPECT_TRUE(world.net.run(replicas[i]->add_listener(world.as_listen(address, "TCP"))).ok());
      }
    }
    link = world.add_node_link(address, planted_ignore_epoch);
  }
  ~LinkWorld() override {
    for (auto& disk : disks)
      disk->release();
    for (auto& member : members)
      (void)world.net.run(member->close());
    world.net.run_void(links.close());
    world.close();
  }
  static std::string nqn_of(size_t replica) { return "nqn.2026-01.test:replica" + std::to_string(replica); }
  Member& make(const std::string& name, size_t replica, Duration command_timeout = MemberOptions{}.command_timeout) {
    MemberOptions options;
    options.command_timeout = command_timeout;
    options.name = name;
    options.address = address;
    options.subnqn = nqn_of(replica);
    options.hostnqn = test_hostnqn;
    options.link_nqn = test_link_nqn;
    members.push_back(std::make_unique<Member>(world.host, world.tcp, options, &links));
    members.back()->set_listener(&recorder);
    return *members.back();
  }
  Result<MemberInfo> take(Member& member, uint64_t epoch, Duration timeout = seconds(3)) {
    return world.net.run(member.takeover(epoch, timeout));
  }
  Member& taken(const std::string& name, size_t replica, uint64_t epoch = 5) {
    Member& member = make(name, replica);
    const auto result = take(member, epoch);
    EXPECT_TRUE(result.ok()) << result.error().message;
    return member;
  }
  bool await(const std::function<bool()>& condition, Duration limit = seconds(10)) {
    return world.net.run_until(condition, limit);
  }

  static constexpr size_t replica_count = 8;
  TargetWorld world{44};
  std::vector<std::unique_ptr<TestDisk>> disks;
  std::vector<nvmf::Subsystem*> replicas;
  nvmf::Subsystem* link = nullptr;
  nvmf::HostAddress address;
  Recorder recorder;
  Links links{world.host, world.tcp};
  std::vector<std::unique_ptr<Member>> members;
};

}  // namespace basalt::bdev::testing
