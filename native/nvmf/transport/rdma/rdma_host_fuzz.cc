// SPDX-License-Identifier: Apache-2.0
// The host's queue over NVMe/RDMA against a target that says what the input tells it: an acceptance or rejection with
// private data of any content and length, responses of any length to any command, with any key invalidated, reads and
// writes of the host's memory, silence, ends.
//
// Whatever comes: each command ends once; a target touches what is open to it and nothing else; and after close() no
// buffer, registration, window or connection is left.
#include "nvmf/transport/rdma/rdma_host.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <optional>

#include "nvmf/transport/rdma/raw_rdma_testing.h"
#include "testing/fuzz_target.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using basalt::testing::MemoryNet;
using basalt::testing::RawRdma;
using State = env::RdmaConnection::State;

constexpr uint16_t slot_count = 4;
constexpr uint32_t command_bytes = 4096;
constexpr unsigned steps_max = 48;
constexpr size_t ios_max = 24;
constexpr size_t response_bytes_max = 128;
constexpr uint8_t untouched_byte = 0xee;

enum Answer : uint8_t { answer_accept, answer_reject, answer_drop, answer_nothing, answer_count };

enum Step : uint8_t {
  step_submit,
  step_respond,
  step_write,
  step_read,
  step_raw,
  step_drop,
  step_disown,
  step_wait,
  step_count,
};

struct Owner final : HostQueue::Owner {
  void queue_lost(HostQueue&, const Error& error) override { BASALT_ASSERT(!error.message.empty()); }
  void queue_timed_out(HostQueue&, const HostCommand&) override {}
  void queue_drained(HostQueue&) override { drained = true; }
  bool drained = false;
};

struct Io : HostCommand {
  Io(void* memory, bool reads) : piece{memory, command_bytes} {
    command.opcode = static_cast<uint8_t>(reads ? nvme::NvmOpcode::read : nvme::NvmOpcode::write);
    direction = nvme::data_direction(command.opcode);
    data_bytes = command_bytes;
    iov = &piece;
    iov_count = 1;
    done = [](HostCommand* ended) {
      auto* io = static_cast<Io*>(ended);
      BASALT_ASSERT(io->ended_count == 0);
      io->ended_count++;
    };
  }
  Iovec piece;
  int ended_count = 0;
};

class Play {
 public:
  Play(FuzzInput& input, uint8_t seed) : input_(input), net_(seed) {
    BASALT_ASSERT(reactor_.init().ok() && far_.init().ok());
    net_.add(&reactor_);
    net_.add(&far_);
    listener_ = far_.poller().rdma()->listen({.host = "127.0.0.1", .port = 4420}).value();
    buffer_ = reactor_.buffers().take(3 * command_bytes);
    std::memset(buffer_->data, untouched_byte, 3 * command_bytes);
    net_.rdma().knobs.connect_give_up = seconds(1);
  }

  void perform() {
    meet();
    for (unsigned i = 0; i < steps_max && !input_.empty() && queue_ != nullptr; i++) {
      step();
      net_.run_for(microseconds(100));
      hear();
    }
    finish();
  }

 private:
  static Task<void> attempt(RdmaHostTransport& transport, Reactor& reactor, HostQueueOptions options,
                            std::optional<Result<std::unique_ptr<HostQueue>>>* out) {
    HostAddress address{"127.0.0.1", "4420"};
    auto connected = co_await transport.connect(reactor, std::move(address), options);
    out->emplace(std::move(connected));
  }

  void meet() {
    HostQueueOptions options;
    options.qid = 1;
    options.slot_count = slot_count;
    options.capsule_data_bytes_max = 0;
    options.deadline = reactor_.now() + seconds(3);
    spawn(attempt(transport_, reactor_, options, &connected_));
    const uint8_t how = input_.u8();
    net_.rdma().knobs.pad_private_data_chance = (how & 0x40) != 0 ? 1 : 0;
    raw_.take(*listener_);
    rdma::RequestData request;
    BASALT_ASSERT(rdma::read_private_data(raw_.connection->private_data(), &request) && request.hsqsize == slot_count);
    switch (how % answer_count) {
      case answer_accept:
        raw_.prepare((how & 0x80) != 0 ? 1 : 32);
        raw_.connection->accept(private_data(rdma::AcceptData{.recfmt = 0, .crqsize = 32}));
        break;
      case answer_reject:
        raw_.connection->reject(private_data(rdma::RejectData{.recfmt = 0, .status = 6}));
        break;
      case answer_drop:
        raw_.connection->close();
        break;
      default:
        break;
    }
    BASALT_ASSERT(net_.run_until([&] { return connected_.has_value(); }));
    if (!connected_->ok()) {
      BASALT_ASSERT(!connected_->error().message.empty());
      return;
    }
    queue_ = std::move(*connected_).value();
    queue_->set_owner(&owner_);
    queue_->set_timeout(seconds(2));
  }

  template <class T>
  std::span<const uint8_t> private_data(const T& data) {
    std::memset(private_, 0, sizeof(private_));
    std::memcpy(private_, &data, sizeof(data));
    input_.patch(private_);
    const size_t length = input_.u8();
    return {private_, length == 0 ? sizeof(data) : std::min(length - 1, sizeof(private_))};
  }

  void step() {
    switch (static_cast<Step>(input_.u8() % step_count)) {
      case step_submit:
        return submit(input_.u8());
      case step_respond:
        return respond();
      case step_write:
        return touch(RawRdma::Type::write);
      case step_read:
        return touch(RawRdma::Type::read);
      case step_raw: {
        const auto bytes = input_.take(input_.u8());
        if (!up()) return;
        std::copy(bytes.begin(), bytes.end(), raw_.memory.begin());
        raw_.post(RawRdma::Type::send, 0, static_cast<uint32_t>(bytes.size()));
        return;
      }
      case step_drop:
        raw_.connection->close();
        return;
      case step_disown:
        if (ios_.empty()) return;
        if (Io& io = ios_[input_.u8() % ios_.size()]; io.ended_count == 0 && !queue_->closed())
          (void)queue_->disown(&io);
        return;
      case step_wait:
        return net_.run_for(milliseconds(int64_t{input_.u8()} * input_.u8()));
      case step_count:
        return;
    }
  }

  bool up() const { return raw_.connection->state() == State::established; }

  // In registered memory, or where the queue has to copy. The last third of the buffer is nobody's.
  void submit(uint8_t how) {
    if (queue_->closed() || ios_.size() == ios_max) return;
    uint8_t* const memory =
        (how & 2) != 0 ? elsewhere_ : static_cast<uint8_t*>(buffer_->data) + (how >> 2 & 1) * command_bytes;
    queue_->submit(&ios_.emplace_back(memory, (how & 1) != 0));
  }

  const nvme::Command* pick() { return heard_.empty() ? nullptr : &heard_[input_.u8() % heard_.size()]; }

  void respond() {
    const uint8_t how = input_.u8();
    const nvme::Command* command = pick();
    nvme::Completion completion{};
    completion.cid = command != nullptr ? command->cid : input_.u16();
    uint8_t bytes[response_bytes_max] = {};
    std::memcpy(bytes, &completion, sizeof(completion));
    if ((how & 1) != 0) input_.patch(bytes);
    const size_t length = (how & 2) != 0 ? input_.u8() % (response_bytes_max + 1) : sizeof(completion);
    uint32_t key = command != nullptr ? rdma::decode_keyed(command->sgl).key : 0;
    if ((how & 8) != 0) {
      const nvme::Command* other = pick();
      key = other != nullptr ? rdma::decode_keyed(other->sgl).key : input_.u32();
    }
    if (!up()) return;
    std::memcpy(raw_.memory.data(), bytes, sizeof(bytes));
    raw_.post((how & 4) != 0 ? RawRdma::Type::send_invalidate : RawRdma::Type::send, 0, static_cast<uint32_t>(length),
              key);
  }

  // What a command opened, or something beside it.
  void touch(RawRdma::Type type) {
    const uint8_t how = input_.u8();
    const nvme::Command* command = pick();
    const uint32_t offset = (how & 1) != 0 ? input_.u16() : 0;
    const uint32_t length = (how & 2) != 0 ? 1 + input_.u16() % (8 << 10) : 64;
    const uint32_t other_key = (how & 4) != 0 ? input_.u32() : 0;
    if (command == nullptr || !up()) return;
    const rdma::KeyedSgl keyed = rdma::decode_keyed(command->sgl);
    raw_.post(type, 16 << 10, length, (how & 4) != 0 ? other_key : keyed.key, keyed.address + offset);
  }

  // Commands that came.
  void hear() {
    for (; raw_.has_message(); raw_.messages.pop_front()) {
      const RawRdma::Message& message = raw_.messages.front();
      BASALT_ASSERT(message.status == env::RdmaStatus::success && message.bytes.size() == sizeof(nvme::Command));
      nvme::Command command;
      std::memcpy(&command, message.bytes.data(), sizeof(command));
      const rdma::KeyedSgl keyed = rdma::decode_keyed(command.sgl);
      BASALT_ASSERT(keyed.length_bytes == command_bytes && keyed.key != 0);
      heard_.push_back(command);
    }
  }

  void finish() {
    if (queue_ != nullptr) {
      queue_->close();
      BASALT_ASSERT(net_.run_until([&] { return owner_.drained; }));
      queue_.reset();
    }
    for (const Io& io : ios_)
      BASALT_ASSERT(io.ended_count == 1);
    const auto* const last = static_cast<uint8_t*>(buffer_->data) + 2 * command_bytes;
    BASALT_ASSERT(std::all_of(last, last + command_bytes, [](uint8_t byte) { return byte == untouched_byte; }));
    raw_.end();
    listener_.reset();
    net_.run_for(milliseconds(5));
    reactor_.buffers().give(buffer_);
    BASALT_ASSERT(reactor_.buffers().in_use_count() == 0);
    BASALT_ASSERT(net_.rdma().counts() == env::SimRdmaCounts{});
  }

  FuzzInput& input_;
  MemoryNet net_;
  Arena arena_{size_t{64} << 20};
  Reactor reactor_{net_, arena_, {}};
  Reactor far_{net_, arena_, {.index = 1}};
  RdmaHostTransport transport_;
  std::unique_ptr<env::RdmaListener> listener_;
  RawRdma raw_{net_, far_};
  Buffer* buffer_ = nullptr;
  uint8_t elsewhere_[command_bytes] = {};
  uint8_t private_[env::rdma_reject_private_bytes_max] = {};
  Owner owner_;
  std::optional<Result<std::unique_ptr<HostQueue>>> connected_;
  std::deque<Io> ios_;
  std::unique_ptr<HostQueue> queue_;
  std::deque<nvme::Command> heard_;
};

// ---- seeds ----------------------------------------------------------------------------------------------------------

FuzzOutput accepted() {
  FuzzOutput out;
  out.u8(1).u8(answer_accept).no_patch().u8(0);
  return out;
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  const auto add = [&](const std::string& name, const FuzzOutput& from) { out.push_back({name, from.bytes()}); };
  for (const unsigned answer : {0u, 1u, 2u, 3u, 0x40u, 0x41u}) {
    for (const unsigned length : {0u, 1u, 2u, 5u, 33u, 149u})
      add("private-" + std::to_string(answer) + "-" + std::to_string(length),
          FuzzOutput().u8(1).u8(answer).no_patch().u8(length));
  }
  for (unsigned status = 0; status < 11; status++) {
    const auto byte = static_cast<uint8_t>(status);
    add("reject-" + std::to_string(status), FuzzOutput().u8(1).u8(answer_reject).patch_one(2, {&byte, 1}).u8(0));
    add("accept-" + std::to_string(status), FuzzOutput().u8(1).u8(answer_accept).patch_one(2, {&byte, 1}).u8(0));
  }
  const uint8_t one = 1;
  add("format", FuzzOutput().u8(1).u8(answer_accept).patch_one(0, {&one, 1}).u8(0));
  // Reads and writes, in place and copied, answered with and without the key's end, shorter, longer, twice.
  for (const unsigned io : {0u, 1u, 2u, 3u}) {
    for (const unsigned how : {0u, 4u, 1u, 2u, 12u}) {
      FuzzOutput play = accepted();
      play.u8(step_submit).u8(io).u8(step_submit).u8(io | 4);
      play.u8(io % 2 == 1 ? step_write : step_read).u8(0).u8(0);
      play.u8(step_respond).u8(how).u8(0);
      if ((how & 1) != 0) play.patch_one(14, {&one, 1});
      if ((how & 2) != 0) play.u8(17);
      if ((how & 8) != 0) play.u8(1);
      play.u8(step_respond).u8(4).u8(1).u8(step_submit).u8(io).u8(step_respond).u8(4).u8(2);
      play.u8(step_respond).u8(0).u8(0);
      add("io-" + std::to_string(io) + "-" + std::to_string(how), play);
    }
  }
  for (const unsigned how : {1u, 2u, 4u}) {
    FuzzOutput play = accepted();
    play.u8(step_submit).u8(1).u8(step_write).u8(how).u8(0);
    if ((how & 1) != 0) play.u16(4090);
    if ((how & 2) != 0) play.u16(4096);
    if ((how & 4) != 0) play.u32(99);
    add("touch-" + std::to_string(how), play);
  }
  FuzzOutput many = accepted();
  for (unsigned i = 0; i < ios_max; i++)
    many.u8(step_submit).u8(i);
  for (unsigned i = 0; i < ios_max; i++)
    many.u8(step_respond).u8(4).u8(i);
  add("more-than-slots", many);
  for (const unsigned last : {unsigned{step_drop}, unsigned{step_disown}, unsigned{step_wait}}) {
    FuzzOutput play = accepted();
    play.u8(step_submit).u8(3).u8(step_submit).u8(0).u8(last).u8(0).u8(250);
    if (last == step_disown) play.u8(step_respond).u8(4).u8(0);
    if (last == step_wait) play.u8(step_wait).u8(250).u8(250);
    add("then-" + std::to_string(last), play);
  }
  FuzzOutput raw = accepted();
  raw.u8(step_submit).u8(1).u8(step_raw).u8(16).add(FuzzBytes(16, 0xff));
  add("raw", raw);
  return out;
}

BASALT_FUZZ_TARGET(rdma_host, basalt::testing::fuzz_play<Play>, seeds)

}  // namespace
}  // namespace basalt::nvmf
