// SPDX-License-Identifier: Apache-2.0
// Controller properties: capabilities, configuration, status.
#include <cstring>

#include "nvmf/target/controller.h"

namespace basalt::nvmf {
namespace {

using nvme::Status;
namespace status = nvme::status;

constexpr uint32_t version_1_4 = 0x00010400;
constexpr uint32_t cc_enable = 1;
constexpr uint32_t csts_ready = 1;
constexpr uint32_t csts_fatal = 2;
constexpr uint32_t csts_shutdown_complete = 2u << 2;
constexpr uint32_t csts_shutdown_mask = 3u << 2;
constexpr uint32_t iosqes = 6;
constexpr uint32_t iocqes = 4;

}  // namespace

uint64_t Controller::capabilities() const {
  constexpr uint64_t contiguous_queues = 1u << 16;
  constexpr uint64_t timeout_half_seconds = 20;
  constexpr uint64_t nvm_command_set = uint64_t{1} << 37;
  return (queue_entries_max - 1) | contiguous_queues | timeout_half_seconds << 24 | nvm_command_set;
}

Status Controller::property_get(Request* request) {
  nvme::PropertyCommand command;
  std::memcpy(&command, &request->command, sizeof(command));
  const bool wide = (command.attrib & 7) == 1;
  if ((command.attrib & 7) > 1) return status::invalid_field.dnr();
  uint64_t value = 0;
  switch (command.offset) {
    case nvme::property_cap:
      if (!wide) return status::invalid_field.dnr();
      value = capabilities();
      break;
    case nvme::property_vs:
      value = version_1_4;
      break;
    case nvme::property_cc:
      value = configuration_;
      break;
    case nvme::property_csts:
      value = status_;
      break;
    default:
      return status::invalid_field.dnr();
  }
  if (wide != (command.offset == nvme::property_cap)) return status::invalid_field.dnr();
  request->completion.dw0 = static_cast<uint32_t>(value);
  request->completion.dw1 = static_cast<uint32_t>(value >> 32);
  return status::success;
}

Status Controller::property_set(Request* request) {
  nvme::PropertyCommand command;
  std::memcpy(&command, &request->command, sizeof(command));
  if ((command.attrib & 7) != 0 || command.offset != nvme::property_cc) return status::invalid_field.dnr();
  set_configuration(static_cast<uint32_t>(command.value));
  return status::success;
}

void Controller::set_configuration(uint32_t value) {
  const bool was_enabled = (configuration_ & cc_enable) != 0;
  const bool enable = (value & cc_enable) != 0;
  const uint32_t shutdown = value >> 14 & 3;
  configuration_ = value;
  if (shutdown != 0) {
    // Nothing is kept back here: what was acknowledged is where it belongs.
    status_ = (status_ & ~csts_shutdown_mask) | csts_shutdown_complete;
    return;
  }
  if (enable && !was_enabled) {
    const uint32_t css = value >> 4 & 7;
    const uint32_t memory_page_size = value >> 7 & 15;
    const bool sizes_fit = is_discovery() || ((value >> 16 & 15) == iosqes && (value >> 20 & 15) == iocqes);
    if (css != 0 || memory_page_size != 0 || !sizes_fit) {
      status_ |= csts_fatal;
      return;
    }
    status_ = csts_ready;
    enabled_.store(true, std::memory_order_release);
  } else if (!enable && was_enabled) {
    // Controller reset: I/O queues go, the admin queue stays.
    enabled_.store(false, std::memory_order_release);
    status_ = 0;
    async_event_configuration_ = 0;
    pending_notices_ = masked_notices_ = 0;
    changed_namespaces_.clear();
    abort_async_events(status::aborted_sq_deletion);
    for (TargetQueue* queue : queues_) {
      if (queue->qid() != 0) queue->ask_close();
    }
  }
}

}  // namespace basalt::nvmf
