// SPDX-License-Identifier: Apache-2.0
// Source of names and defaults: SPDK v26.05, schema/schema.yaml, and what its rpc.py sends.
#include "engine/rpc/spdk_params.h"

#include <string>

namespace basalt::rpc {
namespace {

constexpr std::string_view anything = "*";
constexpr std::string_view is_false = "false";
constexpr std::string_view zero = "0";
constexpr std::string_view no_numa = "-1";

struct Rule {
  std::string_view method;  // "nvmf_*": all that begin so
  std::string_view inside;  // the object that holds the parameter; empty: the parameters themselves
  std::string_view parameter;
  std::string_view value;  // as JSON
};

// `anything`: sizes of SPDK's own pools and queues; here they follow from what the engine may map.
constexpr Rule rules[] = {
    {"bdev_get_bdevs", "", "timeout", zero},
    {"bdev_get_iostat", "", "per_channel", is_false},
    {"bdev_get_iostat", "", "reset_mode", "\"none\""},
    {"bdev_malloc_create", "", "optimal_io_boundary", zero},
    {"bdev_malloc_create", "", "md_size", zero},
    {"bdev_malloc_create", "", "md_interleave", is_false},
    {"bdev_malloc_create", "", "dif_type", zero},
    {"bdev_malloc_create", "", "dif_is_head_of_md", is_false},
    {"bdev_malloc_create", "", "dif_pi_format", zero},
    {"bdev_malloc_create", "", "physical_block_size", zero},
    {"bdev_malloc_create", "", "numa_id", no_numa},
    {"bdev_null_create", "", "md_size", zero},
    {"bdev_null_create", "", "dif_type", zero},
    {"bdev_null_create", "", "dif_is_head_of_md", is_false},
    {"bdev_null_create", "", "dif_pi_format", zero},
    {"bdev_null_create", "", "physical_block_size", zero},
    {"bdev_null_create", "", "preferred_write_granularity", zero},
    {"bdev_null_create", "", "preferred_write_alignment", zero},
    {"bdev_null_create", "", "optimal_write_size", zero},
    {"bdev_null_create", "", "preferred_unmap_granularity", zero},
    {"bdev_null_create", "", "preferred_unmap_alignment", zero},
    {"bdev_aio_create", "", "fallocate", is_false},
    {"bdev_aio_create", "", "nowait", is_false},
    {"bdev_error_inject_error", "", "nvme_sct", zero},
    {"bdev_error_inject_error", "", "nvme_sc", zero},
    {"bdev_error_inject_error", "", "queue_depth", zero},
    {"bdev_error_inject_error", "", "corrupt_offset", zero},
    {"bdev_error_inject_error", "", "corrupt_value", zero},
    {"bdev_lvol_create_lvstore", "", "num_md_pages_per_cluster_ratio", anything},
    {"bdev_lvol_create_lvstore", "", "md_page_size", anything},
    // What a new lvol reads is zeroes whatever was there, and unmap is what deleting does.
    {"bdev_lvol_create", "", "clear_method", "\"unmap\""},
    {"bdev_nvme_attach_controller", "", "prchk_reftag", is_false},
    {"bdev_nvme_attach_controller", "", "prchk_guard", is_false},
    {"bdev_nvme_attach_controller", "", "fabrics_connect_timeout_us", zero},
    {"bdev_nvme_attach_controller", "", "max_bdevs", anything},
    {"bdev_nvme_attach_controller", "", "allow_unrecognized_csi", is_false},
    {"bdev_nvme_attach_controller", "", "disable_sq_flow_control", is_false},
    {"bdev_raid_create", "", "superblock", is_false},
    {"bdev_raid_delete", "", "clear_sb", is_false},
    {"nvmf_*", "", "tgt_name", "\"nvmf_tgt\""},
    {"nvmf_create_subsystem", "", "dmrsl", zero},
    {"nvmf_create_subsystem", "", "wzsl", zero},
    {"nvmf_create_subsystem", "", "passthrough", is_false},
    {"nvmf_create_subsystem", "", "enable_nssr", is_false},
    {"nvmf_create_transport", "", "max_io_size", anything},
    {"nvmf_create_transport", "", "io_unit_size", anything},
    {"nvmf_create_transport", "", "max_aq_depth", anything},
    {"nvmf_create_transport", "", "num_shared_buffers", anything},
    {"nvmf_create_transport", "", "buf_cache_size", anything},
    {"nvmf_create_transport", "", "iobuf_small_cache_size", anything},
    {"nvmf_create_transport", "", "iobuf_large_cache_size", anything},
    {"nvmf_create_transport", "", "control_msg_num", anything},
    {"nvmf_create_transport", "", "acceptor_backlog", anything},
    {"nvmf_create_transport", "", "acceptor_poll_rate", anything},
    {"nvmf_create_transport", "", "abort_timeout_sec", anything},
    {"nvmf_create_transport", "", "zcopy", is_false},
    {"nvmf_create_transport", "", "sock_priority", zero},
    {"nvmf_create_transport", "", "c2h_success", "true"},
    {"nvmf_create_transport", "", "dif_insert_or_strip", is_false},
    {"nvmf_create_transport", "", "no_srq", is_false},
    {"nvmf_create_transport", "", "no_wr_batching", is_false},
    {"nvmf_create_transport", "", "disable_mappable_bar0", is_false},
    {"nvmf_create_transport", "", "disable_adaptive_irq", is_false},
    {"nvmf_create_transport", "", "disable_shadow_doorbells", is_false},
    {"nvmf_create_transport", "", "disable_command_passthru", is_false},
    {"nvmf_subsystem_add_ns", "namespace", "no_auto_visible", is_false},
    {"nvmf_subsystem_add_ns", "namespace", "hide_metadata", is_false},
    {"nvmf_subsystem_add_listener", "", "numa_id", no_numa},
    {"nvmf_subsystem_add_listener", "", "sock_impl", "\"posix\""},
    {"nvmf_set_config", "", "discovery_filter", "\"match_any\""},
    {"nvmf_set_config", "", "discovery_filters", "\"match_any\""},
};

bool about(const Rule& rule, std::string_view method) {
  if (!rule.method.ends_with('*')) return rule.method == method;
  return method.starts_with(rule.method.substr(0, rule.method.size() - 1));
}

bool drops(const Rule& rule, const JsonValue::Member& member) {
  return rule.parameter == member.first && (rule.value == anything || rule.value == member.second.to_text());
}

JsonValue without(const Rule& rule, const JsonValue& params) {
  auto left = JsonValue::object();
  for (const JsonValue::Member& member : params.members()) {
    const bool nested = !rule.inside.empty();
    if (!nested && drops(rule, member)) continue;
    const bool holds_it = nested && rule.inside == member.first && member.second.is(JsonValue::Kind::object);
    left.set(member.first, holds_it ? without({"", "", rule.parameter, rule.value}, member.second) : member.second);
  }
  return left;
}

bool holds(const Rule& rule, const JsonValue& params) {
  if (!params.is(JsonValue::Kind::object)) return false;
  const JsonValue* place = rule.inside.empty() ? &params : params.find(rule.inside);
  return place != nullptr && place->is(JsonValue::Kind::object) && place->find(rule.parameter) != nullptr;
}

}  // namespace

JsonValue without_spdk_defaults(std::string_view method, JsonValue params) {
  for (const Rule& rule : rules)
    if (about(rule, method) && holds(rule, params)) params = without(rule, params);
  return params;
}

}  // namespace basalt::rpc
