// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "nvmf/target/controller.h"

namespace basalt::nvmf {

using nvme::AdminOpcode;
using nvme::LogPageId;
using nvme::NvmOpcode;
using nvme::Status;
namespace status = nvme::status;

namespace {
constexpr uint32_t retain_event = 1u << 15;
constexpr uint32_t ana_groups_only = 1u << 8;
constexpr uint32_t cross_reset_remove_completed = 1u << 8;
constexpr uint32_t index_offset = 1u << 23;
constexpr uint32_t effect_supported = 1u << 0;
constexpr size_t table_bytes = 1024;  // 256 entries
constexpr uint32_t feature_of_namespace = 1u << 20;
constexpr uint32_t feature_of_controller = 1u << 21;
constexpr uint32_t effect_content = 1u << 1;
}  // namespace

Status Controller::get_log_page(Request* request) {
  const nvme::Command& command = request->command;
  const uint8_t id = static_cast<uint8_t>(command.cdw10);
  const uint64_t length_bytes = ((uint64_t{command.cdw11 & 0xffff} << 16 | command.cdw10 >> 16) + 1) * 4;
  const uint64_t offset_bytes = uint64_t{command.cdw13} << 32 | command.cdw12;
  if ((offset_bytes & 3) != 0 || (command.cdw14 & index_offset) != 0) return status::invalid_field.dnr();
  Status result = status::success;
  const bool groups_only = (command.cdw10 & ana_groups_only) != 0;
  const bool is_ana = !is_discovery() && id == static_cast<uint8_t>(LogPageId::ana);
  const bool is_cross_reset = !is_discovery() && id == static_cast<uint8_t>(LogPageId::cross_controller_reset);
  const bool remove_completed = (command.cdw10 & cross_reset_remove_completed) != 0;
  const std::string page = is_ana           ? ana_log(groups_only)
                           : is_cross_reset ? cross_reset_log(remove_completed)
                                            : log_page(id, &result);
  if (!result.ok()) return result;
  if (offset_bytes > page.size()) return status::invalid_field.dnr();
  const uint64_t end = std::min<uint64_t>(page.size(), offset_bytes + length_bytes);
  reply(request, page.data(), end, offset_bytes);
  const bool retain = (command.cdw10 & retain_event) != 0;
  if (id == static_cast<uint8_t>(LogPageId::reservation_notification) && !retain) reservation_log_read();
  log_read(id, retain);
  return status::success;
}

std::string Controller::log_page(uint8_t id, Status* result) {
  if (is_discovery()) {
    if (id == static_cast<uint8_t>(LogPageId::discovery)) return discovery_log();
    *result = status::invalid_log_page.dnr();
    return {};
  }
  switch (static_cast<LogPageId>(id)) {
    case LogPageId::supported_log_pages:
      return supported_pages();
    case LogPageId::features_supported_and_effects:
      return supported_features();
    case LogPageId::management_commands_supported:
      return std::string(table_bytes, '\0');  // none
    case LogPageId::error_information:
      return std::string(size_t{64} * error_log_entries, '\0');
    case LogPageId::smart:
      return smart_log();
    case LogPageId::firmware_slot: {
      std::string out(512, '\0');
      out[0] = 1;  // the running slot
      std::memcpy(out.data() + 8, "0.1     ", 8);
      return out;
    }
    case LogPageId::changed_namespace_list:
      return changed_namespaces_log();
    case LogPageId::commands_supported_and_effects:
      return effects_log();
    case LogPageId::reservation_notification:
      return reservation_log();
    default:
      *result = status::invalid_log_page.dnr();
      return {};
  }
}

std::string Controller::supported_pages() const {
  std::string out(table_bytes, '\0');
  for (const LogPageId id :
       {LogPageId::supported_log_pages, LogPageId::error_information, LogPageId::smart, LogPageId::firmware_slot,
        LogPageId::changed_namespace_list, LogPageId::commands_supported_and_effects,
        LogPageId::features_supported_and_effects, LogPageId::management_commands_supported,
        LogPageId::cross_controller_reset, LogPageId::reservation_notification}) {
    store_le<uint32_t>(out.data() + static_cast<size_t>(id) * 4, effect_supported);
  }
  if (subsystem_.options().ana_reporting) {
    store_le<uint32_t>(out.data() + static_cast<size_t>(LogPageId::ana) * 4, effect_supported);
  }
  return out;
}

std::string Controller::supported_features() const {
  std::string out(table_bytes, '\0');
  using nvme::FeatureId;
  for (const FeatureId id :
       {FeatureId::arbitration, FeatureId::power_management, FeatureId::temperature_threshold,
        FeatureId::error_recovery, FeatureId::volatile_write_cache, FeatureId::number_of_queues,
        FeatureId::write_atomicity, FeatureId::async_event_configuration, FeatureId::keep_alive_timer,
        FeatureId::host_behavior_support, FeatureId::host_identifier, FeatureId::reservation_notification_mask}) {
    store_le<uint32_t>(out.data() + static_cast<size_t>(id) * 4, effect_supported | feature_of_controller);
  }
  store_le<uint32_t>(out.data() + static_cast<size_t>(FeatureId::reservation_persistence) * 4,
                     effect_supported | feature_of_namespace);
  return out;
}

std::string Controller::smart_log() const {
  std::string out(512, '\0');
  store_le<uint16_t>(out.data() + 1, 310);  // kelvin
  out[3] = 100;                             // spare, percent
  out[4] = 10;
  return out;
}

std::string Controller::effects_log() const {
  std::string out(4096, '\0');
  const auto set = [&out](size_t index, uint32_t effects) { store_le<uint32_t>(out.data() + index * 4, effects); };
  for (const AdminOpcode opcode :
       {AdminOpcode::get_log_page, AdminOpcode::identify, AdminOpcode::abort, AdminOpcode::set_features,
        AdminOpcode::get_features, AdminOpcode::async_event_request, AdminOpcode::keep_alive,
        AdminOpcode::cross_controller_reset}) {
    set(static_cast<size_t>(opcode), effect_supported);
  }
  constexpr size_t io_commands = 256;
  for (const NvmOpcode opcode :
       {NvmOpcode::flush, NvmOpcode::read, NvmOpcode::compare, NvmOpcode::reservation_register,
        NvmOpcode::reservation_report, NvmOpcode::reservation_acquire, NvmOpcode::reservation_release}) {
    set(io_commands + static_cast<size_t>(opcode), effect_supported);
  }
  for (const NvmOpcode opcode : {NvmOpcode::write, NvmOpcode::write_zeroes, NvmOpcode::dataset_management})
    set(io_commands + static_cast<size_t>(opcode), effect_supported | effect_content);
  return out;
}

std::string Controller::changed_namespaces_log() {
  std::string out(size_t{changed_namespaces_max} * 4, '\0');
  if (changed_namespaces_overflow_) {
    store_le<uint32_t>(out.data(), 0xffffffff);
  } else {
    std::sort(changed_namespaces_.begin(), changed_namespaces_.end());
    for (size_t i = 0; i < changed_namespaces_.size(); i++)
      store_le<uint32_t>(out.data() + i * 4, changed_namespaces_[i]);
  }
  changed_namespaces_.clear();
  changed_namespaces_overflow_ = false;
  return out;
}

// Only groups that have a namespace are listed.
std::string Controller::ana_log(bool groups_only) const {
  const uint32_t count = subsystem_.options().namespaces_max;
  std::string groups;
  uint16_t group_count = 0;
  for (uint32_t group = 1; group <= count && path_ != nullptr; group++) {
    std::string nsids;
    for (uint32_t nsid = 1; nsid <= count; nsid++) {
      const ns::Namespace* space = subsystem_.find_namespace(nsid);
      if (space == nullptr || space->options().ana_group != group) continue;
      nsids.append(reinterpret_cast<const char*>(&nsid), sizeof(nsid));
    }
    if (nsids.empty()) continue;
    nvme::AnaGroupDescriptor descriptor{};
    descriptor.anagrpid = group;
    descriptor.nnsids = groups_only ? 0 : static_cast<uint32_t>(nsids.size() / sizeof(uint32_t));
    descriptor.chgcnt = subsystem_.ana_change_count();
    descriptor.state = static_cast<uint8_t>(path_->state(group));
    groups.append(reinterpret_cast<const char*>(&descriptor), sizeof(descriptor));
    if (!groups_only) groups += nsids;
    group_count++;
  }
  nvme::AnaLogHeader header{};
  header.chgcnt = subsystem_.ana_change_count();
  header.ngrps = group_count;
  std::string out(reinterpret_cast<const char*>(&header), sizeof(header));
  // The longest log: every namespace in a group of its own.
  static_assert(sizeof(header) + 1024 * (sizeof(nvme::AnaGroupDescriptor) + 4) <= data_bytes_max);
  return out + groups;
}

}  // namespace basalt::nvmf
