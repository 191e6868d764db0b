// SPDX-License-Identifier: Apache-2.0
// A node's link over NVMe/TCP: two associations attach replicas, describe and detach them, take them over and send I/O
// under identities and epochs of their choice - with any bits of commands and data changed, with requests at the disk -
// while the management takes namespaces, hosts and listeners away and brings them back.
//
// Whatever comes: each completion answers a command; no I/O succeeds under an identity that was never attached by that
// association, or without an epoch; what may not be attached is never written; and afterwards no queue, buffer or
// controller is left, and a replica serves whoever takes it over and refuses what others were.
#include <cstring>
#include <map>
#include <set>

#include "base/bytes.h"
#include "nvme/status.h"
#include "nvmf/auth/secret.h"
#include "nvmf/transport/tcp/raw_host_testing.h"
#include "nvmf/transport/tcp/tcp_target.h"
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
using nvme::AdminOpcode;
using nvme::NvmOpcode;

constexpr char linknqn[] = "nqn.2026-01.test:link";
constexpr char hostnqn[] = "nqn.2026-01.test:host";
constexpr char strangernqn[] = "nqn.2026-01.test:stranger";
constexpr uint32_t block_bytes = 512;
constexpr uint64_t count_blocks = 256;
constexpr size_t association_count = 2;
constexpr unsigned steps_max = 64;
constexpr uint32_t cc_enable = 0x00460001;

// The first two may be attached. The others may not: one asks for a key, one admits somebody else, one is a volume.
enum Place : uint8_t { place_a, place_b, place_keyed, place_closed, place_volume, place_count };
constexpr const char* nqns[] = {"nqn.2026-01.test:a", "nqn.2026-01.test:b", "nqn.2026-01.test:keyed",
                                "nqn.2026-01.test:closed", "nqn.2026-01.test:volume"};

enum Step : uint8_t {
  step_associate,
  step_attach,
  step_describe,
  step_detach,
  step_take_over,
  step_io,
  step_admin,
  step_drop,
  step_wait,
  step_disk,
  step_manage,
  step_deaf,
  step_count,
};

constexpr NvmOpcode io_opcodes[] = {NvmOpcode::write,
                                    NvmOpcode::read,
                                    NvmOpcode::flush,
                                    NvmOpcode::write_zeroes,
                                    NvmOpcode::dataset_management,
                                    NvmOpcode::compare,
                                    NvmOpcode::reservation_register,
                                    NvmOpcode::reservation_acquire,
                                    NvmOpcode::reservation_release,
                                    NvmOpcode::reservation_report,
                                    NvmOpcode::snapshot};

// Identity 0 is none: its tag is zero.
uint64_t tag_of_identity(uint8_t identity) {
  return 0x0101010101010101u * identity;
}

// One queue of an association.
struct Line {
  std::unique_ptr<RawHost> raw;
  std::map<uint16_t, unsigned> sent_counts;  // by CID: without an answer so far
  std::map<uint16_t, nvme::Command> sent;    // the last one
  bool deaf = false;
  bool up() const { return raw != nullptr && !raw->closed(); }
};

struct Association {
  Line admin;
  Line io;
  std::set<uint64_t> tags;  // that Attach commands carried
};

class Play {
 public:
  Play(FuzzInput& input, uint8_t seed) : input_(input), world_(seed, 2, knobs()) {
    target_ = std::make_unique<Target>(world_.reactor_list());
    TcpTargetOptions options;
    options.connection.in_capsule_bytes = 8192;
    auto transport = std::make_unique<TcpTargetTransport>(*target_, options);
    transport_ = transport.get();
    target_->add_transport(std::move(transport));
    SubsystemOptions link;
    link.nqn = linknqn;
    link.internal = link.node_link = true;
    link_ = target_->create_subsystem(link).value();
    BASALT_ASSERT(link_->add_host(hostnqn).ok());
    auto bound = world_.run(link_->add_listener({"TCP", "127.0.0.1", "0"}));
    BASALT_ASSERT(bound.ok());
    address_ = bound.value();
    for (uint8_t place = 0; place < place_count; place++)
      add_replica(place);
  }

  void perform() {
    for (unsigned i = 0; i < steps_max && !input_.empty(); i++) {
      step();
      listen();
    }
    finish();
  }

 private:
  struct Replica {
    std::unique_ptr<FuzzDisk> disk;
    Subsystem* subsystem = nullptr;
  };

  static env::SimKnobs knobs() {
    env::SimKnobs out;
    out.network_delay_min = out.network_delay_max = microseconds(5);
    out.socket_buffer_bytes = 32 << 10;
    return out;
  }
  void add_replica(uint8_t place) {
    Replica& replica = replicas_[place];
    replica.disk = std::make_unique<FuzzDisk>(*world_.reactors[place % 2], block_bytes, count_blocks);
    SubsystemOptions options;
    options.nqn = nqns[place];
    options.serial_number = "incarnation";
    options.internal = place != place_volume;
    replica.subsystem = target_->create_subsystem(options).value();
    HostKeys keys;
    if (place == place_keyed) {
      auto secret = auth::Secret::parse("DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:");
      keys.host = std::make_shared<const auth::Secret>(std::move(secret).value());
    }
    BASALT_ASSERT(replica.subsystem->add_host(place == place_closed ? strangernqn : hostnqn, keys).ok());
    add_namespace(place);
    BASALT_ASSERT(world_.run(replica.subsystem->add_listener(address_)).ok());
  }
  void add_namespace(uint8_t place) {
    ns::NamespaceOptions options;
    options.nsid = 1;
    options.one_writer = place != place_volume;
    (void)world_.run(replicas_[place].subsystem->add_namespace(options, replicas_[place].disk.get())).ok();
  }

  void step() {
    const auto what = static_cast<Step>(input_.u8() % step_count);
    Association& by = associations_[input_.u8() % association_count];
    switch (what) {
      case step_associate:
        (void)associate(by);
        return;
      case step_attach:
        return attach(by);
      case step_describe:
        return numbered(by, AdminOpcode::link_describe);
      case step_detach:
        return numbered(by, AdminOpcode::link_detach);
      case step_take_over:
        return take_over(by);
      case step_io:
        return io(by);
      case step_admin:
        return admin(by);
      case step_drop: {
        const uint8_t which = input_.u8();
        if ((which & 1) != 0) by.admin = {};
        if ((which & 2) != 0) by.io = {};
        return;
      }
      case step_wait:
        return world_.world.run_for(milliseconds(int64_t{input_.u8()} * input_.u8()));
      case step_disk: {
        const uint8_t how = input_.u8();
        for (Replica& replica : replicas_) {
          replica.disk->fail = (how & 2) != 0;
          if ((how & 1) == 0) replica.disk->release();
          replica.disk->hold = (how & 1) != 0;
        }
        return;
      }
      case step_manage:
        return manage();
      case step_deaf:
        by.io.deaf = !by.io.deaf;
        return;
      case step_count:
        return;
    }
  }

  // ---- what hosts do ----

  std::unique_ptr<RawHost> dial() {
    env::Address address;
    address.host = "127.0.0.1";
    address.port = static_cast<uint16_t>(std::stoi(address_.trsvcid));
    auto socket = world_.home().poller().connect(address);
    BASALT_ASSERT(socket.ok());
    auto raw = std::make_unique<RawHost>(std::move(socket).value(), [this](const std::function<bool()>& done) {
      return world_.world.run_until(done, milliseconds(5));
    });
    world_.world.run_for(microseconds(50));
    raw->initialize();
    return raw;
  }
  // False: the target does not let this host in, or not yet: an association of the same host may have requests at the
  // disk. What came later would answer a command that is not in `sent`: the connections go.
  bool associate(Association& by) {
    const auto which = static_cast<uint16_t>(1 + (&by - associations_));
    by = {};
    const bool done = connect(by, which);
    if (!done) by = {};
    return done;
  }
  bool connect(Association& by, uint16_t which) {
    by.admin.raw = dial();
    const auto connected = by.admin.raw->connect(0, linknqn, hostnqn, which);
    if (!connected.came || !connected.status.ok()) return false;
    const auto enabled = by.admin.raw->property_set(nvme::property_cc, cc_enable);
    if (!enabled.came || !enabled.status.ok()) return false;
    by.io.raw = dial();
    const auto joined = by.io.raw->connect(1, linknqn, hostnqn, which, static_cast<uint16_t>(connected.dw0));
    return joined.came && joined.status.ok();
  }
  // With data: in the capsule. Otherwise it is moved as the target asks.
  void send(Line& line, nvme::Command command, const Bytes& data = {}, uint32_t length_bytes = 0,
            bool patched = false) {
    command.flags |= 0x40;
    command.cid = next_cid_++;
    command.sgl = {0, static_cast<uint32_t>(data.size()), {}, nvme::sgl_data_block_offset};
    if (data.empty()) command.sgl = {0, length_bytes, {}, nvme::sgl_transport_data_block};
    if (patched) {
      uint8_t bytes[sizeof(command)];
      std::memcpy(bytes, &command, sizeof(command));
      input_.patch(bytes);
      std::memcpy(&command, bytes, sizeof(command));
    }
    if (!line.up()) return;
    line.sent_counts[command.cid]++;
    line.sent[command.cid] = command;
    line.raw->send(RawHost::capsule(command, data));
  }
  void attach(Association& by) {
    const uint8_t how = input_.u8();
    nvme::LinkAttachData fields{};
    std::memset(fields.hostid, how & 3, sizeof(fields.hostid));
    fields.nsid = 1;
    const uint8_t place = input_.u8() % (place_count + 1);
    std::strncpy(fields.subnqn, place < place_count ? nqns[place] : "nqn.2026-01.test:none", sizeof(fields.subnqn));
    Bytes data(sizeof(fields));
    std::memcpy(data.data(), &fields, sizeof(fields));
    if ((how & 4) != 0) input_.patch(data);
    if ((how & 8) != 0) data.resize(1 + input_.u16() % 1024);
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(AdminOpcode::link_attach);
    if (data.size() >= sizeof(uint64_t)) by.tags.insert(load_le<uint64_t>(data.data()));
    send(by.admin, command, data, 0, (how & 16) != 0);
  }
  void numbered(Association& by, AdminOpcode opcode) {
    const uint8_t how = input_.u8();
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(opcode);
    command.nsid = (how & 1) != 0 ? input_.u32() : input_.u8();
    const uint32_t length_bytes = (how & 2) != 0 ? input_.u16() : uint32_t{sizeof(nvme::LinkDescription)};
    send(by.admin, command, {}, opcode == AdminOpcode::link_describe ? length_bytes : 0, (how & 16) != 0);
  }
  nvme::Command addressed(NvmOpcode opcode) {
    nvme::Command command = RawHost::io_command(opcode, input_.u8(), 0, 1);
    const uint8_t identity = input_.u8();
    const uint64_t epoch = input_.u8();
    command.set_link(tag_of_identity(identity), epoch);
    return command;
  }
  static Bytes keys_of(uint64_t current, uint64_t other) {
    Bytes keys(16);
    store_le<uint64_t>(keys.data(), current);
    store_le<uint64_t>(keys.data() + 8, other);
    return keys;
  }
  static nvme::Command acquire(nvme::Command command) {
    command.opcode = static_cast<uint8_t>(NvmOpcode::reservation_acquire);
    command.cdw10 = 2 | 2 << 8;
    return command;
  }
  void take_over(Association& by) {
    const nvme::Command command = addressed(NvmOpcode::reservation_register);
    send(by.io, command, keys_of(0, command.link_epoch()));
    listen();
    send(by.io, acquire(command), keys_of(command.link_epoch(), 0));
  }
  // As many bytes as the command moves.
  static uint32_t length_of(const nvme::Command& command) {
    const auto opcode = static_cast<NvmOpcode>(command.opcode);
    switch (opcode) {
      case NvmOpcode::write:
      case NvmOpcode::read:
      case NvmOpcode::compare:
        return command.count_blocks() * block_bytes;
      case NvmOpcode::snapshot:
        return nvme::snapshot_name_bytes;
      case NvmOpcode::reservation_report:
        return 512;
      case NvmOpcode::flush:
      case NvmOpcode::write_zeroes:
        return 0;
      default:
        return 16;
    }
  }
  void io(Association& by) {
    const uint8_t how = input_.u8();
    nvme::Command command = addressed(io_opcodes[input_.u8() % std::size(io_opcodes)]);
    const auto opcode = static_cast<NvmOpcode>(command.opcode);
    const bool by_blocks = command.opcode < 0x09;
    if (by_blocks) command.cdw12 = (how & 1) != 0 ? 31 : 0;
    if (opcode == NvmOpcode::dataset_management) command.cdw11 = 4;
    if (opcode == NvmOpcode::reservation_report) command.cdw10 = 127, command.cdw11 = 1;
    if ((how & 32) != 0) command.flags = input_.u8() & nvme::fuse_mask;
    const uint32_t length_bytes = length_of(command);
    const bool writes = nvme::data_direction(command.opcode) == nvme::DataDirection::host_to_controller;
    Bytes data;
    if (writes && (how & 2) != 0) data.assign(std::min<uint32_t>(length_bytes, 8192), static_cast<uint8_t>(how >> 2));
    if ((how & 4) != 0) input_.patch(data);
    send(by.io, command, data, length_bytes, (how & 16) != 0);
  }
  void admin(Association& by) {
    nvme::Command command{};
    const uint8_t how = input_.u8();
    uint32_t length_bytes = 0;
    switch (how % 6) {
      case 0:
        command.opcode = static_cast<uint8_t>(AdminOpcode::async_event_request);
        break;
      case 1:
        command.opcode = static_cast<uint8_t>(AdminOpcode::set_features);
        command.cdw10 = 0x0b;
        command.cdw11 = 0x900;
        break;
      case 2:
        command.opcode = static_cast<uint8_t>(AdminOpcode::get_log_page);
        length_bytes = 4096;
        command.cdw10 = 0x04 | (length_bytes / 4 - 1) << 16;
        break;
      case 3:
        command.opcode = static_cast<uint8_t>(AdminOpcode::identify);
        command.cdw10 = 1;
        length_bytes = 4096;
        break;
      case 4:
        command.opcode = static_cast<uint8_t>(AdminOpcode::abort);
        command.cdw10 = uint32_t{input_.u8()} << 16;
        break;
      default:
        command.opcode = input_.u8();
        length_bytes = 512;
        break;
    }
    send(by.admin, command, {}, length_bytes, (how & 128) != 0);
  }

  // ---- what the management does ----

  void release() {
    for (Replica& replica : replicas_)
      replica.disk->release();
  }
  void manage() {
    const uint8_t how = input_.u8();
    const uint8_t place = how >> 4 & 1;
    Subsystem& replica = *replicas_[place].subsystem;
    release();  // removing waits for commands at the disk
    switch (how % 10) {
      case 0:
        (void)world_.run(replica.remove_namespace(1)).ok();
        break;
      case 1:
        add_namespace(place);
        break;
      case 2:
        (void)world_.run(replica.remove_host(hostnqn)).ok();
        break;
      case 3:
        (void)replica.add_host(hostnqn).ok();
        break;
      case 4:
      case 5: {
        const auto state = (how % 10) == 4 ? nvme::AnaState(1 + (input_.u8() % 4)) : nvme::AnaState::optimized;
        (void)world_.run(replica.set_ana_state(address_, 0, state)).ok();
        break;
      }
      case 6:
        (void)world_.run(replica.remove_listener(address_)).ok();
        break;
      case 7:
        (void)world_.run(replica.add_listener(address_)).ok();
        break;
      case 8:
        (void)world_.run(link_->remove_host(hostnqn)).ok();
        break;
      default:
        (void)link_->add_host(hostnqn).ok();
        break;
    }
  }

  // ---- what comes back ----

  void listen() {
    world_.world.run_for(microseconds(100));
    for (Association& by : associations_) {
      listen_to(by, by.admin, false);
      listen_to(by, by.io, true);
    }
  }
  void listen_to(const Association& by, Line& line, bool io) {
    if (line.raw == nullptr || line.deaf) return;
    while (auto pdu = line.raw->poll()) {
      if (pdu->type == pdu::Type::r2t) {
        const auto r2t = pdu->as<pdu::R2t>();
        BASALT_ASSERT(r2t.r2tl <= (1u << 20) && r2t.r2to <= (1u << 20));
        line.raw->send_data(r2t, Bytes(size_t{r2t.r2to} + r2t.r2tl, 0x55), 8192);
      }
      if (pdu->type == pdu::Type::capsule_response) judge(by, line, io, pdu->as<pdu::CapsuleResponse>().completion);
      if (pdu->type == pdu::Type::c2h_data && (pdu->as<pdu::Data>().common.flags & pdu::flag_success) != 0) {
        nvme::Completion completion{};
        completion.cid = pdu->as<pdu::Data>().cccid;
        judge(by, line, io, completion);
      }
    }
    BASALT_ASSERT(!line.raw->broken());
  }
  void judge(const Association& by, Line& line, bool io, const nvme::Completion& completion) {
    BASALT_ASSERT(line.sent_counts[completion.cid] > 0);
    const bool once = line.sent_counts[completion.cid]-- == 1;
    // Which of several under one CID it was cannot be told.
    const nvme::Command command = line.sent[completion.cid];
    if (!io || !once || completion.status >> 1 != 0 || command.opcode == 0x7f) return;
    BASALT_ASSERT(command.link_epoch() != 0 && command.link_tag() != 0 && by.tags.contains(command.link_tag()));
  }

  // ---- the end ----

  void finish() {
    for (Association& by : associations_)
      by = {};
    for (Replica& replica : replicas_)
      replica.disk->fail = false;
    release();
    world_.must([&] { return transport_->connection_count() == 0; }, seconds(60));
    BASALT_ASSERT(transport_->half_open_count() == 0);
    world_.must([&] { return link_->controllers().empty(); }, seconds(60));
    BASALT_ASSERT(world_.buffers_in_use_count() == 0);
    for (const Place place : {place_keyed, place_closed, place_volume})
      BASALT_ASSERT(replicas_[place].disk->write_count == 0);
    serve();
    for (Association& by : associations_)
      by = {};
    world_.run_void(target_->close());
    BASALT_ASSERT(transport_->connection_count() == 0 && world_.buffers_in_use_count() == 0);
    target_.reset();
  }

  static RawHost::Answer write(RawHost& io, uint32_t number, uint8_t identity, uint64_t epoch, uint8_t fill) {
    nvme::Command command = RawHost::io_command(NvmOpcode::write, number, 7, 1);
    command.set_link(tag_of_identity(identity), epoch);
    return io.command(command, Bytes(block_bytes, fill));
  }
  // The replica that nobody was let into so far, under two identities: the second one fences the first.
  void serve() {
    (void)link_->add_host(hostnqn).ok();
    Replica& replica = replicas_[place_closed];
    BASALT_ASSERT(replica.subsystem->add_host(hostnqn).ok());
    BASALT_ASSERT(associate(associations_[0]));
    RawHost& admin = *associations_[0].admin.raw;
    RawHost& io = *associations_[0].io.raw;
    uint32_t numbers[3] = {};
    for (const uint8_t identity : {uint8_t{1}, uint8_t{2}}) {
      nvme::LinkAttachData fields{};
      std::memset(fields.hostid, identity, sizeof(fields.hostid));
      fields.nsid = 1;
      std::strncpy(fields.subnqn, nqns[place_closed], sizeof(fields.subnqn));
      Bytes data(sizeof(fields));
      std::memcpy(data.data(), &fields, sizeof(fields));
      nvme::Command command{};
      command.opcode = static_cast<uint8_t>(AdminOpcode::link_attach);
      const auto attached = admin.command(command, data);
      BASALT_ASSERT(attached.came && attached.status.ok() && attached.dw0 != 0);
      numbers[identity] = attached.dw0;
      nvme::Command takes = RawHost::io_command(NvmOpcode::reservation_register, attached.dw0, 0, 1);
      takes.set_link(tag_of_identity(identity), identity);
      const auto registered = io.command(takes, keys_of(0, identity));
      BASALT_ASSERT(registered.came && registered.status.ok());
      const auto acquired = io.command(acquire(takes), keys_of(identity, 0));
      BASALT_ASSERT(acquired.came && acquired.status.ok());
      const auto written = write(io, attached.dw0, identity, identity, identity);
      BASALT_ASSERT(written.came && written.status.ok());
    }
    const auto late = write(io, numbers[1], 1, 1, 1);
    BASALT_ASSERT(late.came && late.status.is(nvme::status::reservation_conflict));
    nvme::Command reads = RawHost::io_command(NvmOpcode::read, numbers[2], 7, 1);
    reads.set_link(tag_of_identity(2), 2);
    BASALT_ASSERT(io.command(reads, {}, block_bytes).data == Bytes(block_bytes, 2));
  }

  FuzzInput& input_;
  FuzzWorld world_;
  Replica replicas_[place_count];
  std::unique_ptr<Target> target_;
  TcpTargetTransport* transport_ = nullptr;
  Subsystem* link_ = nullptr;
  ListenAddress address_;
  Association associations_[association_count];
  uint16_t next_cid_ = 1000;
};

// ---- seeds ----------------------------------------------------------------------------------------------------------

// Association 0 with attachments 1 (replica a) and 2 (replica b), of identities 1 and 2, taken over under epoch 3.
FuzzOutput taken() {
  FuzzOutput out;
  out.u8(1).u8(step_associate).u8(0);
  for (const unsigned which : {0u, 1u}) {
    out.u8(step_attach).u8(0).u8(1 + which).u8(which);
    out.u8(step_take_over).u8(0).u8(1 + which).u8(1 + which).u8(3);
  }
  return out;
}
FuzzOutput& add_io(FuzzOutput& out, unsigned how, unsigned opcode, unsigned number = 1, unsigned identity = 1,
                   unsigned epoch = 3) {
  return out.u8(step_io).u8(0).u8(how).u8(opcode).u8(number).u8(identity).u8(epoch);
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out = {{"empty", {}}};
  const auto add = [&](const std::string& name, const FuzzOutput& from) { out.push_back({name, from.bytes()}); };
  // Each command: with its data in the capsule, and asked for; by the wrong number, identity, epoch, and none.
  for (unsigned opcode = 0; opcode < std::size(io_opcodes); opcode++) {
    for (const unsigned how : {0u, 1u, 2u}) {
      FuzzOutput play = taken();
      add_io(play, how, opcode).u8(step_wait).u8(0).u8(1).u8(1);
      add("io-" + std::to_string(opcode) + "-" + std::to_string(how), play);
    }
    FuzzOutput wrong = taken();
    for (const unsigned which : {0u, 1u, 2u, 3u})
      add_io(wrong, 2, opcode, which == 0 ? 9 : 1, which == 1 ? 2 : 1, which == 2 ? 4 : (which == 3 ? 0 : 3));
    add("wrong-" + std::to_string(opcode), wrong);
    // At the disk while its attachment, then its association, ends.
    for (const unsigned ends : {0u, 1u}) {
      FuzzOutput held = taken();
      held.u8(step_disk).u8(0).u8(1);
      add_io(held, 2, opcode);
      if (ends == 0) held.u8(step_detach).u8(0).u8(0).u8(1);
      if (ends == 1) held.u8(step_drop).u8(0).u8(3);
      held.u8(step_wait).u8(0).u8(1).u8(1).u8(step_attach).u8(0).u8(3).u8(0);
      add("held-" + std::to_string(opcode) + "-" + std::to_string(ends), held);
    }
  }
  // Whatever may be attached, and may not; numbers that are none; data of other lengths.
  for (unsigned place = 0; place <= place_count; place++)
    add("attach-" + std::to_string(place), FuzzOutput(taken()).u8(step_attach).u8(0).u8(3).u8(place));
  add("no-tag", FuzzOutput(taken()).u8(step_attach).u8(0).u8(0).u8(0));
  for (const unsigned length : {0u, 255u, 510u, 600u})
    add("attach-bytes-" + std::to_string(length),
        FuzzOutput(taken()).u8(step_attach).u8(0).u8(8 | 3).u8(0).u16(length));
  const FuzzBytes long_name(31, 'n');
  FuzzOutput full = taken();
  full.u8(step_attach).u8(0).u8(4 | 3).u8(0).u8(8);
  for (unsigned at = 0; at < 8; at++)
    full.u16(256 + at * 31).u8(31).add(long_name);
  add("long-name", full);
  for (const unsigned number : {0u, 1u, 2u, 3u, 255u}) {
    add("describe-" + std::to_string(number), FuzzOutput(taken()).u8(step_describe).u8(0).u8(0).u8(number));
    add("detach-" + std::to_string(number), FuzzOutput(taken()).u8(step_detach).u8(0).u8(0).u8(number));
  }
  add("describe-any", FuzzOutput(taken()).u8(step_describe).u8(0).u8(3).u32(8193).u16(100));
  // With somebody who hears of it: events, the list, and I/O afterwards.
  for (unsigned how = 0; how < 10; how++) {
    FuzzOutput play = taken();
    play.u8(step_admin).u8(0).u8(1).u8(step_admin).u8(0).u8(0);
    play.u8(step_manage).u8(0).u8(how);
    if (how == 4) play.u8(1);
    add_io(play, 2, 0).u8(step_wait).u8(0).u8(1).u8(1);
    play.u8(step_admin).u8(0).u8(2).u8(step_attach).u8(0).u8(3).u8(0);
    play.u8(step_manage).u8(0).u8(how == 4 ? 5 : how + 1).u8(step_attach).u8(0).u8(3).u8(0);
    add("manage-" + std::to_string(how), play);
  }
  for (unsigned state = 0; state < 4; state++) {
    FuzzOutput play = taken();
    play.u8(step_manage).u8(0).u8(4).u8(state);
    add("ana-" + std::to_string(state), add_io(play, 2, 0));
  }
  // Commands that a link has and others do not, and what it has none of.
  for (const unsigned opcode : {0x06u, 0x0cu, 0x18u, 0xc0u, 0xc3u, 0xffu})
    add("admin-" + std::to_string(opcode), FuzzOutput(taken()).u8(step_admin).u8(0).u8(5).u8(opcode));
  for (const unsigned type : {0u, 4u, 5u, 6u, 9u}) {
    FuzzOutput play = taken();
    play.u8(step_admin).u8(0).u8(128 + 1).u8(2).u16(0).u8(1).u8(0x7f).u16(4).u8(1).u8(type);
    add("fabrics-" + std::to_string(type), play);
  }
  // Fused halves: a pair, of two epochs, of two attachments, alone.
  for (const unsigned which : {0u, 1u, 2u, 3u}) {
    FuzzOutput play = taken();
    add_io(play, 32 | 2, 5).u8(1);
    if (which < 3) add_io(play, 32 | 2, 0, which == 2 ? 2 : 1, which == 2 ? 2 : 1, which == 1 ? 4 : 3).u8(2);
    add("fused-" + std::to_string(which), play.u8(step_wait).u8(0).u8(1).u8(1));
  }
  // Another association takes over while the first one has requests at the disk.
  FuzzOutput over = taken();
  over.u8(step_disk).u8(0).u8(1);
  add_io(over, 2, 0);
  over.u8(step_associate).u8(1).u8(step_attach).u8(1).u8(3).u8(0).u8(step_take_over).u8(1).u8(1).u8(3).u8(4);
  add_io(over, 2, 0).u8(step_disk).u8(0).u8(0).u8(step_wait).u8(0).u8(1).u8(1);
  add("taken-over", add_io(over, 2, 0));
  return out;
}

BASALT_FUZZ_TARGET(node_link, basalt::testing::fuzz_play<Play>, seeds)

}  // namespace
}  // namespace basalt::nvmf
