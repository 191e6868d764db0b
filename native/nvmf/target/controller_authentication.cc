// SPDX-License-Identifier: Apache-2.0
// Authentication Send and Receive, on every queue. The exchange itself is nvmf/auth; here it meets the queue: what
// success opens, what failure closes.
#include <cstring>

#include "nvmf/target/controller.h"
#include "nvmf/target/queue_authentication.h"
#include "nvmf/target/target.h"

namespace basalt::nvmf {
namespace {

using nvme::Status;
namespace status = nvme::status;

// The command's own fields; the length must be what the SGL moves.
Status check(const Request* request) {
  nvme::AuthenticationCommand command;
  std::memcpy(&command, &request->command, sizeof(command));
  if (command.secp != nvme::security_protocol_nvme || command.spsp0 != nvme::security_protocol_specific ||
      command.spsp1 != nvme::security_protocol_specific || command.length_bytes == 0) {
    return status::invalid_field.dnr();
  }
  if (command.length_bytes != request->data_bytes) return status::data_sgl_length_invalid.dnr();
  return status::success;
}

// Between the nodes of a cluster. Their secrets are 256 random bits, which nobody finds out by trying: the exchange
// needs no Diffie-Hellman, which would take milliseconds of this reactor for every queue of a takeover.
auth::Policy internal_policy() {
  return {{auth::HashId::sha256}, {auth::GroupId::none}};
}

}  // namespace

Task<void> Controller::authenticate(Request* request) {
  bool admits = false;
  Status result = check(request);
  if (result.ok()) {
    const bool send = static_cast<nvme::FabricsType>(request->command.nsid & 0xff) == nvme::FabricsType::auth_send;
    result = send ? authentication_send(request, &admits) : authentication_receive(request, &admits);
  }
  if (admits) result = co_await admit(request->queue);
  TargetQueue::return_from_home(request, result);
}

Status Controller::authentication_send(Request* request, bool* admits) {
  TargetQueue& queue = *request->queue;
  auth::Message message(request->data_bytes);
  iovec_copy_out(request->iov, request->iov_count, message.data());
  if (!queue.authentication_) queue.authentication_ = std::make_unique<QueueAuthentication>(target_, queue);
  QueueAuthentication& authentication = *queue.authentication_;
  if (authentication.has_failed()) return status::authentication_required.dnr();
  // A negotiation begins anew, whatever was going on, with the keys that are right now.
  const auto header = auth::read_header(message);
  if (authentication.side() == nullptr || (header && header->is(auth::MessageId::negotiate))) {
    const HostKeys& keys = subsystem_.login_keys_of(options_.hostnqn);
    if (is_discovery()) claimed_ = keys.host;
    auth::ControllerSettings settings;
    settings.parties = {options_.hostnqn, subsystem_.options().nqn};
    settings.host_secret = keys.host;
    settings.controller_secret = keys.controller;
    const bool of_nodes = subsystem_.options().internal && !is_discovery();
    settings.policy = of_nodes ? internal_policy() : target_.authentication_policy();
    env::Env& env = target_.home().env();
    settings.random = [&env](void* out, size_t length_bytes) { env.random(out, length_bytes); };
    authentication.begin(std::move(settings));
  }
  auth::ControllerSide& side = *authentication.side();
  side.receive(message);
  *admits = side.authenticated();
  if (side.failure()) {
    queue.admitted_.store(false, std::memory_order_release);
    authentication.failed();
  }
  return status::success;
}

Status Controller::authentication_receive(Request* request, bool* admits) {
  QueueAuthentication* authentication = request->queue->authentication_.get();
  auth::ControllerSide* side = authentication == nullptr ? nullptr : authentication->side();
  if (side == nullptr || side->pending() == nullptr) return status::command_sequence_error.dnr();
  // Cut short it would be of no use, and gone.
  if (side->pending()->size() > request->data_bytes) return status::invalid_field.dnr();
  reply(request, side->pending()->data(), side->pending()->size());
  side->delivered();
  *admits = side->authenticated();
  return status::success;
}

// Before the host hears of it, what it had here under the same name is over (see connect.cc).
Task<Status> Controller::admit(TargetQueue* queue) {
  const bool first = !queue->admitted();
  if (first && queue->qid() == 0 && !is_discovery()) {
    if (!subsystem_.gate_.enter()) co_return status::controller_path_error;
    co_await subsystem_.supersede(options_.hostnqn, options_.hostid, listener_, this);
    subsystem_.gate_.leave();
  }
  // Meanwhile it may have lost its place: its own deadline, a newer association, the host's removal.
  if (ending_ || !subsystem_.allows(options_.hostnqn)) co_return status::controller_path_error;
  if (queue->authentication_->has_failed()) co_return status::authentication_required.dnr();
  if (first && !target_.host_has_room(options_.hostnqn)) {
    queue->authentication_->failed();
    co_return status::connect_controller_busy;
  }
  queue->admitted_.store(true, std::memory_order_release);
  queue->authentication_->succeeded();
  proven_ = claimed_;
  co_return status::success;
}

// On the home reactor.
void TargetQueue::end_unauthenticated() {
  if (controller_ == nullptr) return;
  if (qid_ == 0) {
    controller_->terminate();
  } else {
    ask_close();
  }
}

}  // namespace basalt::nvmf
