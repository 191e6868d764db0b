// SPDX-License-Identifier: Apache-2.0
// Members that share a link with a node that answers anything: which number it attaches under, what it describes, which
// attachments it says have changed, how reservations end - right, changed, refused, late, never - while the connections
// go and members come and go.
//
// Whatever it answers: a takeover ends in time, with a size that can be or with a reason; every request completes once;
// who has taken over is told, once, when that is lost; and members and links close with nothing left.
#include <algorithm>
#include <cstring>
#include <deque>

#include "base/bytes.h"
#include "bdev/nvmf/member.h"
#include "nvmf/transport/tcp/fake_target_testing.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "testing/fuzz_target.h"

namespace basalt::bdev {
namespace {

using basalt::testing::FakeConnection;
using basalt::testing::FakeTarget;
using basalt::testing::FuzzBytes;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using basalt::testing::MemoryNet;
using nvme::AdminOpcode;

constexpr uint16_t node_port = 4420;
constexpr size_t members_max = 3;
constexpr size_t ios_max = 32;
constexpr unsigned steps_max = 48;

enum Step : uint8_t {
  step_take_over,
  step_io,
  step_script,
  step_event,
  step_answer,
  step_cut,
  step_mute,
  step_close,
  step_wait,
  step_count,
};

// How the node answers its next command. Nothing in the script: as it should.
enum Reply : uint8_t { reply_good, reply_patched, reply_status, reply_late, reply_silent, reply_count };

struct Scripted {
  Reply reply = reply_good;
  uint16_t status = 0;
  FuzzBytes patch;  // over what it would answer: data, or the result's two dwords
  uint16_t at = 0;
};

struct Request : Io {
  FuzzBytes bytes;
  Iovec piece;
  unsigned ended_count = 0;
};

struct Play final : Member::Listener {
  Play(FuzzInput& from, uint8_t seed) : input(from), net(seed) {
    BASALT_ASSERT(host.init().ok() && far.init().ok());
    net.add(&host);
    net.add(&far);
    node = std::make_unique<FakeTarget>(net, far, node_port);
    node->on_command = [this](FakeConnection& connection, const nvme::Command& command, const FuzzBytes&) {
      return answer(connection, command);
    };
    for (size_t i = 0; i < members_max; i++)
      members[i] = make(i);
  }

  std::unique_ptr<Member> make(size_t index) {
    MemberOptions options;
    options.name = "m" + std::to_string(index);
    options.address = {"127.0.0.1", std::to_string(node_port)};
    options.subnqn = "nqn.2026-01.test:replica" + std::to_string(index);
    options.hostnqn = "nqn.2026-01.test:host";
    options.link_nqn = "nqn.2026-01.test:link";
    options.command_timeout = milliseconds(300);
    auto out = std::make_unique<Member>(host, transport, options, &links);
    out->set_listener(this);
    return out;
  }

  void perform() {
    for (unsigned i = 0; i < steps_max && !input.empty(); i++) {
      step();
      net.run_for(milliseconds(1));
    }
    for (auto& member : members)
      (void)net.run(member->close());
    net.run_void(links.close());
    BASALT_ASSERT(net.run_until([&] { return takeovers_count == 0; }));
    for (const auto& io : ios)
      BASALT_ASSERT(io->ended_count == 1);
    node.reset();
    net.run_for(milliseconds(1));
  }

  void step() {
    const auto what = static_cast<Step>(input.u8() % step_count);
    const size_t index = input.u8() % members_max;
    Member& member = *members[index];
    switch (what) {
      case step_take_over:
        if (busy[index]) return;
        busy[index] = true;
        takeovers_count++;
        failures_due[index] = false;
        return spawn(take_over(index, 1 + input.u8()));
      case step_io:
        return io(member, input.u8());
      case step_script: {
        Scripted next;
        next.reply = static_cast<Reply>(input.u8() % reply_count);
        if (next.reply == reply_status) next.status = input.u16() & 0x7fff;
        if (next.reply == reply_patched) {
          next.at = input.u16();
          const auto bytes = input.take(input.u8());
          next.patch.assign(bytes.begin(), bytes.end());
        }
        script.push_back(next);
        return;
      }
      case step_event:
        return node->send_event(input.u32());
      case step_answer:
        return answer_late();
      case step_cut:
        node->connections.clear();
        late.clear();
        return;
      case step_mute:
        mute = !mute;
        return;
      case step_close:
        // Whatever it was doing: nothing of it is left.
        (void)net.run(member.close());
        BASALT_ASSERT(net.run_until([&] { return !busy[index]; }));
        members[index] = make(index);
        return;
      case step_wait:
        return net.run_for(milliseconds(int64_t{input.u8()} * 8));
      case step_count:
        return;
    }
  }

  Task<void> take_over(size_t index, uint64_t epoch) {
    const auto result = co_await members[index]->takeover(epoch, milliseconds(400));
    if (result.ok()) {
      const MemberInfo& info = result.value();
      const uint32_t size = info.block_size_bytes;
      BASALT_ASSERT(size >= 512 && size <= 4096 && (size & (size - 1)) == 0);
      BASALT_ASSERT(info.count_blocks > 0 && info.count_blocks <= UINT64_MAX / size);
      BASALT_ASSERT(members[index]->epoch() == epoch);
      failures_due[index] = true;
    } else {
      BASALT_ASSERT(!result.error().message.empty());
    }
    busy[index] = false;
    takeovers_count--;
  }
  void member_failed(Member& member, const Error& reason) override {
    const size_t index = member.options().name[1] - '0';
    BASALT_ASSERT(failures_due[index] && !reason.message.empty());
    failures_due[index] = false;
  }
  void io(Member& member, uint8_t how) {
    if (ios.size() == ios_max) return;
    ios.push_back(std::make_unique<Request>());
    Request& request = *ios.back();
    const uint32_t block_bytes = std::max(512u, member.info().block_size_bytes);
    request.bytes.resize(size_t{block_bytes} * ((how & 2) != 0 ? 16 : 1));
    request.piece = {request.bytes.data(), request.bytes.size()};
    request.type = (how & 1) != 0 ? IoType::write : IoType::read;
    request.offset_blocks = how >> 2;
    request.count_blocks = static_cast<uint32_t>(request.bytes.size() / block_bytes);
    request.iov = &request.piece;
    request.iov_count = 1;
    request.done = [](Io* io) { static_cast<Request*>(io)->ended_count++; };
    member.submit(&request);
  }

  // ---- the node ----

  static FuzzBytes description() {
    nvme::LinkDescription out{};
    out.block_size_bytes = 4096;
    out.count_blocks = 1024;
    std::memcpy(out.serial_number, "incarnation         ", sizeof(out.serial_number));
    FuzzBytes bytes(sizeof(out));
    std::memcpy(bytes.data(), &out, sizeof(out));
    return bytes;
  }
  bool answer(FakeConnection& connection, const nvme::Command& command) {
    const auto opcode = static_cast<AdminOpcode>(command.opcode);
    const bool is_admin = connection.qid == 0;
    // A connection begins with Connect: what stood in its memory before was another one.
    if (command.opcode == 0x7f) std::erase_if(late, [&](const auto& each) { return each.first == &connection; });
    if (mute) return true;
    if (is_admin && (opcode == AdminOpcode::keep_alive || opcode == AdminOpcode::async_event_request)) return false;
    Scripted how;
    // Until there is an association, commands are as they should be: host_controller_fuzz changes those.
    if (command.opcode != 0x7f && opcode != AdminOpcode::identify && !script.empty()) {
      how = script.front();
      script.pop_front();
    }
    if (how.reply == reply_silent) return true;
    if (how.reply == reply_late) {
      late.push_back({&connection, command});
      return true;
    }
    return serve(connection, command, how);
  }
  bool serve(FakeConnection& connection, const nvme::Command& command, const Scripted& how) {
    const bool is_admin = connection.qid == 0;
    const auto opcode = static_cast<AdminOpcode>(command.opcode);
    const bool patched = how.reply == reply_patched;
    if (how.reply == reply_status) {
      connection.respond(command.cid, {how.status});
      return true;
    }
    const auto overlay = [&](FuzzBytes& bytes) {
      for (size_t i = 0; patched && i < how.patch.size() && how.at + i < bytes.size(); i++)
        bytes[how.at + i] = how.patch[i];
    };
    const bool reads = nvme::data_direction(command.opcode) == nvme::DataDirection::controller_to_host;
    if (is_admin && opcode == AdminOpcode::link_attach) {
      FuzzBytes number(8);
      store_le<uint32_t>(number.data(), ++attach_count);
      overlay(number);
      connection.respond(command.cid, nvme::status::success, load_le<uint64_t>(number.data()));
      return true;
    }
    if (command.opcode == 0x7f || !reads) return false;
    const bool describes = is_admin && opcode == AdminOpcode::link_describe;
    const bool lists = is_admin && opcode == AdminOpcode::get_log_page && (command.cdw10 & 0xff) == 4;
    const bool reports = !is_admin && command.opcode == static_cast<uint8_t>(nvme::NvmOpcode::reservation_report);
    if (!describes && !lists && !reports) return false;
    FuzzBytes page = describes ? description() : FuzzBytes(command.sgl.length_bytes);
    overlay(page);
    connection.give(command, page);
    return true;
  }
  void answer_late() {
    if (late.empty()) return;
    const auto [connection, command] = late.front();
    late.pop_front();
    if (!is_there(connection) || connection->closed) return;
    if (!serve(*connection, command, {})) connection->respond(command.cid, nvme::status::success);
    connection->flush();
  }
  bool is_there(const FakeConnection* wanted) const {
    return std::any_of(node->connections.begin(), node->connections.end(),
                       [&](const auto& connection) { return connection.get() == wanted; });
  }

  FuzzInput& input;
  MemoryNet net;
  Arena arena{size_t{64} << 20};
  Reactor host{net, arena, {}};
  Reactor far{net, arena, {.index = 1}};
  nvmf::TcpHostTransport transport;
  std::unique_ptr<FakeTarget> node;
  std::deque<Scripted> script;
  std::deque<std::pair<FakeConnection*, nvme::Command>> late;
  bool mute = false;
  uint32_t attach_count = 0;
  Links links{host, transport};
  std::vector<std::unique_ptr<Request>> ios;
  std::unique_ptr<Member> members[members_max];
  bool busy[members_max] = {};
  bool failures_due[members_max] = {};
  size_t takeovers_count = 0;
};

// ---- seeds ----------------------------------------------------------------------------------------------------------

FuzzOutput& take_over(FuzzOutput& out, unsigned member, unsigned epoch = 5) {
  return out.u8(step_take_over).u8(member).u8(epoch).u8(step_wait).u8(0).u8(10);
}
FuzzOutput& patched(FuzzOutput& out, unsigned at, const FuzzBytes& bytes) {
  return out.u8(step_script).u8(0).u8(reply_patched).u16(at).u8(static_cast<unsigned>(bytes.size())).add(bytes);
}
FuzzOutput& add_ios(FuzzOutput& out, unsigned member) {
  for (unsigned how = 0; how < 4; how++)
    out.u8(step_io).u8(member).u8(how);
  return out;
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out = {{"empty", {}}};
  const auto add = [&](const std::string& name, const FuzzOutput& from) { out.push_back({name, from.bytes()}); };
  const auto begin = [] { return FuzzOutput().u8(1); };
  // Two members that are there, and what may then happen to the first.
  const auto taken = [&] {
    FuzzOutput play = begin();
    // The first command that a script reaches is of the association: who is first makes that.
    take_over(play, 0);
    take_over(play, 1);
    add_ios(play, 0);
    return play;
  };
  FuzzOutput good = taken();
  take_over(add_ios(good, 1), 0, 6);
  add("good", add_ios(good, 0));
  // The numbers of attachments: none, any, another's.
  for (const uint8_t byte : {uint8_t{0}, uint8_t{0xff}, uint8_t{1}, uint8_t{7}}) {
    FuzzOutput play = taken();
    FuzzBytes number(4, byte == 0xff ? 0xff : 0);
    number[0] = byte;
    patched(play, 0, number);
    take_over(play, 2).u8(step_close).u8(2).u8(step_event).u8(0).u32(2).u8(step_wait).u8(0).u8(10);
    take_over(play, 2).u8(step_cut).u8(0).u8(step_wait).u8(0).u8(200);
    add("number-" + std::to_string(byte), play);
  }
  // Each field of the description.
  for (const unsigned at : {32u, 52u, 54u, 56u, 63u, 64u}) {
    for (const uint8_t byte : {uint8_t{0}, uint8_t{1}, uint8_t{0xff}}) {
      FuzzOutput play = taken();
      play.u8(step_script).u8(0).u8(reply_good);
      patched(play, at, FuzzBytes(2, byte));
      add("described-" + std::to_string(at) + "-" + std::to_string(byte), add_ios(take_over(play, 2), 2));
    }
  }
  // Each command of a takeover, from Attach to Acquire: refused, late, without an answer.
  for (unsigned at = 0; at < 6; at++) {
    for (const unsigned reply : {reply_status, reply_late, reply_silent}) {
      for (const unsigned status : {0x0bu, 0x180u, 0x182u, 0x83u}) {
        if (reply != reply_status && status != 0x0b) continue;
        FuzzOutput play = taken();
        for (unsigned i = 0; i < at; i++)
          play.u8(step_script).u8(0).u8(reply_good);
        play.u8(step_script).u8(0).u8(reply);
        if (reply == reply_status) play.u16(status);
        take_over(play, 2).u8(step_answer).u8(0).u8(step_wait).u8(0).u8(100).u8(step_answer).u8(0);
        add("at-" + std::to_string(at) + "-" + std::to_string(reply) + "-" + std::to_string(status),
            add_ios(take_over(play, 2), 2));
      }
    }
  }
  // Attachments that have changed: none, the first, all; it is another size then, gone, or never told.
  for (const unsigned list : {0u, 1u, 0xffu}) {
    for (const unsigned then : {reply_good, reply_patched, reply_status, reply_silent}) {
      FuzzOutput play = taken();
      play.u8(step_event).u8(0).u32(2);
      patched(play, 0, FuzzBytes(list == 0xff ? 4 : 1, static_cast<uint8_t>(list)));
      if (then == reply_patched) {
        patched(play, 56, {0, 8});
      } else {
        play.u8(step_script).u8(0).u8(then);
        if (then == reply_status) play.u16(0x0b);
      }
      play.u8(step_wait).u8(0).u8(50);
      add("changed-" + std::to_string(list) + "-" + std::to_string(then), add_ios(play, 0));
    }
  }
  // I/O without an answer; then its connection, its member, or the node goes, or the answer comes.
  for (const unsigned step : {step_cut, step_close, step_mute, step_answer}) {
    FuzzOutput play = taken();
    play.u8(step_script).u8(0).u8(reply_late).u8(step_script).u8(0).u8(reply_late);
    add_ios(play, 0).u8(step).u8(0).u8(step_wait).u8(0).u8(200).u8(step_answer).u8(0).u8(step_wait).u8(0).u8(200);
    add("held-" + std::to_string(step), add_ios(take_over(play, 0, 9), 0));
  }
  return out;
}

BASALT_FUZZ_TARGET(link_host, basalt::testing::fuzz_play<Play>, seeds)

}  // namespace
}  // namespace basalt::bdev
