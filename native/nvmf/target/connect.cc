// SPDX-License-Identifier: Apache-2.0
// Connect: how a queue becomes part of a controller. Runs on the home reactor.
//
// A host that connects anew (same host NQN and identifier, same subsystem, same listener) supersedes its older
// controller there: that one's connections are closed with what they had not read, its admitted commands drain, and
// only then the Connect completes. So what the host sends on the new association can never be overtaken by what it sent
// on the old. A host that has to authenticate does so first, and supersedes when it has: a name is no proof.
#include <cstring>

#include "nvmf/target/controller.h"
#include "nvmf/target/target.h"

namespace basalt::nvmf {
namespace {

using nvme::Status;
namespace status = nvme::status;

// Connect Invalid Parameters: which field, in the command (false) or in the data (true).
Status invalid_parameter(Request* request, bool in_data, uint16_t offset) {
  request->completion.dw0 = offset | (in_data ? 1u << 16 : 0);
  return status::connect_invalid_parameters.dnr();
}

// False unless the text ends within its field and is a name.
bool read_nqn(const char (&field)[256], std::string* out) {
  const size_t length = strnlen(field, sizeof(field));
  if (length > nvme::nqn_bytes_max) return false;
  *out = std::string(field, length);
  return valid_nqn(*out);
}

}  // namespace

void Target::connect_arrived(Work* work) {
  auto* request = static_cast<Request*>(static_cast<ns::NsIo*>(work)->context);
  spawn(request->queue->target_.connect(request));
}

Task<void> Target::connect(Request* request) {
  nvme::ConnectCommand command;
  std::memcpy(&command, &request->command, sizeof(command));
  nvme::ConnectData data;
  Status result = status::success;
  Iovec pieces[8];
  const size_t count = iovec_slice(request->iov, request->iov_count, 0, sizeof(data), pieces, 8);
  if (request->data_bytes != sizeof(data) || count == 0) {
    result = status::data_sgl_length_invalid.dnr();
  } else if (!gate_.enter()) {
    result = status::connect_controller_busy;
  } else {
    iovec_copy_out(pieces, count, &data);
    if (command.recfmt != 0) {
      result = status::connect_incompatible_format.dnr();
    } else if (command.sqsize == 0 || command.sqsize >= queue_entries_max) {
      result = invalid_parameter(request, false, offsetof(nvme::ConnectCommand, sqsize));
    } else if (command.qid == 0) {
      result = co_await connect_admin(request, &command, &data);
    } else {
      result = connect_io(request, command, data);
    }
    gate_.leave();
  }
  TargetQueue::return_from_home(request, result);
}

// What TLS has proven is what Connect says, by a key that is still the host's (an identity has the key's digest in it);
// and a host with a key for TLS comes by no other way.
bool TargetQueue::channel_fits(const Subsystem& subsystem, const std::string& hostnqn) const {
  if (proven_) {
    TlsGrant now;
    return proven_->hostnqn == hostnqn && proven_->subnqn == subsystem.options().nqn &&
           target_.tls_keys().find(proven_->psk->identity, &now);
  }
  return !listener_.address.secure_channel && subsystem.keys_of(hostnqn).tls == nullptr;
}

// One host cannot take the connections of all.
bool Target::host_has_room(const std::string& hostnqn) const {
  size_t count = 0;
  const auto add = [&](const Subsystem& subsystem) {
    for (const auto& controller : subsystem.controllers_) {
      if (controller->options().hostnqn == hostnqn) count += controller->admitted_queue_count();
    }
  };
  for (const auto& subsystem : subsystems_)
    add(*subsystem);
  add(*discovery_);
  return count < limits_.connections_per_host_max;
}

Task<Status> Target::connect_admin(Request* request, const nvme::ConnectCommand* command, nvme::ConnectData* data) {
  TargetQueue& queue = *request->queue;
  ControllerOptions options;
  std::string subnqn;
  std::memcpy(options.hostid.bytes.data(), data->hostid, 16);
  if (options.hostid.is_zero()) co_return invalid_parameter(request, true, offsetof(nvme::ConnectData, hostid));
  if (data->cntlid != nvme::cntlid_any) co_return invalid_parameter(request, true, offsetof(nvme::ConnectData, cntlid));
  if (!read_nqn(data->subnqn, &subnqn)) co_return invalid_parameter(request, true, offsetof(nvme::ConnectData, subnqn));
  if (!read_nqn(data->hostnqn, &options.hostnqn)) {
    co_return invalid_parameter(request, true, offsetof(nvme::ConnectData, hostnqn));
  }
  Subsystem* subsystem = find_subsystem(subnqn);
  SubsystemListener* path = subsystem == nullptr ? nullptr : subsystem->path(queue.listener_);
  const bool reachable = subsystem != nullptr && (path != nullptr || subsystem == discovery_.get());
  // Both may become right when the management has caught up (a restart): the host may try again, so no DNR.
  if (!reachable) {
    invalid_parameter(request, true, offsetof(nvme::ConnectData, subnqn));
    co_return status::connect_invalid_parameters;
  }
  if (!subsystem->allows(options.hostnqn)) co_return status::connect_invalid_host;
  if (!queue.channel_fits(*subsystem, options.hostnqn)) co_return status::connect_invalid_host;
  if (!subsystem->gate_.enter()) co_return status::connect_controller_busy;

  if (subsystem != discovery_.get() && !subsystem->authenticates(options.hostnqn)) {
    co_await subsystem->supersede(options.hostnqn, options.hostid, queue.listener_, nullptr);
  }
  // While waiting, the listener or the host may have been removed, or the host's key changed.
  path = subsystem->path(queue.listener_);
  Status result = status::success;
  if (path == nullptr && subsystem != discovery_.get()) result = status::connect_invalid_parameters;
  if (!subsystem->allows(options.hostnqn)) result = status::connect_invalid_host;
  if (!queue.channel_fits(*subsystem, options.hostnqn)) result = status::connect_invalid_host;
  if (!host_has_room(options.hostnqn)) result = status::connect_controller_busy;
  options.cntlid = subsystem->take_cntlid();
  if (options.cntlid == 0) result = status::connect_controller_busy;
  if (result.ok()) {
    options.keep_alive_ms = command->kato_ms;
    home().env().random(&options.cirn, sizeof(options.cirn));
    options.cirn |= 1;  // 0: none
    options.ciu = static_cast<uint8_t>(1 + options.cirn % 255);
    subsystem->controllers_.push_back(std::make_unique<Controller>(*this, *subsystem, path, queue.listener_, options));
    Controller& controller = *subsystem->controllers_.back();
    queue.qid_ = 0;
    queue.entries_ = static_cast<uint16_t>(command->sqsize + 1);
    const bool authentication = subsystem->authenticates(options.hostnqn);
    controller.attach(&queue, authentication);
    request->completion.dw0 = options.cntlid | (authentication ? nvme::connect_authentication_required : 0);
  }
  subsystem->gate_.leave();
  co_return result;
}

Status Target::connect_io(Request* request, const nvme::ConnectCommand& command, const nvme::ConnectData& data) {
  TargetQueue& queue = *request->queue;
  std::string subnqn;
  std::string hostnqn;
  if (!read_nqn(data.subnqn, &subnqn)) return invalid_parameter(request, true, offsetof(nvme::ConnectData, subnqn));
  if (!read_nqn(data.hostnqn, &hostnqn)) return invalid_parameter(request, true, offsetof(nvme::ConnectData, hostnqn));
  const Subsystem* subsystem = find_subsystem(subnqn);
  if (subsystem == nullptr || subsystem == discovery_.get()) {
    return invalid_parameter(request, true, offsetof(nvme::ConnectData, subnqn));
  }
  Controller* controller = nullptr;
  for (const auto& candidate : subsystem->controllers_) {
    if (candidate->options().cntlid == data.cntlid) controller = candidate.get();
  }
  // A controller belongs to the association that made it: another host or listener cannot join.
  if (controller == nullptr || controller->ending() || controller->options().hostnqn != hostnqn ||
      std::memcmp(controller->options().hostid.bytes.data(), data.hostid, 16) != 0 ||
      &controller->listener() != &queue.listener_) {
    return invalid_parameter(request, true, offsetof(nvme::ConnectData, cntlid));
  }
  if (!queue.channel_fits(*subsystem, hostnqn)) return status::connect_invalid_host;
  if (!controller->enabled()) return status::command_sequence_error.dnr();
  if (!host_has_room(hostnqn)) return status::connect_controller_busy;
  if (command.qid > controller->io_queue_count_max() || controller->has_queue(command.qid)) {
    return invalid_parameter(request, false, offsetof(nvme::ConnectCommand, qid));
  }
  queue.qid_ = command.qid;
  queue.entries_ = static_cast<uint16_t>(command.sqsize + 1);
  const bool authentication = subsystem->authenticates(hostnqn);
  controller->attach(&queue, authentication);
  request->completion.dw0 = controller->options().cntlid | (authentication ? nvme::connect_authentication_required : 0);
  return status::success;
}

}  // namespace basalt::nvmf
