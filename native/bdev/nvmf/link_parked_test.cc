// SPDX-License-Identifier: Apache-2.0
// What an old epoch left behind on shared connections reaches nobody, wherever it was parked.
#include <cstring>

#include "bdev/nvmf/link_world_testing.h"

namespace basalt::bdev {
namespace {

using testing::LinkWorld;
using testing::TestIo;

// A host that says by itself what its commands carry, as what was parked somewhere would arrive.
class ParkedTest : public LinkWorld {
 protected:
  explicit ParkedTest(bool planted_ignore_epoch = false) : LinkWorld(planted_ignore_epoch) {
    nvmf::HostControllerOptions options;
    options.address = address;
    options.subnqn = testing::test_link_nqn;
    options.hostnqn = testing::test_hostnqn;
    options.hostid.bytes.fill(3);
    options.node_link = true;
    host = std::make_unique<nvmf::HostController>(world.host, world.tcp, options, nullptr);
    EXPECT_TRUE(world.net.run(host->connect()).ok());
  }
  ~ParkedTest() override { world.net.run_void(host->close()); }

  nvmf::HostController::Answer call(bool io, nvmf::HostController::Call call) {
    return world.net.run(io ? host->io_call(call) : host->call(call));
  }
  uint32_t attach(uint8_t identity, size_t replica = 0) {
    nvme::LinkAttachData data{};
    std::memset(data.hostid, identity, sizeof(data.hostid));
    data.nsid = 1;
    const std::string nqn = nqn_of(replica);
    std::memcpy(data.subnqn, nqn.data(), nqn.size());
    nvmf::HostController::Call request;
    request.command.opcode = static_cast<uint8_t>(nvme::AdminOpcode::link_attach);
    request.direction = nvme::DataDirection::host_to_controller;
    request.data = &data;
    request.data_bytes = sizeof(data);
    const auto answer = call(false, request);
    EXPECT_TRUE(answer.status.ok());
    return static_cast<uint32_t>(answer.value);
  }
  static uint64_t tag(uint8_t identity) { return 0x0101010101010101u * identity; }
  nvme::Status reserve(nvme::NvmOpcode opcode, uint32_t number, uint8_t identity, uint64_t epoch, uint64_t a,
                       uint64_t b, uint32_t cdw10) {
    uint64_t keys[2] = {a, b};
    nvmf::HostController::Call request;
    request.command.opcode = static_cast<uint8_t>(opcode);
    request.command.nsid = number;
    request.command.cdw10 = cdw10;
    request.command.set_link(tag(identity), epoch);
    request.direction = nvme::DataDirection::host_to_controller;
    request.data = keys;
    request.data_bytes = sizeof(keys);
    return call(true, request).status;
  }
  nvme::Status take_over(uint32_t number, uint8_t identity, uint64_t epoch) {
    constexpr uint32_t preempt_and_abort = 2 | 2 << 8;
    const auto status = reserve(nvme::NvmOpcode::reservation_register, number, identity, epoch, 0, epoch, 0);
    if (!status.ok()) return status;
    return reserve(nvme::NvmOpcode::reservation_acquire, number, identity, epoch, epoch, 0, preempt_and_abort);
  }
  nvme::Status write(uint32_t number, uint8_t identity, uint64_t epoch, uint8_t fill) {
    std::vector<uint8_t> bytes(4096, fill);
    nvmf::HostController::Call request;
    request.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::write);
    request.command.nsid = number;
    request.command.set_link(tag(identity), epoch);
    request.direction = nvme::DataDirection::host_to_controller;
    request.data = bytes.data();
    request.data_bytes = 4096;
    return call(true, request).status;
  }

  std::unique_ptr<nvmf::HostController> host;
};

class ParkedWithBug : public ParkedTest {
 protected:
  ParkedWithBug() : ParkedTest(true) {}
};

TEST_F(ParkedTest, AnOldEpochsWriteThatComesLateIsRefused) {
  const uint32_t number = attach(1);
  ASSERT_TRUE(take_over(number, 1, 5).ok());
  ASSERT_TRUE(write(number, 1, 5, 1).ok());
  ASSERT_TRUE(take_over(number, 1, 6).ok());
  EXPECT_TRUE(write(number, 1, 5, 2).is(nvme::status::reservation_conflict));
  EXPECT_EQ(disks[0]->bytes[0], 1);
  EXPECT_TRUE(write(number, 1, 6, 3).ok());
  EXPECT_EQ(disks[0]->bytes[0], 3);
}

// With the bug the test above would fail: an old write lands.
TEST_F(ParkedWithBug, AnEpochThatIsIgnoredIsFoundOut) {
  const uint32_t number = attach(1);
  ASSERT_TRUE(take_over(number, 1, 5).ok());
  ASSERT_TRUE(take_over(number, 1, 6).ok());
  EXPECT_TRUE(write(number, 1, 5, 2).ok());
  EXPECT_EQ(disks[0]->bytes[0], 2);
}

TEST_F(ParkedTest, AnEpochThatNobodyRegisteredIsRefused) {
  const uint32_t number = attach(1);
  ASSERT_TRUE(take_over(number, 1, 5).ok());
  EXPECT_TRUE(write(number, 1, 7, 2).is(nvme::status::reservation_conflict));
  EXPECT_TRUE(write(number, 1, 0, 2).is(nvme::status::invalid_field));
  EXPECT_TRUE(write(number, 2, 5, 2).is(nvme::status::reservation_conflict));  // another one's tag
  EXPECT_TRUE(write(number + 1, 1, 5, 2).is(nvme::status::invalid_namespace));
}

TEST_F(ParkedTest, ALowerEpochDoesNotComeBack) {
  const uint32_t number = attach(1);
  ASSERT_TRUE(take_over(number, 1, 6).ok());
  EXPECT_TRUE(take_over(number, 1, 5).is(nvme::status::reservation_conflict));
  EXPECT_TRUE(take_over(attach(2), 2, 5).is(nvme::status::reservation_conflict));
  EXPECT_TRUE(write(number, 1, 6, 1).ok());
}

TEST_F(ParkedTest, AnEpochIsRegisteredUnderItsOwnNameOnly) {
  const uint32_t number = attach(1);
  EXPECT_TRUE(reserve(nvme::NvmOpcode::reservation_register, number, 1, 5, 0, 6, 0).is(nvme::status::invalid_field));
}

TEST_F(ParkedTest, OneAttachmentsCommandsAreNotAnothersUnderOneEpoch) {
  const uint32_t a = attach(1);
  const uint32_t b = attach(2);
  ASSERT_TRUE(take_over(a, 1, 5).ok());
  EXPECT_TRUE(write(b, 2, 5, 1).is(nvme::status::reservation_conflict));
  ASSERT_TRUE(take_over(b, 2, 5).ok());  // the same owner, attached anew
  EXPECT_TRUE(write(a, 1, 5, 1).is(nvme::status::reservation_conflict));
  EXPECT_TRUE(write(b, 2, 5, 1).ok());
}

// Two connections: what the old epoch has sent on one waits in the target while the other takes over.
TEST_F(ParkedTest, WhatIsQueuedAtTheGateDuringATakeoverIsRefused) {
  Member& old_one = taken("old", 0, 5);
  disks[0]->hold = true;
  TestIo admitted(IoType::write, 0, 1);
  old_one.submit(&admitted);
  ASSERT_TRUE(await([&] { return disks[0]->held.size() == 1; }));
  const uint32_t number = attach(1);
  bool over = false;
  spawn([](nvmf::HostController* by, uint32_t at, uint64_t with, bool* done) -> Task<void> {
    uint64_t keys[2] = {0, 6};
    nvmf::HostController::Call request;
    request.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_register);
    request.command.nsid = at;
    request.command.set_link(with, 6);
    request.direction = nvme::DataDirection::host_to_controller;
    request.data = keys;
    request.data_bytes = sizeof(keys);
    auto answer = co_await by->io_call(request);
    EXPECT_TRUE(answer.status.ok());
    keys[0] = 6;
    keys[1] = 0;
    request.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_acquire);
    request.command.cdw10 = 2 | 2 << 8;
    answer = co_await by->io_call(request);
    EXPECT_TRUE(answer.status.ok());
    *done = true;
  }(host.get(), number, tag(1), &over));
  world.net.run_for(milliseconds(5));
  TestIo late(IoType::write, 1, 1);
  old_one.submit(&late);
  ASSERT_TRUE(await([&] { return late.ended; }, milliseconds(50)));
  EXPECT_TRUE(late.status.is(nvme::status::reservation_conflict));
  EXPECT_FALSE(over);
  disks[0]->release();
  ASSERT_TRUE(await([&] { return over && admitted.ended; }));
}

TEST_F(ParkedTest, OrdinarySubsystemsHaveNoAttachments) {
  nvmf::HostControllerOptions options;
  options.address = address;
  options.subnqn = nqn_of(0);
  options.hostnqn = testing::test_hostnqn;
  options.hostid.bytes.fill(4);
  nvmf::HostController plain(world.host, world.tcp, options, nullptr);
  ASSERT_TRUE(world.net.run(plain.connect()).ok());
  for (const auto code : {nvme::AdminOpcode::link_detach, nvme::AdminOpcode::link_attach}) {
    nvmf::HostController::Call request;
    nvme::LinkAttachData data{};
    request.command.opcode = static_cast<uint8_t>(code);
    if (code == nvme::AdminOpcode::link_attach) {
      request.direction = nvme::DataDirection::host_to_controller;
      request.data = &data;
      request.data_bytes = sizeof(data);
    }
    EXPECT_TRUE(world.net.run(plain.call(request)).status.is(nvme::status::invalid_opcode));
  }
  world.net.run_void(plain.close());
}

}  // namespace
}  // namespace basalt::bdev
