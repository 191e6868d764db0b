// SPDX-License-Identifier: Apache-2.0
// The target over NVMe/TCP in memory: a raw host says what Linux says, and what no host should.
#include "nvmf/transport/tcp/tcp_target.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "bdev/malloc/malloc.h"
#include "nvmf/transport/memory_net_testing.h"
#include "nvmf/transport/tcp/raw_host_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::nvmf::testing::Bytes;
using basalt::nvmf::testing::RawHost;
using basalt::testing::MemoryNet;
using nvme::AdminOpcode;
using nvme::LogPageId;
using nvme::NvmOpcode;
namespace status = nvme::status;

constexpr char subnqn[] = "nqn.2024-01.io.basalt:vol1";
constexpr char hostnqn[] = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
constexpr uint32_t cc_enable = 0x00460001;

uint64_t test_seed() {
  const char* text = std::getenv("BASALT_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : std::random_device{}();
}

Bytes pattern(size_t length, uint8_t seed) {
  Bytes out(length);
  for (size_t i = 0; i < length; i++)
    out[i] = static_cast<uint8_t>(i * 31 + i / 256 + seed);
  return out;
}

// A bdev that keeps an attribute, holds writes back on demand, and can fail to store.
class GateBdev final : public bdev::Bdev {
 public:
  GateBdev(Reactor& home, std::unique_ptr<bdev::MallocBdev> under) : Bdev(home), under_(std::move(under)) {
    info_ = under_->info();
    info_.name = "gate";
  }
  void submit(bdev::Io* io) override {
    if (hold && io->type == bdev::IoType::write) {
      held.push_back(io);
    } else {
      under_->submit(io);
    }
  }
  void release() {
    hold = false;
    for (bdev::Io* io : held)
      under_->submit(io);
    held.clear();
  }
  Task<Outcome> close() override { return under_->close(); }
  Task<Outcome> set_attribute(std::string value) override {
    if (fail_attribute) co_return Error{Errc::io, "injected"};
    stored = std::move(value);
    co_return success();
  }
  std::string attribute() const override { return stored; }

  bool hold = false;
  bool fail_attribute = false;
  std::vector<bdev::Io*> held;
  std::string stored;

 private:
  std::unique_ptr<bdev::MallocBdev> under_;
};

class TcpTarget : public ::testing::Test {
 protected:
  static constexpr uint64_t blocks = 4096;

  TcpTarget() : seed_(test_seed()), net_(seed_), arena_(size_t{256} << 20) {
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
    for (unsigned i = 0; i < 2; i++) {
      reactors_.push_back(std::make_unique<Reactor>(net_, arena_, ReactorOptions{.index = i}));
      BASALT_ASSERT(reactors_.back()->init().ok());
      net_.add(reactors_.back().get());
    }
    target_ = std::make_unique<Target>(std::vector<Reactor*>{reactors_[0].get(), reactors_[1].get()});
    auto transport = std::make_unique<TcpTargetTransport>(*target_, options_);
    transport_ = transport.get();
    target_->add_transport(std::move(transport));
    bdev::MallocOptions options{.name = "m0", .block_size_bytes = 4096, .count_blocks = blocks};
    options.uuid.bytes[0] = 7;
    // Not the home reactor: every I/O travels.
    auto under = bdev::MallocBdev::create(*reactors_[1], options);
    BASALT_ASSERT(under.ok());
    bdev_ = std::make_unique<GateBdev>(*reactors_[1], std::move(under).value());
    auto created = target_->create_subsystem({.nqn = subnqn, .serial_number = "serial0"});
    subsystem_ = created.value();
    BASALT_ASSERT(subsystem_->add_host(hostnqn).ok());
    auto address = net_.run(subsystem_->add_listener({"TCP", "127.0.0.1", "0"}));
    BASALT_ASSERT(address.ok());
    address_ = *address;
  }

  ~TcpTarget() override {
    hosts_.clear();
    net_.run_void(target_->close());
    EXPECT_EQ(transport_->connection_count(), 0u);
    EXPECT_EQ(transport_->half_open_count(), 0u);
    for (auto& reactor : reactors_)
      EXPECT_EQ(reactor->buffers().in_use_count(), 0u);
    target_.reset();
    EXPECT_TRUE(net_.run(close_bdev()).ok());
  }
  Task<Outcome> close_bdev() {
    auto there = hop(*reactors_[1]);
    co_await there;
    auto closed = co_await bdev_->close();
    co_return closed;
  }

  void add_namespace(bool one_writer = false) {
    auto nsid = net_.run(subsystem_->add_namespace({.nsid = 1, .one_writer = one_writer}, bdev_.get()));
    ASSERT_TRUE(nsid.ok());
  }

  RawHost& dial() {
    env::Address address;
    address.host = "127.0.0.1";
    address.port = static_cast<uint16_t>(std::stoi(address_.trsvcid));
    auto socket = reactors_[0]->poller().connect(address);
    hosts_.push_back(std::make_unique<RawHost>(std::move(socket).value(), [this](const std::function<bool()>& done) {
      return net_.run_until(done, seconds(30));
    }));
    return *hosts_.back();
  }
  struct Pair {
    RawHost* admin;
    RawHost* io;
    uint16_t cntlid;
  };
  // As far as Linux goes before its first I/O.
  Pair associate(uint8_t hostid = 1, pdu::Digests digests = {}, uint32_t kato_ms = 0) {
    RawHost& admin = dial();
    admin.initialize(digests);
    const auto connected = admin.connect(0, subnqn, hostnqn, hostid, 0xffff, kato_ms);
    EXPECT_TRUE(connected.came && connected.status.ok()) << to_string(connected.status);
    EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
    RawHost& io = dial();
    io.initialize(digests);
    const auto cntlid = static_cast<uint16_t>(connected.dw0);
    EXPECT_TRUE(io.connect(1, subnqn, hostnqn, hostid, cntlid).status.ok());
    return {&admin, &io, cntlid};
  }

  const uint64_t seed_;
  MemoryNet net_;
  Arena arena_;
  TcpTargetOptions options_;
  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::unique_ptr<GateBdev> bdev_;
  std::unique_ptr<Target> target_;
  TcpTargetTransport* transport_ = nullptr;
  Subsystem* subsystem_ = nullptr;
  ListenAddress address_;
  std::vector<std::unique_ptr<RawHost>> hosts_;
};

TEST_F(TcpTarget, ALinuxLikeHostConnectsIdentifiesReadsAndWrites) {
  add_namespace();
  for (const pdu::Digests digests : {pdu::Digests{}, pdu::Digests{true, true}}) {
    RawHost& admin = dial();
    const auto ic = admin.initialize(digests);
    EXPECT_EQ(ic.cpda, 0);
    EXPECT_EQ(ic.digests, digests.bits());
    EXPECT_GE(ic.maxh2cdata, 131072u);
    const auto connected = admin.connect(0, subnqn, hostnqn, 1, 0xffff, 5000);
    ASSERT_TRUE(connected.came);
    ASSERT_TRUE(connected.status.ok()) << to_string(connected.status);
    const auto capabilities = admin.property_get(nvme::property_cap, true);
    EXPECT_EQ(capabilities.dw0 & 0xffff, 127u);
    EXPECT_EQ(admin.property_get(nvme::property_csts, false).dw0, 0u);
    EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
    EXPECT_EQ(admin.property_get(nvme::property_csts, false).dw0 & 1, 1u);
    EXPECT_EQ(admin.property_get(nvme::property_vs, false).dw0, 0x00010400u);

    const auto identified = admin.identify(1);
    ASSERT_EQ(identified.data.size(), 4096u);
    nvme::IdentifyController id;
    std::memcpy(&id, identified.data.data(), sizeof(id));
    EXPECT_EQ(id.cntlid, connected.dw0);
    EXPECT_STREQ(id.subnqn, subnqn);
    EXPECT_NE(id.kas, 0);
    EXPECT_NE(id.maxcmd, 0);
    EXPECT_GE(id.ioccsz, 4u);
    EXPECT_GE(id.iorcsz, 1u);
    EXPECT_EQ(id.cmic & 0x0a, 0x0a);
    EXPECT_TRUE(id.mnan != 0 && id.mnan <= id.nn);
    EXPECT_EQ(id.sgls & 1, 1u);
    EXPECT_EQ(memcmp(id.sn, "serial0  ", 9), 0);

    EXPECT_EQ(admin.log_page(LogPageId::commands_supported_and_effects, 4096).data.size(), 4096u);
    const auto ana = admin.log_page(LogPageId::ana, 4096);
    ASSERT_TRUE(ana.status.ok());
    EXPECT_EQ(load_le<uint16_t>(ana.data.data() + 8), 1);
    EXPECT_EQ(ana.data[16 + 16], 1);  // optimized
    const auto queues = admin.admin(AdminOpcode::set_features, 7, 3 | 3 << 16);
    EXPECT_EQ(queues.dw0, 3u | 3u << 16);
    EXPECT_TRUE(admin.admin(AdminOpcode::set_features, 0x0b, 0x900).status.ok());
    EXPECT_TRUE(admin.admin(AdminOpcode::keep_alive, 0).status.ok());
    const auto list = admin.identify(2);
    EXPECT_EQ(load_le<uint32_t>(list.data.data()), 1u);
    EXPECT_EQ(load_le<uint32_t>(list.data.data() + 4), 0u);
    const auto descriptors = admin.identify(3, 1);
    EXPECT_EQ(descriptors.data[0], 3);  // UUID
    EXPECT_EQ(descriptors.data[4], 7);
    const auto space = admin.identify(0, 1);
    EXPECT_EQ(load_le<uint64_t>(space.data.data()), blocks);
    for (const uint8_t cns : {5, 6, 8, 0x1c})
      EXPECT_TRUE(admin.identify(cns, 1).status.ok()) << int{cns};

    RawHost& io = dial();
    io.initialize(digests);
    ASSERT_TRUE(io.connect(1, subnqn, hostnqn, 1, static_cast<uint16_t>(connected.dw0)).status.ok());
    EXPECT_EQ(io.read(1, 0, 1).data.size(), 4096u);
    const Bytes small = pattern(4096, 1);
    const Bytes large = pattern(1 << 20, 2);
    EXPECT_TRUE(io.write(1, 5, small, true).status.ok());
    EXPECT_TRUE(io.write(1, 100, large, false).status.ok());
    EXPECT_EQ(io.read(1, 5, 1).data, small);
    EXPECT_EQ(io.read(1, 100, 256).data, large);
    EXPECT_TRUE(io.command(RawHost::io_command(NvmOpcode::flush, 1, 0, 1)).status.ok());
    EXPECT_TRUE(io.command(RawHost::io_command(NvmOpcode::write_zeroes, 1, 100, 256)).status.ok());
    EXPECT_EQ(io.read(1, 100, 256).data, Bytes(1 << 20));
    admin.drop();
    EXPECT_TRUE(io.closes());
  }
}

}  // namespace
}  // namespace basalt::nvmf
