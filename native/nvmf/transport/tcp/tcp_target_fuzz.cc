// SPDX-License-Identifier: Apache-2.0
// The whole target over NVMe/TCP: several connections say what the input tells them - right steps, commands with any of
// their bits changed, data that nobody asked for, bytes that mean nothing, silence, sudden ends - while the disk holds
// its requests or fails and the management changes things underneath.
//
// Whatever comes: what the target sends are right PDUs that answer what was asked; a bystander's data stays what it
// was; and after the last connection has gone nothing is left, no queue, no buffer, no controller.
#include "nvmf/transport/tcp/tcp_target.h"

#include <cstring>

#include "base/bytes.h"
#include "nvmf/transport/tcp/raw_host_testing.h"
#include "testing/fuzz_target.h"
#include "testing/fuzz_world.h"

namespace basalt::nvmf {
namespace {

using basalt::nvmf::testing::Bytes;
using basalt::nvmf::testing::RawHost;
using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDisk;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using basalt::testing::FuzzWorld;

constexpr char subnqn[] = "nqn.2026-01.test:volume";
constexpr char gatenqn[] = "nqn.2026-01.test:replica";
constexpr char hostnqn[] = "nqn.2026-01.test:host";
constexpr char strangernqn[] = "nqn.2026-01.test:stranger";
constexpr uint32_t block_bytes = 512;
constexpr uint64_t count_blocks = 256;
constexpr size_t connections_max = 4;
constexpr unsigned steps_max = 64;
constexpr uint32_t cc_enable = 0x00460001;

enum Step : uint8_t {
  step_dial,
  step_initialize,
  step_connect,
  step_enable,
  step_command,
  step_data,
  step_raw,
  step_drop,
  step_wait,
  step_disk,
  step_manage,
  step_deaf,
  step_count,
};

// One of a few valid commands to begin with.
nvme::Command template_command(uint8_t which) {
  using nvme::AdminOpcode;
  using nvme::NvmOpcode;
  nvme::Command out{};
  const auto admin = [&](AdminOpcode opcode, uint32_t cdw10, uint32_t cdw11 = 0) {
    out.opcode = static_cast<uint8_t>(opcode);
    out.nsid = 1;
    out.cdw10 = cdw10;
    out.cdw11 = cdw11;
  };
  const auto io = [&](NvmOpcode opcode, uint64_t slba, uint32_t count) {
    out = RawHost::io_command(opcode, 1, slba, count);
  };
  switch (which % 24) {
    case 0:
      io(NvmOpcode::write, 0, 2);
      break;
    case 1:
      io(NvmOpcode::read, 0, 2);
      break;
    case 2:
      io(NvmOpcode::write, 8, 32);
      break;
    case 3:
      io(NvmOpcode::read, 8, 32);
      break;
    case 4:
      io(NvmOpcode::flush, 0, 1);
      break;
    case 5:
      io(NvmOpcode::compare, 0, 2);
      break;
    case 6:
      io(NvmOpcode::write_zeroes, 0, 4);
      break;
    case 7:
      io(NvmOpcode::dataset_management, 0, 1);
      out.cdw10 = 1;
      out.cdw11 = 4;
      break;
    case 8:
      io(NvmOpcode::reservation_register, 0, 1);
      break;
    case 9:
      io(NvmOpcode::reservation_acquire, 0, 1);
      out.cdw10 = 1u << 8;
      break;
    case 10:
      io(NvmOpcode::reservation_release, 0, 1);
      out.cdw10 = 1u << 8;
      break;
    case 11:
      io(NvmOpcode::reservation_report, 0, 1);
      out.cdw10 = 127;
      out.cdw11 = 1;
      break;
    case 12:
      admin(AdminOpcode::identify, 1);
      break;
    case 13:
      admin(AdminOpcode::identify, 0);
      break;
    case 14:
      admin(AdminOpcode::identify, 3);
      break;
    case 15:
      admin(AdminOpcode::get_log_page, 0x0c | 255u << 16);
      break;
    case 16:
      admin(AdminOpcode::get_log_page, 0x70 | 255u << 16);
      break;
    case 17:
      admin(AdminOpcode::get_log_page, 0x02 | 127u << 16);
      break;
    case 18:
      admin(AdminOpcode::set_features, 7, 3 | 3u << 16);
      break;
    case 19:
      admin(AdminOpcode::set_features, 0x0b, 0x900);
      break;
    case 20:
      admin(AdminOpcode::get_features, 0x0f);
      break;
    case 21:
      admin(AdminOpcode::async_event_request, 0);
      break;
    case 22:
      admin(AdminOpcode::abort, 0);
      break;
    default:
      admin(AdminOpcode::keep_alive, 0);
      break;
  }
  out.flags = 0x40;
  return out;
}

// A connection and what it knows of its own: enough to judge what comes back.
struct Host {
  std::unique_ptr<RawHost> raw;
  pdu::Digests digests;
  bool deaf = false;
  bool initialized = false;
  bool vouched = true;  // nothing but right PDUs was sent: the connection must not be ended for a protocol error
  pdu::R2t r2t{};
  bool r2t_waits = false;
};

class Play {
 public:
  Play(FuzzInput& input, uint8_t seed)
      : input_(input),
        world_(seed, 2, knobs()),
        disk_(*world_.reactors[1], block_bytes, count_blocks),
        gate_disk_(world_.home(), block_bytes, count_blocks) {
    target_ = std::make_unique<Target>(world_.reactor_list());
    TcpTargetOptions options;
    options.connection.in_capsule_bytes = 8192;
    options.connection.maxh2cdata_bytes = 16384;
    auto transport = std::make_unique<TcpTargetTransport>(*target_, options);
    transport_ = transport.get();
    target_->add_transport(std::move(transport));
    SubsystemOptions subsystem;
    subsystem.nqn = subnqn;
    subsystem_ = target_->create_subsystem(subsystem).value();
    BASALT_ASSERT(subsystem_->add_host(hostnqn).ok());
    subsystem.nqn = gatenqn;
    subsystem.internal = true;
    gate_ = target_->create_subsystem(subsystem).value();
    BASALT_ASSERT(gate_->add_host(hostnqn).ok());
    add_namespace();
    ns::NamespaceOptions gate_options;
    gate_options.nsid = 1;
    gate_options.one_writer = true;
    BASALT_ASSERT(world_.run(gate_->add_namespace(gate_options, &gate_disk_)).ok());
    auto bound = world_.run(subsystem_->add_listener({"TCP", "127.0.0.1", "0"}));
    BASALT_ASSERT(bound.ok());
    address_ = bound.value();
    BASALT_ASSERT(world_.run(gate_->add_listener(address_)).ok());
  }

  void perform() {
    for (unsigned i = 0; i < steps_max && !input_.empty(); i++) {
      step();
      listen();
    }
    finish();
  }

 private:
  static env::SimKnobs knobs() {
    env::SimKnobs out;
    out.network_delay_min = out.network_delay_max = microseconds(5);
    out.socket_buffer_bytes = 32 << 10;
    return out;
  }
  void add_namespace() {
    ns::NamespaceOptions options;
    options.nsid = 1;
    (void)world_.run(subsystem_->add_namespace(options, &disk_)).ok();
  }

  Host& pick() { return hosts_[input_.u8() % connections_max]; }

  void step() {
    const auto what = static_cast<Step>(input_.u8() % step_count);
    Host& host = pick();
    switch (what) {
      case step_dial:
        return dial(host);
      case step_initialize:
        return initialize(host, input_.u8());
      case step_connect:
        return connect(host);
      case step_enable:
        return set_property(host, nvme::property_cc, (input_.u8() & 1) == 0 ? cc_enable : input_.u32());
      case step_command:
        return command(host);
      case step_data:
        return data(host);
      case step_raw: {
        const auto bytes = input_.blob();
        host.vouched = false;
        return send(host, Bytes(bytes.begin(), bytes.end()));
      }
      case step_drop:
        host = {};
        return;
      case step_wait:
        return world_.world.run_for(milliseconds(int64_t{input_.u8()} * input_.u8()));
      case step_disk: {
        const uint8_t how = input_.u8();
        disk_.fail = (how & 2) != 0;
        if ((how & 1) != 0) {
          disk_.hold = true;
        } else {
          disk_.release();
        }
        return;
      }
      case step_manage:
        return manage(input_.u8());
      case step_deaf:
        host.deaf = !host.deaf;
        return;
      case step_count:
        return;
    }
  }

  void dial(Host& host) {
    env::Address address;
    address.host = "127.0.0.1";
    address.port = static_cast<uint16_t>(std::stoi(address_.trsvcid));
    auto socket = world_.home().poller().connect(address);
    BASALT_ASSERT(socket.ok());
    host = {};
    host.raw = std::make_unique<RawHost>(std::move(socket).value(), [this](const std::function<bool()>& done) {
      return world_.world.run_until(done, milliseconds(5));
    });
    world_.world.run_for(microseconds(50));
  }
  void send(Host& host, const Bytes& bytes) {
    if (!host.initialized) host.vouched = false;
    if (host.raw != nullptr && !host.raw->closed()) host.raw->send(bytes);
  }
  void initialize(Host& host, uint8_t digest_bits) {
    if (host.raw == nullptr || host.raw->closed()) return;
    if (host.initialized) host.vouched = false;
    host.initialized = true;
    host.digests = pdu::Digests::from_bits(digest_bits);
    (void)host.raw->initialize(host.digests);
  }

  void connect(Host& host) {
    const uint8_t how = input_.u8();
    nvme::ConnectCommand connect{};
    connect.opcode = 0x7f;
    connect.flags = 0x40;
    connect.fctype = 1;
    connect.cid = next_cid_++;
    connect.qid = how & 3;
    connect.sqsize = (how & 3) == 0 ? 31 : 15;
    connect.kato_ms = (how & 4) != 0 ? 200 : 0;
    nvme::ConnectData data{};
    data.hostid[15] = static_cast<uint8_t>(1 + (how >> 3 & 1));
    data.cntlid = (how & 3) == 0 ? 0xffff : static_cast<uint16_t>(1 + (how >> 6));
    const char* names[] = {subnqn, gatenqn, nvme::discovery_nqn, "nqn.2026-01.test:none"};
    std::strncpy(data.subnqn, names[how >> 4 & 3], sizeof(data.subnqn) - 1);
    std::strncpy(data.hostnqn, (how & 0x80) != 0 ? strangernqn : hostnqn, sizeof(data.hostnqn) - 1);
    Bytes bytes(sizeof(data));
    std::memcpy(bytes.data(), &data, sizeof(data));
    input_.patch(bytes);
    uint8_t raw_command[sizeof(connect)];
    std::memcpy(raw_command, &connect, sizeof(connect));
    input_.patch(raw_command);
    nvme::Command command;
    std::memcpy(&command, raw_command, sizeof(command));
    if (command.sgl.type_subtype == 0) {
      command.sgl = {0, static_cast<uint32_t>(bytes.size()), {}, nvme::sgl_data_block_offset};
    }
    host.vouched = false;  // what was changed may be the SGL
    send(host, RawHost::capsule(command, bytes, host.digests));
  }

  void set_property(Host& host, uint32_t offset, uint64_t value) {
    nvme::PropertyCommand property{};
    property.opcode = 0x7f;
    property.flags = 0x40;
    property.cid = next_cid_++;
    property.offset = offset;
    property.value = value;
    nvme::Command command;
    std::memcpy(&command, &property, sizeof(command));
    send(host, RawHost::capsule(command, {}, host.digests));
  }

  void command(Host& host) {
    const uint8_t how = input_.u8();
    nvme::Command command = template_command(input_.u8());
    command.cid = (how & 1) != 0 ? input_.u8() : next_cid_++;
    const bool writes = nvme::data_direction(command.opcode) == nvme::DataDirection::host_to_controller;
    const bool reads = nvme::data_direction(command.opcode) == nvme::DataDirection::controller_to_host;
    const bool in_capsule = writes && (how & 2) != 0;
    const uint32_t blocks_bytes = (command.cdw12 + 1) * block_bytes;
    const bool by_blocks = command.opcode == 1 || command.opcode == 2 || command.opcode == 5;
    const uint32_t length_bytes = by_blocks ? blocks_bytes : (reads ? 4096u : 64u);
    Bytes data;
    if (in_capsule) {
      data.assign(std::min<uint32_t>(length_bytes, 8192), static_cast<uint8_t>(how));
      input_.patch(data);
      command.sgl = {0, static_cast<uint32_t>(data.size()), {}, nvme::sgl_data_block_offset};
    } else if (writes || reads) {
      command.sgl = {0, length_bytes, {}, nvme::sgl_transport_data_block};
    }
    if ((how & 4) != 0) {
      uint8_t raw_command[sizeof(command)];
      std::memcpy(raw_command, &command, sizeof(command));
      input_.patch(raw_command);
      std::memcpy(&command, raw_command, sizeof(command));
      host.vouched = false;
    }
    Bytes pdu = RawHost::capsule(command, data, host.digests);
    if ((how & 8) != 0) {  // the PDU itself
      input_.patch(pdu);
      host.vouched = false;
    }
    send(host, pdu);
  }

  // Data for the last R2T, right or not.
  void data(Host& host) {
    const uint8_t how = input_.u8();
    pdu::DataFields fields{.cccid = host.r2t.cccid,
                           .ttag = host.r2t.ttag,
                           .offset_bytes = host.r2t.r2to,
                           .length_bytes = host.r2t.r2tl,
                           .last = true};
    if ((how & 1) != 0) fields.ttag = input_.u16();
    if ((how & 2) != 0) fields.offset_bytes = input_.u32();
    if ((how & 4) != 0) fields.length_bytes = input_.u16();
    if ((how & 8) != 0) fields.last = false;
    if ((how & 16) != 0) fields.cccid = input_.u16();
    if ((how & 0x1f) != 0 || !host.r2t_waits) host.vouched = false;
    host.r2t_waits = false;
    const Bytes payload(std::min<uint32_t>(fields.length_bytes, 65536), how);
    Bytes out(pdu::encoded_small_header_bytes_max);
    out.resize(pdu::encode_h2c_data(out.data(), host.digests, fields));
    out.insert(out.end(), payload.begin(), payload.end());
    if (host.digests.data) RawHost::append_digest(out, payload);
    if ((how & 32) != 0) {
      input_.patch(out);
      host.vouched = false;
    }
    if ((how & 64) != 0) {
      out.resize(out.size() - std::min<size_t>(out.size(), input_.u8()));
      host.vouched = false;
    }
    send(host, out);
  }

  void manage(uint8_t how) {
    // Removing waits for commands at the disk.
    disk_.release();
    switch (how % 6) {
      case 0:
        (void)world_.run(subsystem_->remove_namespace(1)).ok();
        break;
      case 1:
        add_namespace();
        break;
      case 2:
        (void)world_.run(subsystem_->set_ana_state(address_, 0, nvme::AnaState::inaccessible)).ok();
        break;
      case 3:
        (void)world_.run(subsystem_->set_ana_state(address_, 0, nvme::AnaState::optimized)).ok();
        break;
      case 4:
        (void)world_.run(subsystem_->remove_host(hostnqn)).ok();
        break;
      default:
        (void)subsystem_->add_host(hostnqn).ok();
        break;
    }
  }

  // Takes in what came, and judges it.
  void listen() {
    world_.world.run_for(microseconds(100));
    for (Host& host : hosts_) {
      if (host.raw == nullptr || host.deaf) continue;
      while (auto pdu = host.raw->poll()) {
        BASALT_ASSERT(pdu->digest_ok);
        if (pdu->type == pdu::Type::r2t) {
          host.r2t = pdu->as<pdu::R2t>();
          host.r2t_waits = true;
        }
        if (pdu->type == pdu::Type::c2h_term_request) BASALT_ASSERT(!host.vouched);
      }
      BASALT_ASSERT(!host.raw->broken());  // what the target sends is never malformed
    }
  }

  void finish() {
    for (Host& host : hosts_)
      host = {};
    disk_.fail = false;
    disk_.release();
    world_.must([&] { return transport_->connection_count() == 0; }, seconds(60));
    BASALT_ASSERT(transport_->half_open_count() == 0);
    world_.must([&] { return subsystem_->controllers().empty() && gate_->controllers().empty(); }, seconds(60));
    BASALT_ASSERT(world_.buffers_in_use_count() == 0);
    // The target serves as before.
    (void)world_.run(subsystem_->set_ana_state(address_, 0, nvme::AnaState::optimized)).ok();
    (void)subsystem_->add_host(hostnqn).ok();
    // What hosts have reserved goes with the namespace.
    (void)world_.run(subsystem_->remove_namespace(1)).ok();
    add_namespace();
    dial(hosts_[0]);
    RawHost& admin = *hosts_[0].raw;
    admin.initialize();
    const auto connected = admin.connect(0, subnqn, hostnqn, 9);
    BASALT_ASSERT(connected.came && connected.status.ok());
    BASALT_ASSERT(admin.property_set(nvme::property_cc, cc_enable).status.ok());
    dial(hosts_[1]);
    RawHost& io = *hosts_[1].raw;
    io.initialize();
    BASALT_ASSERT(io.connect(1, subnqn, hostnqn, 9, static_cast<uint16_t>(connected.dw0)).status.ok());
    const Bytes block(block_bytes, 0x99);
    BASALT_ASSERT(io.write(1, 7, block, true, block_bytes).status.ok());
    BASALT_ASSERT(io.read(1, 7, 1, block_bytes).data == block);
    for (Host& host : hosts_)
      host = {};
    world_.run_void(target_->close());
    BASALT_ASSERT(transport_->connection_count() == 0 && world_.buffers_in_use_count() == 0);
    target_.reset();
  }

  FuzzInput& input_;
  FuzzWorld world_;
  FuzzDisk disk_;
  FuzzDisk gate_disk_;
  std::unique_ptr<Target> target_;
  TcpTargetTransport* transport_ = nullptr;
  Subsystem* subsystem_ = nullptr;
  Subsystem* gate_ = nullptr;
  ListenAddress address_;
  Host hosts_[connections_max];
  uint16_t next_cid_ = 1000;
};

// ---- seeds ----------------------------------------------------------------------------------------------------------

// An association: an admin queue on connection 0 and an I/O queue on connection 1, of the subsystem by its place in
// connect(), with these digests.
FuzzOutput associate(unsigned digests, unsigned subsystem) {
  FuzzOutput out;
  out.u8(1);
  for (const unsigned queue : {0u, 1u}) {
    out.u8(step_dial).u8(queue).u8(step_initialize).u8(queue).u8(digests);
    out.u8(step_connect).u8(queue).u8(queue | subsystem << 4).no_patch().no_patch();
    if (queue == 0) out.u8(step_enable).u8(0).u8(0);
  }
  return out;
}

// Every feature, identify structure, log page and property, and some that are none: two dwords of a right command
// replaced, several commands to a seed.
void add_admin_commands(std::vector<FuzzSeed>& out) {
  struct Kind {
    const char* name;
    unsigned which;  // of template_command()
    uint32_t cdw11;  // or what stands there
    unsigned end;    // of the numbers in cdw10
    uint32_t upper;  // of cdw10
  };
  const Kind kinds[] = {{"get-feature", 20, 1, 0x20, 0},         {"get-feature-more", 20, 1, 0x20, 0x80},
                        {"set-feature", 18, 0, 0x20, 0},         {"set-feature-more", 18, 0, 0x20, 0x80},
                        {"set-feature-odd", 18, 0x901, 0x20, 0}, {"identify", 12, 0, 0x20, 0},
                        {"log-page", 17, 0, 0x20, 127u << 16}};
  for (const unsigned subsystem : {0u, 2u}) {
    for (const Kind& kind : kinds) {
      for (unsigned first = 0; first < kind.end; first += 8) {
        FuzzOutput output = associate(0, subsystem);
        for (unsigned number = first; number < first + 8; number++) {
          const bool writes = kind.which == 18;  // with its data in the capsule
          output.u8(step_command).u8(0).u8(writes ? 6 : 4).u8(kind.which);
          if (writes) output.no_patch();
          output.u8(1).u16(40).u8(8).u32(kind.upper | number).u32(kind.cdw11);
        }
        output.u8(step_wait).u8(0).u8(1).u8(1);
        const std::string place = std::to_string(first) + "-" + std::to_string(subsystem);
        out.push_back({std::string(kind.name) + "-" + place, output.bytes()});
      }
    }
  }
  for (const unsigned type : {0u, 4u}) {  // set, get
    for (const unsigned size : {0u, 1u}) {
      FuzzOutput output = associate(0, 0);
      for (const uint32_t offset : {0x00u, 0x08u, 0x14u, 0x1cu, 0x20u, 0x3cu}) {
        output.u8(step_command).u8(0).u8(4).u8(23);
        output.u8(3).u16(0).u8(1).u8(0x7f).u16(4).u8(1).u8(type).u16(40).u8(12).u32(size).u32(offset).u32(0x4001);
      }
      out.push_back({"property-" + std::to_string(type) + "-" + std::to_string(size), output.bytes()});
    }
  }
}

// What needs a right command before it, and opcodes that no template has.
void add_rare_commands(std::vector<FuzzSeed>& out) {
  for (const unsigned subsystem : {0u, 1u}) {
    FuzzOutput report = associate(0, subsystem);
    report.u8(step_command).u8(1).u8(2).u8(8).u8(1).u16(0).u8(8).u32(0).u32(0);  // registers, as nobody so far
    report.u8(step_wait).u8(0).u8(1).u8(1);
    for (const unsigned which : {9u, 11u})
      report.u8(step_command).u8(1).u8(which == 9 ? 2 : 0).u8(which).no_patch();
    out.push_back({"registered-" + std::to_string(subsystem), report.u8(step_wait).u8(0).u8(1).u8(1).bytes()});
  }
  // A report of the short form, and a registration with too few bytes.
  FuzzOutput odd = associate(0, 0);
  odd.u8(step_command).u8(1).u8(4).u8(11).u8(1).u16(44).u8(4).u32(0);
  odd.u8(step_command).u8(1).u8(6).u8(8).no_patch().u8(1).u16(32).u8(4).u32(8);
  out.push_back({"reservation-odd", odd.u8(step_wait).u8(0).u8(1).u8(1).bytes()});
  for (const unsigned type : {5u, 6u, 9u}) {  // authentication send and receive, and nothing
    FuzzOutput output = associate(0, 0);
    output.u8(step_command).u8(0).u8(4).u8(23).u8(2).u16(0).u8(1).u8(0x7f).u16(4).u8(1).u8(type);
    out.push_back({"fabrics-" + std::to_string(type), output.u8(step_wait).u8(0).u8(1).u8(1).bytes()});
  }
  FuzzOutput reset = associate(0, 0);
  reset.u8(step_command).u8(0).u8(4).u8(23).u8(1).u16(0).u8(1);
  reset.u8(static_cast<unsigned>(nvme::AdminOpcode::cross_controller_reset));
  out.push_back({"cross-reset", reset.u8(step_wait).u8(0).u8(1).u8(1).bytes()});
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out = {{"empty", {}}};
  for (const unsigned digests : {0u, 1u, 2u, 3u}) {
    for (unsigned which = 0; which < 24; which++) {
      FuzzOutput output = associate(digests, 0);
      const unsigned queue = which < 12 ? 1 : 0;
      output.u8(step_command).u8(queue).u8(digests == 0 ? 0 : 2).u8(which).no_patch();
      output.u8(step_data).u8(queue).u8(0);
      output.u8(step_wait).u8(0).u8(1).u8(1);
      out.push_back({"command-" + std::to_string(which) + "-" + std::to_string(digests), output.bytes()});
    }
  }
  for (unsigned which = 8; which < 12; which++) {
    FuzzOutput output = associate(0, 1);
    output.u8(step_command).u8(1).u8(2).u8(which).no_patch().u8(step_wait).u8(0).u8(1).u8(1);
    out.push_back({"gate-" + std::to_string(which), output.bytes()});
  }
  out.push_back({"discovery", FuzzOutput(associate(0, 2)).u8(step_command).u8(0).u8(0).u8(16).bytes()});
  for (unsigned how = 0; how < 6; how++) {
    out.push_back({"manage-" + std::to_string(how), FuzzOutput(associate(0, 0))
                                                        .u8(step_command)
                                                        .u8(0)
                                                        .u8(0)
                                                        .u8(19)
                                                        .u8(step_command)
                                                        .u8(0)
                                                        .u8(0)
                                                        .u8(21)
                                                        .u8(step_manage)
                                                        .u8(0)
                                                        .u8(how)
                                                        .u8(step_command)
                                                        .u8(1)
                                                        .u8(0)
                                                        .u8(1)
                                                        .bytes()});
  }
  for (const unsigned how : {1u, 2u, 4u, 8u, 16u, 32u, 64u}) {
    out.push_back({"data-" + std::to_string(how), FuzzOutput(associate(0, 0))
                                                      .u8(step_command)
                                                      .u8(1)
                                                      .u8(0)
                                                      .u8(2)
                                                      .u8(step_data)
                                                      .u8(1)
                                                      .u8(how)
                                                      .u32(0x00100010)
                                                      .bytes()});
  }
  out.push_back({"held", FuzzOutput(associate(0, 0))
                             .u8(step_disk)
                             .u8(0)
                             .u8(1)
                             .u8(step_command)
                             .u8(1)
                             .u8(2)
                             .u8(0)
                             .no_patch()
                             .u8(step_command)
                             .u8(1)
                             .u8(0)
                             .u8(3)
                             .u8(step_drop)
                             .u8(1)
                             .u8(step_wait)
                             .u8(0)
                             .u8(9)
                             .u8(9)
                             .bytes()});
  out.push_back({"deaf", FuzzOutput(associate(3, 0))
                             .u8(step_deaf)
                             .u8(1)
                             .u8(step_command)
                             .u8(1)
                             .u8(0)
                             .u8(3)
                             .u8(step_command)
                             .u8(1)
                             .u8(0)
                             .u8(3)
                             .u8(step_drop)
                             .u8(1)
                             .bytes()});
  add_admin_commands(out);
  add_rare_commands(out);
  const uint8_t ranges[2][16] = {{0, 0, 0, 0, 4}, {0, 0, 0, 0, 2, 0, 0, 0, 8}};
  FuzzOutput deallocate = associate(0, 0);
  deallocate.u8(step_command).u8(1).u8(2).u8(7).u8(2);
  for (const unsigned range : {0u, 1u})
    deallocate.u16(16 * range).u8(16).add(ranges[range]);
  out.push_back({"deallocate", deallocate.u8(step_wait).u8(0).u8(1).u8(1).bytes()});
  FuzzOutput abort = associate(0, 0);
  abort.u8(step_command).u8(0).u8(1).u8(21).u8(5);
  abort.u8(step_command).u8(0).u8(4).u8(22).u8(1).u16(40).u8(4).u32(5u << 16);
  out.push_back({"abort", abort.bytes()});
  FuzzOutput disable = associate(0, 0);
  disable.u8(step_enable).u8(0).u8(1).u32(0).u8(step_command).u8(1).u8(0).u8(1);
  out.push_back({"disable", disable.bytes()});
  FuzzOutput unknown = associate(0, 0);
  unknown.u8(step_command).u8(1).u8(4).u8(4).u8(1).u16(0).u8(1).u8(0x7c);
  out.push_back({"unknown", unknown.bytes()});
  const FuzzBytes raw(200, 0x04);
  out.push_back({"raw", FuzzOutput(associate(0, 0)).u8(step_raw).u8(1).blob(raw).bytes()});
  return out;
}

BASALT_FUZZ_TARGET(tcp_target, basalt::testing::fuzz_play<Play>, seeds)

}  // namespace
}  // namespace basalt::nvmf
