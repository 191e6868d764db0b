// SPDX-License-Identifier: Apache-2.0
// The multipath host over a simulated network: how soon it goes on after the network healed, and what its policies do
// with paths of unequal speed.
#include <gtest/gtest.h>

#include "bdev/handle.h"
#include "bdev/malloc/malloc.h"
#include "bdev/nvmf/multipath.h"
#include "env/sim/sim_world.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt::sim {
namespace {

constexpr char subnqn[] = "nqn.2026-01.sim:volume";

// A machine with one reactor.
struct Machine {
  Machine(env::SimWorld& world, const std::string& name, Arena& arena)
      : node(world.add_node(name)), reactor(node, arena, {}) {
    BASALT_ASSERT(reactor.init().ok());
    loop = node.start(reactor, {});
  }
  env::SimNode& node;
  Reactor reactor;
  std::unique_ptr<env::LoopHandle> loop;
};

class Network {
 public:
  explicit Network(const env::SimKnobs& knobs = {}) : world(20261122, knobs), host(world, "h", arena) {
    options.name = "volume";
    options.subnqn = subnqn;
    options.hostnqn = "nqn.2026-01.sim:host";
    options.keep_alive_ms = 1000;
  }
  ~Network() {
    if (controller) run_void(controller->close());
    for (const auto& node : nodes)
      run_void(node->target->close());
    world.run_for(milliseconds(50));
    for (const auto& node : nodes) {
      node->target.reset();
      (void)run(node->disk->close());
    }
  }
  // One more machine that serves the volume (each has bytes of its own: nobody looks at them here).
  void add_node(const nvmf::auth::SharedTlsKey& tls = nullptr) {
    auto node = std::make_unique<Node>(world, "t" + std::to_string(nodes.size() + 1), arena);
    bdev::MallocOptions disk{.name = "m", .block_size_bytes = 4096, .count_blocks = 256};
    disk.uuid.bytes[0] = 9;
    node->disk = bdev::MallocBdev::create(node->machine.reactor, disk).value();
    node->target = std::make_unique<nvmf::Target>(std::vector<Reactor*>{&node->machine.reactor});
    node->target->add_transport(std::make_unique<nvmf::TcpTargetTransport>(*node->target));
    nvmf::SubsystemOptions subsystem;
    subsystem.nqn = subnqn;
    subsystem.serial_number = "1";
    subsystem.allow_any_host = tls == nullptr;
    subsystem.cntlid_min = static_cast<uint16_t>(1 + nodes.size() * 1000);
    subsystem.cntlid_max = static_cast<uint16_t>((nodes.size() + 1) * 1000);
    nvmf::Subsystem* made = node->target->create_subsystem(subsystem).value();
    ns::NamespaceOptions space;
    space.nsid = 1;
    BASALT_ASSERT(run(made->add_namespace(space, node->disk.get())).ok());
    node->address = {"127.0.0.1", std::to_string(4420 + nodes.size())};
    nvmf::HostKeys keys;
    keys.tls = options.authentication.tls = tls;
    if (tls) BASALT_ASSERT(made->add_host(options.hostnqn, keys).ok());
    const bool secure = tls != nullptr;
    BASALT_ASSERT(run(made->add_listener({"TCP", node->address.traddr, node->address.trsvcid, secure})).ok());
    nodes.push_back(std::move(node));
  }
  void attach() {
    controller = std::make_unique<bdev::NvmfController>(host.reactor, options);
    for (const auto& node : nodes)
      ASSERT_TRUE(run(controller->add_path(transport, node->address)).ok());
  }
  bdev::NvmfBdev& bdev() { return *controller->bdevs().front(); }

  // Keeps `depth` reads in flight for a while; how many each path got.
  std::vector<uint64_t> load(size_t depth, Duration duration) {
    std::vector<uint64_t> shares;
    for (const auto& path : controller->paths())
      shares.push_back(path->load().sent_count());
    running = true;
    for (size_t i = 0; i < depth; i++)
      spawn(read_on());
    world.run_for(duration);
    running = false;
    BASALT_ASSERT(world.run_until([&] { return readers == 0; }, seconds(10)));
    for (size_t i = 0; i < shares.size(); i++)
      shares[i] = controller->paths()[i]->load().sent_count() - shares[i];
    return shares;
  }
  Task<void> read_on() {
    readers++;
    std::vector<uint8_t> data(4096);
    while (running) {
      co_await hop(host.reactor);
      EXPECT_TRUE((co_await one(bdev::IoType::read, data)).ok());
    }
    readers--;
  }
  Task<nvme::Status> one(bdev::IoType type, std::vector<uint8_t>& data) {
    Iovec piece{data.data(), data.size()};
    bdev::Io io;
    io.type = type;
    io.count_blocks = 1;
    io.iov = &piece;
    io.iov_count = 1;
    const bdev::Handle handle(bdev(), host.reactor);
    const nvme::Status status = co_await bdev::io_wait(handle, io);
    co_return status;
  }
  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    spawn(collect(std::move(task), &result));
    BASALT_ASSERT(world.run_until([&] { return result.has_value(); }, seconds(120)));
    return std::move(*result);
  }
  void run_void(Task<void> task) {
    bool ended = false;
    spawn(note(std::move(task), &ended));
    BASALT_ASSERT(world.run_until([&] { return ended; }, seconds(120)));
  }
  template <class T>
  static Task<void> collect(Task<T> task, std::optional<T>* result) {
    T value = co_await task;
    result->emplace(std::move(value));
  }
  static Task<void> note(Task<void> task, bool* ended) {
    co_await task;
    *ended = true;
  }

  struct Node {
    Node(env::SimWorld& world, const std::string& name, Arena& arena) : machine(world, name, arena) {}
    Machine machine;
    std::unique_ptr<bdev::Bdev> disk;
    std::unique_ptr<nvmf::Target> target;
    nvmf::HostAddress address;
  };
  Arena arena{size_t{512} << 20};
  env::SimWorld world;
  Machine host;
  std::vector<std::unique_ptr<Node>> nodes;
  nvmf::TcpHostTransport transport;
  bdev::MultipathOptions options;
  std::unique_ptr<bdev::NvmfController> controller;
  bool running = false;
  size_t readers = 0;
};

// Of the defaults: nothing is set for it.
TEST(MultipathSim, GoesOnSoonAfterANetworkHealedHoweverLongItWasAway) {
  for (const int away_s : {3, 11, 37, 90, 300}) {
    SCOPED_TRACE(away_s);
    Network network;
    network.add_node();
    network.add_node();
    network.attach();
    std::vector<uint8_t> data(4096, 1);
    ASSERT_TRUE(network.run(network.one(bdev::IoType::write, data)).ok());
    for (const char* node : {"t1", "t2"})
      network.world.partition("h", node);
    std::optional<nvme::Status> status;
    spawn(Network::collect(network.one(bdev::IoType::write, data), &status));
    network.world.run_for(seconds(away_s));
    EXPECT_FALSE(status.has_value());
    const Instant healed = network.world.now();
    network.world.heal_all();
    ASSERT_TRUE(network.world.run_until([&] { return status.has_value(); }, seconds(60)));
    EXPECT_TRUE(status->ok());
    std::printf("away %d s, gap %lld ms\n", away_s, static_cast<long long>((network.world.now() - healed).to_ms()));
    // The delay, its jitter, and a connection attempt.
    EXPECT_LE((network.world.now() - healed).to_ms(), 2500);
  }
}

// Short transfers, wakes for nothing, full sockets, and a network that goes and comes: over TLS, too.
TEST(MultipathSim, GoesOnOverTlsWhateverTheNetworkDoes) {
  env::SimKnobs knobs;
  knobs.short_transfer_chance = 0.5;
  knobs.spurious_wake_chance = 0.2;
  knobs.socket_buffer_bytes = 20000;
  Network network(knobs);
  auto key = nvmf::auth::TlsKey::parse("NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:");
  ASSERT_TRUE(key.ok());
  const auto shared = std::make_shared<const nvmf::auth::TlsKey>(std::move(key).value());
  network.add_node(shared);
  network.add_node(shared);
  network.attach();
  network.world.set_link("h", "t2", {.loss_chance = 0.02});
  network.world.set_link("t2", "h", {.loss_chance = 0.02});
  for (int round = 0; round < 5; round++) {
    std::vector<uint8_t> data(4096, 1);
    ASSERT_TRUE(network.run(network.one(bdev::IoType::write, data)).ok());
    const auto shares = network.load(16, milliseconds(300));
    EXPECT_GT(shares[0] + shares[1], 10u);
    for (const char* node : {"t1", "t2"})
      network.world.partition("h", node);
    std::optional<nvme::Status> status;
    spawn(Network::collect(network.one(bdev::IoType::read, data), &status));
    network.world.run_for(seconds(5));
    network.world.heal_all();
    ASSERT_TRUE(network.world.run_until([&] { return status.has_value(); }, seconds(60)));
    EXPECT_TRUE(status->ok());
  }
}

TEST(MultipathSim, PoliciesUseUnequalPathsAsTheyPromise) {
  Network network;
  network.add_node();
  network.add_node();
  network.attach();
  env::SimLink slow;
  slow.extra_delay = microseconds(1500);
  network.world.set_link("h", "t2", slow);
  network.world.set_link("t2", "h", slow);
  network.world.run_for(milliseconds(10));
  network.bdev().set_policy({bdev::PathSelector::round_robin});
  auto shares = network.load(8, seconds(2));
  EXPECT_NEAR(static_cast<double>(shares[0]), static_cast<double>(shares[1]), 16);
  const uint64_t in_turn = shares[0] + shares[1];
  network.bdev().set_policy({bdev::PathSelector::queue_depth});
  shares = network.load(8, seconds(2));
  EXPECT_GT(shares[0], shares[1] * 3);
  EXPECT_GT(shares[0] + shares[1], in_turn * 2);
  network.bdev().set_policy({bdev::PathSelector::latency});
  shares = network.load(1, seconds(5));
  EXPECT_GT(shares[0], shares[1] * 50);
  EXPECT_GT(shares[1], 2u);  // looked at now and then
  network.bdev().set_policy({bdev::PathSelector::stay});
  shares = network.load(4, milliseconds(200));
  EXPECT_EQ(std::min(shares[0], shares[1]), 0u);
  // The fast one goes and comes back: latency follows.
  network.bdev().set_policy({bdev::PathSelector::latency});
  network.world.set_link("h", "t2", {});
  network.world.set_link("t2", "h", {});
  network.world.set_link("h", "t1", slow);
  network.world.set_link("t1", "h", slow);
  network.load(1, seconds(5));
  shares = network.load(1, seconds(5));
  EXPECT_GT(shares[1], shares[0] * 50);
}

}  // namespace
}  // namespace basalt::sim
