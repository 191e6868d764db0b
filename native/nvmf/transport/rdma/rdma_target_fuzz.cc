// SPDX-License-Identifier: Apache-2.0
// The whole target over NVMe/RDMA: connections that say what the input tells them - private data of any content and
// length, capsules with any of their bits changed or none that is right, keys that fit and that do not, silence,
// sudden ends - while the disk holds its requests or fails, and there are no buffers or none may be registered.
//
// Whatever comes: each response answers a command that was sent, the host's memory is touched where its window is open
// for writing and nowhere else, and after the last connection has gone nothing is left, no queue, no buffer, no
// registration; whoever connects then is served.
#include "nvmf/transport/rdma/rdma_target.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "nvmf/host/controller.h"
#include "nvmf/transport/rdma/raw_rdma_testing.h"
#include "testing/fuzz_target.h"
#include "testing/fuzz_world.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDisk;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using basalt::testing::MemoryNet;
using basalt::testing::RawRdma;
using State = env::RdmaConnection::State;

constexpr char subnqn[] = "nqn.2026-01.test:volume";
constexpr char hostnqn[] = "nqn.2026-01.test:host";
constexpr uint32_t block_bytes = 512;
constexpr size_t connections_max = 3;
constexpr unsigned steps_max = 48;
constexpr size_t tail_bytes_max = 9000;  // more than a capsule may carry
// In the raw host's memory: messages of any bytes, what the window opens; behind that is what nobody may touch.
constexpr size_t raw_at = 20 << 10;
constexpr size_t data_at = 32 << 10;
constexpr uint32_t data_bytes = 16 << 10;
constexpr uint8_t untouched_byte = 0xee;
constexpr uint32_t taken_bytes[] = {4 << 10, 8 << 10};  // the sizes of which no buffers are left

enum Step : uint8_t {
  step_dial,
  step_connect,
  step_enable,
  step_open,
  step_command,
  step_raw,
  step_touch,
  step_disk,
  step_wait,
  step_drop,
  step_count,
  step_memory = 0xff  // apart: what the committed inputs say stays what it was
};

struct Template {
  uint8_t opcode;
  uint32_t cdw10;
  uint32_t cdw12;
  uint32_t bytes;
};
constexpr Template templates[] = {
    {0x01, 0, 1, 2 * block_bytes},  // write, read, flush
    {0x02, 0, 1, 2 * block_bytes},
    {0x00, 0, 0, 0},
    {0x01, 8, 15, 16 * block_bytes},
    {0x02, 8, 15, 16 * block_bytes},
    {0x05, 0, 1, 2 * block_bytes},  // compare
    {0x09, 0, 0, 16},               // dataset management
    {0x06, 1, 0, 4096},             // identify, a log page, features
    {0x02, 0x70 | 255u << 16, 0, 1024},
    {0x09, 7, 0, 0},
    {0x0a, 0x0f, 0, 0},
    {0x0c, 0, 0, 0},  // asynchronous event request
    {0x18, 0, 0, 0},  // keep alive
};

struct Host {
  std::unique_ptr<RawRdma> raw;
  uint32_t key = 0;
  bool writable = false;
  std::map<uint16_t, unsigned> sent;  // by cid, without an answer

  bool up() const { return raw != nullptr && raw->connection->state() == State::established; }
};

class Play {
 public:
  // Of every other seed the target has few receives, and little patience.
  Play(FuzzInput& input, uint8_t seed) : input_(input), net_(seed) {
    BASALT_ASSERT(home_.init().ok() && far_.init().ok());
    net_.add(&home_);
    net_.add(&far_);
    disk_ = std::make_unique<FuzzDisk>(home_, block_bytes, 256);
    target_ = std::make_unique<Target>(std::vector<Reactor*>{&home_, &far_});
    RdmaTargetOptions limits;
    if ((seed & 1) == 0) limits.connection.receive_count = 8;
    if ((seed & 1) == 0) limits.connection.transfer_timeout = milliseconds(2);
    auto transport = std::make_unique<RdmaTargetTransport>(*target_, limits);
    transport_ = transport.get();
    target_->add_transport(std::move(transport));
    SubsystemOptions options;
    options.nqn = subnqn;
    options.allow_any_host = true;
    Subsystem* subsystem = target_->create_subsystem(options).value();
    ns::NamespaceOptions space;
    space.nsid = 1;
    BASALT_ASSERT(net_.run(subsystem->add_namespace(space, disk_.get())).ok());
    const auto bound = net_.run(subsystem->add_listener({"RDMA", "127.0.0.1", "0"}));
    BASALT_ASSERT(bound.ok());
    port_ = static_cast<uint16_t>(std::stoi(bound->trsvcid));
  }

  void perform() {
    for (unsigned i = 0; i < steps_max && !input_.empty(); i++) {
      step();
      net_.run_for(microseconds(100));
      listen();
    }
    finish();
  }

 private:
  void step() {
    const uint8_t number = input_.u8();
    const auto what = static_cast<Step>(number == step_memory ? number : number % step_count);
    Host& host = hosts_[input_.u8() % connections_max];
    switch (what) {
      case step_dial:
        return dial(host);
      case step_connect:
        return connect(host);
      case step_enable:
        return enable(host);
      case step_open:
        return open(host, (input_.u8() & 1) != 0);
      case step_command:
        return command(host);
      case step_raw:
        return raw_message(host);
      case step_touch:
        return touch(host);
      case step_disk: {
        const uint8_t how = input_.u8();
        disk_->fail = (how & 2) != 0;
        disk_->hold = (how & 1) != 0;
        if (!disk_->hold) disk_->release();
        return;
      }
      case step_wait:
        return net_.run_for(milliseconds(int64_t{input_.u8()} * input_.u8()));
      case step_drop:
        host = {};
        return;
      case step_memory:
        return memory(input_.u8());
      case step_count:
        return;
    }
  }

  // Takes all buffers of some sizes, or gives them back; what is not registered so far may be no more, or may again.
  void memory(uint8_t how) {
    give_back();
    for (Reactor* reactor : {&home_, &far_}) {
      for (const uint32_t size : taken_bytes) {
        if ((how & 1) == 0) continue;
        while (Buffer* buffer = reactor->buffers().take(size))
          taken_.emplace_back(reactor, buffer);
      }
    }
    net_.rdma().knobs.pinned_bytes_max = (how & 2) != 0 ? 0 : SIZE_MAX;
  }
  void give_back() {
    for (const auto& [reactor, buffer] : std::exchange(taken_, {}))
      reactor->buffers().give(buffer);
  }

  void dial(Host& host) {
    const uint8_t how = input_.u8();
    rdma::RequestData request{};
    request.hrqsize = 32;
    request.hsqsize = 31;
    uint8_t bytes[env::rdma_request_private_bytes_max] = {};
    std::memcpy(bytes, &request, sizeof(request));
    input_.patch(bytes);
    const size_t length = (how & 1) == 0 ? sizeof(request) : input_.u8() % (sizeof(bytes) + 1);
    net_.rdma().knobs.pad_private_data_chance = (how & 2) != 0 ? 1 : 0;
    host = {};
    host.raw = std::make_unique<RawRdma>(net_, far_);
    std::fill(host.raw->memory.begin() + data_at, host.raw->memory.end(), untouched_byte);
    const size_t pinned_bytes_max = std::exchange(net_.rdma().knobs.pinned_bytes_max, SIZE_MAX);
    const State state = host.raw->connect(port_, {bytes, length}, (how & 4) != 0 ? how >> 4 : 40);
    net_.rdma().knobs.pinned_bytes_max = pinned_bytes_max;
    if (state == State::established) {
      rdma::AcceptData accepted;
      BASALT_ASSERT(rdma::read_private_data(host.raw->connection->private_data(), &accepted));
      BASALT_ASSERT(accepted.recfmt == rdma::record_format && accepted.crqsize > 0);
    } else if (host.raw->connection->why() == env::RdmaConnection::Cause::rejected) {
      rdma::RejectData reason;
      BASALT_ASSERT(rdma::read_private_data(host.raw->connection->private_data(), &reason));
      BASALT_ASSERT(reason.status != 0 && std::strcmp(rdma::reject_text(reason.status), "an unknown status") != 0);
    }
  }

  void send(Host& host, const nvme::Command& command, std::span<const uint8_t> tail = {}) {
    if (!host.up()) return;
    host.sent[command.cid]++;
    host.raw->send(command, tail);
  }

  void connect(Host& host) {
    const uint8_t how = input_.u8();
    FuzzBytes data = connect_data(1);
    input_.patch(data);
    nvme::Command capsule = connect_capsule(next_cid_++, how & 3, static_cast<uint16_t>(data.size()));
    uint8_t bytes[sizeof(capsule)];
    std::memcpy(bytes, &capsule, sizeof(bytes));
    input_.patch(bytes);
    std::memcpy(&capsule, bytes, sizeof(bytes));
    if ((how & 4) != 0) data.resize(input_.u16() % (data.size() + 1));
    send(host, capsule, data);
  }

  void enable(Host& host) { send(host, property_set(next_cid_++, (input_.u8() & 1) == 0 ? cc_enabled : input_.u32())); }

  void open(Host& host, bool writes) {
    if (!host.up()) return;
    // A window is bound once at a time.
    if (host.key != 0) {
      const size_t closing = host.raw->post(RawRdma::Type::invalidate, 0, 0);
      (void)host.raw->wait(closing);
      host.key = 0;
      if (!host.up()) return;
    }
    host.raw->peer_writes = writes;
    const size_t bind = host.raw->post(RawRdma::Type::bind, data_at, data_bytes);
    if (host.raw->wait(bind) != env::RdmaStatus::success) return;
    host.key = host.raw->window->key();
    host.writable = host.writable || writes;
  }

  void command(Host& host) {
    const uint8_t how = input_.u8();
    const Template& from = templates[input_.u8() % std::size(templates)];
    nvme::Command capsule{};
    capsule.opcode = from.opcode;
    capsule.flags = 0x40;
    capsule.cid = (how & 1) != 0 ? input_.u8() : next_cid_++;
    capsule.nsid = 1;
    capsule.cdw10 = from.cdw10;
    capsule.cdw12 = from.cdw12;
    FuzzBytes tail;
    if ((how & 2) != 0) {
      capsule.sgl.type_subtype = nvme::sgl_data_block_offset;
      capsule.sgl.length_bytes = from.bytes;
      tail.assign(std::min<size_t>(from.bytes, tail_bytes_max), how);
    } else if (host.raw != nullptr) {
      const uint64_t at = data_at + ((how & 8) != 0 ? input_.u16() : 0);
      capsule.sgl = rdma::encode_keyed({.address = host.raw->address(0) + at,
                                        .length_bytes = from.bytes,
                                        .key = (how & 16) != 0 ? input_.u32() : host.key,
                                        .invalidate = (how & 32) != 0});
    }
    if ((how & 4) != 0) {
      uint8_t bytes[sizeof(capsule)];
      std::memcpy(bytes, &capsule, sizeof(bytes));
      input_.patch(bytes);
      std::memcpy(&capsule, bytes, sizeof(bytes));
    }
    if ((how & 64) != 0) tail.resize(input_.u16() % (tail_bytes_max + 1));
    send(host, capsule, tail);
  }

  // Any bytes, also fewer than a command has.
  void raw_message(Host& host) {
    const auto message = input_.take(input_.u8());
    if (!host.up()) return;
    std::copy(message.begin(), message.end(), host.raw->memory.begin() + raw_at);
    nvme::Command command{};
    if (message.size() >= sizeof(command)) {
      std::memcpy(&command, message.data(), sizeof(command));
      host.sent[command.cid]++;
    }
    host.raw->post(RawRdma::Type::send, raw_at, static_cast<uint32_t>(message.size()));
  }

  // The target opens nothing: whatever the key, it is the end of the connection.
  void touch(Host& host) {
    const uint8_t how = input_.u8();
    const uint32_t key = input_.u32();
    const uint64_t address = input_.u64();
    if (!host.up()) return;
    const auto type = (how & 1) != 0 ? RawRdma::Type::write : RawRdma::Type::read;
    const size_t request = host.raw->post(type, raw_at, 1 + how, key, address);
    BASALT_ASSERT(host.raw->wait(request) != env::RdmaStatus::success);
    BASALT_ASSERT(host.raw->wait_over());
  }

  void listen() {
    for (Host& host : hosts_) {
      if (host.raw == nullptr) continue;
      for (; host.raw->has_message(); host.raw->messages.pop_front()) {
        const RawRdma::Message& message = host.raw->messages.front();
        // A command that asked for the end of a key that this side never opened is answered so, and that breaks the
        // connection here.
        if (message.status == env::RdmaStatus::local_error && message.invalidated &&
            (host.key == 0 || message.key != host.key)) {
          BASALT_ASSERT(host.raw->wait_over());
          continue;
        }
        BASALT_ASSERT(message.status == env::RdmaStatus::success && message.bytes.size() == sizeof(nvme::Completion));
        nvme::Completion completion;
        std::memcpy(&completion, message.bytes.data(), sizeof(completion));
        BASALT_ASSERT(host.sent[completion.cid] > 0);
        host.sent[completion.cid]--;
        if (!message.invalidated) continue;
        BASALT_ASSERT(message.key == host.key);
        host.key = 0;
      }
      const auto& memory = host.raw->memory;
      const auto untouched_from = memory.begin() + static_cast<long>(data_at + (host.writable ? data_bytes : 0));
      BASALT_ASSERT(std::all_of(untouched_from, memory.end(), [](uint8_t byte) { return byte == untouched_byte; }));
    }
  }

  void finish() {
    for (Host& host : hosts_)
      host = {};
    memory(0);
    disk_->fail = false;
    disk_->release();
    BASALT_ASSERT(net_.run_until([&] { return transport_->connection_count() == 0; }, seconds(120)));
    BASALT_ASSERT(transport_->half_open_count() == 0);
    BASALT_ASSERT(home_.buffers().in_use_count() + far_.buffers().in_use_count() == 0);
    serve();
    net_.run_void(target_->close());
    BASALT_ASSERT(home_.buffers().in_use_count() + far_.buffers().in_use_count() == 0);
    target_.reset();
    net_.run_for(milliseconds(5));
    BASALT_ASSERT(net_.rdma().counts() == env::SimRdmaCounts{});
  }

  // Whoever comes afterwards, with right commands.
  void serve() {
    RawRdma good(net_, far_);
    BASALT_ASSERT(good.connect(port_) == State::established);
    const auto must = [&](const nvme::Command& capsule, std::span<const uint8_t> tail = {}) {
      good.send(capsule, tail);
      nvme::Completion completion;
      BASALT_ASSERT(good.response(&completion) && completion.cid == capsule.cid && completion.status >> 1 == 0);
    };
    const FuzzBytes data = connect_data(9);
    must(connect_capsule(1, 0, static_cast<uint16_t>(data.size())), data);
    must(property_set(2, cc_enabled));
    nvme::Command identify{};
    identify.opcode = static_cast<uint8_t>(nvme::AdminOpcode::identify);
    identify.flags = 0x40;
    identify.cid = 3;
    identify.cdw10 = 1;
    identify.sgl = rdma::encode_keyed(
        {.address = good.address(data_at), .length_bytes = 4096, .key = good.open(data_at, 4096, true)});
    must(identify);
    good.end();
    BASALT_ASSERT(net_.run_until([&] { return transport_->connection_count() == 0; }, seconds(120)));
  }

  static FuzzBytes connect_data(uint8_t hostid) {
    nvme::ConnectData data{};
    data.hostid[0] = hostid;
    data.cntlid = nvme::cntlid_any;
    std::strncpy(data.subnqn, subnqn, sizeof(data.subnqn) - 1);
    std::strncpy(data.hostnqn, hostnqn, sizeof(data.hostnqn) - 1);
    FuzzBytes out(sizeof(data));
    std::memcpy(out.data(), &data, sizeof(data));
    return out;
  }
  static nvme::Command connect_capsule(uint16_t cid, uint16_t qid, uint16_t length_bytes) {
    nvme::ConnectCommand connect{};
    connect.opcode = static_cast<uint8_t>(nvme::AdminOpcode::fabrics);
    connect.fctype = static_cast<uint8_t>(nvme::FabricsType::connect);
    connect.flags = 0x40;
    connect.cid = cid;
    connect.qid = qid;
    connect.sqsize = 31;
    connect.sgl.type_subtype = nvme::sgl_data_block_offset;
    connect.sgl.length_bytes = length_bytes;
    nvme::Command out;
    std::memcpy(&out, &connect, sizeof(out));
    return out;
  }
  static nvme::Command property_set(uint16_t cid, uint64_t value) {
    nvme::PropertyCommand property{};
    property.opcode = static_cast<uint8_t>(nvme::AdminOpcode::fabrics);
    property.fctype = static_cast<uint8_t>(nvme::FabricsType::property_set);
    property.flags = 0x40;
    property.cid = cid;
    property.offset = nvme::property_cc;
    property.value = value;
    nvme::Command out;
    std::memcpy(&out, &property, sizeof(out));
    return out;
  }

  FuzzInput& input_;
  MemoryNet net_;
  Arena arena_{size_t{64} << 20};
  Reactor home_{net_, arena_, {.buffer_bytes_max = size_t{8} << 20}};
  Reactor far_{net_, arena_, {.index = 1, .buffer_bytes_max = size_t{8} << 20}};
  std::unique_ptr<FuzzDisk> disk_;
  std::unique_ptr<Target> target_;
  RdmaTargetTransport* transport_ = nullptr;
  uint16_t port_ = 0;
  Host hosts_[connections_max];
  std::vector<std::pair<Reactor*, Buffer*>> taken_;
  uint16_t next_cid_ = 1000;
};

// ---- seeds ----------------------------------------------------------------------------------------------------------

FuzzOutput associated(unsigned seed = 1) {
  FuzzOutput out;
  out.u8(seed).u8(step_dial).u8(0).u8(0).no_patch();
  out.u8(step_connect).u8(0).u8(0).no_patch().no_patch();
  out.u8(step_enable).u8(0).u8(0).u8(step_open).u8(0).u8(1);
  return out;
}

// And an I/O queue on connection 1; its controller is the first.
FuzzOutput with_io(unsigned seed, bool peer_writes = true) {
  FuzzOutput play = associated(seed);
  play.u8(step_dial).u8(1).u8(0).no_patch().u8(step_connect).u8(1).u8(1);
  const uint8_t cntlid[] = {1, 0};
  play.patch_one(16, cntlid).no_patch().u8(step_open).u8(1).u8(peer_writes ? 1 : 0);
  return play;
}

// Commands that find no buffer, and none that may be registered.
void add_memory(std::vector<FuzzSeed>& out) {
  for (unsigned which = 0; which < std::size(templates); which++) {
    const unsigned host = which < 7 ? 1 : 0;
    for (const unsigned ends : {0u, 1u, 2u}) {
      FuzzOutput play = host == 1 ? with_io(1) : associated();
      play.u8(step_memory).u8(0).u8(ends == 2 ? 2 : 1).u8(step_command).u8(host).u8(0).u8(which);
      // They come, or the connection goes.
      if (ends == 0) play.u8(step_memory).u8(0).u8(0);
      if (ends == 1) play.u8(step_drop).u8(host);
      play.u8(step_wait).u8(0).u8(1).u8(10);
      out.push_back({"memory-" + std::to_string(which) + "-" + std::to_string(ends), play.bytes()});
    }
    // Fetched from where the peer may read.
    FuzzOutput fetched = with_io(1, false);
    fetched.u8(step_memory).u8(0).u8(1).u8(step_command).u8(1).u8(0).u8(which).u8(step_memory).u8(0).u8(0);
    out.push_back({"fetched-" + std::to_string(which), fetched.u8(step_wait).u8(0).u8(1).u8(10).bytes()});
    // In the capsule, held at the disk until there are few receives. Some are refused, later.
    FuzzOutput play = host == 1 ? with_io(2) : associated(2);
    play.u8(step_memory).u8(0).u8(1).u8(step_disk).u8(0).u8(1);
    for (unsigned i = 0; i < 9; i++)
      play.u8(step_command).u8(host).u8(2).u8(which);
    play.u8(step_wait).u8(0).u8(1).u8(120).u8(step_memory).u8(0).u8(0).u8(step_disk).u8(0).u8(0);
    out.push_back({"memory-receives-" + std::to_string(which), play.u8(step_wait).u8(0).u8(1).u8(10).bytes()});
    FuzzOutput dropped = host == 1 ? with_io(2) : associated(2);
    dropped.u8(step_memory).u8(0).u8(1).u8(step_disk).u8(0).u8(1);
    for (unsigned i = 0; i < 9; i++)
      dropped.u8(step_command).u8(host).u8(2).u8(which);
    out.push_back({"memory-dropped-" + std::to_string(which), dropped.u8(step_drop).u8(host).bytes()});
  }
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  add_memory(out);
  const auto add = [&](const std::string& name, const FuzzOutput& from) { out.push_back({name, from.bytes()}); };
  // Private data: each length, each field.
  for (unsigned length = 0; length <= env::rdma_request_private_bytes_max; length += 8) {
    for (const unsigned how : {1u, 3u})
      add("private-" + std::to_string(length) + "-" + std::to_string(how),
          FuzzOutput().u8(1).u8(step_dial).u8(0).u8(how).no_patch().u8(length));
  }
  for (unsigned offset = 0; offset < 10; offset += 2) {
    for (const uint8_t byte : {uint8_t{0}, uint8_t{1}, uint8_t{0xff}}) {
      const uint8_t field[] = {byte, byte};
      add("field-" + std::to_string(offset) + "-" + std::to_string(byte),
          FuzzOutput().u8(1).u8(step_dial).u8(0).u8(0).patch_one(offset, field));
    }
  }
  // Each command: keyed, invalidated, in the capsule, beyond the window, by a wrong key, without its data, twice.
  for (unsigned which = 0; which < std::size(templates); which++) {
    for (const unsigned how : {0u, 2u, 8u, 16u, 32u, 66u, 256u, 258u}) {
      const unsigned seed = how < 256 ? 1 : 2;
      FuzzOutput play = which < 7 ? with_io(seed) : associated(seed);
      // Held at the disk, until there are no more receives.
      if (how >= 256) play.u8(step_disk).u8(0).u8(1);
      for (unsigned i = 0; i < (how < 256 ? 1u : 7u); i++)
        play.u8(step_command).u8(which < 7 ? 1 : 0).u8(how).u8(which);
      if ((how & 8) != 0) play.u16(data_bytes - 100);
      if ((how & 16) != 0) play.u32(77);
      if ((how & 64) != 0) play.u16(100);
      play.u8(step_wait).u8(0).u8(1).u8(10);
      add("command-" + std::to_string(which) + "-" + std::to_string(how), play);
    }
  }
  // Every type of SGL.
  for (const uint8_t type : {0x00, 0x01, 0x30, 0x40, 0x41, 0x4f, 0x5a, 0xff}) {
    FuzzOutput play = associated();
    play.u8(step_command).u8(0).u8(4).u8(7).patch_one(39, {&type, 1});
    add("sgl-" + std::to_string(type), play);
  }
  for (const unsigned length : {0u, 1u, 63u, 64u, 255u}) {
    FuzzOutput play = associated();
    play.u8(step_raw).u8(0).u8(length).add(FuzzBytes(length, 0x06)).u8(step_wait).u8(0).u8(20).u8(20);
    add("raw-" + std::to_string(length), play);
  }
  for (const unsigned how : {0u, 1u}) {
    FuzzOutput play = associated();
    play.u8(step_touch).u8(0).u8(how).u32(5).u64(4096);
    add("touch-" + std::to_string(how), play);
  }
  // A command identifier in use, and more commands than the queue holds.
  FuzzOutput same = associated();
  for (int i = 0; i < 36; i++)
    same.u8(step_command).u8(0).u8(1).u8(11).u8(i < 2 ? 7 : i);
  add("cids", same);
  FuzzOutput silent;
  silent.u8(1).u8(step_dial).u8(0).u8(4).no_patch().u8(step_connect).u8(0).u8(0).no_patch().no_patch();
  silent.u8(step_wait).u8(0).u8(200).u8(200);
  add("no-receives", silent);
  // Writes that are held and fail at the disk while their connection goes.
  for (const unsigned how : {1u, 2u}) {
    FuzzOutput play = associated();
    play.u8(step_disk).u8(0).u8(how).u8(step_command).u8(0).u8(0).u8(7).u8(step_drop).u8(0);
    add("disk-" + std::to_string(how), play);
  }
  return out;
}

BASALT_FUZZ_TARGET(rdma_target, basalt::testing::fuzz_play<Play>, seeds)

}  // namespace
}  // namespace basalt::nvmf
