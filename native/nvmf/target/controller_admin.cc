// SPDX-License-Identifier: Apache-2.0
// Dispatch of admin and fabrics commands.
#include <algorithm>
#include <cstring>

#include "nvmf/target/controller.h"

namespace basalt::nvmf {

using nvme::AdminOpcode;
using nvme::Status;
namespace status = nvme::status;

void Controller::admin(Request* request) {
  last_keep_alive_ = target_.home().now();
  const auto opcode = static_cast<AdminOpcode>(request->command.opcode);
  if (opcode == AdminOpcode::async_event_request && enabled()) {
    async_event_request(request);
    return;
  }
  if (opcode == AdminOpcode::cross_controller_reset && enabled() && !is_discovery()) {
    spawn(cross_reset(request));
    return;
  }
  const auto type = static_cast<nvme::FabricsType>(request->command.nsid & 0xff);
  if (opcode == AdminOpcode::fabrics &&
      (type == nvme::FabricsType::auth_send || type == nvme::FabricsType::auth_receive)) {
    spawn(authenticate(request));
    return;
  }
  const Status result = dispatch(request);
  TargetQueue::return_from_home(request, result);
}

Status Controller::dispatch(Request* request) {
  const auto opcode = static_cast<AdminOpcode>(request->command.opcode);
  if (opcode == AdminOpcode::fabrics) return fabrics(request);
  if (!enabled()) return status::command_sequence_error.dnr();
  if ((request->command.flags & 3) != 0) return status::invalid_field.dnr();
  if (is_discovery() && opcode == AdminOpcode::abort) return status::invalid_opcode.dnr();
  switch (opcode) {
    case AdminOpcode::get_log_page:
      return get_log_page(request);
    case AdminOpcode::identify:
      return identify(request);
    case AdminOpcode::abort:
      return abort(request);
    case AdminOpcode::set_features:
      return set_features(request);
    case AdminOpcode::get_features:
      return get_features(request);
    case AdminOpcode::keep_alive:
      arm_keep_alive();
      return status::success;
    case AdminOpcode::link_attach:
      return attachments_ == nullptr ? status::invalid_opcode.dnr() : link_attach(request);
    case AdminOpcode::link_describe:
      return attachments_ == nullptr ? status::invalid_opcode.dnr() : link_describe(request);
    case AdminOpcode::link_detach:
      return attachments_ == nullptr ? status::invalid_opcode.dnr() : link_detach(request);
    default:
      return status::invalid_opcode.dnr();
  }
}

Status Controller::fabrics(Request* request) {
  switch (static_cast<nvme::FabricsType>(request->command.nsid & 0xff)) {
    case nvme::FabricsType::property_get:
      return property_get(request);
    case nvme::FabricsType::property_set:
      return property_set(request);
    default:
      return status::invalid_field.dnr();
  }
}

// Commands that a bdev has cannot be taken back: only a parked event request can be aborted.
Status Controller::abort(Request* request) {
  const uint16_t sqid = static_cast<uint16_t>(request->command.cdw10);
  const uint16_t cid = static_cast<uint16_t>(request->command.cdw10 >> 16);
  request->completion.dw0 = 1;  // not aborted
  const auto found = std::find_if(async_requests_.begin(), async_requests_.end(),
                                  [&](const Request* parked) { return parked->command.cid == cid; });
  if (sqid != 0 || found == async_requests_.end()) return status::success;
  Request* parked = *found;
  async_requests_.erase(found);
  TargetQueue::return_from_home(parked, status::abort_requested);
  request->completion.dw0 = 0;
  return status::success;
}

void Controller::reply(Request* request, const void* from, size_t length_bytes, uint64_t offset_bytes) {
  const char* bytes = static_cast<const char*>(from);
  uint64_t at = std::min<uint64_t>(offset_bytes, length_bytes);
  for (size_t i = 0; i < request->iov_count; i++) {
    const size_t take = static_cast<size_t>(std::min<uint64_t>(request->iov[i].length_bytes, length_bytes - at));
    char* to = static_cast<char*>(request->iov[i].base);
    if (take > 0) std::memcpy(to, bytes + at, take);
    if (take < request->iov[i].length_bytes) std::memset(to + take, 0, request->iov[i].length_bytes - take);
    at += take;
  }
}

}  // namespace basalt::nvmf
