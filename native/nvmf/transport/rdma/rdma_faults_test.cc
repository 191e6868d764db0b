// SPDX-License-Identifier: Apache-2.0
// Goal: NVMe/RDMA moves data without copies, and whatever breaks, whenever, every command completes once and nothing is
// left. Method: the real host against the real target, adapters that break at random (seeded) moments; the world finds
// no connection, registration, window or queue at the end.
#include <algorithm>
#include <random>

#include "nvmf/host/controller.h"
#include "nvmf/transport/target_world_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::TargetWorld;
using basalt::testing::TestDisk;

struct Loss : HostController::Listener {
  size_t count = 0;
  void controller_lost(const Error& reason) override { count++; }
  void namespaces_changed() override {}
};

struct Job : HostCommand {
  Iovec piece;
  Buffer* buffer = nullptr;
  int ended_count = 0;
};

class RdmaWorld {
 public:
  explicit RdmaWorld(uint64_t seed, const RdmaTargetOptions& options = {}) : world(seed, options) {
    subsystem = world.add_subsystem(basalt::testing::test_subnqn, &disk);
    address = world.listen(subsystem, "RDMA");
  }
  ~RdmaWorld() {
    close();
    EXPECT_TRUE(world.net.run_until([&] { return world.rdma_target->connection_count() == 0; }));
    EXPECT_EQ(world.home.buffers().in_use_count() + world.host.buffers().in_use_count(), 0u);
    world.close();
  }
  void close() {
    if (controller) world.net.run_void(controller->close());
    controller.reset();
    world.net.run_for(milliseconds(5));
  }
  Outcome connect() {
    HostControllerOptions options;
    options.address = address;
    options.subnqn = basalt::testing::test_subnqn;
    options.hostnqn = basalt::testing::test_hostnqn;
    options.hostid.bytes[0] = 1;
    options.io_queue_count = 2;
    controller = std::make_unique<HostController>(world.host, world.rdma, options, &loss);
    return world.net.run(controller->connect());
  }
  // In the arena's memory.
  void fill(Job& job, nvme::NvmOpcode opcode, uint64_t block, uint32_t blocks) {
    job.buffer = world.host.buffers().take(size_t{blocks} * 4096);
    job.piece = {job.buffer->data, size_t{blocks} * 4096};
    job.command = {};
    job.command.opcode = static_cast<uint8_t>(opcode);
    job.command.nsid = 1;
    job.command.cdw10 = static_cast<uint32_t>(block);
    job.command.cdw12 = blocks - 1;
    job.data_bytes = blocks * 4096;
    job.direction = nvme::data_direction(job.command.opcode);
    job.iov = &job.piece;
    job.iov_count = 1;
    job.done = [](HostCommand* done) { static_cast<Job*>(done)->ended_count++; };
  }
  void give_back(Job& job) { world.host.buffers().give(std::exchange(job.buffer, nullptr)); }
  nvme::Status run(Job& job) {
    controller->submit(&job);
    EXPECT_TRUE(world.net.run_until([&] { return job.ended_count > 0; }));
    return job.status();
  }

  TargetWorld world;
  TestDisk disk{world.home, 2048, 1};
  Subsystem* subsystem = nullptr;
  HostAddress address;
  Loss loss;
  std::unique_ptr<HostController> controller;
};

TEST(RdmaData, IsMovedInPlaceOnBothSides) {
  RdmaWorld rdma(1);
  ASSERT_TRUE(rdma.connect().ok());
  const RdmaTargetStats& target = rdma.world.rdma_target->stats();
  const RdmaHostStats& host = rdma.world.rdma.stats();
  const uint64_t copied_before = host.copied_bytes.load();  // Connect, Identify: from stacks
  const uint64_t target_before = target.in_place_bytes.load();
  const uint64_t host_before = host.in_place_bytes.load();
  uint64_t bytes = 0;
  for (const uint32_t blocks : {1u, 2u, 3u, 64u, 256u}) {
    Job write;
    rdma.fill(write, nvme::NvmOpcode::write, 5, blocks);
    rdma.world.net.random(write.piece.base, write.piece.length_bytes);
    EXPECT_TRUE(rdma.run(write).ok());
    Job read;
    rdma.fill(read, nvme::NvmOpcode::read, 5, blocks);
    EXPECT_TRUE(rdma.run(read).ok());
    EXPECT_EQ(std::memcmp(write.piece.base, read.piece.base, read.piece.length_bytes), 0);
    bytes += write.piece.length_bytes + read.piece.length_bytes;
    rdma.give_back(write);
    rdma.give_back(read);
  }
  EXPECT_EQ(host.copied_bytes.load(), copied_before);
  EXPECT_EQ(target.copied_bytes.load(), 0u);
  EXPECT_EQ(target.in_place_bytes.load() - target_before, bytes);
  EXPECT_EQ(host.in_place_bytes.load() - host_before, bytes);
}

TEST(RdmaData, InSeveralPiecesIsCopiedUnlessTheyTouch) {
  RdmaWorld rdma(1);
  ASSERT_TRUE(rdma.connect().ok());
  const RdmaHostStats& host = rdma.world.rdma.stats();
  const uint64_t copied_before = host.copied_bytes.load();
  Job job;
  rdma.fill(job, nvme::NvmOpcode::read, 0, 16);
  auto* base = static_cast<char*>(job.piece.base);
  const Iovec touching[] = {{base, 4096}, {base + 4096, 15 * 4096}};
  job.iov = touching;
  job.iov_count = 2;
  EXPECT_TRUE(rdma.run(job).ok());
  EXPECT_EQ(host.copied_bytes.load(), copied_before);
  const Iovec swapped[] = {{base + 4096, 15 * 4096}, {base, 4096}};
  std::fill(rdma.disk.bytes.begin(), rdma.disk.bytes.begin() + 4096, 0x11);
  job.iov = swapped;
  job.ended_count = 0;
  EXPECT_TRUE(rdma.run(job).ok());
  EXPECT_EQ(host.copied_bytes.load(), copied_before + 16 * 4096);
  EXPECT_EQ(base[4096], 0x11);
  EXPECT_EQ(base[0], 0);
  rdma.give_back(job);
}

TEST(RdmaReceives, DoNotRunDryWhenTheDiskHoldsWrites) {
  RdmaTargetOptions options;
  options.connection.receive_count = 16;
  RdmaWorld rdma(2, options);
  ASSERT_TRUE(rdma.connect().ok());
  rdma.disk.hold = true;
  std::vector<Job> jobs(100);
  for (size_t i = 0; i < jobs.size(); i++) {
    rdma.fill(jobs[i], nvme::NvmOpcode::write, i, 1);
    rdma.controller->submit(&jobs[i]);
  }
  EXPECT_TRUE(rdma.world.net.run_until([&] { return rdma.disk.held.size() == jobs.size(); }, seconds(5)));
  EXPECT_GT(rdma.world.rdma_target->stats().copied_bytes.load(), 0u);
  rdma.disk.release();
  for (Job& job : jobs) {
    EXPECT_TRUE(rdma.world.net.run_until([&] { return job.ended_count == 1; }));
    EXPECT_TRUE(job.status().ok());
    rdma.give_back(job);
  }
  EXPECT_EQ(rdma.loss.count, 0u);
}

TEST(RdmaReceives, AreLeftForOthersWhenVolumesWaitAndThereIsNoBuffer) {
  RdmaTargetOptions options;
  options.connection.receive_count = 16;
  RdmaWorld rdma(5, options);
  ASSERT_TRUE(rdma.connect().ok());
  std::vector<Job> jobs(100);
  for (size_t i = 0; i < jobs.size(); i++)
    rdma.fill(jobs[i], nvme::NvmOpcode::write, i, 1);
  std::vector<std::pair<Reactor*, Buffer*>> taken;
  for (Reactor* reactor : {&rdma.world.home, &rdma.world.host}) {
    while (Buffer* buffer = reactor->buffers().take(4096, BufferUse::upper))
      taken.emplace_back(reactor, buffer);
  }
  rdma.disk.hold = true;
  for (Job& job : jobs)
    rdma.controller->submit(&job);
  const auto count_ended = [&] {
    return static_cast<size_t>(
        std::count_if(jobs.begin(), jobs.end(), [](const Job& job) { return job.ended_count > 0; }));
  };
  EXPECT_TRUE(
      rdma.world.net.run_until([&] { return rdma.disk.held.size() + count_ended() == jobs.size(); }, seconds(5)));
  EXPECT_GT(rdma.disk.held.size(), 0u);
  EXPECT_GT(count_ended(), 0u);
  EXPECT_EQ(rdma.world.rdma_target->stats().refused_count.load(), count_ended());

  // Another one gets in meanwhile: there are receives for it.
  HostControllerOptions other_options;
  other_options.address = rdma.address;
  other_options.subnqn = basalt::testing::test_subnqn;
  other_options.hostnqn = "nqn.2026-01.test:other";
  other_options.hostid.bytes[0] = 2;
  other_options.io_queue_count = 2;
  Loss other_loss;
  HostController other(rdma.world.host, rdma.world.rdma, other_options, &other_loss);
  EXPECT_TRUE(rdma.world.net.run(other.connect()).ok());
  rdma.world.net.run_void(other.close());

  for (const auto& [reactor, buffer] : taken)
    reactor->buffers().give(buffer);
  rdma.disk.release();
  EXPECT_TRUE(rdma.world.net.run_until([&] { return count_ended() == jobs.size(); }));
  for (Job& job : jobs) {
    const bool refused = job.status().is(nvme::status::internal_path_error) && !job.status().do_not_retry();
    EXPECT_TRUE(job.status().ok() || refused) << nvme::to_string(job.status());
    EXPECT_EQ(job.ended_count, 1);
    rdma.give_back(job);
  }
  EXPECT_EQ(rdma.loss.count, 0u);
}

TEST(RdmaReceives, DoNotGrowWithConnections) {
  RdmaWorld rdma(3);
  ASSERT_TRUE(rdma.connect().ok());
  const size_t regions = rdma.world.net.rdma().counts().regions;
  const size_t queues = rdma.world.net.rdma().counts().receive_queues;
  EXPECT_EQ(queues, 2u);  // one per reactor
  Loss other_loss;
  HostControllerOptions options;
  options.address = rdma.address;
  options.subnqn = basalt::testing::test_subnqn;
  options.hostnqn = "nqn.2026-01.test:another";
  options.hostid.bytes[0] = 2;
  options.io_queue_count = 4;
  HostController other(rdma.world.host, rdma.world.rdma, options, &other_loss);
  ASSERT_TRUE(rdma.world.net.run(other.connect()).ok());
  EXPECT_EQ(rdma.world.net.rdma().counts().receive_queues, queues);
  EXPECT_LE(rdma.world.net.rdma().counts().regions, regions + 4);
  rdma.world.net.run_void(other.close());
}

TEST(RdmaLimits, AHostThatMayNotRegisterMoreMemoryFailsTheCommandAndKeepsTheQueue) {
  RdmaWorld rdma(4);
  ASSERT_TRUE(rdma.connect().ok());
  rdma.world.net.rdma().knobs.pinned_bytes_max = 0;
  Job job;
  rdma.fill(job, nvme::NvmOpcode::read, 0, 128);  // a class of buffers that nobody has used
  EXPECT_TRUE(rdma.run(job).is(nvme::status::data_transfer_error));
  rdma.give_back(job);
  EXPECT_TRUE(rdma.controller->live());
}

// What happens at a random moment under load.
enum class Fault : uint8_t { host_queue_pairs, device_removed, host_aborts, listener_removed };

void break_at_random(Fault fault, uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed) + ", fault " + std::to_string(static_cast<int>(fault)));
  RdmaWorld rdma(seed);
  env::SimRdmaFabric& fabric = rdma.world.net.rdma();
  fabric.knobs.lose_completion_chance = 0.3;
  const Outcome connected = rdma.connect();
  ASSERT_TRUE(connected.ok()) << connected.error().message;
  std::mt19937_64 random(seed);
  std::vector<Job> jobs(60);
  for (size_t i = 0; i < jobs.size(); i++) {
    rdma.fill(jobs[i], random() % 2 == 0 ? nvme::NvmOpcode::read : nvme::NvmOpcode::write, i,
              static_cast<uint32_t>(1 + random() % 8));
    rdma.controller->submit(&jobs[i]);
  }
  rdma.world.net.run_for(microseconds(static_cast<int64_t>(random() % 400)));
  switch (fault) {
    case Fault::host_queue_pairs:
      fabric.break_queue_pairs("memory");
      break;
    case Fault::device_removed:
      fabric.remove_device("memory", "rdma0");
      break;
    case Fault::host_aborts:
      rdma.controller->abort({Errc::closed, "test"});
      break;
    case Fault::listener_removed:
      ASSERT_TRUE(rdma.world.net.run(rdma.subsystem->remove_listener(rdma.world.as_listen(rdma.address, "RDMA"))).ok());
      break;
  }
  ASSERT_TRUE(rdma.world.net.run_until(
      [&] { return std::all_of(jobs.begin(), jobs.end(), [](const Job& job) { return job.ended_count > 0; }); }));
  for (Job& job : jobs) {
    EXPECT_EQ(job.ended_count, 1);
    EXPECT_TRUE(job.status().ok() || job.lost);
    rdma.give_back(job);
  }
  rdma.close();
  EXPECT_EQ(fabric.counts().windows, 0u);
}

TEST(RdmaFaults, AtAnyMomentLoseCommandsOnceAndLeaveNothing) {
  for (uint64_t seed = 1; seed <= 10; seed++) {
    for (const Fault fault :
         {Fault::host_queue_pairs, Fault::device_removed, Fault::host_aborts, Fault::listener_removed}) {
      break_at_random(fault, seed);
    }
  }
}

// The same while connecting, at each moment.
TEST(RdmaFaults, WhileConnectingLeaveNothing) {
  for (int64_t at_us = 0; at_us < 600; at_us += 20) {
    SCOPED_TRACE("at " + std::to_string(at_us) + " us");
    RdmaWorld rdma(11);
    bool ended = false;
    HostControllerOptions options;
    options.address = rdma.address;
    options.subnqn = basalt::testing::test_subnqn;
    options.hostnqn = basalt::testing::test_hostnqn;
    options.hostid.bytes[0] = 1;
    rdma.controller = std::make_unique<HostController>(rdma.world.host, rdma.world.rdma, options, &rdma.loss);
    const auto run = [](HostController& controller, bool* done) -> Task<void> {
      (void)co_await controller.connect();
      *done = true;
    };
    spawn(run(*rdma.controller, &ended));
    rdma.world.net.run_for(microseconds(at_us));
    rdma.world.net.rdma().break_queue_pairs("memory");
    EXPECT_TRUE(rdma.world.net.run_until([&] { return ended; }));
  }
}

}  // namespace
}  // namespace basalt::nvmf
