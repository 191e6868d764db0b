// SPDX-License-Identifier: Apache-2.0
// What is told about space: lvstore_space when it changed, lvstore_threshold when a share in use was passed,
// lvstore_full when a write found no space; and lvstore_checksum_mismatch when blocks were read that are not what was
// written. Thin volumes fill by writes, so it is looked at now and then.
#include "engine/rpc/lvol_module.h"

namespace basalt::rpc {
namespace {

constexpr size_t thresholds_max = 16;

}  // namespace

Task<RpcResult> LvolModule::set_thresholds(JsonValue params) {
  Fields in(params);
  const auto uuid = in.uuid("uuid");
  const std::string name = in.string_or("lvs_name", "");
  need_one(in, "lvs_name", "uuid");
  std::vector<uint32_t> used;
  for (const JsonValue& item : in.objects("used_percent", 0, thresholds_max)) {
    const uint64_t percent = item.is(JsonValue::Kind::natural) ? item.natural() : 0;
    const uint64_t least = used.empty() ? 1 : used.back() + 1;
    if (percent < least || percent > 100) in.refuse("used_percent", "must be ascending integers from 1 to 100");
    used.push_back(static_cast<uint32_t>(percent));
  }
  if (auto error = in.error()) co_return *error;
  auto found = find(name, uuid);
  if (!found) co_return std::move(found).error();
  Held& held = **found;
  held.thresholds_percent = used;
  held.thresholds_passed = 0;
  tell_thresholds(held.store->name(), held);
  co_return done();
}

void LvolModule::tell_thresholds(const std::string& name, Held& held) {
  const auto stats = held.store->stats();
  const uint64_t used = stats.total_clusters - stats.free_clusters;
  size_t passed = 0;
  for (const uint32_t percent : held.thresholds_percent)
    passed += used * 100 >= stats.total_clusters * percent;
  const size_t before = std::exchange(held.thresholds_passed, passed);
  if (passed == before) return;
  // Upwards the highest one that was passed; downwards the highest that is not reached any more.
  auto event = JsonValue::object();
  event.set("lvs_name", name)
      .set("used_percent", held.thresholds_percent[passed > before ? passed - 1 : before - 1])
      .set("passed", passed > before)
      .set("free_clusters", stats.free_clusters)
      .set("total_data_clusters", stats.total_clusters);
  engine_.events().emit("lvstore_threshold", std::move(event));
}

void LvolModule::look_at_space() {
  for (const auto& [name, held] : stores_) {
    if (held->busy) continue;
    const auto stats = held->store->stats();
    if (stats.refused_count != held->reported_refused_count) {
      auto event = JsonValue::object();
      event.set("lvs_name", name).set("refused_count", stats.refused_count - held->reported_refused_count);
      held->reported_refused_count = stats.refused_count;
      engine_.events().emit("lvstore_full", std::move(event));
    }
    if (stats.checksum_mismatch_count != held->reported_mismatch_count) {
      auto event = JsonValue::object();
      event.set("lvs_name", name).set("block_count", stats.checksum_mismatch_count - held->reported_mismatch_count);
      held->reported_mismatch_count = stats.checksum_mismatch_count;
      engine_.events().emit("lvstore_checksum_mismatch", std::move(event));
    }
    if (stats.free_clusters == held->reported_free_clusters) continue;
    held->reported_free_clusters = stats.free_clusters;
    auto event = JsonValue::object();
    event.set("lvs_name", name)
        .set("free_clusters", stats.free_clusters)
        .set("total_data_clusters", stats.total_clusters);
    engine_.events().emit("lvstore_space", std::move(event));
    tell_thresholds(name, *held);
  }
  if (!stores_.empty()) engine_.management().arm_after(&space_timer_, space_interval);
}

}  // namespace basalt::rpc
