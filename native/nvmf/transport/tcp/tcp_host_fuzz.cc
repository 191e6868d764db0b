// SPDX-License-Identifier: Apache-2.0
// Our host and our target with a hostile wire between them: bytes of either direction are overwritten, dropped, added,
// or the connection is cut, at places that the input chooses. Nothing at all changed is the seed: a whole association
// with reads and writes.
//
// Whatever the wire does: every command ends, connecting ends, both sides let go of everything, a change that a digest
// covers never passes for data, and the same host connects over a quiet wire afterwards.
#include <cstring>
#include <map>

#include "nvmf/host/controller.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "nvmf/transport/tcp/tcp_target.h"
#include "testing/fuzz_target.h"
#include "testing/fuzz_world.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDisk;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using basalt::testing::FuzzWorld;

constexpr char subnqn[] = "nqn.2026-01.test:volume";
constexpr char hostnqn[] = "nqn.2026-01.test:host";
constexpr uint16_t wire_port = 4420;
constexpr uint8_t mode_header_digest = 1;
constexpr uint8_t mode_data_digest = 2;
constexpr uint8_t mode_ended = 4;  // read nothing of the disk: connect and close only

enum class Change : uint8_t { overwrite, insert, drop, cut };

struct Patch {
  Change change;
  FuzzBytes bytes;
};

// Forwards between the host and the target, one pair of sockets per connection, by order of arrival.
class Wire final : public env::Loop {
 public:
  Wire(FuzzWorld& world, uint16_t target_port) : poller_(world.home().poller()), target_port_(target_port) {
    auto listening = poller_.listen({env::Address::Family::ip, "127.0.0.1", wire_port});
    BASALT_ASSERT(listening.ok());
    listener_ = std::move(listening).value();
    loop_ = world.node.start(*this, {});
  }

  void add(unsigned connection, bool to_host, uint32_t offset, Patch patch) {
    patches_[{connection, to_host}].emplace(offset, std::move(patch));
  }
  void run() override {}
  Instant deadline() const override { return Instant::never(); }
  bool turn() override {
    bool moved = false;
    while (auto pending = listener_->try_accept()) {
      auto link = std::make_unique<Link>();
      link->end[0] = poller_.adopt(std::move(pending));
      auto onward = poller_.connect({env::Address::Family::ip, "127.0.0.1", target_port_});
      BASALT_ASSERT(onward.ok());
      link->end[1] = std::move(onward).value();
      links_.push_back(std::move(link));
      moved = true;
    }
    for (size_t i = 0; i < links_.size(); i++) {
      for (const int from : {0, 1})
        moved |= forward(static_cast<unsigned>(i), *links_[i], from);
    }
    return moved;
  }
  size_t changed_count = 0;

 private:
  struct Link {
    std::unique_ptr<env::StreamSocket> end[2];  // host, target
    FuzzBytes waiting[2];                       // from that end
    uint32_t seen[2] = {};
    bool ended[2] = {};
  };

  bool forward(unsigned index, Link& link, int from) {
    bool moved = false;
    if (link.end[from] != nullptr && !link.ended[from] && link.waiting[from].empty()) {
      uint8_t bytes[8192];
      const Iovec iov{bytes, sizeof(bytes)};
      const env::Transfer got = link.end[from]->try_recv(&iov, 1);
      if (got.state == env::Transfer::State::done) {
        moved = true;
        if (!pass(index, link, from, {bytes, got.count_bytes})) return cut(link);
      } else if (got.state != env::Transfer::State::would_block) {
        link.ended[from] = true;
      }
    }
    FuzzBytes& waiting = link.waiting[from];
    if (!waiting.empty() && link.end[1 - from] != nullptr) {
      const Iovec iov{waiting.data(), waiting.size()};
      const env::Transfer sent = link.end[1 - from]->try_send(&iov, 1);
      if (sent.state == env::Transfer::State::done) {
        waiting.erase(waiting.begin(), waiting.begin() + static_cast<long>(sent.count_bytes));
        moved = true;
      } else if (sent.state != env::Transfer::State::would_block) {
        return cut(link);
      }
    }
    if (link.ended[from] && waiting.empty() && link.end[from] != nullptr) return cut(link);
    return moved;
  }
  bool cut(Link& link) {
    const bool was = link.end[0] != nullptr || link.end[1] != nullptr;
    link.end[0].reset();
    link.end[1].reset();
    link.waiting[0].clear();
    link.waiting[1].clear();
    return was;
  }
  // False: the input cuts the connection here.
  bool pass(unsigned index, Link& link, int from, std::span<uint8_t> bytes) {
    const auto found = patches_.find({index, from == 1});
    const uint32_t begin = link.seen[from];
    link.seen[from] += static_cast<uint32_t>(bytes.size());
    FuzzBytes& out = link.waiting[from];
    size_t at = 0;
    if (found != patches_.end()) {
      for (auto it = found->second.lower_bound(begin); it != found->second.end() && it->first < link.seen[from]; ++it) {
        const size_t where = it->first - begin;
        if (where < at) continue;
        out.insert(out.end(), bytes.begin() + static_cast<long>(at), bytes.begin() + static_cast<long>(where));
        at = where;
        const Patch& patch = it->second;
        changed_count++;
        if (patch.change == Change::cut) return false;
        const size_t over = std::min(patch.bytes.size(), bytes.size() - at);
        if (patch.change != Change::drop) {
          const size_t put = patch.change == Change::overwrite ? over : patch.bytes.size();
          out.insert(out.end(), patch.bytes.begin(), patch.bytes.begin() + static_cast<long>(put));
        }
        if (patch.change != Change::insert) at += over;
      }
    }
    out.insert(out.end(), bytes.begin() + static_cast<long>(at), bytes.end());
    return true;
  }

  env::Poller& poller_;
  const uint16_t target_port_;
  std::unique_ptr<env::StreamListener> listener_;
  std::unique_ptr<env::LoopHandle> loop_;
  std::vector<std::unique_ptr<Link>> links_;
  std::map<std::pair<unsigned, bool>, std::map<uint32_t, Patch>> patches_;
};

class Listener final : public HostController::Listener {
 public:
  void controller_lost(const Error& reason) override { BASALT_ASSERT(!reason.message.empty()); }
  void namespaces_changed() override {}
};

struct Io : HostCommand {
  bool ended = false;
  FuzzBytes data;
  std::vector<Iovec> pieces;
};

// Starts one read or write, its memory in several pieces.
void start(HostController& controller, Io& io, nvme::NvmOpcode opcode, uint64_t slba, uint32_t count, uint8_t fill) {
  io.data.assign(size_t{count} * 512, fill);
  const size_t piece_bytes = 1000;
  for (size_t at = 0; at < io.data.size(); at += piece_bytes)
    io.pieces.push_back({io.data.data() + at, std::min(piece_bytes, io.data.size() - at)});
  io.command.opcode = static_cast<uint8_t>(opcode);
  io.command.nsid = 1;
  io.command.cdw10 = static_cast<uint32_t>(slba);
  io.command.cdw12 = count - 1;
  io.direction = nvme::data_direction(io.command.opcode);
  io.data_bytes = static_cast<uint32_t>(io.data.size());
  io.iov = io.pieces.data();
  io.iov_count = static_cast<uint16_t>(io.pieces.size());
  io.done = [](HostCommand* done) { static_cast<Io*>(done)->ended = true; };
  controller.submit(&io);
}

void use(FuzzWorld& world, HostController& controller, bool trusted) {
  for (const uint32_t count : {1u, 40u, 128u}) {
    if (!controller.live()) return;
    Io write;
    Io read;
    start(controller, write, nvme::NvmOpcode::write, count, count, 0x33);
    world.must([&] { return write.ended; });
    if (!controller.live()) return;
    start(controller, read, nvme::NvmOpcode::read, count, count, 0);
    world.must([&] { return read.ended; });
    if (!trusted || !write.status().ok() || !read.status().ok()) continue;
    BASALT_ASSERT(std::all_of(read.data.begin(), read.data.end(), [](uint8_t byte) { return byte == 0x33; }));
  }
}

void associate(FuzzWorld& world, uint16_t port, pdu::Digests digests, bool with_io, bool trusted, bool must_connect) {
  TcpHostTransport transport(TcpHostTransport::Options{digests});
  Listener listener;
  HostControllerOptions options;
  options.address = {"127.0.0.1", std::to_string(port)};
  options.subnqn = subnqn;
  options.hostnqn = hostnqn;
  options.hostid.bytes[0] = 1;
  options.admin_timeout = options.command_timeout = seconds(2);
  HostController controller(*world.reactors[1], transport, options, &listener);
  const Outcome connected = world.run(controller.connect());
  BASALT_ASSERT(connected.ok() || !must_connect);
  if (connected.ok() && with_io) use(world, controller, trusted);
  world.run_void(controller.close());
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  const uint8_t mode = input.u8();
  const pdu::Digests digests{(mode & mode_header_digest) != 0, (mode & mode_data_digest) != 0};
  env::SimKnobs knobs;
  knobs.network_delay_min = knobs.network_delay_max = microseconds(5);
  FuzzWorld world(input.u8(), 2, knobs);
  FuzzDisk disk(world.home(), 512, 512);
  Target target(world.reactor_list());
  target.add_transport(std::make_unique<TcpTargetTransport>(target));
  SubsystemOptions subsystem_options;
  subsystem_options.nqn = subnqn;
  subsystem_options.allow_any_host = true;
  Subsystem* subsystem = target.create_subsystem(subsystem_options).value();
  ns::NamespaceOptions space;
  space.nsid = 1;
  BASALT_ASSERT(world.run(subsystem->add_namespace(space, &disk)).ok());
  auto bound = world.run(subsystem->add_listener({"TCP", "127.0.0.1", "0"}));
  BASALT_ASSERT(bound.ok());
  const auto target_port = static_cast<uint16_t>(std::stoi(bound->trsvcid));
  {
    Wire wire(world, target_port);
    // How many bytes one change may make and still never look like data: a digest is 32 bits.
    bool small = true;
    for (unsigned left = 16; left > 0 && !input.empty(); left--) {
      const uint8_t where = input.u8();
      const uint32_t offset = input.u16();
      const auto change = static_cast<Change>(where >> 3 & 3);
      const auto patch = input.take(change == Change::cut ? 0 : 1 + input.u8() % 64);
      small = small && change == Change::overwrite && patch.size() <= 4;
      wire.add(where & 3, (where & 4) != 0, offset, {change, FuzzBytes(patch.begin(), patch.end())});
    }
    const bool covered = digests.header && digests.data && small;
    associate(world, wire_port, digests, (mode & mode_ended) == 0, covered, input.empty() && bytes.size() <= 2);
    world.world.run_for(seconds(1));
  }
  associate(world, target_port, digests, true, true, true);
  world.run_void(target.close());
  BASALT_ASSERT(world.buffers_in_use_count() == 0);
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  for (unsigned mode = 0; mode < 8; mode++)
    out.push_back({"quiet-" + std::to_string(mode), {static_cast<uint8_t>(mode), 1}});
  // A changed byte, a cut, a hole and a surplus at places of each PDU of the first few hundred bytes, both ways.
  for (const unsigned where : {0u, 1u, 4u, 5u}) {
    for (unsigned offset = 0; offset < 400; offset += 56) {
      for (const unsigned change : {0u, 1u, 2u, 3u}) {
        FuzzOutput output;
        output.u8(0).u8(1).u8(where | change << 3).u16(offset);
        if (change != 3) output.u8(0).u8(0xff);
        out.push_back({"change-" + std::to_string(where) + "-" + std::to_string(offset) + "-" + std::to_string(change),
                       output.bytes()});
      }
    }
  }
  // What is overwritten here is answered with a PDU of the input's own: R2T, data, termination, response.
  for (const unsigned type : {1u, 3u, 5u, 7u, 9u}) {
    FuzzOutput output;
    output.u8(0).u8(1).u8(5).u16(128).u8(23);
    output.u8(type).u8(4).u8(24).u8(type == 7 ? 24 : 0).u32(type == 7 ? 28 : 24).u16(0).u16(0).u32(0).u32(4).u32(0);
    out.push_back({"pdu-" + std::to_string(type), output.bytes()});
  }
  return out;
}

BASALT_FUZZ_TARGET(tcp_host, run, seeds)

}  // namespace
}  // namespace basalt::nvmf
