// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "nvmf/target/controller.h"

namespace basalt::nvmf {

using nvme::FeatureId;
using nvme::Status;
namespace status = nvme::status;

namespace {
constexpr uint32_t temperature_threshold_kelvin = 343;
constexpr uint32_t save_bit = 1u << 31;
constexpr uint32_t keep_alive_ms_max = 24 * 3600 * 1000;

bool keeps_reservations(const ns::Namespace& space) {
  return space.options().one_writer || space.options().keeper != nullptr;
}
}  // namespace

Status Controller::get_features(Request* request) {
  const nvme::Command& command = request->command;
  if ((command.cdw10 >> 8 & 7) != 0) return status::invalid_field.dnr();  // only current values
  uint32_t& value = request->completion.dw0;
  const auto id = static_cast<FeatureId>(command.cdw10 & 0xff);
  if (is_discovery() && id != FeatureId::async_event_configuration && id != FeatureId::keep_alive_timer) {
    return status::invalid_field.dnr();
  }
  switch (id) {
    case FeatureId::arbitration:
    case FeatureId::power_management:
    case FeatureId::error_recovery:
    case FeatureId::write_atomicity:
      return status::success;
    case FeatureId::reservation_notification_mask:
      if (subsystem_.find_namespace(command.nsid) == nullptr) return status::invalid_namespace.dnr();
      value = reservation_mask(command.nsid);
      return status::success;
    case FeatureId::temperature_threshold:
      value = temperature_threshold_kelvin;
      return status::success;
    case FeatureId::volatile_write_cache:
      value = write_cache_;
      return status::success;
    case FeatureId::number_of_queues:
      value = (io_queue_count_ - 1u) | (io_queue_count_ - 1u) << 16;
      return status::success;
    case FeatureId::async_event_configuration:
      value = async_event_configuration_;
      return status::success;
    case FeatureId::keep_alive_timer:
      value = keep_alive_ms_;
      return status::success;
    case FeatureId::host_behavior_support:
      reply(request, host_behavior_.data(), host_behavior_.size());
      return status::success;
    case FeatureId::host_identifier:
      if ((command.cdw11 & 1) == 0) return status::invalid_field.dnr();  // 128 bits
      reply(request, options_.hostid.bytes.data(), 16);
      return status::success;
    case FeatureId::reservation_persistence: {
      const ns::Namespace* space = subsystem_.find_namespace(command.nsid);
      if (space == nullptr) return status::invalid_namespace.dnr();
      value = keeps_reservations(*space) ? 1 : 0;
      return status::success;
    }
  }
  return status::invalid_field.dnr();
}

Status Controller::set_features(Request* request) {
  const nvme::Command& command = request->command;
  if ((command.cdw10 & save_bit) != 0) return status::feature_not_saveable.dnr();
  const auto id = static_cast<FeatureId>(command.cdw10 & 0xff);
  if (is_discovery() && id != FeatureId::async_event_configuration && id != FeatureId::keep_alive_timer) {
    return status::invalid_field.dnr();
  }
  switch (id) {
    case FeatureId::arbitration:
    case FeatureId::error_recovery:
    case FeatureId::write_atomicity:
    case FeatureId::temperature_threshold:
      return status::success;  // accepted; they change nothing here
    case FeatureId::reservation_notification_mask:
      return set_reservation_mask(command.nsid, command.cdw11);
    case FeatureId::power_management:
      return (command.cdw11 & 0x1f) == 0 ? status::success : status::invalid_field.dnr();
    case FeatureId::volatile_write_cache:
      write_cache_ = command.cdw11 & 1;
      return status::success;
    case FeatureId::number_of_queues: {
      const uint32_t submission = command.cdw11 & 0xffff;
      const uint32_t completion = command.cdw11 >> 16;
      if (submission == 0xffff || completion == 0xffff) return status::invalid_field.dnr();
      if (io_queue_count() > 0) return status::command_sequence_error.dnr();
      const uint32_t wanted = std::min(submission, completion) + 1;
      io_queue_count_ = static_cast<uint16_t>(std::min<uint32_t>(wanted, io_queues_max));
      request->completion.dw0 = (io_queue_count_ - 1u) | (io_queue_count_ - 1u) << 16;
      return status::success;
    }
    case FeatureId::async_event_configuration:
      async_event_configuration_ = command.cdw11;
      send_events();
      return status::success;
    case FeatureId::keep_alive_timer:
      if (command.cdw11 > keep_alive_ms_max) return status::keep_alive_invalid.dnr();
      keep_alive_ms_ = command.cdw11;
      arm_keep_alive();
      return status::success;
    case FeatureId::host_behavior_support: {
      Iovec pieces[8];
      const size_t count = iovec_slice(request->iov, request->iov_count, 0, host_behavior_.size(), pieces, 8);
      if (count == 0) return status::data_sgl_length_invalid.dnr();
      iovec_copy_out(pieces, count, host_behavior_.data());
      return status::success;
    }
    case FeatureId::host_identifier:
      return status::command_sequence_error.dnr();  // Connect has set it
    case FeatureId::reservation_persistence: {
      // It is what it is: asking for that is no change.
      const ns::Namespace* space = subsystem_.find_namespace(command.nsid);
      if (space == nullptr) return status::invalid_namespace.dnr();
      const bool wanted = (command.cdw11 & 1) != 0;
      return wanted == keeps_reservations(*space) ? status::success : status::feature_not_changeable.dnr();
    }
  }
  return status::invalid_field.dnr();
}

}  // namespace basalt::nvmf
