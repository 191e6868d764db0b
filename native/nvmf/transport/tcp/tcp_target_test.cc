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
      // As few buffers as there can be: one slab for each size.
      reactors_.push_back(std::make_unique<Reactor>(net_, arena_, ReactorOptions{.index = i, .buffer_bytes_max = 1}));
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
    EXPECT_EQ(id.anacap, 0x1f);  // bit 6 would make nvme-cli misread the ANA log
    EXPECT_TRUE(id.mnan != 0 && id.mnan <= id.nn);
    EXPECT_EQ(id.sgls & 1, 1u);
    EXPECT_EQ(memcmp(id.sn, "serial0  ", 9), 0);

    EXPECT_EQ(admin.log_page(LogPageId::commands_supported_and_effects, 4096).data.size(), 4096u);
    const auto ana = admin.log_page(LogPageId::ana, 4096);
    ASSERT_TRUE(ana.status.ok());
    EXPECT_EQ(load_le<uint16_t>(ana.data.data() + 8), 1);
    EXPECT_EQ(ana.data[16 + 16], 1);  // optimized
    EXPECT_EQ(load_le<uint32_t>(ana.data.data() + 16 + 32), 1u);
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

TEST_F(TcpTarget, AnyCommandKeepsAControllerAliveAndSilenceEndsIt) {
  add_namespace();
  RawHost& admin = dial();
  admin.initialize({});
  const auto connected = admin.connect(0, subnqn, hostnqn, 1, 0xffff, 1000);
  ASSERT_TRUE(connected.status.ok());
  EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
  // A host that was promised keep-alive by traffic sends none while its admin commands are answered.
  for (int turn = 0; turn < 10; turn++) {
    net_.run_for(milliseconds(400));
    EXPECT_TRUE(admin.identify(1).status.ok()) << turn;
  }
  RawHost& io = dial();
  io.initialize({});
  ASSERT_TRUE(io.connect(1, subnqn, hostnqn, 1, static_cast<uint16_t>(connected.dw0)).status.ok());
  for (int turn = 0; turn < 10; turn++) {
    net_.run_for(milliseconds(400));
    EXPECT_EQ(io.read(1, 0, 1).data.size(), 4096u) << turn;
  }
  net_.run_for(milliseconds(900));
  EXPECT_EQ(subsystem_->controllers().size(), 1u);
  net_.run_for(milliseconds(200));
  EXPECT_TRUE(subsystem_->controllers().empty());
  EXPECT_TRUE(admin.closes());
  EXPECT_TRUE(io.closes());
}

// ---- malformed input ------------------------------------------------------------------------------------------------

struct Malformed {
  std::string name;
  Bytes bytes;
  pdu::Fes fes;
  uint32_t fei;
};

Bytes ic_request() {
  Bytes out(sizeof(pdu::IcRequest));
  pdu::encode_ic_request(out.data(), {}, 0);
  return out;
}
Bytes h2c_data(const pdu::DataFields& fields) {
  Bytes out(pdu::encoded_small_header_bytes_max);
  out.resize(pdu::encode_h2c_data(out.data(), {}, fields));
  out.resize(out.size() + fields.length_bytes);
  return out;
}
Bytes with(Bytes bytes, size_t at, uint8_t value) {
  bytes[at] = value;
  return bytes;
}
Bytes with32(Bytes bytes, size_t at, uint32_t value) {
  store_le<uint32_t>(bytes.data() + at, value);
  return bytes;
}
Bytes keep_alive_capsule() {
  nvme::Command command{};
  command.opcode = 0x18;
  return RawHost::capsule(command);
}

TEST_F(TcpTarget, M1ToM6EndOnlyTheConnectionThatSentThemWithTheRightTerminationRequest) {
  add_namespace();
  const Pair bystander = associate();
  const Bytes ic = ic_request();
  const Bytes capsule = keep_alive_capsule();
  const Bytes data = h2c_data({.length_bytes = 4, .last = true});
  std::vector<Malformed> before = {
      {"M1 capsule", capsule, pdu::Fes::sequence_error, 0},
      {"M1 data", data, pdu::Fes::sequence_error, 0},
      {"M3 PFV", with(ic, 8, 1), pdu::Fes::invalid_header_field, 8},
      {"M3 HPDA", with(ic, 10, 32), pdu::Fes::invalid_header_field, 10},
  };
  for (const uint8_t hlen : {0, 7, 127, 129})
    before.push_back({"M3 HLEN", with(ic, 2, hlen), pdu::Fes::invalid_header_field, 2});
  for (const uint32_t plen : {0u, 7u, 127u, 129u, UINT32_MAX})
    before.push_back({"M3 PLEN", with32(ic, 4, plen), pdu::Fes::invalid_header_field, 4});
  std::vector<Malformed> after = {{"M2 second ICReq", ic, pdu::Fes::sequence_error, 0},
                                  {"M5 data HLEN", with(data, 2, 23), pdu::Fes::invalid_header_field, 2},
                                  {"M6 PLEN with nothing", with32(capsule, 4, 100), pdu::Fes::invalid_header_field, 4}};
  for (const int type : {1, 3, 5, 7, 8, 9, 10, 0x80, 0xff})
    after.push_back({"M4", with(capsule, 0, static_cast<uint8_t>(type)), pdu::Fes::invalid_header_field, 0});
  for (const uint8_t hlen : {0, 7, 71, 73, 255})
    after.push_back({"M5", with(capsule, 2, hlen), pdu::Fes::invalid_header_field, 2});
  for (const uint32_t plen : {0u, 71u, 1u << 31, UINT32_MAX})
    after.push_back({"M6", with32(capsule, 4, plen), pdu::Fes::invalid_header_field, 4});

  const auto check = [&](const Malformed& bad, bool initialized) {
    SCOPED_TRACE(bad.name);
    RawHost& host = dial();
    if (initialized) host.initialize();
    host.send(bad.bytes);
    const auto answer = host.next();
    ASSERT_TRUE(answer.has_value());
    ASSERT_EQ(answer->type, pdu::Type::c2h_term_request);
    const auto term = answer->as<pdu::TermRequest>();
    EXPECT_EQ(term.fes, static_cast<uint16_t>(bad.fes));
    EXPECT_EQ(term.fei_low, bad.fei);
    EXPECT_TRUE(host.closes());
    EXPECT_TRUE(bystander.io->read(1, 0, 1).status.ok());
  };
  for (const Malformed& bad : before)
    check(bad, false);
  for (const Malformed& bad : after)
    check(bad, true);
  // MAXR2T at its largest is not malformed.
  RawHost& host = dial();
  host.send(with32(ic, 12, UINT32_MAX));
  EXPECT_EQ(host.next()->type, pdu::Type::ic_response);
}

TEST_F(TcpTarget, M8ToM15DataThatWasNotAskedForEndsTheConnectionAndIsNotWritten) {
  add_namespace();
  const Bytes before = pattern(8192, 9);
  ASSERT_TRUE(associate(9).io->write(1, 0, before, false).status.ok());
  using pdu::Fes;
  const auto last = [](pdu::DataFields f) {
    f.last = true;
    return f;
  };
  struct Row {
    const char* name;
    std::function<pdu::DataFields(pdu::DataFields)> change;
    Fes fes;
  };
  const Row rows[] = {
      {"M8 tag of no slot",
       [&](auto f) {
         f.ttag = 0xffff;
         return last(f);
       },
       Fes::sequence_error},
      {"M9 tag of an idle slot",
       [&](auto f) {
         f.ttag = static_cast<uint16_t>(f.ttag ^ 1);
         return last(f);
       },
       Fes::sequence_error},
      {"M10 other command",
       [&](auto f) {
         f.cccid++;
         return last(f);
       },
       Fes::sequence_error},
      {"M11 gap",
       [&](auto f) {
         f.offset_bytes = 4096;
         return f;
       },
       Fes::transfer_out_of_range},
      {"M11 past the end",
       [&](auto f) {
         f.length_bytes = 8196;
         return last(f);
       },
       Fes::transfer_out_of_range},
      {"M12 wrap",
       [&](auto f) {
         f.offset_bytes = 0xfffffffc;
         return f;
       },
       Fes::transfer_out_of_range},
      {"M13 nothing",
       [&](auto f) {
         f.length_bytes = 0;
         return f;
       },
       Fes::invalid_header_field},
      {"M15 last too early",
       [&](auto f) {
         f.length_bytes = 4096;
         return last(f);
       },
       Fes::sequence_error},
      {"M15 last missing", [&](auto f) { return f; }, Fes::sequence_error},
  };
  uint8_t hostid = 20;
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const Pair pair = associate(hostid++);
    nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, 0, 2);
    command.cid = 77;
    command.sgl = {0, 8192, {}, nvme::sgl_transport_data_block};
    pair.io->send(RawHost::capsule(command));
    const auto r2t = pair.io->next();
    ASSERT_TRUE(r2t.has_value());
    ASSERT_EQ(r2t->type, pdu::Type::r2t);
    const pdu::DataFields good{.cccid = 77, .ttag = r2t->as<pdu::R2t>().ttag, .length_bytes = 8192};
    pair.io->send(h2c_data(row.change(good)));
    const auto answer = pair.io->next();
    ASSERT_TRUE(answer.has_value());
    ASSERT_EQ(answer->type, pdu::Type::c2h_term_request);
    EXPECT_EQ(answer->as<pdu::TermRequest>().fes, static_cast<uint16_t>(row.fes));
    EXPECT_TRUE(pair.io->closes());
    pair.admin->drop();
  }
  EXPECT_EQ(associate(9).io->read(1, 0, 2).data, before);
}

TEST_F(TcpTarget, M17AWrongDataDigestFailsTheCommandAndWritesNothing) {
  add_namespace();
  const pdu::Digests digests{false, true};
  const Pair pair = associate(1, digests);
  nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, 3, 1);
  command.cid = 500;
  command.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
  Bytes bad = RawHost::capsule(command, pattern(4096, 1), digests);
  bad[1000] ^= 1;
  pair.io->send(bad);
  EXPECT_TRUE(pair.io->collect(500).status.is(status::transient_transport_error));
  EXPECT_EQ(pair.io->read(1, 3, 1).data, Bytes(4096));
  EXPECT_TRUE(pair.io->write(1, 3, pattern(4096, 1), true).status.ok());
}

TEST_F(TcpTarget, M18ToM20BadSglsAreRefusedBeforeAnyMemoryIsTaken) {
  add_namespace();
  const Pair pair = associate();
  struct Row {
    nvme::SglDescriptor sgl;
    uint8_t flags;
    nvme::Status expected;
  };
  const Row rows[] = {
      {{0, UINT32_MAX, {}, nvme::sgl_transport_data_block}, 0x40, status::data_sgl_length_invalid},
      {{0, 0, {}, nvme::sgl_transport_data_block}, 0x40, status::data_sgl_length_invalid},
      {{0, 8192, {}, nvme::sgl_transport_data_block}, 0x40, status::data_sgl_length_invalid},
      {{0, 4096, {}, 0x00}, 0x40, status::sgl_type_invalid},
      {{0, 4096, {}, 0x40}, 0x40, status::sgl_type_invalid},
      {{0, 4096, {}, 0x10}, 0x40, status::sgl_type_invalid},
      {{0, 4096, {}, nvme::sgl_transport_data_block}, 0x00, status::sgl_type_invalid},
      {{0, 4096, {}, nvme::sgl_transport_data_block}, 0xc0, status::sgl_type_invalid},
      {{0, 4096, {}, nvme::sgl_data_block_offset}, 0x40, status::sgl_type_invalid},  // in-capsule, on a read
  };
  for (const Row& row : rows) {
    nvme::Command command = RawHost::io_command(NvmOpcode::read, 1, 0, 1);
    command.cid = 9;
    command.flags = row.flags;
    command.sgl = row.sgl;
    pair.io->send(RawHost::capsule(command));
    EXPECT_TRUE(pair.io->collect(9).status.is(row.expected)) << int{row.sgl.type_subtype};
  }
  nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, 0, 1);
  command.cid = 9;
  command.sgl = {16, 4096, {}, nvme::sgl_data_block_offset};
  pair.io->send(RawHost::capsule(command, pattern(4096, 1)));
  EXPECT_TRUE(pair.io->collect(9).status.is(status::sgl_offset_invalid));
}

TEST_F(TcpTarget, M21MoreCommandsThanTheQueueHoldsEndTheConnection) {
  add_namespace();
  const Pair pair = associate();
  bdev_->hold = true;
  for (int i = 0; i < 130; i++) {
    nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, static_cast<uint64_t>(i), 1);
    command.cid = static_cast<uint16_t>(i);
    command.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
    if (!pair.io->send(RawHost::capsule(command, Bytes(4096)))) break;
  }
  EXPECT_TRUE(pair.io->closes());
  bdev_->release();
}

TEST_F(TcpTarget, M24AndM25ConnectAndCommandsOutOfOrderAreRefused) {
  add_namespace();
  const Pair pair = associate();
  RawHost& early = dial();
  early.initialize();
  EXPECT_TRUE(early.read(1, 0, 1).status.is(status::command_sequence_error));
  EXPECT_TRUE(early.property_get(nvme::property_cap, true).status.is(status::command_sequence_error));
  EXPECT_TRUE(early.connect(0, subnqn, "nqn.2024-01.io.basalt:stranger", 5).status.is(status::connect_invalid_host));
  EXPECT_TRUE(early.connect(0, "nqn.2024-01.io.basalt:none", hostnqn, 5).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(0, subnqn, hostnqn, 0).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(0, subnqn, "nqn.bad\nname", 5).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(0, subnqn, "", 5).status.is(status::connect_invalid_parameters));
  // Another host's controller, a queue that exists, a controller that does not.
  EXPECT_TRUE(early.connect(2, subnqn, hostnqn, 66, pair.cntlid).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(1, subnqn, hostnqn, 1, pair.cntlid).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(2, subnqn, hostnqn, 1, 999).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(2, subnqn, hostnqn, 1, pair.cntlid).status.ok());
  EXPECT_TRUE(early.connect(3, subnqn, hostnqn, 1, pair.cntlid).status.is(status::command_sequence_error));
  EXPECT_TRUE(early.property_get(nvme::property_cap, true).status.is(status::invalid_opcode));
}

TEST_F(TcpTarget, M26ToM29OddAdminAndIoCommandsGetExactStatus) {
  add_namespace();
  const Pair pair = associate();
  EXPECT_TRUE(pair.admin->property_get(0x9999, false).status.is(status::invalid_field));
  EXPECT_TRUE(pair.admin->property_get(nvme::property_cap, false).status.is(status::invalid_field));
  EXPECT_TRUE(pair.admin->property_set(nvme::property_csts, 1).status.is(status::invalid_field));
  EXPECT_EQ(pair.admin->admin(AdminOpcode::identify, 1, 0, 0, 4).data.size(), 4u);
  EXPECT_EQ(pair.admin->admin(AdminOpcode::identify, 1, 0, 0, 131072).data.size(), 131072u);
  EXPECT_TRUE(pair.admin->admin(AdminOpcode::identify, 0x77, 0, 0, 4096).status.is(status::invalid_field));
  EXPECT_TRUE(pair.admin->admin(AdminOpcode::get_features, 0x70).status.is(status::invalid_field));
  nvme::Command log{};
  log.opcode = 2;
  log.cdw10 = 2 | 127u << 16;
  log.cdw12 = log.cdw13 = 0xfffffffc;
  EXPECT_TRUE(pair.admin->command(log, {}, 512).status.is(status::invalid_field));
  EXPECT_TRUE(pair.admin->admin(static_cast<AdminOpcode>(0xc0), 0).status.is(status::invalid_opcode));
  for (const uint32_t nsid : {0u, 2u, 0xffffffffu})
    EXPECT_TRUE(pair.io->read(nsid, 0, 1).status.is(status::invalid_namespace));
  EXPECT_TRUE(pair.io->read(1, blocks, 1).status.is(status::lba_out_of_range));
  EXPECT_TRUE(pair.io->read(1, blocks - 1, 2).status.is(status::lba_out_of_range));
  EXPECT_TRUE(pair.io->read(1, UINT64_MAX, 1).status.is(status::lba_out_of_range));
  nvme::Command zeroes = RawHost::io_command(NvmOpcode::write_zeroes, 1, blocks - 1, 65536);
  EXPECT_TRUE(pair.io->command(zeroes).status.is(status::lba_out_of_range));
  EXPECT_TRUE(pair.io->command(RawHost::io_command(static_cast<NvmOpcode>(0x7e), 1, 0, 1)).status.ok() == false);
}

TEST_F(TcpTarget, M30DeallocateTakesRangesAndComparesSeeTheDifference) {
  add_namespace();
  const Pair pair = associate();
  const Bytes data = pattern(4 * 4096, 5);
  ASSERT_TRUE(pair.io->write(1, 10, data, false).status.ok());
  nvme::Command compare = RawHost::io_command(NvmOpcode::compare, 1, 10, 4);
  EXPECT_TRUE(pair.io->command(compare, data, 0, false).status.ok());
  EXPECT_TRUE(pair.io->command(compare, pattern(4 * 4096, 6), 0, false).status.is(status::compare_failure));
  Bytes ranges(3 * 16);
  store_le<uint32_t>(ranges.data() + 4, 1);
  store_le<uint64_t>(ranges.data() + 8, 10);
  store_le<uint32_t>(ranges.data() + 36, 2);
  store_le<uint64_t>(ranges.data() + 40, 12);
  nvme::Command dsm{};
  dsm.opcode = 9;
  dsm.nsid = 1;
  dsm.cdw10 = 2;
  dsm.cdw11 = 4;
  EXPECT_TRUE(pair.io->command(dsm, ranges).status.ok());
  Bytes expected = data;
  std::fill(expected.begin(), expected.begin() + 4096, 0);
  std::fill(expected.begin() + 8192, expected.end(), 0);
  EXPECT_EQ(pair.io->read(1, 10, 4).data, expected);
  store_le<uint64_t>(ranges.data() + 40, blocks - 1);
  EXPECT_TRUE(pair.io->command(dsm, ranges).status.is(status::lba_out_of_range));
  dsm.cdw10 = 255;
  EXPECT_TRUE(pair.io->command(dsm, ranges).status.is(status::data_sgl_length_invalid));
}

TEST_F(TcpTarget, M31AFifthEventRequestIsRefusedAndEventsTellWhatChanged) {
  const Pair pair = associate();
  ASSERT_TRUE(pair.admin->admin(AdminOpcode::set_features, 0x0b, 0x900).status.ok());
  nvme::Command event{};
  event.opcode = 0x0c;
  for (uint16_t i = 0; i < 4; i++) {
    event.cid = static_cast<uint16_t>(1000 + i);
    pair.admin->send(RawHost::capsule(event));
  }
  event.cid = 2000;
  pair.admin->send(RawHost::capsule(event));
  EXPECT_TRUE(pair.admin->collect(2000).status.is(status::aer_limit_exceeded));
  add_namespace();
  const auto added = pair.admin->collect(1000);
  EXPECT_EQ(added.dw0, 2u | 4u << 16);
  const auto changed = pair.admin->log_page(LogPageId::changed_namespace_list, 4096);
  EXPECT_EQ(load_le<uint32_t>(changed.data.data()), 1u);
  ASSERT_TRUE(net_.run(subsystem_->set_ana_state(address_, 1, nvme::AnaState::inaccessible)).ok());
  EXPECT_EQ(pair.admin->collect(1001).dw0, 2u | 3u << 8 | 0x0cu << 16);
  EXPECT_TRUE(pair.io->read(1, 0, 1).status.is(status::ana_inaccessible));
  const auto ana = pair.admin->log_page(LogPageId::ana, 4096);
  EXPECT_EQ(ana.data[16 + 16], 3);
  ASSERT_TRUE(net_.run(subsystem_->set_ana_state(address_, 0, nvme::AnaState::optimized)).ok());
  EXPECT_TRUE(pair.io->read(1, 0, 1).status.ok());
  ASSERT_TRUE(net_.run(subsystem_->remove_namespace(1)).ok());
  EXPECT_TRUE(pair.io->read(1, 0, 1).status.is(status::invalid_namespace));
}

TEST_F(TcpTarget, M33ADisconnectAtAnyByteGivesEverythingBack) {
  add_namespace();
  nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, 0, 1);
  command.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
  const Bytes stream = RawHost::capsule(command, pattern(4096, 1));
  for (size_t cut = 0; cut < stream.size(); cut += cut < 80 ? 1 : 509) {
    const Pair pair = associate(40);
    pair.io->send(Bytes(stream.begin(), stream.begin() + static_cast<long>(cut)));
    pair.io->drop();
    pair.admin->drop();
    EXPECT_TRUE(net_.run_until([&] { return transport_->connection_count() == 0; }, seconds(5))) << cut;
    for (auto& reactor : reactors_)
      EXPECT_EQ(reactor->buffers().in_use_count(), 0u);
    hosts_.clear();
  }
  const Bytes ic = ic_request();
  for (size_t cut = 0; cut < ic.size(); cut++) {
    RawHost& host = dial();
    host.send(Bytes(ic.begin(), ic.begin() + static_cast<long>(cut)));
    host.drop();
    EXPECT_TRUE(net_.run_until([&] { return transport_->connection_count() == 0; }, seconds(20))) << cut;
  }
}

TEST_F(TcpTarget, ADisconnectWithWritesAtTheDeviceWaitsForThem) {
  add_namespace();
  const Pair pair = associate();
  bdev_->hold = true;
  for (uint16_t i = 0; i < 4; i++) {
    nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, i, 1);
    command.cid = i;
    command.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
    pair.io->send(RawHost::capsule(command, pattern(4096, 1)));
  }
  EXPECT_TRUE(net_.run_until([&] { return bdev_->held.size() == 4; }));
  pair.io->drop();
  pair.admin->drop();
  net_.run_for(seconds(1));
  EXPECT_EQ(transport_->connection_count(), 1u);  // the queue with commands at the device
  bdev_->release();
  EXPECT_TRUE(net_.run_until([&] { return transport_->connection_count() == 0; }));
}

TEST_F(TcpTarget, SilentConnectionsAreClosedInTime) {
  RawHost& silent = dial();
  const Instant start = net_.now();
  EXPECT_TRUE(silent.closes());
  EXPECT_LT(net_.now() - start, seconds(6));
  RawHost& half = dial();
  half.initialize();
  EXPECT_TRUE(half.closes());
  EXPECT_LT(net_.now() - start, seconds(17));
}

TEST_F(TcpTarget, AHostThatStopsItsKeepAliveLosesItsController) {
  add_namespace();
  const Pair pair = associate(1, {}, 2000);
  for (int i = 0; i < 8; i++) {  // traffic on the I/O queue counts
    net_.run_for(seconds(1));
    ASSERT_TRUE(pair.io->read(1, 0, 1).status.ok());
  }
  EXPECT_TRUE(pair.io->closes());
  EXPECT_TRUE(pair.admin->closes());
  EXPECT_TRUE(net_.run_until([&] { return subsystem_->controllers().empty(); }));
}

TEST_F(TcpTarget, ANewAssociationOfTheSameHostWaitsUntilTheOldOneHasDrained) {
  add_namespace();
  const Pair old = associate(1);
  bdev_->hold = true;
  nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, 0, 1);
  command.cid = 1;
  command.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
  old.io->send(RawHost::capsule(command, pattern(4096, 1)));
  EXPECT_TRUE(net_.run_until([&] { return bdev_->held.size() == 1; }));
  RawHost& next = dial();
  next.initialize();
  bool released = false;
  struct Release : Timer {
    GateBdev* bdev;
    bool* released;
  } timer;
  timer.bdev = bdev_.get();
  timer.released = &released;
  timer.run = [](Work* work) {
    auto* self = static_cast<Release*>(static_cast<Timer*>(work));
    *self->released = true;
    self->bdev->release();
  };
  reactors_[1]->arm_after(&timer, seconds(3));
  const auto connected = next.connect(0, subnqn, hostnqn, 1);
  EXPECT_TRUE(connected.status.ok());
  EXPECT_TRUE(released);
  EXPECT_TRUE(old.io->closes());
  EXPECT_EQ(subsystem_->controllers().size(), 1u);
}

TEST_F(TcpTarget, DiscoveryListsOnlyWhatTheHostMayUse) {
  auto other = target_->create_subsystem({.nqn = "nqn.2024-01.io.basalt:other"});
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(net_.run((*other)->add_listener(address_)).ok());
  auto inner =
      target_->create_subsystem({.nqn = "nqn.2024-01.io.basalt:inner", .allow_any_host = true, .internal = true});
  ASSERT_TRUE(inner.ok());
  ASSERT_TRUE(net_.run((*inner)->add_listener(address_)).ok());
  RawHost& host = dial();
  host.initialize();
  ASSERT_TRUE(host.connect(0, nvme::discovery_nqn, hostnqn, 1).status.ok());
  ASSERT_TRUE(host.property_set(nvme::property_cc, cc_enable).status.ok());
  auto log = host.log_page(LogPageId::discovery, 8192);
  ASSERT_TRUE(log.status.ok());
  EXPECT_EQ(load_le<uint64_t>(log.data.data() + 8), 1u);
  nvme::DiscoveryLogEntry entry;
  std::memcpy(&entry, log.data.data() + 1024, sizeof(entry));
  EXPECT_STREQ(entry.subnqn, subnqn);
  EXPECT_STREQ(entry.traddr, "127.0.0.1");
  EXPECT_EQ(std::string(entry.trsvcid), address_.trsvcid);
  EXPECT_EQ(entry.trtype, 3);
  const uint64_t generation = load_le<uint64_t>(log.data.data());
  ASSERT_TRUE((*other)->add_host(hostnqn).ok());
  log = host.log_page(LogPageId::discovery, 8192);
  EXPECT_EQ(load_le<uint64_t>(log.data.data() + 8), 2u);
  EXPECT_GT(load_le<uint64_t>(log.data.data()), generation);
  EXPECT_TRUE(host.admin(AdminOpcode::identify, 2, 0, 0, 4096).status.is(status::invalid_field));
}

TEST_F(TcpTarget, OnlyLoopbackAddressesAreListenedOn) {
  auto refused = net_.run(subsystem_->add_listener({"TCP", "0.0.0.0", "0"}));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::permission);
}

TEST_F(TcpTarget, ANamespaceWithoutReservationsSaysSoAndRefusesTheirCommands) {
  auto nsid = net_.run(subsystem_->add_namespace({.nsid = 1, .reservations = false}, bdev_.get()));
  ASSERT_TRUE(nsid.ok());
  const Pair pair = associate();
  EXPECT_TRUE(pair.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.is(status::invalid_opcode));
  EXPECT_TRUE(pair.io->reservation(NvmOpcode::reservation_acquire, 1, 0, 5, 0).status.is(status::invalid_opcode));
  EXPECT_TRUE(pair.io->write(1, 2, pattern(4096, 3), true).status.ok());
}

TEST_F(TcpTarget, RemovingAHostClosesItsControllers) {
  add_namespace();
  const Pair pair = associate();
  ASSERT_TRUE(net_.run(subsystem_->remove_host(hostnqn)).ok());
  EXPECT_TRUE(pair.io->closes());
  EXPECT_TRUE(subsystem_->controllers().empty());
}

TEST_F(TcpTarget, CommandsWaitForBuffersInLineAndAllEnd) {
  add_namespace();
  const Pair pair = associate();
  constexpr uint16_t count = 12;  // a slab holds two buffers of this size
  for (uint16_t i = 0; i < count; i++) {
    nvme::Command command = RawHost::io_command(NvmOpcode::read, 1, i, 256);
    command.cid = static_cast<uint16_t>(600 + i);
    command.sgl = {0, 1 << 20, {}, nvme::sgl_transport_data_block};
    pair.io->send(RawHost::capsule(command));
  }
  for (uint16_t i = 0; i < count; i++) {
    const auto pdu = pair.io->next();
    ASSERT_TRUE(pdu.has_value());
    ASSERT_EQ(pdu->type, pdu::Type::c2h_data);
    EXPECT_EQ(pdu->data.size(), size_t{1} << 20);
  }
  EXPECT_TRUE(pair.io->write(1, 0, pattern(1 << 20, 4), false).status.ok());
}

// ---- the one-writer gate --------------------------------------------------------------------------------------------

constexpr uint32_t acquire_preempt_and_abort = 2 | 2u << 8;

TEST_F(TcpTarget, ATakeoverRefusesTheOldHolderDrainsItPersistsAndOnlyThenCompletes) {
  add_namespace(true);
  const Pair old = associate(1);
  EXPECT_TRUE(old.io->read(1, 0, 1).status.is(status::reservation_conflict));
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.ok());
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_acquire, 1, acquire_preempt_and_abort, 5, 0).status.ok());
  EXPECT_EQ(ns::highest_epoch(bdev_->stored).value(), 5u);
  EXPECT_TRUE(old.io->write(1, 0, pattern(4096, 1), true).status.ok());

  bdev_->hold = true;
  nvme::Command parked = RawHost::io_command(NvmOpcode::write, 1, 1, 1);
  parked.cid = 900;
  parked.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
  old.io->send(RawHost::capsule(parked, pattern(4096, 2)));
  ASSERT_TRUE(net_.run_until([&] { return bdev_->held.size() == 1; }));

  const Pair next = associate(2);
  EXPECT_TRUE(
      next.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 4).status.is(status::reservation_conflict));
  ASSERT_TRUE(next.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 6).status.ok());
  nvme::Command acquire{};
  acquire.opcode = static_cast<uint8_t>(NvmOpcode::reservation_acquire);
  acquire.flags = 0x40;
  acquire.cid = 901;
  acquire.nsid = 1;
  acquire.cdw10 = acquire_preempt_and_abort;
  acquire.sgl = {0, 16, {}, nvme::sgl_data_block_offset};
  Bytes keys(16);
  store_le<uint64_t>(keys.data(), 6);
  next.io->send(RawHost::capsule(acquire, keys));
  net_.run_for(seconds(1));
  EXPECT_EQ(ns::highest_epoch(bdev_->stored).value(), 5u);  // not before the admitted write has ended
  EXPECT_TRUE(old.io->write(1, 2, pattern(4096, 3), true).status.is(status::reservation_conflict));
  bdev_->release();
  EXPECT_TRUE(next.io->collect(901).status.ok());
  EXPECT_EQ(ns::highest_epoch(bdev_->stored).value(), 6u);
  EXPECT_TRUE(old.io->read(1, 0, 1).status.is(status::reservation_conflict));
  EXPECT_EQ(next.io->read(1, 1, 1).data, pattern(4096, 2));
  EXPECT_EQ(next.io->read(1, 2, 1).data, Bytes(4096));

  // The same namespace, opened again: the gate is as it was.
  ASSERT_TRUE(net_.run(subsystem_->remove_namespace(1)).ok());
  add_namespace(true);
  EXPECT_TRUE(old.io->read(1, 0, 1).status.is(status::reservation_conflict));
  EXPECT_TRUE(old.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.is(status::reservation_conflict));
  EXPECT_EQ(next.io->read(1, 1, 1).data, pattern(4096, 2));
}

TEST_F(TcpTarget, ATakeoverThatCannotBeMadeDurableFailsAndTheGateStaysShut) {
  add_namespace(true);
  const Pair old = associate(1);
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.ok());
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_acquire, 1, acquire_preempt_and_abort, 5, 0).status.ok());
  const Pair next = associate(2);
  ASSERT_TRUE(next.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 6).status.ok());
  bdev_->fail_attribute = true;
  EXPECT_TRUE(next.io->reservation(NvmOpcode::reservation_acquire, 1, acquire_preempt_and_abort, 6, 0)
                  .status.is(status::internal_error));
  EXPECT_TRUE(old.io->read(1, 0, 1).status.is(status::reservation_conflict));
  EXPECT_TRUE(next.io->read(1, 0, 1).status.is(status::reservation_conflict));
  EXPECT_TRUE(old.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.is(status::reservation_conflict));
  bdev_->fail_attribute = false;
  EXPECT_TRUE(next.io->reservation(NvmOpcode::reservation_acquire, 1, acquire_preempt_and_abort, 6, 0).status.ok());
  EXPECT_TRUE(next.io->read(1, 0, 1).status.ok());
}

}  // namespace
}  // namespace basalt::nvmf
