// SPDX-License-Identifier: Apache-2.0
// The contract of a host transport, the same for all of them, against the real target: commands complete once and
// later, with exact statuses and the right bytes; closing ends the association before anything completes as lost.
#include "nvmf/host/controller.h"
#include "nvmf/transport/target_world_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::TargetWorld;
using basalt::testing::TestDisk;

struct Recorder : HostController::Listener {
  std::vector<Error> lost;
  size_t changes = 0;
  void controller_lost(const Error& reason) override { lost.push_back(reason); }
  void namespaces_changed() override { changes++; }
};

struct Ended : HostCommand {
  int ended_count = 0;
};

class HostTransportContract : public ::testing::TestWithParam<const char*> {
 protected:
  HostTransportContract() {
    subsystem = world.add_subsystem(basalt::testing::test_subnqn, &disk);
    address = world.listen(subsystem, GetParam());
  }
  ~HostTransportContract() override {
    if (controller) world.net.run_void(controller->close());
    world.close();
  }
  HostControllerOptions options() {
    HostControllerOptions out;
    out.address = address;
    out.subnqn = basalt::testing::test_subnqn;
    out.hostnqn = basalt::testing::test_hostnqn;
    out.hostid.bytes[0] = 1;
    out.io_queue_count = 2;
    return out;
  }
  Outcome connect(HostControllerOptions with) {
    controller = std::make_unique<HostController>(world.host, world.transport(GetParam()), std::move(with), &recorder);
    return world.net.run(controller->connect());
  }
  void fill(Ended& command, nvme::NvmOpcode opcode, uint64_t block, Iovec* piece) {
    command.command.opcode = static_cast<uint8_t>(opcode);
    command.command.nsid = 1;
    command.command.cdw10 = static_cast<uint32_t>(block);
    command.data_bytes = static_cast<uint32_t>(piece->length_bytes);
    command.command.cdw12 = command.data_bytes / 4096 - 1;
    command.direction = nvme::data_direction(command.command.opcode);
    command.iov = piece;
    command.iov_count = 1;
    command.done = [](HostCommand* done) { static_cast<Ended*>(done)->ended_count++; };
  }
  nvme::Status io(nvme::NvmOpcode opcode, uint64_t block, std::vector<uint8_t>& data) {
    Iovec piece{data.data(), data.size()};
    Ended command;
    fill(command, opcode, block, &piece);
    controller->submit(&command);
    EXPECT_EQ(command.ended_count, 0);
    EXPECT_TRUE(world.net.run_until([&] { return command.ended_count > 0; }));
    return command.status();
  }

  TargetWorld world{7};
  TestDisk disk{world.home, 2048, 1};
  Subsystem* subsystem = nullptr;
  HostAddress address;
  Recorder recorder;
  std::unique_ptr<HostController> controller;
};

TEST_P(HostTransportContract, ConnectsIdentifiesAndMovesData) {
  const Outcome outcome = connect(options());
  ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  EXPECT_EQ(controller->io_queue_count(), 2u);
  EXPECT_EQ(controller->info().serial_number, "incarnation-1");
  ASSERT_EQ(controller->namespaces().size(), 1u);
  EXPECT_EQ(controller->namespaces()[0].count_blocks, 2048u);
  EXPECT_EQ(controller->namespaces()[0].uuid, disk.info().uuid);
  for (const size_t blocks : {1, 2, 3, 16, 255, 256}) {
    std::vector<uint8_t> out(blocks * 4096);
    world.net.random(out.data(), out.size());
    ASSERT_TRUE(io(nvme::NvmOpcode::write, 17, out).ok()) << blocks;
    std::vector<uint8_t> in(out.size());
    ASSERT_TRUE(io(nvme::NvmOpcode::read, 17, in).ok()) << blocks;
    EXPECT_EQ(in, out);
  }
}

TEST_P(HostTransportContract, StatusesAreExact) {
  ASSERT_TRUE(connect(options()).ok());
  std::vector<uint8_t> data(4096);
  EXPECT_TRUE(io(nvme::NvmOpcode::read, 2048, data).is(nvme::status::lba_out_of_range));
  disk.on_io = [](const bdev::Io&) { return nvme::status::unrecovered_read_error; };
  EXPECT_TRUE(io(nvme::NvmOpcode::read, 0, data).is(nvme::status::unrecovered_read_error));
  EXPECT_TRUE(io(nvme::NvmOpcode::write, 0, data).is(nvme::status::unrecovered_read_error));
  EXPECT_TRUE(controller->live());
}

TEST_P(HostTransportContract, ComparesAndWritesAsOneStep) {
  ASSERT_TRUE(connect(options()).ok());
  std::vector<uint8_t> expected(4096);
  std::vector<uint8_t> data(4096, 7);
  HostController::Call compare;
  compare.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::compare);
  compare.command.nsid = 1;
  compare.command.cdw10 = 9;
  compare.direction = nvme::DataDirection::host_to_controller;
  compare.data = expected.data();
  compare.data_bytes = 4096;
  HostController::Call write = compare;
  write.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::write);
  write.data = data.data();
  auto answer = world.net.run(controller->fused_io_call(compare, write));
  EXPECT_TRUE(answer.first.status.ok() && answer.second.status.ok());
  EXPECT_EQ(disk.bytes[9 * 4096], 7);
  answer = world.net.run(controller->fused_io_call(compare, write));
  EXPECT_TRUE(answer.first.status.is(nvme::status::compare_failure));
  EXPECT_TRUE(answer.second.status.is(nvme::status::failed_fused));
}

TEST_P(HostTransportContract, CompletesManyCommandsOnceEach) {
  ASSERT_TRUE(connect(options()).ok());
  std::vector<uint8_t> data(500 * 4096);
  std::vector<Ended> commands(500);
  std::vector<Iovec> pieces(500);
  for (size_t i = 0; i < commands.size(); i++) {
    pieces[i] = {data.data() + i * 4096, 4096};
    fill(commands[i], i % 3 == 0 ? nvme::NvmOpcode::read : nvme::NvmOpcode::write, i, &pieces[i]);
    controller->submit(&commands[i]);
  }
  const auto all = [&] {
    return std::all_of(commands.begin(), commands.end(), [](const Ended& one) { return one.ended_count > 0; });
  };
  ASSERT_TRUE(world.net.run_until(all));
  world.net.run_for(milliseconds(10));
  for (const Ended& command : commands) {
    EXPECT_EQ(command.ended_count, 1);
    EXPECT_TRUE(command.status().ok());
  }
}

TEST_P(HostTransportContract, ClosingLosesWhatIsInFlightAndTouchesItNoMore) {
  ASSERT_TRUE(connect(options()).ok());
  disk.hold = true;
  std::vector<uint8_t> data(4096, 0x33);
  Iovec piece{data.data(), data.size()};
  Ended command;
  fill(command, nvme::NvmOpcode::read, 0, &piece);
  controller->submit(&command);
  ASSERT_TRUE(world.net.run_until([&] { return !disk.held.empty(); }));
  controller->abort({Errc::closed, "test"});
  EXPECT_EQ(command.ended_count, 0);
  world.net.run_for(milliseconds(20));
  disk.release();
  ASSERT_TRUE(world.net.run_until([&] { return command.ended_count > 0; }));
  EXPECT_TRUE(command.lost);
  EXPECT_EQ(command.status(), nvme::status::host_path_error);
  const std::vector<uint8_t> before = data;
  world.net.run_for(milliseconds(20));
  EXPECT_EQ(data, before);
  EXPECT_EQ(command.ended_count, 1);
  ASSERT_EQ(recorder.lost.size(), 1u);
}

TEST_P(HostTransportContract, SeesAnaChangesAndNewSizes) {
  ASSERT_TRUE(connect(options()).ok());
  EXPECT_EQ(controller->namespaces()[0].ana_state, nvme::AnaState::optimized);
  const auto listen_address = world.as_listen(address, GetParam());
  ASSERT_TRUE(world.net.run(subsystem->set_ana_state(listen_address, 0, nvme::AnaState::inaccessible)).ok());
  ASSERT_TRUE(world.net.run_until([&] { return controller->namespaces()[0].ana_state == nvme::AnaState::inaccessible; },
                                  seconds(1)));
  std::vector<uint8_t> data(4096);
  EXPECT_TRUE(io(nvme::NvmOpcode::read, 0, data).is(nvme::status::ana_inaccessible));
  ASSERT_TRUE(world.net.run(subsystem->set_ana_state(listen_address, 0, nvme::AnaState::non_optimized)).ok());
  ASSERT_TRUE(world.net.run_until(
      [&] { return controller->namespaces()[0].ana_state == nvme::AnaState::non_optimized; }, seconds(1)));
  disk.resize(4096);
  ASSERT_TRUE(world.net.run_until([&] { return controller->namespaces()[0].count_blocks == 4096; }, seconds(1)));
}

TEST_P(HostTransportContract, IsLostWhenTheListenerGoes) {
  ASSERT_TRUE(connect(options()).ok());
  ASSERT_TRUE(world.net.run(subsystem->remove_listener(world.as_listen(address, GetParam()))).ok());
  ASSERT_TRUE(world.net.run_until([&] { return recorder.lost.size() == 1; }));
  world.net.run_void(controller->close());
  EXPECT_EQ(connect(options()).error().code, Errc::unreachable);
}

TEST_P(HostTransportContract, KeepAliveKeepsAnIdleAssociation) {
  auto with = options();
  with.keep_alive_ms = 100;
  ASSERT_TRUE(connect(with).ok());
  world.net.run_for(seconds(5));
  EXPECT_TRUE(controller->live());
  EXPECT_TRUE(recorder.lost.empty());
}

TEST_P(HostTransportContract, RefusedHostsAndUnknownSubsystemsAreErrorsThatSayWhich) {
  auto with = options();
  with.subnqn = "nqn.2026-01.test:other";
  EXPECT_EQ(connect(with).error().code, Errc::not_found);
  world.net.run_void(controller->close());
  ASSERT_TRUE(world.net.run(subsystem->set_allow_any_host(false)).ok());
  EXPECT_EQ(connect(options()).error().code, Errc::permission);
}

INSTANTIATE_TEST_SUITE_P(All, HostTransportContract, ::testing::Values("TCP", "RDMA", "LOOPBACK"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace basalt::nvmf
