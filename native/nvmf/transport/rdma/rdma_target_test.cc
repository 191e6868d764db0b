// SPDX-License-Identifier: Apache-2.0
// Goal: what a host does wrong on NVMe/RDMA has an exact answer, costs little, and leaks nothing. Method: a host that
// is used by hand against the real target; at the end the world finds no connection, registration, window or queue
// left.
#include "nvmf/transport/rdma/rdma_target.h"

#include "nvmf/host/controller.h"
#include "nvmf/transport/rdma/raw_rdma_testing.h"
#include "nvmf/transport/target_world_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::RawRdma;
using basalt::testing::TargetWorld;
using basalt::testing::TestDisk;
using State = env::RdmaConnection::State;
using rdma::RejectStatus;

constexpr size_t data_at = 32 << 10;  // in the raw host's memory

class RdmaTarget : public ::testing::Test {
 protected:
  explicit RdmaTarget(const RdmaTargetOptions& options = {}) : world(3, options) {
    subsystem = world.add_subsystem(basalt::testing::test_subnqn, &disk);
    address = world.listen(subsystem, "RDMA");
  }
  ~RdmaTarget() override {
    raw.end();
    EXPECT_TRUE(world.net.run_until([&] { return world.rdma_target->connection_count() == 0; }, seconds(60)));
    EXPECT_EQ(world.home.buffers().in_use_count() + world.host.buffers().in_use_count(), 0u);
    world.close();
  }
  uint16_t port() const { return TargetWorld::port(address); }
  RejectStatus rejection(std::span<const uint8_t> private_data) {
    if (raw.connect(port(), private_data) != State::broken) return RejectStatus::none;
    rdma::RejectData reason{};
    EXPECT_EQ(raw.connection->why(), env::RdmaConnection::Cause::rejected);
    EXPECT_TRUE(rdma::read_private_data(raw.connection->private_data(), &reason));
    raw.end();
    return static_cast<RejectStatus>(reason.status);
  }
  static rdma::RequestData good() {
    rdma::RequestData request{};
    request.hrqsize = 32;
    request.hsqsize = 31;
    return request;
  }
  nvme::Command command(nvme::AdminOpcode opcode) {
    nvme::Command out{};
    out.opcode = static_cast<uint8_t>(opcode);
    out.flags = 0x40;
    out.cid = ++cid_;
    out.sgl = rdma::encode_keyed({});
    return out;
  }
  // The Connect of an admin queue, its data in the capsule.
  void associate() {
    ASSERT_EQ(raw.connect(port()), State::established);
    nvme::ConnectData data{};
    data.hostid[0] = 1;
    data.cntlid = nvme::cntlid_any;
    std::strcpy(data.subnqn, basalt::testing::test_subnqn);
    std::strcpy(data.hostnqn, basalt::testing::test_hostnqn);
    nvme::ConnectCommand connect{};
    connect.opcode = static_cast<uint8_t>(nvme::AdminOpcode::fabrics);
    connect.fctype = static_cast<uint8_t>(nvme::FabricsType::connect);
    connect.flags = 0x40;
    connect.cid = ++cid_;
    connect.sqsize = 31;
    connect.sgl.type_subtype = nvme::sgl_data_block_offset;
    connect.sgl.length_bytes = sizeof(data);
    nvme::Command capsule;
    std::memcpy(&capsule, &connect, sizeof(capsule));
    raw.send(capsule, {reinterpret_cast<const uint8_t*>(&data), sizeof(data)});
    nvme::Completion completion;
    ASSERT_TRUE(raw.response(&completion));
    ASSERT_EQ(completion.status >> 1, 0);
    nvme::PropertyCommand enable{};
    enable.opcode = connect.opcode;
    enable.fctype = static_cast<uint8_t>(nvme::FabricsType::property_set);
    enable.flags = 0x40;
    enable.cid = ++cid_;
    enable.offset = nvme::property_cc;
    enable.value = cc_enabled;
    std::memcpy(&capsule, &enable, sizeof(capsule));
    ASSERT_TRUE(answer(capsule).ok());
  }
  // Identify Controller into memory[data_at, +4096), by this key.
  nvme::Command identify(uint32_t key, uint64_t address_in_memory, bool invalidate = false) {
    nvme::Command out = command(nvme::AdminOpcode::identify);
    out.cdw10 = 1;
    out.sgl =
        rdma::encode_keyed({.address = address_in_memory, .length_bytes = 4096, .key = key, .invalidate = invalidate});
    return out;
  }
  nvme::Status answer(const nvme::Command& capsule, std::span<const uint8_t> tail = {}) {
    raw.send(capsule, tail);
    nvme::Completion completion{};
    EXPECT_TRUE(raw.response(&completion));
    EXPECT_EQ(completion.cid, capsule.cid);
    return {static_cast<uint16_t>(completion.status >> 1)};
  }

  TargetWorld world;
  TestDisk disk{world.home, 2048, 1};
  Subsystem* subsystem = nullptr;
  HostAddress address;
  RawRdma raw{world.net, world.host};
  uint16_t cid_ = 0;
};

TEST_F(RdmaTarget, RefusesPrivateDataThatIsWrongAndSaysWhatIs) {
  world.net.rdma().knobs.pad_private_data_chance = 0;
  rdma::RequestData request = good();
  EXPECT_EQ(rejection(rdma::private_bytes(request).first(31)), RejectStatus::invalid_private_data_length);
  EXPECT_EQ(rejection({}), RejectStatus::invalid_private_data_length);
  request.recfmt = 1;
  EXPECT_EQ(rejection(rdma::private_bytes(request)), RejectStatus::invalid_recfmt);
  request = good();
  request.hsqsize = 0;
  EXPECT_EQ(rejection(rdma::private_bytes(request)), RejectStatus::invalid_hsqsize);
  request.hsqsize = queue_entries_max;
  EXPECT_EQ(rejection(rdma::private_bytes(request)), RejectStatus::invalid_hsqsize);
  request = good();
  request.hrqsize = 0;
  EXPECT_EQ(rejection(rdma::private_bytes(request)), RejectStatus::invalid_hrqsize);
  EXPECT_EQ(world.rdma_target->stats().rejected_count.load(), 6u);
  EXPECT_EQ(raw.connect(port()), State::established);
}

TEST_F(RdmaTarget, RefusesConnectionsWhenMemoryCannotBeRegistered) {
  world.net.rdma().knobs.pinned_bytes_max = 2 << 20;  // the raw host's is little
  EXPECT_EQ(rejection(rdma::private_bytes(good())), RejectStatus::no_resources);
}

TEST_F(RdmaTarget, AcceptsWithTheSizeOfItsReceiveQueue) {
  ASSERT_EQ(raw.connect(port(), 17), State::established);
  rdma::AcceptData accepted;
  ASSERT_TRUE(rdma::read_private_data(raw.connection->private_data(), &accepted));
  EXPECT_EQ(accepted.recfmt, rdma::record_format);
  EXPECT_EQ(accepted.crqsize, 17);
}

TEST_F(RdmaTarget, ACapsuleShorterThanACommandEndsTheConnection) {
  ASSERT_EQ(raw.connect(port()), State::established);
  raw.post(RawRdma::Type::send, 0, sizeof(nvme::Command) - 1);
  EXPECT_TRUE(raw.wait_over());
  EXPECT_EQ(world.rdma_target->stats().wire_error_count.load(), 1u);
}

TEST_F(RdmaTarget, ACapsuleLongerThanIdentifyAllowsEndsTheConnection) {
  ASSERT_EQ(raw.connect(port()), State::established);
  const size_t sent = raw.post(RawRdma::Type::send, 0, sizeof(nvme::Command) + 8192 + 1);
  EXPECT_EQ(raw.wait(sent), env::RdmaStatus::remote_error);
  EXPECT_TRUE(raw.wait_over());
}

TEST_F(RdmaTarget, IdentifySaysThatKeysAreUsedAndTheResponseInvalidatesThem) {
  associate();
  const uint32_t key = raw.open(data_at, 4096, true);
  ASSERT_TRUE(answer(identify(key, raw.address(data_at), true)).ok());
  EXPECT_TRUE(raw.last.invalidated);
  EXPECT_EQ(raw.last.key, key);
  nvme::IdentifyController id;
  std::memcpy(&id, raw.memory.data() + data_at, sizeof(id));
  EXPECT_NE(id.sgls & 1u << 2, 0u);
  EXPECT_NE(id.sgls & 1u << 20, 0u);
  EXPECT_EQ(id.sgls & 1u << 21, 0u);
  EXPECT_EQ(id.icdoff, 0);
  // Without being asked to, it invalidates nothing.
  const uint32_t again = raw.open(data_at, 4096, true);
  ASSERT_TRUE(answer(identify(again, raw.address(data_at))).ok());
  EXPECT_FALSE(raw.last.invalidated);
  EXPECT_EQ(raw.wait(raw.post(RawRdma::Type::invalidate, 0, 0)), env::RdmaStatus::success);
}

TEST_F(RdmaTarget, AKeyedSglOutOfItsBoundsEndsThatConnectionAndNoOther) {
  associate();
  RawRdma other(world.net, world.host);
  ASSERT_EQ(other.connect(port()), State::established);
  const uint32_t key = raw.open(data_at, 4096, true);
  raw.memory[data_at + 4096] = 0x5a;
  raw.send(identify(key, raw.address(data_at) + 1));
  EXPECT_TRUE(raw.wait_over());
  EXPECT_EQ(raw.memory[data_at + 4096], 0x5a);
  EXPECT_EQ(raw.memory[data_at], 0);
  world.net.run_for(milliseconds(50));
  EXPECT_FALSE(other.over());
}

TEST_F(RdmaTarget, AnUnknownKeyAndAKeyForTheOtherDirectionEndTheConnection) {
  associate();
  raw.send(identify(0x1234567, raw.address(data_at)));
  EXPECT_TRUE(raw.wait_over());
  raw.end();
  associate();
  const uint32_t key = raw.open(data_at, 4096, false);
  raw.send(identify(key, raw.address(data_at)));
  EXPECT_TRUE(raw.wait_over());
}

TEST_F(RdmaTarget, OtherKindsOfSglsAreRefusedByStatus) {
  associate();
  for (const uint8_t type : {uint8_t{0x00}, uint8_t{nvme::sgl_transport_data_block}, uint8_t{0x30}, uint8_t{0x41},
                             uint8_t{nvme::sgl_data_block_offset}}) {
    nvme::Command capsule = identify(0, 0);
    capsule.sgl.type_subtype = type;
    EXPECT_TRUE(answer(capsule).is(nvme::status::sgl_type_invalid)) << int{type};
  }
  EXPECT_FALSE(raw.over());
}

TEST_F(RdmaTarget, InCapsuleDataMustBeThere) {
  ASSERT_EQ(raw.connect(port()), State::established);
  nvme::Command capsule = command(nvme::AdminOpcode::fabrics);
  capsule.nsid = static_cast<uint32_t>(nvme::FabricsType::connect);
  capsule.sgl = {};
  capsule.sgl.type_subtype = nvme::sgl_data_block_offset;
  capsule.sgl.length_bytes = 1024;
  const std::vector<uint8_t> tail(1023);
  EXPECT_TRUE(answer(capsule, tail).is(nvme::status::data_sgl_length_invalid));
}

TEST_F(RdmaTarget, MoreCommandsThanTheQueueHoldsEndTheConnection) {
  ASSERT_EQ(raw.connect(port()), State::established);
  for (int i = 0; i < 2; i++) {  // until Connect there may be one
    nvme::Command capsule = command(nvme::AdminOpcode::identify);
    raw.send(capsule);
  }
  EXPECT_TRUE(raw.wait_over());
}

TEST_F(RdmaTarget, ACommandIdentifierInUseIsRefused) {
  associate();
  nvme::Command parked = command(nvme::AdminOpcode::async_event_request);
  raw.send(parked);
  nvme::Command same = command(nvme::AdminOpcode::keep_alive);
  same.cid = parked.cid;
  EXPECT_TRUE(answer(same).is(nvme::status::command_id_conflict));
}

TEST_F(RdmaTarget, AHostThatPostsNoReceivesLosesItsConnection) {
  ASSERT_EQ(raw.connect(port(), 32, 0), State::established);
  raw.send(command(nvme::AdminOpcode::identify));
  EXPECT_TRUE(raw.wait_over());
  EXPECT_EQ(world.rdma_target->stats().wire_error_count.load(), 1u);
}

TEST_F(RdmaTarget, AHostThatConnectsAndSaysNothingIsGivenUp) {
  ASSERT_EQ(raw.connect(port()), State::established);
  EXPECT_EQ(world.rdma_target->half_open_count(), 1u);
  EXPECT_TRUE(raw.wait_over(seconds(30)));
  EXPECT_EQ(world.rdma_target->half_open_count(), 0u);
}

// Capsules of any content and length, with keys that fit and that do not.
TEST_F(RdmaTarget, RandomCapsulesLeakNothingAndHarmNobodyElse) {
  const auto draw = [&](uint64_t below) { return world.net.draw(below); };
  for (int round = 0; round < 60; round++) {
    SCOPED_TRACE("round " + std::to_string(round));
    raw.end();
    if (draw(4) == 0) {
      std::vector<uint8_t> data(draw(env::rdma_request_private_bytes_max + 1));
      world.net.random(data.data(), data.size());
      raw.connect(port(), data);
      continue;
    }
    associate();
    const uint32_t key = raw.open(data_at, 16 << 10, draw(2) == 0);
    for (uint64_t i = draw(12) + 1; i > 0 && !raw.over(); i--) {
      constexpr uint8_t opcodes[] = {0x00, 0x02, 0x06, 0x09, 0x0a, 0x0c, 0x18, 0x7f, 0x08, 0x38};
      constexpr uint8_t types[] = {0x40, 0x4f, 0x01, 0x5a, 0x00};
      nvme::Command capsule{};
      world.net.random(&capsule, sizeof(capsule));
      capsule.opcode = opcodes[draw(std::size(opcodes))];
      if (draw(8) != 0) capsule.flags = 0x40;
      if (draw(4) != 0) capsule.cdw10 = static_cast<uint32_t>(draw(16));
      if (draw(4) != 0) capsule.nsid = static_cast<uint32_t>(draw(9));
      const uint8_t type = types[draw(std::size(types))];
      const auto length = static_cast<uint32_t>(draw(4) == 0 ? draw(1 << 24) : draw(16 << 10));
      capsule.sgl = rdma::encode_keyed({.address = raw.address(data_at) + (draw(6) == 0 ? draw(1 << 20) : 0),
                                        .length_bytes = length,
                                        .key = draw(6) == 0 ? static_cast<uint32_t>(draw(UINT32_MAX)) : key,
                                        .invalidate = false});
      if (type == nvme::sgl_data_block_offset) capsule.sgl.address = draw(4) == 0 ? draw(8192) : 0;
      capsule.sgl.type_subtype = type;
      const std::vector<uint8_t> tail(draw(3) == 0 ? draw(9000) : 0, 0x5a);
      raw.send(capsule, tail);
      world.net.run_for(microseconds(static_cast<int64_t>(draw(200))));
    }
    world.net.run_for(milliseconds(1));
  }
  raw.end();
  EXPECT_TRUE(world.net.run_until([&] { return world.rdma_target->connection_count() == 0; }, seconds(60)));
  EXPECT_EQ(world.home.buffers().in_use_count() + world.host.buffers().in_use_count(), 0u);
  associate();
}

TEST_F(RdmaTarget, ListensBeyondLoopbackOnlyOnATrustedNetwork) {
  ListenAddress elsewhere;
  elsewhere.trtype = "RDMA";
  elsewhere.traddr = "192.0.2.1";
  elsewhere.trsvcid = "0";
  EXPECT_EQ(world.net.run(subsystem->add_listener(elsewhere)).error().code, Errc::permission);
  elsewhere.traddr = "127.0.0.1";
  elsewhere.secure_channel = true;
  EXPECT_EQ(world.net.run(subsystem->add_listener(elsewhere)).error().code, Errc::unsupported);
}

}  // namespace
}  // namespace basalt::nvmf
