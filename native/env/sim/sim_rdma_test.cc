// SPDX-License-Identifier: Apache-2.0
// Goal: the simulated RDMA adapters keep the contract of env/rdma.h and break as real ones do. Method: two machines
// whose queue pairs are used by hand.
#include "env/sim/sim_rdma.h"

#include <cstring>
#include <deque>

#include "env/sim/machine_testing.h"

namespace basalt::env {
namespace {

using testing::Machine;
using Cause = RdmaConnection::Cause;
using State = RdmaConnection::State;

constexpr uint16_t port = 4420;
constexpr size_t memory_bytes = 64 << 10;

struct Watch : Work {
  Watch() {
    run = [](Work* work) { static_cast<Watch*>(work)->happened = true; };
  }
  bool happened = false;
};

// One side: memory, a connection, what it posts.
struct Side {
  explicit Side(Machine& on) : machine(on), memory(memory_bytes) {}
  ~Side() { end(); }
  void end() {
    if (connection) {
      connection->close();
      EXPECT_TRUE(machine.node.world().run_until([&] { return connection->state() == State::ended; }, seconds(1)));
    }
    connection.reset();
    window.reset();
    region.reset();
    queue.reset();
  }
  Rdma& rdma() { return *machine.poller->rdma(); }
  void prepare(const RdmaQueuePairOptions& options) {
    RdmaDevice& device = connection->device();
    region = device.register_memory(memory.data(), memory.size()).value();
    window = device.make_window().value();
    ASSERT_TRUE(connection->make_queue_pair(options).ok());
  }
  RdmaPiece piece(size_t offset, uint32_t length) { return {memory.data() + offset, length, region->key()}; }
  uint64_t address(size_t offset) const { return reinterpret_cast<uint64_t>(memory.data() + offset); }

  Machine& machine;
  std::vector<uint8_t> memory;
  std::unique_ptr<RdmaConnection> connection;
  std::unique_ptr<RdmaRegion> region;
  std::unique_ptr<RdmaWindow> window;
  std::unique_ptr<RdmaReceiveQueue> queue;
};

struct Posted : RdmaRequest {
  Posted(Type request_type, RdmaPiece from) : piece(from) {
    type = request_type;
    pieces = &piece;
    piece_count = 1;
    run = [](Work* work) { static_cast<Posted*>(static_cast<RdmaRequest*>(work))->ran++; };
  }
  RdmaPiece piece;
  int ran = 0;
};

struct Got : RdmaReceive {
  explicit Got(RdmaPiece to) : piece(to) {
    pieces = &piece;
    piece_count = 1;
    run = [](Work* work) { static_cast<Got*>(static_cast<RdmaReceive*>(work))->ran++; };
  }
  RdmaPiece piece;
  int ran = 0;
};

class SimRdmaTest : public ::testing::Test {
 protected:
  SimRdmaTest() { fabric().knobs.pad_private_data_chance = 0; }
  ~SimRdmaTest() override {
    near.end();
    far.end();
    listener.reset();
    EXPECT_EQ(fabric().counts(), SimRdmaCounts{});
  }
  SimRdmaFabric& fabric() { return world.rdma(); }
  bool until(const std::function<bool()>& condition, Duration limit = seconds(20)) {
    return world.run_until(condition, limit);
  }
  void listen() { listener = far.rdma().listen({.host = "b", .port = port}).value(); }
  void begin(std::span<const uint8_t> data,
             const RdmaQueuePairOptions& options = {.send_depth = 16, .receive_depth = 16}) {
    near.connection = near.rdma().connect({.host = "b", .port = port}).value();
    ASSERT_TRUE(until([&] { return near.connection->state() == State::resolved; }));
    near.prepare(options);
    near.connection->connect(data);
  }
  void take() {
    Watch watch;
    listener->arm_acceptable(&watch);
    ASSERT_TRUE(until([&] { return watch.happened; }));
    far.connection = far.rdma().adopt(listener->try_accept());
    ASSERT_EQ(far.connection->state(), State::requested);
  }
  void join(const RdmaQueuePairOptions& options = {.send_depth = 16, .receive_depth = 16}) {
    listen();
    begin({});
    take();
    far.prepare(options);
    far.connection->accept({});
    ASSERT_TRUE(until([&] {
      return near.connection->state() == State::established && far.connection->state() == State::established;
    }));
  }
  // Opens all of the far side's memory to the near one.
  void open_far(bool writes) {
    Posted& bind = requests.emplace_back(RdmaRequest::Type::bind, far.piece(0, memory_bytes));
    bind.window = far.window.get();
    bind.peer_writes = writes;
    far.connection->post(&bind);
    ASSERT_TRUE(until([&] { return bind.ran == 1; }));
    ASSERT_EQ(bind.status, RdmaStatus::success);
  }
  RdmaStatus reach_far(RdmaRequest::Type type, size_t offset, uint32_t length, uint32_t key) {
    Posted& request = requests.emplace_back(type, near.piece(0, length));
    request.remote_key = key;
    request.remote_address = far.address(0) + offset;
    near.connection->post(&request);
    EXPECT_TRUE(until([&] { return request.ran == 1; }));
    return request.status;
  }

  SimWorld world{7};
  Machine a{world, "a"};
  Machine b{world, "b"};
  Side near{a};
  Side far{b};
  std::unique_ptr<RdmaListener> listener;
  // Until the connections that they were posted to have ended.
  std::deque<Posted> requests;
  std::deque<Got> receives;
};

TEST_F(SimRdmaTest, PrivateDataTravelsBothWaysAndMayArrivePadded) {
  fabric().knobs.pad_private_data_chance = 1;
  listen();
  const uint8_t asked[] = {1, 2, 3};
  begin(asked);
  take();
  ASSERT_EQ(far.connection->private_data().size(), rdma_request_private_bytes_max);
  EXPECT_EQ(far.connection->private_data()[2], 3);
  EXPECT_EQ(far.connection->private_data()[3], 0);
  far.prepare({.send_depth = 4, .receive_depth = 4});
  const uint8_t answer[] = {9};
  far.connection->accept(answer);
  ASSERT_TRUE(until([&] { return near.connection->state() == State::established; }));
  EXPECT_EQ(near.connection->private_data().size(), rdma_accept_private_bytes_max);
  EXPECT_EQ(near.connection->private_data()[0], 9);
}

TEST_F(SimRdmaTest, ARejectionBringsItsReason) {
  listen();
  begin({});
  take();
  const uint8_t reason[] = {0, 0, 6, 0};
  far.connection->reject(reason);
  ASSERT_TRUE(until([&] { return near.connection->state() == State::broken; }));
  EXPECT_EQ(near.connection->why(), Cause::rejected);
  ASSERT_EQ(near.connection->private_data().size(), sizeof(reason));
  EXPECT_EQ(near.connection->private_data()[2], 6);
}

TEST_F(SimRdmaTest, NobodyListensIsARefusal) {
  begin({});
  ASSERT_TRUE(until([&] { return near.connection->state() == State::broken; }));
  EXPECT_EQ(near.connection->why(), Cause::refused);
}

TEST_F(SimRdmaTest, APendingRequestThatIsDroppedIsARefusal) {
  listen();
  begin({});
  Watch watch;
  listener->arm_acceptable(&watch);
  ASSERT_TRUE(until([&] { return watch.happened; }));
  (void)listener->try_accept();
  ASSERT_TRUE(until([&] { return near.connection->state() == State::broken; }));
  EXPECT_EQ(near.connection->why(), Cause::refused);
}

TEST_F(SimRdmaTest, APartitionWhileConnectingIsUnreachableInTheEnd) {
  listen();
  world.partition("a", "b");
  begin({});
  ASSERT_TRUE(until([&] { return near.connection->state() == State::broken; }));
  EXPECT_EQ(near.connection->why(), Cause::unreachable);
}

TEST_F(SimRdmaTest, MessagesArriveInOrderWithTheirLength) {
  join();
  Got& one = receives.emplace_back(far.piece(0, 64));
  Got& two = receives.emplace_back(far.piece(64, 64));
  far.connection->post_receive(&one);
  far.connection->post_receive(&two);
  std::memset(near.memory.data(), 0x11, 10);
  std::memset(near.memory.data() + 100, 0x22, 20);
  Posted& first = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 10));
  Posted& second = requests.emplace_back(RdmaRequest::Type::send, near.piece(100, 20));
  near.connection->post(&first);
  near.connection->post(&second);
  EXPECT_EQ(first.ran, 0);
  ASSERT_TRUE(until([&] { return second.ran == 1; }));
  EXPECT_EQ(first.ran, 1);
  ASSERT_TRUE(until([&] { return one.ran == 1 && two.ran == 1; }));
  EXPECT_EQ(one.length_bytes, 10u);
  EXPECT_EQ(two.length_bytes, 20u);
  EXPECT_EQ(one.connection, far.connection.get());
  EXPECT_EQ(far.memory[9], 0x11);
  EXPECT_EQ(far.memory[64 + 19], 0x22);
}

TEST_F(SimRdmaTest, ASourceIsReadWhenTheMessageArrivesNotWhenItIsPosted) {
  join();
  Got& got = receives.emplace_back(far.piece(0, 64));
  far.connection->post_receive(&got);
  Posted& send = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&send);
  near.memory[0] = 0x77;
  ASSERT_TRUE(until([&] { return got.ran == 1; }));
  EXPECT_EQ(far.memory[0], 0x77);
}

TEST_F(SimRdmaTest, AMessageWaitsForAReceiveAndGivesUpAfterTheRetries) {
  join();
  Posted& send = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&send);
  world.run_for(milliseconds(2));
  EXPECT_EQ(send.ran, 0);
  Got& late = receives.emplace_back(far.piece(0, 64));
  far.connection->post_receive(&late);
  ASSERT_TRUE(until([&] { return send.ran == 1; }));
  EXPECT_EQ(send.status, RdmaStatus::success);
  Posted& lost = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&lost);
  ASSERT_TRUE(until([&] { return lost.ran == 1; }));
  EXPECT_EQ(lost.status, RdmaStatus::receiver_not_ready);
  EXPECT_EQ(near.connection->state(), State::broken);
  EXPECT_EQ(near.connection->why(), Cause::failed);
}

TEST_F(SimRdmaTest, AMessageLongerThanItsReceiveBreaksBothSides) {
  join();
  Got& got = receives.emplace_back(far.piece(0, 7));
  far.connection->post_receive(&got);
  Posted& send = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&send);
  ASSERT_TRUE(until([&] { return send.ran == 1 && got.ran == 1; }));
  EXPECT_EQ(send.status, RdmaStatus::remote_error);
  EXPECT_EQ(got.status, RdmaStatus::local_error);
  EXPECT_EQ(far.connection->state(), State::broken);
}

TEST_F(SimRdmaTest, AWindowLetsThePeerWriteWithinItsBounds) {
  join();
  open_far(true);
  near.memory[0] = 0x5a;
  EXPECT_EQ(reach_far(RdmaRequest::Type::write, memory_bytes - 16, 16, far.window->key()), RdmaStatus::success);
  EXPECT_EQ(far.memory[memory_bytes - 16], 0x5a);
  EXPECT_EQ(fabric().moved_bytes(), 16u);
  EXPECT_EQ(reach_far(RdmaRequest::Type::write, memory_bytes - 15, 16, far.window->key()),
            RdmaStatus::remote_access_error);
  EXPECT_EQ(near.connection->state(), State::broken);
  EXPECT_EQ(far.connection->state(), State::broken);
}

TEST_F(SimRdmaTest, AWindowForWritingIsNotForReading) {
  join();
  open_far(true);
  EXPECT_EQ(reach_far(RdmaRequest::Type::read, 0, 16, far.window->key()), RdmaStatus::remote_access_error);
}

TEST_F(SimRdmaTest, AReadBringsThePeersBytesWhenItCompletes) {
  join();
  open_far(false);
  far.memory[100] = 0x33;
  EXPECT_EQ(reach_far(RdmaRequest::Type::read, 100, 16, far.window->key()), RdmaStatus::success);
  EXPECT_EQ(near.memory[0], 0x33);
}

TEST_F(SimRdmaTest, AnUnknownKeyIsRefused) {
  join();
  open_far(true);
  EXPECT_EQ(reach_far(RdmaRequest::Type::write, 0, 16, far.window->key() + 1), RdmaStatus::remote_access_error);
}

TEST_F(SimRdmaTest, AnAddressBelowTheWindowIsRefused) {
  join();
  open_far(true);
  EXPECT_EQ(reach_far(RdmaRequest::Type::write, static_cast<size_t>(-8), 16, far.window->key()),
            RdmaStatus::remote_access_error);
}

TEST_F(SimRdmaTest, ANewBindingHasANewKeyAndTheOldOneIsWorthNothing) {
  join();
  open_far(true);
  const uint32_t old_key = far.window->key();
  Posted& invalidate = requests.emplace_back(RdmaRequest::Type::invalidate, far.piece(0, 0));
  invalidate.piece_count = 0;
  invalidate.window = far.window.get();
  far.connection->post(&invalidate);
  ASSERT_TRUE(until([&] { return invalidate.ran == 1; }));
  open_far(true);
  EXPECT_NE(far.window->key(), old_key);
  EXPECT_EQ(reach_far(RdmaRequest::Type::write, 0, 16, old_key), RdmaStatus::remote_access_error);
}

TEST_F(SimRdmaTest, ASendWithInvalidationClosesThePeersWindow) {
  join();
  open_far(true);
  const uint32_t key = far.window->key();
  Got& got = receives.emplace_back(far.piece(0, 64));
  far.connection->post_receive(&got);
  Posted& send = requests.emplace_back(RdmaRequest::Type::send_invalidate, near.piece(0, 8));
  send.remote_key = key;
  near.connection->post(&send);
  ASSERT_TRUE(until([&] { return got.ran == 1 && send.ran == 1; }));
  EXPECT_TRUE(got.invalidated);
  EXPECT_EQ(got.invalidated_key, key);
  EXPECT_EQ(reach_far(RdmaRequest::Type::write, 0, 16, key), RdmaStatus::remote_access_error);
}

TEST_F(SimRdmaTest, AWindowIsForTheConnectionThatBoundIt) {
  join();
  open_far(true);
  Side other_near(a);
  Side other_far(b);
  other_near.connection = other_near.rdma().connect({.host = "b", .port = port}).value();
  ASSERT_TRUE(until([&] { return other_near.connection->state() == State::resolved; }));
  other_near.prepare({.send_depth = 4, .receive_depth = 4});
  other_near.connection->connect({});
  Watch watch;
  listener->arm_acceptable(&watch);
  ASSERT_TRUE(until([&] { return watch.happened; }));
  other_far.connection = other_far.rdma().adopt(listener->try_accept());
  other_far.prepare({.send_depth = 4, .receive_depth = 4});
  other_far.connection->accept({});
  ASSERT_TRUE(until([&] { return other_near.connection->state() == State::established; }));
  Posted& write = requests.emplace_back(RdmaRequest::Type::write, other_near.piece(0, 16));
  write.remote_key = far.window->key();
  write.remote_address = far.address(0);
  other_near.connection->post(&write);
  ASSERT_TRUE(until([&] { return write.ran == 1; }));
  EXPECT_EQ(write.status, RdmaStatus::remote_access_error);
  EXPECT_EQ(far.connection->state(), State::established);
}

TEST_F(SimRdmaTest, MemoryOutsideOfItsRegionIsALocalError) {
  join();
  static uint8_t stray[16];
  Posted& send = requests.emplace_back(RdmaRequest::Type::send, RdmaPiece{stray, 16, near.region->key()});
  near.connection->post(&send);
  ASSERT_TRUE(until([&] { return send.ran == 1; }));
  EXPECT_EQ(send.status, RdmaStatus::local_error);
}

TEST_F(SimRdmaTest, WhatIsPostedToABrokenConnectionIsFlushed) {
  join();
  Got& got = receives.emplace_back(near.piece(0, 64));
  near.connection->post_receive(&got);
  Posted& under_way = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&under_way);
  fabric().break_queue_pairs("a");
  Posted& after = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&after);
  EXPECT_EQ(after.ran, 0);
  ASSERT_TRUE(until([&] { return after.ran == 1; }));
  EXPECT_EQ(under_way.status, RdmaStatus::flushed);
  EXPECT_EQ(after.status, RdmaStatus::flushed);
  EXPECT_EQ(got.ran, 1);
  EXPECT_EQ(got.status, RdmaStatus::flushed);
  EXPECT_EQ(got.connection, nullptr);
}

TEST_F(SimRdmaTest, NothingRunsAfterTheEndAndCompletionsMayBeLostWithIt) {
  fabric().knobs.lose_completion_chance = 1;
  join();
  Posted& send = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&send);
  near.connection->close();
  ASSERT_TRUE(until([&] { return near.connection->state() == State::ended; }));
  world.run_for(seconds(10));
  EXPECT_EQ(send.ran, 0);
}

TEST_F(SimRdmaTest, ClosingEndsThePeersConnectionAndItsAccess) {
  join();
  open_far(true);
  far.connection->close();
  Posted& write = requests.emplace_back(RdmaRequest::Type::write, near.piece(0, 16));
  write.remote_key = far.window->key();
  write.remote_address = far.address(0);
  near.memory[0] = 0x42;
  near.connection->post(&write);
  ASSERT_TRUE(until([&] { return near.connection->state() == State::broken; }));
  ASSERT_TRUE(until([&] { return write.ran == 1; }));
  EXPECT_NE(write.status, RdmaStatus::success);
  EXPECT_EQ(far.memory[0], 0);
}

TEST_F(SimRdmaTest, APeerWhoseMachineVanishesDoesNotAnswer) {
  join();
  b.node.power_cut();
  Posted& send = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&send);
  ASSERT_TRUE(until([&] { return send.ran == 1; }));
  EXPECT_EQ(send.status, RdmaStatus::retry_exceeded);
}

TEST_F(SimRdmaTest, AProcessThatIsKilledDisconnectsItsPeers) {
  join();
  b.node.crash();
  ASSERT_TRUE(until([&] { return near.connection->state() == State::broken; }));
  EXPECT_EQ(near.connection->why(), Cause::disconnected);
}

TEST_F(SimRdmaTest, ADeviceThatGoesBreaksItsConnectionsAndGivesNoMore) {
  join();
  Watch watch;
  near.connection->arm_changed(&watch);
  fabric().remove_device("a", "rdma0");
  ASSERT_TRUE(until([&] { return watch.happened; }));
  EXPECT_EQ(near.connection->why(), Cause::removed);
  EXPECT_TRUE(near.connection->device().removed());
  EXPECT_EQ(near.connection->device().register_memory(near.memory.data(), 16).error().code, Errc::closed);
  auto again = near.rdma().connect({.host = "b", .port = port}).value();
  ASSERT_TRUE(until([&] { return again->state() == State::broken; }));
  EXPECT_EQ(again->why(), Cause::unreachable);
}

TEST_F(SimRdmaTest, ConnectionsDrawFromASharedReceiveQueueThatOutlivesThem) {
  listen();
  begin({});
  take();
  far.queue = far.connection->device().make_receive_queue(8).value();
  far.prepare({.send_depth = 4, .shared = far.queue.get()});
  Got& one = receives.emplace_back(far.piece(0, 64));
  Got& two = receives.emplace_back(far.piece(64, 64));
  far.queue->post(&one);
  far.queue->post(&two);
  far.connection->accept({});
  ASSERT_TRUE(until([&] { return near.connection->state() == State::established; }));
  Posted& send = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&send);
  ASSERT_TRUE(until([&] { return one.ran == 1; }));
  EXPECT_EQ(one.connection, far.connection.get());
  near.connection->close();
  ASSERT_TRUE(until([&] { return far.connection->state() == State::broken; }));
  EXPECT_EQ(two.ran, 0);  // still posted, for others
}

TEST_F(SimRdmaTest, RegistrationStopsAtTheLimitOfLockedMemory) {
  join();
  fabric().knobs.pinned_bytes_max = 3 * memory_bytes;
  std::vector<uint8_t> more(memory_bytes);
  auto third = near.connection->device().register_memory(more.data(), more.size());
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(near.connection->device().register_memory(more.data(), more.size()).error().code, Errc::no_memory);
}

TEST_F(SimRdmaTest, APartitionDelaysRequestsUntilTheyAreGivenUp) {
  join();
  Got& got = receives.emplace_back(far.piece(0, 64));
  far.connection->post_receive(&got);
  world.partition("a", "b");
  Posted& send = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&send);
  world.run_for(seconds(1));
  EXPECT_EQ(send.ran, 0);
  world.heal_all();
  ASSERT_TRUE(until([&] { return send.ran == 1; }));
  EXPECT_EQ(send.status, RdmaStatus::success);
  world.partition("a", "b");
  Posted& lost = requests.emplace_back(RdmaRequest::Type::send, near.piece(0, 8));
  near.connection->post(&lost);
  ASSERT_TRUE(until([&] { return lost.ran == 1; }));
  EXPECT_EQ(lost.status, RdmaStatus::retry_exceeded);
  world.heal_all();
}

TEST(SimRdmaWorlds, OneSeedGivesOneHistory) {
  const auto run = [] {
    SimWorld world(11);
    Machine a(world, "a");
    Machine b(world, "b");
    auto listener = b.poller->rdma()->listen({.host = "b", .port = port}).value();
    auto connection = a.poller->rdma()->connect({.host = "b", .port = port}).value();
    world.run_for(seconds(1));
    return world.trace_hash();
  };
  EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace basalt::env
