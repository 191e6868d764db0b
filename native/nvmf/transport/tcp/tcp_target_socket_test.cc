// SPDX-License-Identifier: Apache-2.0
// The malformed cases M1 to M6 over real loopback sockets: the target answers with a termination request or ends the
// connection, stays alive, and a bystander's I/O goes on.
#include <gtest/gtest.h>

#include "bdev/malloc/malloc.h"
#include "env/linux/linux_env.h"
#include "nvmf/transport/tcp/raw_host_testing.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt::nvmf {
namespace {

using basalt::nvmf::testing::Bytes;
using basalt::nvmf::testing::RawHost;

constexpr char subnqn[] = "nqn.2024-01.io.basalt:vol1";
constexpr char hostnqn[] = "nqn.2024-01.io.basalt:host1";

Task<void> note(Task<void> task, bool* ended) {
  co_await task;
  *ended = true;
}

// One reactor, turned by the test's thread.
class RealSocket : public ::testing::Test {
 protected:
  RealSocket() : env_(env::make_linux_env()), arena_(size_t{64} << 20), reactor_(*env_, arena_, {}) {
    BASALT_ASSERT(reactor_.init().ok());
    target_ = std::make_unique<Target>(std::vector<Reactor*>{&reactor_});
    auto transport = std::make_unique<TcpTargetTransport>(*target_);
    transport_ = transport.get();
    target_->add_transport(std::move(transport));
    auto made = bdev::MallocBdev::create(reactor_, {.name = "m0", .block_size_bytes = 4096, .count_blocks = 256});
    BASALT_ASSERT(made.ok());
    bdev_ = std::move(made).value();
    run(set_up());
  }
  ~RealSocket() override {
    hosts_.clear();
    run(tear_down());
    EXPECT_EQ(transport_->connection_count(), 0u);
    EXPECT_EQ(reactor_.buffers().in_use_count(), 0u);
    target_.reset();
  }
  Task<void> set_up() {
    SubsystemOptions options;
    options.nqn = subnqn;
    auto subsystem = target_->create_subsystem(options);
    BASALT_ASSERT(subsystem.ok());
    std::string host = hostnqn;
    BASALT_ASSERT(subsystem.value()->add_host(std::move(host)).ok());
    ns::NamespaceOptions space;
    auto nsid = co_await subsystem.value()->add_namespace(space, bdev_.get());
    BASALT_ASSERT(nsid.ok());
    ListenAddress address{"TCP", "127.0.0.1", "0"};
    auto bound = co_await subsystem.value()->add_listener(std::move(address));
    BASALT_ASSERT(bound.ok());
    port_ = static_cast<uint16_t>(std::stoi(bound->trsvcid));
  }
  Task<void> tear_down() {
    co_await target_->close();
    auto closed = co_await bdev_->close();
    BASALT_ASSERT(closed.ok());
  }

  bool pump(const std::function<bool()>& done) {
    const Instant end = env_->now() + seconds(20);
    while (!done()) {
      if (env_->now() > end) return false;
      if (!reactor_.turn()) reactor_.poller().wait(env_->now() + milliseconds(1));
    }
    return true;
  }
  void run(Task<void> task) {
    bool ended = false;
    spawn(note(std::move(task), &ended));
    BASALT_ASSERT(pump([&] { return ended; }));
  }
  RawHost& dial() {
    env::Address address;
    address.host = "127.0.0.1";
    address.port = port_;
    auto socket = reactor_.poller().connect(address);
    BASALT_ASSERT(socket.ok());
    bool connected = false;
    struct Writable : Work {
      bool* flag;
    } writable;
    writable.flag = &connected;
    writable.run = [](Work* work) { *static_cast<Writable*>(work)->flag = true; };
    socket.value()->arm_writable(&writable);
    BASALT_ASSERT(pump([&] { return connected; }));
    BASALT_ASSERT(socket.value()->connect_result().ok());
    hosts_.push_back(std::make_unique<RawHost>(std::move(socket).value(),
                                               [this](const std::function<bool()>& done) { return pump(done); }));
    return *hosts_.back();
  }

  std::unique_ptr<env::Env> env_;
  Arena arena_;
  Reactor reactor_;
  std::unique_ptr<bdev::MallocBdev> bdev_;
  std::unique_ptr<Target> target_;
  TcpTargetTransport* transport_ = nullptr;
  uint16_t port_ = 0;
  std::vector<std::unique_ptr<RawHost>> hosts_;
};

Bytes with(Bytes bytes, size_t at, uint8_t value) {
  bytes[at] = value;
  return bytes;
}
Bytes with32(Bytes bytes, size_t at, uint32_t value) {
  store_le<uint32_t>(bytes.data() + at, value);
  return bytes;
}

TEST_F(RealSocket, M1ToM6AreRefusedAndABystanderGoesOn) {
  RawHost& admin = dial();
  admin.initialize({true, true});
  const auto connected = admin.connect(0, subnqn, hostnqn, 1);
  ASSERT_TRUE(connected.status.ok());
  ASSERT_TRUE(admin.property_set(nvme::property_cc, 0x00460001).status.ok());
  RawHost& io = dial();
  io.initialize({true, true});
  ASSERT_TRUE(io.connect(1, subnqn, hostnqn, 1, static_cast<uint16_t>(connected.dw0)).status.ok());
  Bytes large(size_t{1} << 20);
  for (size_t i = 0; i < large.size(); i++)
    large[i] = static_cast<uint8_t>(i * 7 + i / 4096);
  ASSERT_TRUE(io.write(1, 0, large, false).status.ok());

  Bytes ic(128);
  pdu::encode_ic_request(ic.data(), {}, 0);
  nvme::Command keep_alive{};
  keep_alive.opcode = 0x18;
  const Bytes capsule = RawHost::capsule(keep_alive);
  struct Case {
    bool initialized;
    Bytes bytes;
    pdu::Fes fes;
  };
  using pdu::Fes;
  std::vector<Case> cases = {{false, capsule, Fes::sequence_error},
                             {true, ic, Fes::sequence_error},
                             {false, with(ic, 8, 1), Fes::invalid_header_field},
                             {false, with(ic, 10, 32), Fes::invalid_header_field}};
  for (const uint8_t hlen : {0, 7, 127, 129})
    cases.push_back({false, with(ic, 2, hlen), Fes::invalid_header_field});
  for (const uint32_t plen : {0u, 7u, 127u, 129u, UINT32_MAX})
    cases.push_back({false, with32(ic, 4, plen), Fes::invalid_header_field});
  for (const int type : {1, 3, 5, 7, 8, 9, 10, 255})
    cases.push_back({true, with(capsule, 0, static_cast<uint8_t>(type)), Fes::invalid_header_field});
  for (const uint8_t hlen : {0, 7, 71, 73, 255})
    cases.push_back({true, with(capsule, 2, hlen), Fes::invalid_header_field});
  for (const uint32_t plen : {0u, 71u, 100u, 1u << 31, UINT32_MAX})
    cases.push_back({true, with32(capsule, 4, plen), Fes::invalid_header_field});
  for (const Case& bad : cases) {
    RawHost& host = dial();
    if (bad.initialized) host.initialize();
    host.send(bad.bytes);
    const auto answer = host.next();
    ASSERT_TRUE(answer.has_value());
    ASSERT_EQ(answer->type, pdu::Type::c2h_term_request);
    EXPECT_EQ(answer->as<pdu::TermRequest>().fes, static_cast<uint16_t>(bad.fes));
    host.drop();
    EXPECT_TRUE(io.read(1, 3, 1).status.ok());
  }
  EXPECT_EQ(io.read(1, 0, 256).data, large);
}

}  // namespace
}  // namespace basalt::nvmf
