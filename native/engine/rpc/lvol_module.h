// SPDX-License-Identifier: Apache-2.0
// The module of lvstores and lvols: bdev_examine, bdev_lvol_*, basalt_lvstore_*, basalt_lvol_scrub. A lvol's bdev is
// named <lvs_name>/<lvol_name>. Split by noun: lvol.cc has the stores and their life, lvol_volumes.cc the lvols,
// lvol_space.cc what is told about space.
// Thread: the management reactor, which is also the home of every lvstore.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bdev/lvol/lvstore.h"
#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {

class LvolModule final : public Module, bdev::LvStoreOwner {
 public:
  explicit LvolModule(Engine& engine);
  void register_methods(Dispatcher& dispatcher) override;
  void abort() override { engine_.management().cancel(&space_timer_); }
  Task<bool> stop_some() override;

 private:
  struct Held {
    std::unique_ptr<bdev::LvStore> store;
    std::string base;
    uint64_t reported_free_clusters = 0;
    uint64_t reported_refused_count = 0;
    uint64_t reported_mismatch_count = 0;
    std::vector<uint32_t> thresholds_percent;  // of use, ascending
    size_t thresholds_passed = 0;
    bool busy = false;  // being closed or deleted
  };
  struct SpaceTimer : Timer {
    LvolModule* module = nullptr;
  };
  // An lvol that a method was asked to change.
  struct Subject {
    BdevRegistry::Entry* entry = nullptr;
    Held* held = nullptr;
    std::string name;  // within its store
  };

  // Snapshots that were asked for through a replica's gate become bdevs like others.
  Outcome snapshot_begins(bdev::LvStore& store, const std::string& name) override;
  void snapshot_ended(bdev::LvStore& store, const std::string& name, bdev::Lvol* made) override;

  // lvol.cc
  Result<Held*> find(const std::string& name, const std::optional<Uuid>& uuid);
  static void need_one(Fields& in, std::string_view name_field, std::string_view uuid_field);
  Task<RpcResult> create_lvstore(JsonValue params);
  Task<RpcResult> examine(JsonValue params);
  Task<RpcResult> delete_lvstore(JsonValue params);
  Task<RpcResult> get_lvstores(JsonValue params);
  Task<RpcResult> fsck(JsonValue params);
  void adopt(std::unique_ptr<bdev::LvStore> store, const std::string& base);
  Task<Outcome> publish_all(std::unique_ptr<bdev::LvStore> store, std::string base);
  Task<Outcome> wipe(std::string base);
  static JsonValue describe(const Held& held);
  bool retire_lvols(Held& held);
  Task<void> close_store(std::string name);

  // lvol_volumes.cc
  Task<RpcResult> create_lvol(JsonValue params);
  Task<RpcResult> snapshot(JsonValue params);
  Task<RpcResult> clone(JsonValue params);
  Task<RpcResult> delete_lvol(JsonValue params);
  Task<RpcResult> resize(JsonValue params);
  Task<RpcResult> rename(JsonValue params);
  Task<RpcResult> set_read_only(JsonValue params);
  Task<RpcResult> inflate(JsonValue params);
  Task<RpcResult> decouple_parent(JsonValue params);
  Task<RpcResult> scrub(JsonValue params);
  Task<RpcResult> get_lvols(JsonValue params);
  std::optional<RpcError> subject(const std::string& name, uint64_t epoch, Subject* out);
  Task<RpcResult> derive(JsonValue params, bool snapshot);
  Task<RpcResult> change(JsonValue params, Task<Outcome> (bdev::LvStore::*method)(std::string));
  static JsonValue describe_lvol(const Held& held, const bdev::Lvol& lvol);

  // lvol_space.cc
  Task<RpcResult> set_thresholds(JsonValue params);
  void look_at_space();
  void tell_thresholds(const std::string& name, Held& held);

  Engine& engine_;
  static constexpr Duration space_interval = seconds(2);
  SpaceTimer space_timer_;
  std::map<std::string, std::unique_ptr<Held>> stores_;
  std::set<std::string> making_;
};

std::string lvol_bdev_name(const bdev::LvStore& store, const std::string& lvol);

}  // namespace basalt::rpc
