// SPDX-License-Identifier: Apache-2.0
// From nothing to a live association: queues, Fabrics Connect, properties, enabling.
#include <algorithm>
#include <cstring>

#include "nvmf/host/controller.h"

namespace basalt::nvmf {
namespace {

constexpr uint16_t admin_slot_count = 31;

uint8_t opcode(nvme::AdminOpcode code) {
  return static_cast<uint8_t>(code);
}

template <class T>
nvme::Command as_command(const T& specific) {
  static_assert(sizeof(T) == sizeof(nvme::Command));
  nvme::Command command;
  std::memcpy(&command, &specific, sizeof(command));
  return command;
}

Errc errc_of(nvme::Status status) {
  if (status.is(nvme::status::connect_invalid_host)) return Errc::permission;
  if (status.is(nvme::status::authentication_required)) return Errc::permission;
  if (status.is(nvme::status::connect_invalid_parameters)) return Errc::not_found;
  if (status.is(nvme::status::connect_controller_busy)) return Errc::busy;
  if (status.is(nvme::status::reservation_conflict)) return Errc::fenced;
  return Errc::io;
}

}  // namespace

// Commands that are awaited; they live in the coroutine's frame. All are submitted in one go.
class HostController::CallWait {
 public:
  explicit CallWait(HostQueue& queue) : queue_(queue) {}
  void add(const Call& call, uint8_t fuse = 0) {
    Waited& command = commands_[count_++];
    command.wait = this;
    command.fuse = fuse;
    command.command = call.command;
    command.direction = call.data_bytes > 0 ? call.direction : nvme::DataDirection::none;
    command.piece = {call.data, call.data_bytes};
    command.iov = &command.piece;
    command.iov_count = 1;
    command.data_bytes = call.data_bytes;
    command.done = [](HostCommand* done) {
      CallWait* wait = static_cast<Waited*>(done)->wait;
      if (--wait->left_ == 0) wait->waiter_.resume();
    };
  }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    left_ = count_;
    for (size_t i = 0, count = count_; i < count; i++)
      queue_.submit(&commands_[i]);
  }
  void await_resume() const noexcept {}
  Answer answer(size_t index) const {
    const Waited& command = commands_[index];
    return {command.status(), uint64_t{command.completion.dw1} << 32 | command.completion.dw0, command.lost};
  }

 private:
  struct Waited : HostCommand {
    CallWait* wait = nullptr;
    Iovec piece;
  };
  HostQueue& queue_;
  std::array<Waited, 2> commands_;
  size_t count_ = 0;
  size_t left_ = 0;
  std::coroutine_handle<> waiter_;
};

Task<HostController::Answer> HostController::call_on(HostQueue& queue, Call call) {
  if (state_ == State::lost) co_return Answer{nvme::status::host_path_error, 0, true};
  CallWait wait(queue);
  wait.add(call);
  co_await wait;
  co_return wait.answer(0);
}

Task<HostController::Answer> HostController::call(Call call) {
  if (state_ == State::lost || !gate_.enter()) co_return Answer{nvme::status::host_path_error, 0, true};
  Gate::Leaver leaver(gate_);
  const Answer answer = co_await call_on(*admin_, call);
  co_return answer;
}

Task<HostController::Answer> HostController::io_call(Call call) {
  if (!live() || !gate_.enter()) co_return Answer{nvme::status::host_path_error, 0, true};
  Gate::Leaver leaver(gate_);
  const Answer answer = co_await call_on(*io_queues_.front(), call);
  co_return answer;
}

Task<HostController::PairAnswer> HostController::fused_io_call(Call first, Call second) {
  const Answer lost{nvme::status::host_path_error, 0, true};
  if (!live() || !gate_.enter()) co_return PairAnswer{lost, lost};
  Gate::Leaver leaver(gate_);
  CallWait wait(*io_queues_.front());
  wait.add(first, nvme::fuse_first);
  wait.add(second, nvme::fuse_second);
  co_await wait;
  co_return PairAnswer{wait.answer(0), wait.answer(1)};
}

Error HostController::refused(const char* step, const Answer& answer) const {
  if (state_ == State::lost) return reason_;
  return {errc_of(answer.status),
          options_.address.to_string() + " " + options_.subnqn + ": " + step + ": " + nvme::to_string(answer.status)};
}

Task<Outcome> HostController::connect() {
  BASALT_ASSERT(state_ == State::idle);
  Outcome outcome = options_.check();
  if (!outcome) co_return outcome;
  if (!gate_.enter()) co_return Error{Errc::closed, "closed"};
  Gate::Leaver leaver(gate_);
  state_ = State::connecting;
  outcome = co_await connect_steps();
  if (state_ == State::lost) co_return reason_;
  if (!outcome) {
    fail(outcome.error());
    co_return outcome;
  }
  state_ = State::live;
  co_return success();
}

Task<Outcome> HostController::connect_steps() {
  auto admin = co_await connect_queue(0, admin_slot_count);
  if (!admin) co_return admin.error();
  if (state_ == State::lost) co_return reason_;
  admin_ = std::move(admin).value();
  attach(*admin_);
  admin_->set_timeout(options_.admin_timeout);
  Outcome outcome = co_await fabrics_connect(*admin_, admin_slot_count);
  if (!outcome) co_return outcome;
  start_keep_alive();
  outcome = co_await enable();
  if (!outcome) co_return outcome;
  outcome = co_await identify_controller();
  if (!outcome) co_return outcome;
  if (!options_.discovery) {
    outcome = co_await connect_io_queues();
    if (!outcome) co_return outcome;
    // Events before the first look: what changes in between is reported.
    outcome = co_await start_events();
    if (!outcome) co_return outcome;
    if (!options_.node_link) outcome = co_await identify_namespaces();
    if (!outcome) co_return outcome;
  }
  co_return success();
}

Task<Result<std::unique_ptr<HostQueue>>> HostController::connect_queue(uint16_t qid, uint16_t slot_count) {
  HostQueueOptions options;
  options.qid = qid;
  options.slot_count = slot_count;
  options.capsule_data_bytes_max = info_.capsule_data_bytes_max;
  options.deadline = reactor_.now() + options_.connect_timeout;
  options.cancelled = &cancelled_;
  if (options_.authentication.tls) options.tls = options_.authentication.tls->psk(options_.hostnqn, options_.subnqn);
  HostAddress address = options_.address;
  auto queue = co_await transport_.connect(reactor_, std::move(address), options);
  co_return queue;
}

Task<Outcome> HostController::fabrics_connect(HostQueue& queue, uint16_t slot_count) {
  nvme::ConnectCommand connect{};
  connect.opcode = opcode(nvme::AdminOpcode::fabrics);
  connect.fctype = static_cast<uint8_t>(nvme::FabricsType::connect);
  connect.qid = queue.qid();
  connect.sqsize = slot_count;
  connect.kato_ms = queue.qid() == 0 ? std::max(options_.keep_alive_ms, options_.keep_alive_rare_ms) : 0;
  nvme::ConnectData data{};
  std::memcpy(data.hostid, options_.hostid.bytes.data(), sizeof(data.hostid));
  data.cntlid = queue.qid() == 0 ? nvme::cntlid_any : info_.cntlid;
  std::memcpy(data.subnqn, options_.subnqn.data(), options_.subnqn.size());
  std::memcpy(data.hostnqn, options_.hostnqn.data(), options_.hostnqn.size());
  Call call;
  call.command = as_command(connect);
  call.direction = nvme::DataDirection::host_to_controller;
  call.data = &data;
  call.data_bytes = sizeof(data);
  const Answer answer = co_await call_on(queue, call);
  if (!answer.status.ok() || state_ == State::lost) co_return refused("Connect", answer);
  if (queue.qid() == 0) info_.cntlid = static_cast<uint16_t>(answer.value);
  bool authentication = false;
  Outcome outcome = authentication_needed(answer.value, &authentication);
  if (outcome.ok() && authentication) outcome = co_await authenticate(queue);
  co_return outcome;
}

Task<Result<uint64_t>> HostController::property_get(uint32_t offset, bool wide) {
  nvme::PropertyCommand property{};
  property.opcode = opcode(nvme::AdminOpcode::fabrics);
  property.fctype = static_cast<uint8_t>(nvme::FabricsType::property_get);
  property.attrib = wide ? 1 : 0;
  property.offset = offset;
  Call call;
  call.command = as_command(property);
  const Answer answer = co_await call_on(*admin_, call);
  if (!answer.status.ok() || state_ == State::lost) co_return refused("Property Get", answer);
  co_return wide ? answer.value : answer.value& UINT32_MAX;
}

Task<Outcome> HostController::property_set(uint32_t offset, uint32_t value) {
  nvme::PropertyCommand property{};
  property.opcode = opcode(nvme::AdminOpcode::fabrics);
  property.fctype = static_cast<uint8_t>(nvme::FabricsType::property_set);
  property.offset = offset;
  property.value = value;
  Call call;
  call.command = as_command(property);
  const Answer answer = co_await call_on(*admin_, call);
  if (!answer.status.ok() || state_ == State::lost) co_return refused("Property Set", answer);
  co_return success();
}

Task<Outcome> HostController::enable() {
  const auto cap = co_await property_get(nvme::property_cap, true);
  if (!cap) co_return cap.error();
  cap_ = cap.value();
  const Duration ready_timeout =
      std::min(milliseconds(500) * static_cast<int64_t>(cap_ >> 24 & 0xff) + milliseconds(500), options_.admin_timeout);
  const Outcome enabled = co_await property_set(nvme::property_cc, cc_enabled);
  if (!enabled) co_return enabled;
  const Instant deadline = reactor_.now() + ready_timeout;
  for (;;) {
    const auto csts = co_await property_get(nvme::property_csts, false);
    if (!csts) co_return csts.error();
    if ((csts.value() & 2) != 0) co_return Error{Errc::io, options_.address.to_string() + ": CSTS.CFS: fatal status"};
    if ((csts.value() & 1) != 0) co_return success();
    if (reactor_.now() >= deadline) {
      co_return Error{Errc::timed_out, options_.address.to_string() + ": CSTS.RDY was not set in time"};
    }
    co_await sleep_for(reactor_, milliseconds(5));
    if (state_ == State::lost) co_return reason_;
  }
}

Task<Outcome> HostController::connect_io_queues() {
  const uint32_t wanted = options_.io_queue_count - 1u;
  Call call;
  call.command.opcode = opcode(nvme::AdminOpcode::set_features);
  call.command.cdw10 = static_cast<uint32_t>(nvme::FeatureId::number_of_queues);
  call.command.cdw11 = wanted << 16 | wanted;
  const Answer answer = co_await call_on(*admin_, call);
  if (!answer.status.ok() || state_ == State::lost) co_return refused("Set Features Number of Queues", answer);
  const auto submission_queues = static_cast<uint32_t>(answer.value & 0xffff) + 1;
  const auto completion_queues = static_cast<uint32_t>(answer.value >> 16 & 0xffff) + 1;
  const uint32_t count = std::min({uint32_t{options_.io_queue_count}, submission_queues, completion_queues});
  // CAP.MQES is zero-based, as SQSIZE is: the queue may hold that many commands.
  const auto entries_max = static_cast<uint16_t>(cap_ & 0xffff);
  const uint16_t slot_count = std::max<uint16_t>(1, std::min(options_.io_queue_depth, entries_max));
  for (uint32_t i = 0; i < count; i++) {
    auto queue = co_await connect_queue(static_cast<uint16_t>(i + 1), slot_count);
    if (!queue) co_return queue.error();
    if (state_ == State::lost) co_return reason_;
    io_queues_.push_back(std::move(queue).value());
    HostQueue& connected = *io_queues_.back();
    attach(connected);
    connected.set_timeout(std::min(options_.admin_timeout, options_.command_timeout));
    const Outcome outcome = co_await fabrics_connect(connected, slot_count);
    if (!outcome) co_return outcome;
    connected.set_timeout(options_.command_timeout);
  }
  co_return success();
}

}  // namespace basalt::nvmf
