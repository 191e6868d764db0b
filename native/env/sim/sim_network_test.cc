// SPDX-License-Identifier: Apache-2.0
// Goal: simulated connections and clocks misbehave as real ones do. Method: two or three machines whose sockets are
// used by hand.
#include "env/sim/machine_testing.h"

namespace basalt::env {
namespace {

using testing::Machine;

constexpr uint16_t port = 4420;

struct Event : Work {
  Event() {
    run = [](Work* work) { static_cast<Event*>(work)->happened = true; };
  }
  bool happened = false;
};

struct Network {
  explicit Network(uint64_t seed = 1, const SimKnobs& knobs = exact())
      : world(seed, knobs), a(world, "a"), b(world, "b") {
    listen();
  }
  static SimKnobs exact() {
    SimKnobs knobs;
    knobs.short_transfer_chance = knobs.spurious_wake_chance = 0;
    return knobs;
  }
  void listen() { listener = b.poller->listen({.host = "b", .port = port}).value(); }
  std::unique_ptr<StreamSocket> begin(Event& event) {
    auto socket = a.poller->connect({.host = "b", .port = port}).value();
    socket->arm_writable(&event);
    return socket;
  }
  // A connection: ends at a and b.
  void connect() {
    Event connected;
    near = begin(connected);
    EXPECT_TRUE(world.run_until([&] { return connected.happened; }, seconds(1)));
    EXPECT_TRUE(near->connect_result().ok());
    accept();
  }
  void accept() {
    Event event;
    listener->arm_acceptable(&event);
    EXPECT_TRUE(world.run_until([&] { return event.happened; }, seconds(1)));
    far = b.poller->adopt(listener->try_accept());
  }
  static bool send(StreamSocket& socket, const std::string& text) {
    const Iovec piece{const_cast<char*>(text.data()), text.size()};
    return socket.try_send(&piece, 1).state == Transfer::State::done;
  }
  static Transfer::State receive(StreamSocket& socket, std::string* text) {
    char buffer[4096];
    const Iovec piece{buffer, sizeof(buffer)};
    const Transfer transfer = socket.try_recv(&piece, 1);
    text->append(buffer, transfer.count_bytes);
    return transfer.state;
  }
  static std::string received(StreamSocket& socket) {
    std::string text;
    while (receive(socket, &text) == Transfer::State::done) {
    }
    return text;
  }

  SimWorld world;
  Machine a;
  Machine b;
  std::unique_ptr<StreamListener> listener;
  std::unique_ptr<StreamSocket> near;
  std::unique_ptr<StreamSocket> far;
};

TEST(SimNetwork, ALostPacketIsLateAndWhatFollowsWaitsForIt) {
  Network net;
  net.connect();
  net.world.set_link("a", "b", {.loss_chance = 1, .retransmit = seconds(40)});
  EXPECT_TRUE(Network::send(*net.near, "first "));
  net.world.set_link("a", "b", {});
  EXPECT_TRUE(Network::send(*net.near, "second"));
  net.world.run_for(seconds(39));
  EXPECT_EQ(Network::received(*net.far), "");
  EXPECT_TRUE(Network::send(*net.far, "back"));
  net.world.run_for(milliseconds(1));
  EXPECT_EQ(Network::received(*net.near), "back");
  net.world.run_for(seconds(2));
  EXPECT_EQ(Network::received(*net.far), "first second");
}

TEST(SimNetwork, ConnectionsOvertakeEachOther) {
  int overtaken = 0;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    Network net(seed);
    net.connect();
    auto near = std::move(net.near);
    auto far = std::move(net.far);
    net.connect();
    Network::send(*near, "1");
    Network::send(*net.near, "2");
    std::string one;
    std::string two;
    net.world.run_until(
        [&] {
          one += Network::received(*far);
          two += Network::received(*net.far);
          return !one.empty() || !two.empty();
        },
        seconds(1));
    overtaken += one.empty() ? 1 : 0;
  }
  EXPECT_GT(overtaken, 3);
  EXPECT_LT(overtaken, 17);
}

TEST(SimNetwork, APartitionMayCutOneWayOnly) {
  Network net;
  net.connect();
  net.world.partition("a", "b", false);
  Network::send(*net.near, "there");
  Network::send(*net.far, "back");
  net.world.run_for(seconds(5));
  EXPECT_EQ(Network::received(*net.far), "");
  EXPECT_EQ(Network::received(*net.near), "back");
  net.world.heal_all();
  net.world.run_for(milliseconds(1));
  EXPECT_EQ(Network::received(*net.far), "there");
}

TEST(SimNetwork, AStallEndsByItself) {
  Network net;
  net.connect();
  net.world.stall("a", "b", seconds(3));
  Network::send(*net.near, "late");
  net.world.run_for(seconds(2));
  EXPECT_EQ(Network::received(*net.far), "");
  net.world.run_for(seconds(2));
  EXPECT_EQ(Network::received(*net.far), "late");
}

TEST(SimNetwork, AHeldConnectionIsOvertakenByAnotherAlsoAfterItsEnd) {
  Network net;
  net.connect();
  const auto far = std::move(net.far);
  net.world.hold_connections("a", port + 1, seconds(9));  // has none
  net.world.hold_connections("a", port, seconds(3));
  Network::send(*net.near, "old");
  net.near.reset();
  net.connect();
  Network::send(*net.near, "new");
  net.world.run_for(seconds(2));
  EXPECT_EQ(Network::received(*net.far), "new");
  EXPECT_EQ(Network::received(*far), "");
  net.world.run_for(seconds(2));
  EXPECT_EQ(Network::received(*far), "old");
  std::string rest;
  EXPECT_EQ(Network::receive(*far, &rest), Transfer::State::closed);
}

TEST(SimNetwork, NobodyTellsOfAVanishedMachineUntilItIsBack) {
  Network net;
  net.connect();
  net.b.node.power_cut();
  Event readable;
  net.near->arm_readable(&readable);
  EXPECT_TRUE(Network::send(*net.near, "is anybody there"));
  net.world.run_for(seconds(100));
  EXPECT_FALSE(readable.happened);
  // The buffers fill.
  const std::string much(64 * 1024, 'x');
  while (Network::send(*net.near, much)) {
  }
  const Iovec piece{const_cast<char*>(much.data()), 1};
  EXPECT_EQ(net.near->try_send(&piece, 1).state, Transfer::State::would_block);
  // Connecting gets no answer either; once the machine is up, it refuses, and resets what it does not know.
  Event connected;
  auto another = net.begin(connected);
  net.world.run_for(seconds(10));
  EXPECT_FALSE(connected.happened);
  net.b.node.restart();
  EXPECT_TRUE(net.world.run_until([&] { return readable.happened && connected.happened; }, seconds(150)));
  EXPECT_FALSE(another->connect_result().ok());
  std::string text;
  EXPECT_EQ(Network::receive(*net.near, &text), Transfer::State::failed);
}

TEST(SimNetwork, AnIdleConnectionToAVanishedMachineStaysHalfOpen) {
  Network net;
  net.connect();
  net.b.node.power_cut();
  net.b.node.restart();
  Event readable;
  net.near->arm_readable(&readable);
  net.world.run_for(seconds(5000));
  EXPECT_FALSE(readable.happened);
  EXPECT_TRUE(Network::send(*net.near, "?"));
  EXPECT_TRUE(net.world.run_until([&] { return readable.happened; }, seconds(1)));
}

TEST(SimNetwork, WhatAKilledProcessHadSentMayStillArrive) {
  int arrived = 0;
  int lost = 0;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    Network net(seed);
    net.connect();
    Network::send(*net.near, "last words");
    net.a.node.crash();
    net.world.run_for(seconds(1));
    std::string text;
    Transfer::State state = Transfer::State::done;
    while (state == Transfer::State::done)
      state = Network::receive(*net.far, &text);
    EXPECT_EQ(state, text.empty() ? Transfer::State::failed : Transfer::State::closed);
    (text.empty() ? lost : arrived)++;
  }
  EXPECT_GT(arrived, 3);
  EXPECT_GT(lost, 3);
}

TEST(SimNetwork, AResetTakesWhatWasOnItsWayAndSometimesWhatHadArrived) {
  int kept = 0;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    Network net(seed);
    net.connect();
    Network::send(*net.near, "arrived,");
    net.world.run_for(milliseconds(1));
    Network::send(*net.near, "on its way");
    net.world.cut_connections("a", "b");
    net.world.run_for(milliseconds(1));
    std::string text;
    Transfer::State state = Transfer::State::done;
    while (state == Transfer::State::done)
      state = Network::receive(*net.far, &text);
    EXPECT_EQ(state, Transfer::State::failed);
    EXPECT_TRUE(text.empty() || text == "arrived,") << text;
    kept += text.empty() ? 0 : 1;
  }
  EXPECT_GT(kept, 3);
  EXPECT_LT(kept, 17);
}

TEST(SimNetwork, AFullBacklogMakesConnectionsWait) {
  SimKnobs knobs = Network::exact();
  knobs.backlog_max = 2;
  Network net(1, knobs);
  Event events[3];
  std::unique_ptr<StreamSocket> sockets[3];
  for (int i = 0; i < 3; i++)
    sockets[i] = net.begin(events[i]);
  net.world.run_for(seconds(10));
  EXPECT_EQ(events[0].happened + events[1].happened + events[2].happened, 2);
  net.accept();
  net.world.run_for(seconds(2));
  EXPECT_EQ(events[0].happened + events[1].happened + events[2].happened, 3);
}

TEST(SimNetwork, ConnectionsAreRefusedByChance) {
  SimKnobs knobs = Network::exact();
  knobs.refuse_chance = 1;
  Network net(1, knobs);
  Event event;
  auto socket = net.begin(event);
  EXPECT_TRUE(net.world.run_until([&] { return event.happened; }, seconds(1)));
  EXPECT_FALSE(socket->connect_result().ok());
}

TEST(SimClock, RunsFastAndSlowAndJumpsAheadButNeverBack) {
  SimWorld world(1);
  Machine fast(world, "fast");
  Machine slow(world, "slow");
  fast.node.set_clock_rate(1000);
  slow.node.set_clock_rate(-1000);
  const Instant begin = world.now();
  world.run_for(seconds(1000));
  EXPECT_EQ((fast.node.now() - begin).to_ms(), 1'001'000);
  EXPECT_EQ((slow.node.now() - begin).to_ms(), 999'000);
  Instant before = fast.node.now();
  fast.node.set_clock_rate(-500'000);
  EXPECT_EQ(fast.node.now(), before);
  fast.node.jump_clock(seconds(3600));
  EXPECT_EQ(fast.node.now(), before + seconds(3600));
  const int64_t wall = slow.node.wall_ms();
  slow.node.jump_wall_clock(seconds(-3600));
  EXPECT_EQ(slow.node.wall_ms(), wall - 3'600'000);
}

TEST(SimClock, TimersAreDueByTheirNodesOwnClock) {
  for (const int32_t rate : {0, 1000, -1000, 333'333}) {
    SimWorld world(1);
    Machine machine(world, "m");
    machine.node.set_clock_rate(rate);
    machine.timer = machine.node.now() + seconds(10);
    const Instant due = machine.timer;
    EXPECT_TRUE(world.run_until([&] { return machine.node.now() >= due; }, seconds(30)));
    EXPECT_LE((machine.node.now() - due).ns, 2);
  }
}

}  // namespace
}  // namespace basalt::env
