// SPDX-License-Identifier: Apache-2.0
// In-band authentication of a queue, right after its Connect and whenever the user wants it again.
#include <cstring>

#include "nvmf/auth/host_side.h"
#include "nvmf/host/controller.h"

namespace basalt::nvmf {
namespace {

nvme::Command authentication_command(nvme::FabricsType type, uint32_t length_bytes) {
  nvme::AuthenticationCommand specific{};
  specific.opcode = static_cast<uint8_t>(nvme::AdminOpcode::fabrics);
  specific.fctype = static_cast<uint8_t>(type);
  specific.secp = nvme::security_protocol_nvme;
  specific.spsp0 = specific.spsp1 = nvme::security_protocol_specific;
  specific.length_bytes = length_bytes;
  nvme::Command command;
  std::memcpy(&command, &specific, sizeof(command));
  return command;
}

}  // namespace

Outcome HostController::authentication_needed(uint64_t connect_result, bool* needed) const {
  const std::string where = options_.address.to_string() + " " + options_.subnqn + ": ";
  if ((connect_result & nvme::connect_secure_channel_required) != 0) {
    return Error{Errc::unsupported, where + "the controller wants a secure channel"};
  }
  const bool asked = (connect_result & nvme::connect_authentication_required) != 0;
  if (asked && options_.authentication.host == nullptr) {
    return Error{Errc::permission, where + "the controller wants authentication, and there is no dhchap_key"};
  }
  *needed = asked || options_.authentication.controller != nullptr;
  return success();
}

Task<Outcome> HostController::authenticate(HostQueue& queue) {
  auth::HostSettings settings;
  settings.parties = {options_.hostnqn, options_.subnqn};
  settings.host_secret = options_.authentication.host;
  settings.controller_secret = options_.authentication.controller;
  settings.policy = options_.authentication.policy;
  env::Env& env = reactor_.env();
  settings.random = [&env](void* out, size_t length_bytes) { env.random(out, length_bytes); };
  auth::HostSide side(std::move(settings));
  auth::HostSide::Next next = side.begin();
  for (;;) {
    if (!next.send.empty()) {
      const Answer sent = co_await authentication_call(queue, nvme::FabricsType::auth_send, &next.send);
      // AUTH_Failure2 says why; whether it arrives changes nothing.
      if (!side.failure() && (!sent.status.ok() || state_ == State::lost)) co_return refused("Authentication", sent);
    }
    if (!next.receive) break;
    auth::Message message(auth::message_bytes_max, 0);
    const Answer received = co_await authentication_call(queue, nvme::FabricsType::auth_receive, &message);
    if (!received.status.ok() || state_ == State::lost) co_return refused("Authentication", received);
    next = side.receive(message);
  }
  if (side.authenticated()) co_return success();
  if (state_ == State::lost) co_return reason_;
  co_return Error{Errc::permission, options_.address.to_string() + " " + options_.subnqn + ": authentication: " +
                                        (side.refused_by_controller() ? "the controller says: " : "the controller: ") +
                                        auth::to_string(*side.failure())};
}

Task<HostController::Answer> HostController::authentication_call(HostQueue& queue, nvme::FabricsType type,
                                                                 auth::Message* message) {
  Call call;
  call.command = authentication_command(type, static_cast<uint32_t>(message->size()));
  call.direction = nvme::data_direction(static_cast<uint8_t>(type));
  call.data = message->data();
  call.data_bytes = static_cast<uint32_t>(message->size());
  const Answer answer = co_await call_on(queue, call);
  co_return answer;
}

Task<Outcome> HostController::reauthenticate() {
  if (!live() || !gate_.enter()) co_return Error{Errc::closed, "not connected"};
  Gate::Leaver leaver(gate_);
  if (options_.authentication.host == nullptr) co_return Error{Errc::invalid_argument, "there is no dhchap_key"};
  Outcome outcome = co_await authenticate(*admin_);
  for (size_t i = 0; i < io_queues_.size() && outcome.ok(); i++)
    outcome = co_await authenticate(*io_queues_[i]);
  // A queue that failed is about to be closed by the controller.
  if (!outcome) fail(outcome.error());
  co_return outcome;
}

}  // namespace basalt::nvmf
