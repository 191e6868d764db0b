// SPDX-License-Identifier: Apache-2.0
// A controller that answers with anything: every field of every page, status, property and event that the host reads is
// the input's to change, and it may fail, end or keep silent at any command. The host connects or says why not, serves
// reads and writes or completes them, and closes within its time-outs with nothing left.
#include <cstring>

#include "base/bytes.h"
#include "nvmf/host/controller.h"
#include "testing/fuzz_target.h"
#include "testing/fuzz_world.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using basalt::testing::FuzzWorld;

// What the input says of each command, in order. Nothing left: as a good controller answers.
enum Reply : uint8_t { reply_good = 0, reply_patched = 1, reply_status = 2, reply_silent = 3, reply_lost = 4 };
constexpr uint8_t reply_count = 5;

template <class T>
FuzzBytes as_bytes(const T& page) {
  FuzzBytes out(sizeof(page));
  std::memcpy(out.data(), &page, sizeof(page));
  return out;
}

FuzzBytes identify_controller_page() {
  nvme::IdentifyController id{};
  std::memcpy(id.sn, "serial              ", sizeof(id.sn));
  id.cntlid = 1;
  id.cmic = 0x0a;
  id.oncs = 0x7f;
  id.nn = 4;
  id.mnan = 4;
  id.nanagrpid = 4;
  id.anacap = 0x1f;
  id.ioccsz = 516;
  id.iorcsz = 1;
  id.vwc = 1;
  id.mdts = 8;
  return as_bytes(id);
}

FuzzBytes identify_namespace_page() {
  nvme::IdentifyNamespace id{};
  id.nsze = id.ncap = 2048;
  id.lbaf[0].lbads = 12;
  id.anagrpid = 1;
  id.nguid[0] = 1;
  return as_bytes(id);
}

FuzzBytes descriptors_page() {
  FuzzBytes page(4096);
  page[0] = 3;
  page[1] = 16;
  page[4] = 7;
  page[20] = 2;
  page[21] = 16;
  return page;
}

FuzzBytes ana_page() {
  FuzzBytes page(16 + 32 + 4);
  store_le<uint64_t>(page.data(), 1);
  store_le<uint16_t>(page.data() + 8, 1);
  store_le<uint32_t>(page.data() + 16, 1);
  store_le<uint32_t>(page.data() + 20, 1);
  page[16 + 16] = 1;
  store_le<uint32_t>(page.data() + 48, 1);
  return page;
}

FuzzBytes page_for(const nvme::Command& command) {
  if (command.opcode == static_cast<uint8_t>(nvme::AdminOpcode::identify)) {
    switch (command.cdw10 & 0xff) {
      case 0:
        return identify_namespace_page();
      case 1:
        return identify_controller_page();
      case 2: {
        FuzzBytes list(4096);
        store_le<uint32_t>(list.data(), 1);
        return list;
      }
      default:
        return descriptors_page();
    }
  }
  if (command.opcode == static_cast<uint8_t>(nvme::AdminOpcode::get_log_page) && (command.cdw10 & 0xff) == 0x0c) {
    return ana_page();
  }
  return FuzzBytes(64);
}

class AnyQueue final : public HostQueue {
 public:
  AnyQueue(Reactor& reactor, uint16_t qid, FuzzInput& input) : HostQueue(reactor, qid), input_(input) {
    turn_.queue = this;
    turn_.run = [](Work* work) { static_cast<Turn*>(work)->queue->serve(); };
  }

 private:
  struct Turn : Timer {
    AnyQueue* queue = nullptr;
  };

  void start(HostCommand* command) override {
    waiting_.push_back(command);
    if (!turn_.armed()) reactor().arm_after(&turn_, microseconds(20));
  }
  void end_connection() override {
    ending_ = true;
    waiting_.clear();
    reactor().arm_after(&turn_, microseconds(1));
  }
  void serve() {
    if (ending_) {
      all_lost();  // may be the end of this object
      return;
    }
    if (waiting_.empty()) return;
    HostCommand* command = waiting_.front();
    waiting_.pop_front();
    if (!waiting_.empty()) reactor().arm_after(&turn_, microseconds(20));
    answer(command);
  }
  void answer(HostCommand* command) {
    const auto kind = static_cast<Reply>(input_.u8() % reply_count);
    const bool event = command->command.opcode == static_cast<uint8_t>(nvme::AdminOpcode::async_event_request);
    // Once the input is used up events stop, or they would never end.
    if (kind == reply_silent || (event && input_.empty())) return;
    if (kind == reply_lost) {
      lose({Errc::closed, "the input ended the connection"});
      return;
    }
    fill_completion(command);
    if (command->direction == nvme::DataDirection::controller_to_host) {
      FuzzBytes page = page_for(command->command);
      page.resize(std::max<size_t>(page.size(), command->data_bytes));
      if (kind == reply_patched) input_.patch(page);
      size_t at = 0;
      for (uint16_t i = 0; i < command->iov_count; i++) {
        std::memcpy(command->iov[i].base, page.data() + at, command->iov[i].length_bytes);
        at += command->iov[i].length_bytes;
      }
    }
    if (kind == reply_patched) {
      uint8_t* bytes = reinterpret_cast<uint8_t*>(&command->completion);
      input_.patch({bytes, 8});  // DW0, DW1
    }
    if (kind == reply_status) command->set_status({static_cast<uint16_t>(input_.u16() & 0x7fff)});
    complete(command);
  }
  void fill_completion(HostCommand* command) {
    command->completion = {};
    const nvme::Command& sent = command->command;
    if (sent.opcode == static_cast<uint8_t>(nvme::AdminOpcode::fabrics)) {
      const auto type = static_cast<nvme::FabricsType>(sent.nsid & 0xff);
      if (type == nvme::FabricsType::connect) command->completion.dw0 = 1;
      if (type == nvme::FabricsType::property_get) {
        nvme::PropertyCommand property;
        std::memcpy(&property, &sent, sizeof(property));
        command->completion.dw0 = property.offset == nvme::property_cap ? 0x1400007f : 1;
        command->completion.dw1 = property.offset == nvme::property_cap ? 0x20 : 0;
      }
    }
    if (sent.opcode == static_cast<uint8_t>(nvme::AdminOpcode::async_event_request)) {
      command->completion.dw0 = 2u | static_cast<uint32_t>(input_.u8() & 3) << 8;
    }
  }

  FuzzInput& input_;
  std::deque<HostCommand*> waiting_;
  bool ending_ = false;
  Turn turn_;
};

class AnyTransport final : public HostTransport {
 public:
  explicit AnyTransport(FuzzInput& input) : input_(input) {}
  const char* name() const override { return "ANY"; }
  Task<Result<std::unique_ptr<HostQueue>>> connect(Reactor& reactor, HostAddress, HostQueueOptions options) override {
    co_await sleep_for(reactor, microseconds(10));
    co_return std::unique_ptr<HostQueue>(std::make_unique<AnyQueue>(reactor, options.qid, input_));
  }

 private:
  FuzzInput& input_;
};

class Listener final : public HostController::Listener {
 public:
  void controller_lost(const Error& reason) override {
    BASALT_ASSERT(!reason.message.empty());
    lost_count++;
  }
  void namespaces_changed() override {}
  void attachments_changed(const std::vector<uint32_t>& numbers, bool all) override {
    for (const uint32_t number : numbers)
      BASALT_ASSERT(number != 0);
    BASALT_ASSERT(!all || numbers.front() == UINT32_MAX);
    changed_count++;
  }
  int lost_count = 0;
  int changed_count = 0;
};

void check_namespaces(const HostController& controller) {
  uint32_t previous = 0;
  for (const HostNamespace& ns : controller.namespaces()) {
    BASALT_ASSERT(ns.nsid > previous);
    previous = ns.nsid;
    BASALT_ASSERT(ns.block_size_bytes >= 512 && ns.block_size_bytes <= 4096 && ns.count_blocks > 0);
    BASALT_ASSERT(ns.count_blocks <= UINT64_MAX / ns.block_size_bytes);
    BASALT_ASSERT(controller.find(ns.nsid) == &ns);
  }
}

struct Io : HostCommand {
  bool ended = false;
};

void read_one_block(FuzzWorld& world, HostController& controller) {
  FuzzBytes data(4096);
  Iovec iov{data.data(), data.size()};
  Io io;
  io.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::read);
  io.command.nsid = 1;
  io.direction = nvme::DataDirection::controller_to_host;
  io.data_bytes = 4096;
  io.iov = &iov;
  io.iov_count = 1;
  io.done = [](HostCommand* done) { static_cast<Io*>(done)->ended = true; };
  controller.submit(&io);
  world.must([&] { return io.ended; });
}

constexpr uint8_t mode_calls = 8;
constexpr uint8_t mode_node_link = 16;

// The control path's commands, on either kind of queue: each has an answer, or is lost.
void call(FuzzWorld& world, HostController& controller) {
  FuzzBytes page(4096);
  HostController::Call identify;
  identify.command.opcode = static_cast<uint8_t>(nvme::AdminOpcode::identify);
  identify.command.cdw10 = 1;
  identify.direction = nvme::DataDirection::controller_to_host;
  identify.data = page.data();
  identify.data_bytes = 4096;
  (void)world.run(controller.call(identify));
  HostController::Call flush;
  flush.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::flush);
  flush.command.nsid = 1;
  (void)world.run(controller.io_call(flush));
  (void)world.run(controller.fused_io_call(flush, flush));
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  FuzzWorld world(1);
  const uint8_t mode = input.u8();
  HostControllerOptions options;
  options.address = {"127.0.0.1", "4420"};
  options.subnqn = "nqn.2026-01.test:volume";
  options.hostnqn = "nqn.2026-01.test:host";
  options.hostid.bytes[0] = 1;
  options.io_queue_count = static_cast<uint16_t>(1 + (mode & 3));
  options.discovery = (mode & 4) != 0;
  options.node_link = (mode & mode_node_link) != 0 && !options.discovery;
  options.admin_timeout = options.command_timeout = seconds(2);
  AnyTransport transport(input);
  Listener listener;
  HostController controller(world.home(), transport, options, &listener);
  const Outcome connected = world.run(controller.connect());
  BASALT_ASSERT(connected.ok() || !connected.error().message.empty());
  check_namespaces(controller);
  BASALT_ASSERT(controller.io_queue_count() <= options.io_queue_count);
  if (connected.ok()) {
    world.world.run_for(seconds(3));  // keep-alives and events
    check_namespaces(controller);
    if (controller.live() && !options.discovery) read_one_block(world, controller);
    if ((mode & mode_calls) != 0 && !options.discovery) call(world, controller);
    controller.refresh_ana();
    if (options.node_link) controller.refresh_namespaces();
    if (options.node_link) controller.ask();
    world.world.run_for(seconds(1));
    check_namespaces(controller);
  }
  BASALT_ASSERT(options.node_link || listener.changed_count == 0);
  BASALT_ASSERT(!options.node_link || controller.namespaces().empty());
  world.run_void(controller.close());
  BASALT_ASSERT(!controller.live() && listener.lost_count <= 1);
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out = {{"good", {0}}, {"discovery", {4}}, {"four-queues", {3}}};
  for (const unsigned reply : {reply_good, reply_status, reply_silent, reply_lost}) {
    FuzzOutput output;
    output.u8(mode_calls);
    // Of those that a connect needs none is answered otherwise.
    for (unsigned i = 0; i < 40; i++)
      output.u8(i < 24 ? reply_good + 0u : reply);
    out.push_back({"calls-" + std::to_string(reply), output.bytes()});
  }
  // A node's link: which attachments have changed - none, some, any - and a node that answers nothing more.
  for (const unsigned reply : {reply_good, reply_patched, reply_status, reply_silent, reply_lost}) {
    for (unsigned at = 8; at < 24; at++) {
      FuzzOutput output;
      output.u8(mode_node_link);
      for (unsigned i = 0; i < at; i++)
        output.u8(reply_good);
      output.u8(reply);
      const FuzzBytes numbers = {1, 0, 0, 0, 7, 0, 0, 0};
      if (reply == reply_patched) output.patch_one(0, numbers).no_patch();
      if (reply == reply_status) output.u16(0x0b);
      out.push_back({"link-" + std::to_string(at) + "-" + std::to_string(reply), output.bytes()});
    }
  }
  FuzzOutput any;
  any.u8(mode_node_link);
  for (unsigned i = 0; i < 40; i++)
    any.u8(reply_patched).patch_one(0, FuzzBytes(4, 0xff)).no_patch();
  out.push_back({"link-any", any.bytes()});
  // Commands of a connect with one I/O queue, in order; each fails, is silent, ends it, or is patched.
  constexpr unsigned commands = 16;
  for (unsigned at = 0; at < commands; at++) {
    const auto before = [&] {
      FuzzOutput output;
      output.u8(0);
      for (unsigned i = 0; i < at; i++)
        output.u8(reply_good);
      return output;
    };
    const std::string name = std::to_string(at);
    out.push_back({"status-" + name, before().u8(reply_status).u16(0x0b).bytes()});
    out.push_back({"silent-" + name, before().u8(reply_silent).bytes()});
    out.push_back({"lost-" + name, before().u8(reply_lost).bytes()});
    for (const unsigned offset : {0u, 8u, 16u, 26u, 76u, 78u, 100u, 128u, 344u, 516u, 520u, 1792u}) {
      const FuzzBytes value = {0xff, 0xff, 0xff, 0xff};
      out.push_back({"patched-" + name + "-" + std::to_string(offset),
                     before().u8(reply_patched).patch_one(offset, value).no_patch().bytes()});
    }
  }
  return out;
}

BASALT_FUZZ_TARGET(host_controller, run, seeds)

}  // namespace
}  // namespace basalt::nvmf
