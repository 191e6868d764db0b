// SPDX-License-Identifier: Apache-2.0
// Cross-Controller Reset: a host that lost an association has what is left of it ended, by way of another controller of
// the subsystem, and learns when nothing of it can happen any more. Only then may it send its changes again elsewhere:
// the old copies may still lie unread in a socket, or in the device.
//
// A reset succeeds when every connection of the instance was closed, with what had not been read, and its admitted
// commands have ended. When that takes longer the command says so, and the log page and an event tell the end.
#include <algorithm>

#include "base/bytes.h"
#include "nvmf/target/controller.h"

namespace basalt::nvmf {

using nvme::Status;
namespace status = nvme::status;

namespace {
constexpr uint32_t immediate_reset_successful = 1;
constexpr Duration immediate_limit = milliseconds(100);
constexpr Duration immediate_look = microseconds(100);
constexpr uint8_t flags_found_and_begun = 3;
}  // namespace

Controller* Controller::find_instance(uint16_t cntlid, uint8_t ciu, uint64_t cirn) const {
  for (const auto& other : subsystem_.controllers_) {
    const ControllerOptions& o = other->options();
    if (o.cntlid == cntlid && o.ciu == ciu && o.cirn == cirn) return other.get();
  }
  return nullptr;
}

// This controller stays: its admin queue has a command that executes.
Task<void> Controller::cross_reset(Request* request) {
  const nvme::Command& command = request->command;
  const CrossReset reset{static_cast<uint16_t>(command.cdw10), static_cast<uint8_t>(command.cdw10 >> 16),
                         uint64_t{command.cdw13} << 32 | command.cdw12};
  const auto same = [&reset](const CrossReset& other) {
    return other.cntlid == reset.cntlid && other.cirn == reset.cirn;
  };
  const auto in_progress = static_cast<size_t>(
      std::count_if(cross_resets_.begin(), cross_resets_.end(), [](const CrossReset& other) { return !other.done; }));
  Controller* other = find_instance(reset.cntlid, reset.ciu, reset.cirn);
  Status result = status::success;
  if ((command.flags & 3) != 0 || reset.cntlid == options_.cntlid) {
    result = status::invalid_field.dnr();
  } else if (other == nullptr) {
    // Gone, or of another node.
    result = subsystem_.has_ended(reset.cntlid, path_) ? status::success : status::controller_id_invalid.dnr();
    request->completion.dw0 = immediate_reset_successful;
    std::erase_if(cross_resets_, same);
  } else if (other->options().hostnqn != options_.hostnqn || other->options().hostid != options_.hostid) {
    result = status::controller_id_invalid.dnr();  // another host's is none of its business
  } else if (std::any_of(cross_resets_.begin(), cross_resets_.end(), same)) {
    result = status::cross_reset_in_progress;
  } else if (in_progress >= cross_resets_max) {
    result = status::cross_reset_limit_exceeded;
  } else if (cross_resets_.size() >= cross_reset_log_entries_max) {
    result = status::cross_reset_log_full;
  } else {
    cross_resets_.push_back(reset);
    other->terminate();
    const Instant deadline = target_.home().now() + immediate_limit;
    // Not longer when this one ends as well: two that wait for each other would never go.
    while (find_instance(reset.cntlid, reset.ciu, reset.cirn) != nullptr && !ending_ && target_.home().now() < deadline)
      co_await sleep_for(target_.home(), immediate_look);
    if (find_instance(reset.cntlid, reset.ciu, reset.cirn) == nullptr) {
      request->completion.dw0 = immediate_reset_successful;
      std::erase_if(cross_resets_, same);
    } else {
      std::find_if(cross_resets_.begin(), cross_resets_.end(), same)->answered = true;
    }
  }
  if (!result.ok()) request->completion.dw0 = 0;
  TargetQueue::return_from_home(request, result);
}

void Controller::instance_gone(uint16_t cntlid, uint64_t cirn) {
  for (CrossReset& reset : cross_resets_) {
    if (reset.cntlid != cntlid || reset.cirn != cirn || reset.done) continue;
    reset.done = true;
    if (reset.answered) notify(Notice::cross_reset);
  }
}

std::string Controller::cross_reset_log(bool remove_completed) {
  std::string out(nvme::cross_reset_log_header_bytes, '\0');
  store_le<uint16_t>(out.data(), static_cast<uint16_t>(cross_resets_.size()));
  for (const CrossReset& reset : cross_resets_) {
    nvme::CrossControllerResetEntry entry{};
    entry.icid = reset.cntlid;
    entry.ciu = reset.ciu;
    entry.acid = options_.cntlid;
    entry.ccrs =
        static_cast<uint8_t>(reset.done ? nvme::CrossResetState::succeeded : nvme::CrossResetState::in_progress);
    entry.ccrf = flags_found_and_begun;
    out.append(reinterpret_cast<const char*>(&entry), sizeof(entry));
  }
  if (remove_completed) std::erase_if(cross_resets_, [](const CrossReset& reset) { return reset.done; });
  return out;
}

}  // namespace basalt::nvmf
