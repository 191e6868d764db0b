// SPDX-License-Identifier: Apache-2.0
#include "nvmf/target/queue.h"

#include "nvmf/target/controller.h"
#include "nvmf/target/queue_authentication.h"
#include "nvmf/target/target.h"

namespace basalt::nvmf {
namespace {

Request* request_of(Work* work) {
  return static_cast<Request*>(static_cast<ns::NsIo*>(work)->context);
}

constexpr uint8_t psdt_mask = 0xc0;
constexpr uint8_t psdt_sgl = 0x40;  // metadata pointer is an address of a contiguous buffer
constexpr uint8_t psdt_sgl_segment = 0x80;

bool is_fabrics(const nvme::Command& command) {
  return command.opcode == static_cast<uint8_t>(nvme::AdminOpcode::fabrics);
}

bool is_authentication(const nvme::Command& command) {
  const auto type = static_cast<nvme::FabricsType>(command.nsid & 0xff);
  return is_fabrics(command) && (type == nvme::FabricsType::auth_send || type == nvme::FabricsType::auth_receive);
}

}  // namespace

TargetQueue::TargetQueue(Target& target, Reactor& reactor, Listener& listener, const Callbacks& callbacks)
    : target_(target), reactor_(reactor), listener_(listener), callbacks_(callbacks) {
  close_message_.queue = gone_message_.queue = leave_message_.queue = this;
}

TargetQueue::~TargetQueue() {
  BASALT_ASSERT(executing_count_ == 0);
}

// The controller is the home reactor's, but this of it never changes, and it stays until this queue has left it.
const std::string& TargetQueue::hostnqn() const {
  BASALT_ASSERT(connected());
  return controller_->options().hostnqn;
}

nvme::Status TargetQueue::transfer_plan(Request* request) {
  const nvme::Command& command = request->command;
  const bool fabrics = is_fabrics(command);
  const uint8_t fctype = static_cast<uint8_t>(command.nsid);
  request->direction = nvme::data_direction(fabrics ? fctype : command.opcode);
  request->data_bytes = 0;
  request->fused = nullptr;
  request->fused_status = {};
  request->fused_waits = false;
  // Nothing of a stranger's is looked at or taken in, nor told what there is.
  if (connected() && !admitted() && !is_authentication(command)) return nvme::status::authentication_required.dnr();
  const bool fuses = (command.flags & nvme::fuse_mask) != 0 || fused_first_ != nullptr || fused_first_failed_;
  if (fuses && connected() && qid_ != 0) [[unlikely]] {
    const nvme::Status status = pair(request);
    if (!status.ok()) return status;
  }
  if (request->direction == nvme::DataDirection::none) return nvme::status::success;
  if (request->direction == nvme::DataDirection::bidirectional) return nvme::status::invalid_opcode.dnr();
  const uint8_t psdt = command.flags & psdt_mask;
  if (psdt != psdt_sgl && psdt != psdt_sgl_segment) return nvme::status::sgl_type_invalid.dnr();
  const nvme::SglDescriptor& sgl = command.sgl;
  const bool in_capsule = sgl.type_subtype == nvme::sgl_data_block_offset;
  if (!in_capsule && sgl.type_subtype != nvme::sgl_transport_data_block) return nvme::status::sgl_type_invalid.dnr();
  if (in_capsule && request->direction != nvme::DataDirection::host_to_controller) {
    return nvme::status::sgl_type_invalid.dnr();
  }
  if (in_capsule && sgl.address != 0) return nvme::status::sgl_offset_invalid.dnr();
  if (sgl.length_bytes > (is_authentication(command) ? authentication_bytes_max : data_bytes_max)) {
    return nvme::status::data_sgl_length_invalid.dnr();
  }
  if (connected() && qid_ != 0 && !fabrics) {
    const nvme::Status status = plan_io(request);
    if (!status.ok()) return status;
  }
  request->data_bytes = sgl.length_bytes;
  return nvme::status::success;
}

void TargetQueue::execute(Request* request) {
  BASALT_ASSERT_SLOW(!disconnecting_);
  executing_count_++;
  request->queue = this;
  request->completion = {};
  request->io.context = request;
  request->io.borrows = false;
  request->io.lent = nullptr;
  last_command_ns_.store(reactor_.now().ns, std::memory_order_relaxed);
  const bool fabrics = is_fabrics(request->command);
  const bool authentication = is_authentication(request->command);
  if (connected() && !admitted() && !authentication) [[unlikely]] {  // since the plan
    complete_later(request, nvme::status::authentication_required.dnr());
    return;
  }
  if (connected() && qid_ != 0 && !fabrics) [[likely]] {
    execute_io(request);
    return;
  }
  const bool connect =
      fabrics && static_cast<uint8_t>(request->command.nsid) == static_cast<uint8_t>(nvme::FabricsType::connect);
  if (connect != (state_ == State::fresh)) {
    complete_later(request, nvme::status::command_sequence_error.dnr());
    return;
  }
  // The fabrics commands of an I/O queue are Connect, those of authentication, and Disconnect, which is not offered.
  if (!connect && !authentication && qid_ != 0) {
    complete_later(request, nvme::status::invalid_opcode.dnr());
    return;
  }
  if (connect) state_ = State::connecting;
  // Not every admin command fills what it was given: a host must not see what was in the buffer before.
  if (request->direction == nvme::DataDirection::controller_to_host) iovec_zero(request->iov, request->iov_count);
  request->io.run = connect ? Target::connect_arrived : Target::admin_arrived;
  target_.home().post(&request->io);
}

void TargetQueue::fill_completion(Request* request, nvme::Status status) {
  if (request->fused != nullptr || request == fused_first_) [[unlikely]]
    half_ended(request);
  sqhd_ = static_cast<uint16_t>(sqhd_ + 1 < entries_ ? sqhd_ + 1 : 0);
  request->completion.sqhd = sqhd_;
  request->completion.sqid = 0;  // reserved over fabrics
  request->completion.cid = request->command.cid;
  request->completion.status = static_cast<uint16_t>(status.value << 1);
}

void TargetQueue::complete(Request* request, nvme::Status status) {
  if (state_ == State::connecting) state_ = status.ok() ? State::connected : State::fresh;
  fill_completion(request, status);
  executing_count_--;
  request->finish(request);
  maybe_drained();
}

void TargetQueue::returned(Work* work) {
  Request* request = request_of(work);
  request->queue->complete(request, request->io.status);
}

void TargetQueue::complete_later(Request* request, nvme::Status status) {
  request->io.status = status;
  request->io.run = returned;
  reactor_.defer(&request->io);
}

void TargetQueue::return_from_home(Request* request, nvme::Status status) {
  request->io.status = status;
  request->io.run = returned;
  request->queue->reactor_.post(&request->io);
}

void TargetQueue::disconnect() {
  BASALT_ASSERT(!disconnecting_);
  disconnecting_ = true;
  abandon_waiting_halves();
  // The controller ends with its admin queue, and gives back the event requests that are parked there.
  gone_message_.run = [](Work* work) {
    TargetQueue* queue = static_cast<Message*>(work)->queue;
    if (queue->controller_ != nullptr && queue->qid_ == 0) queue->controller_->terminate();
  };
  target_.home().post(&gone_message_);
  maybe_drained();
}

void TargetQueue::maybe_drained() {
  if (!disconnecting_ || leaving_ || executing_count_ > 0) return;
  leaving_ = true;
  leave_message_.run = Target::queue_leaves;
  target_.home().post(&leave_message_);
}

// On the home reactor.
void TargetQueue::ask_close() {
  if (close_asked_) return;
  close_asked_ = true;
  close_message_.run = [](Work* work) {
    TargetQueue* queue = static_cast<Message*>(work)->queue;
    if (!queue->disconnecting_) queue->callbacks_.close(queue);
  };
  reactor_.post(&close_message_);
}

}  // namespace basalt::nvmf
