// SPDX-License-Identifier: Apache-2.0
// bdev_lvol_*_lvstore, bdev_examine: lvstores, from their making to the end of the engine.
#include "bdev/lvol/fsck.h"
#include "engine/rpc/lvol_module.h"

namespace basalt::rpc {
namespace {

constexpr uint32_t thresholds_default[] = {80, 95};

std::string store_user(const std::string& name) {
  return "lvstore " + name;
}

}  // namespace

std::string lvol_bdev_name(const bdev::LvStore& store, const std::string& lvol) {
  return store.name() + "/" + lvol;
}

LvolModule::LvolModule(Engine& engine) : engine_(engine) {
  space_timer_.module = this;
  space_timer_.run = [](Work* work) { static_cast<SpaceTimer*>(work)->module->look_at_space(); };
}

void LvolModule::register_methods(Dispatcher& dispatcher) {
  dispatcher.add("bdev_examine", this, &LvolModule::examine);
  dispatcher.add("bdev_lvol_create_lvstore", this, &LvolModule::create_lvstore);
  dispatcher.add("bdev_lvol_delete_lvstore", this, &LvolModule::delete_lvstore);
  dispatcher.add("bdev_lvol_get_lvstores", this, &LvolModule::get_lvstores);
  dispatcher.add("bdev_lvol_create", this, &LvolModule::create_lvol);
  dispatcher.add("bdev_lvol_delete", this, &LvolModule::delete_lvol);
  dispatcher.add("bdev_lvol_get_lvols", this, &LvolModule::get_lvols);
  dispatcher.add("bdev_lvol_snapshot", this, &LvolModule::snapshot);
  dispatcher.add("bdev_lvol_clone", this, &LvolModule::clone);
  dispatcher.add("bdev_lvol_resize", this, &LvolModule::resize);
  dispatcher.add("bdev_lvol_rename", this, &LvolModule::rename);
  dispatcher.add("bdev_lvol_set_read_only", this, &LvolModule::set_read_only);
  dispatcher.add("bdev_lvol_inflate", this, &LvolModule::inflate);
  dispatcher.add("bdev_lvol_decouple_parent", this, &LvolModule::decouple_parent);
  dispatcher.add("basalt_lvol_scrub", this, &LvolModule::scrub);
  dispatcher.add("basalt_lvstore_fsck", this, &LvolModule::fsck);
  dispatcher.add("basalt_lvstore_set_thresholds", this, &LvolModule::set_thresholds);
}

Task<bool> LvolModule::stop_some() {
  bool some = false;
  for (bool found = true; found;) {
    found = false;
    for (const auto& [name, held] : stores_) {
      if (!retire_lvols(*held)) continue;
      auto closing = close_store(name);
      co_await closing;
      some = found = true;
      break;  // the map has changed
    }
  }
  co_return some;
}

Result<LvolModule::Held*> LvolModule::find(const std::string& name, const std::optional<Uuid>& uuid) {
  for (const auto& [key, held] : stores_) {
    const bool is_it = uuid ? held->store->uuid() == *uuid : key == name;
    if (is_it && held->busy) return Error{Errc::busy, "lvstore " + key + " is being deleted"};
    if (is_it) return held.get();
  }
  return Error{Errc::not_found, "lvstore " + (uuid ? uuid->to_string() : name) + " does not exist"};
}

void LvolModule::need_one(Fields& in, std::string_view name_field, std::string_view uuid_field) {
  if (in.has(name_field) == in.has(uuid_field)) {
    in.refuse(name_field, "give exactly one of " + std::string(name_field) + " and " + std::string(uuid_field));
  }
}

Task<RpcResult> LvolModule::create_lvstore(JsonValue params) {
  Fields in(params);
  const std::string base = in.string("bdev_name");
  bdev::LvStoreOptions options;
  options.name = in.string("lvs_name");
  options.cluster_bytes = static_cast<uint32_t>(in.natural_or("cluster_sz", 1 << 20, {.min = 65536, .max = 1 << 30}));
  constexpr size_t clear_none = 0;
  options.clear = in.choice_or("clear_method", 1, {"none", "unmap", "write_zeroes"}) != clear_none;
  if (auto error = in.error()) co_return *error;
  const std::string user = store_user(options.name);
  const std::string name = options.name;
  if (stores_.contains(name) || making_.contains(name)) {
    co_return Error{Errc::exists, "lvstore " + name + " exists"};
  }
  auto claimed = engine_.bdevs().claim(base, user);
  if (!claimed) co_return std::move(claimed).error();
  making_.insert(name);
  Reactor& home = engine_.management();
  auto creating = bdev::LvStore::create(home, bdev::Handle(**claimed, home), std::move(options));
  auto made = co_await creating;
  making_.erase(name);
  if (!made) {
    engine_.bdevs().release(base, user);
    co_return std::move(made).error();
  }
  std::string uuid = (*made)->uuid().to_string();
  adopt(std::move(*made), base);
  co_return JsonValue(std::move(uuid));
}

void LvolModule::adopt(std::unique_ptr<bdev::LvStore> store, const std::string& base) {
  auto held = std::make_unique<Held>();
  held->store = std::move(store);
  held->base = base;
  held->reported_free_clusters = held->store->stats().free_clusters;
  held->thresholds_percent.assign(std::begin(thresholds_default), std::end(thresholds_default));
  held->store->set_owner(this);
  const std::string name = held->store->name();
  stores_.emplace(name, std::move(held));
  if (!space_timer_.armed() && !engine_.stopping()) engine_.management().arm_after(&space_timer_, space_interval);
}

Task<RpcResult> LvolModule::examine(JsonValue params) {
  Fields in(params);
  const std::string base = in.string("name");
  const bool read_only = in.boolean_or("read_only", false);
  if (auto error = in.error()) co_return *error;
  for (const auto& [name, held] : stores_) {
    if (held->base != base) continue;
    if (held->store->read_only() == read_only) co_return done();
    co_return Error{Errc::busy, "lvstore " + name + " is open " + (read_only ? "for writing" : "read-only")};
  }
  constexpr std::string_view user = "bdev_examine";
  auto claimed = engine_.bdevs().claim(base, user);
  if (!claimed) co_return std::move(claimed).error();
  Reactor& home = engine_.management();
  const bdev::Handle handle(**claimed, home);
  auto loading = read_only ? bdev::LvStore::inspect(home, handle) : bdev::LvStore::load(home, handle);
  auto loaded = co_await loading;
  if (!loaded) {
    engine_.bdevs().release(base, user);
    co_return std::move(loaded).error();
  }
  auto publishing = publish_all(std::move(*loaded), base);
  auto published = co_await publishing;
  if (!published) co_return std::move(published).error();
  co_return done();
}

Task<Outcome> LvolModule::publish_all(std::unique_ptr<bdev::LvStore> store, std::string base) {
  BdevRegistry& bdevs = engine_.bdevs();
  std::vector<std::string> reserved;
  Outcome outcome = success();
  if (stores_.contains(store->name()) || making_.contains(store->name())) {
    outcome = Error{Errc::exists, "bdev " + base + " carries lvstore " + store->name() + ", a name that is taken"};
  }
  const auto lvols = store->list();
  for (size_t i = 0; i < lvols.size() && outcome.ok(); i++) {
    const std::string name = lvol_bdev_name(*store, lvols[i]->name());
    outcome = bdevs.reserve(name);
    if (outcome.ok()) reserved.push_back(name);
  }
  if (!outcome.ok()) {
    for (const std::string& name : reserved)
      bdevs.withdraw(name);
    auto closing = store->close();
    auto closed = co_await closing;
    (void)closed.ok();  // nothing was written through it
    store.reset();
    bdevs.release(base, "bdev_examine");
    co_return outcome;
  }
  bdevs.release(base, "bdev_examine");
  auto claimed = bdevs.claim(base, store_user(store->name()));
  BASALT_ASSERT(claimed.ok());
  for (size_t i = 0; i < lvols.size(); i++)
    bdevs.publish_foreign(reserved[i], *lvols[i]);
  adopt(std::move(store), base);
  co_return success();
}

Task<RpcResult> LvolModule::delete_lvstore(JsonValue params) {
  Fields in(params);
  const auto uuid = in.uuid("uuid");
  const std::string name = in.string_or("lvs_name", "");
  need_one(in, "lvs_name", "uuid");
  if (auto error = in.error()) co_return *error;
  auto found = find(name, uuid);
  if (!found) co_return std::move(found).error();
  Held& held = **found;
  const std::string store_name = held.store->name();
  if (held.store->read_only()) co_return Error{Errc::busy, "lvstore " + store_name + " is open read-only"};
  if (!held.store->list().empty()) co_return Error{Errc::busy, "lvstore " + store_name + " still holds lvols"};
  const std::string base = held.base;
  held.busy = true;
  auto closing = held.store->close();
  auto closed = co_await closing;
  (void)closed.ok();  // it goes, whatever state it was in
  held.store.reset();
  stores_.erase(store_name);
  auto wiping = wipe(base);
  auto wiped = co_await wiping;
  engine_.bdevs().release(base, store_user(store_name));
  if (!wiped) co_return std::move(wiped).error();
  co_return done();
}

Task<Outcome> LvolModule::wipe(std::string base) {
  auto found = engine_.bdevs().find(base);
  if (!found) co_return std::move(found).error();
  const bdev::Handle handle(*(*found)->bdev, engine_.management());
  bdev::Io io;
  io.type = bdev::IoType::write_zeroes;
  io.count_blocks = bdev::lvs::superblock_area_blocks * bdev::lvs::block_bytes / handle.info().block_size_bytes;
  auto zeroing = bdev::io_wait(handle, io);
  nvme::Status status = co_await zeroing;
  if (status.ok()) {
    bdev::Io flush;
    flush.type = bdev::IoType::flush;
    auto flushing = bdev::io_wait(handle, flush);
    status = co_await flushing;
  }
  if (!status.ok()) co_return Error{Errc::io, "wiping " + base + ": " + nvme::to_string(status)};
  co_return success();
}

Task<RpcResult> LvolModule::get_lvstores(JsonValue params) {
  Fields in(params);
  const auto uuid = in.uuid("uuid");
  const std::string name = in.string_or("lvs_name", "");
  if (auto error = in.error()) co_return *error;
  auto list = JsonValue::array();
  if (uuid || !name.empty()) {
    auto found = find(name, uuid);
    if (!found) co_return std::move(found).error();
    list.push(describe(**found));
    co_return list;
  }
  for (const auto& [key, held] : stores_) {
    if (!held->busy) list.push(describe(*held));
  }
  co_return list;
}

JsonValue LvolModule::describe(const Held& held) {
  const auto stats = held.store->stats();
  auto one = JsonValue::object();
  one.set("uuid", held.store->uuid().to_string())
      .set("name", held.store->name())
      .set("base_bdev", held.base)
      .set("total_data_clusters", stats.total_clusters)
      .set("free_clusters", stats.free_clusters)
      .set("block_size", bdev::lvs::block_bytes)
      .set("cluster_size", stats.cluster_bytes)
      .set("checksum_clusters", stats.checksum_clusters)
      .set("checksum_mismatches", stats.checksum_mismatch_count)
      .set("checksum_lost_records", stats.checksum_lost_records)
      .set("read_only", held.store->read_only());
  return one;
}

bool LvolModule::retire_lvols(Held& held) {
  std::vector<BdevRegistry::Entry*> entries;
  for (bdev::Lvol* lvol : held.store->list()) {
    auto found = engine_.bdevs().find(lvol_bdev_name(*held.store, lvol->name()));
    if (!found || (*found)->used()) return false;
    entries.push_back(*found);
  }
  for (BdevRegistry::Entry* entry : entries) {
    auto retired = engine_.bdevs().retire(*entry);
    BASALT_ASSERT(retired.ok());
  }
  return true;
}

Task<void> LvolModule::close_store(std::string name) {
  auto held = std::move(stores_.find(name)->second);
  stores_.erase(name);
  for (bdev::Lvol* lvol : held->store->list())
    engine_.bdevs().withdraw(lvol_bdev_name(*held->store, lvol->name()));
  auto closing = held->store->close();
  auto closed = co_await closing;
  // A store that had failed says so at every write; its next load tells what is there.
  (void)closed.ok();
  held->store.reset();
  engine_.bdevs().release(held->base, store_user(name));
}

// Reads only; the bdev may be a read-only one, and carries no loaded lvstore.
Task<RpcResult> LvolModule::fsck(JsonValue params) {
  Fields in(params);
  const std::string base = in.string("bdev_name");
  const bool dump = in.boolean_or("dump", false);
  if (auto error = in.error()) co_return *error;
  static constexpr std::string_view user = "basalt_lvstore_fsck";
  auto claimed = engine_.bdevs().claim(base, user);
  if (!claimed) co_return std::move(claimed).error();
  Reactor& home = engine_.management();
  auto checking = bdev::fsck(home, bdev::Handle(**claimed, home));
  const bdev::FsckReport report = co_await checking;
  engine_.bdevs().release(base, user);
  auto problems = JsonValue::array();
  for (const auto& problem : report.problems) {
    auto one = JsonValue::object();
    one.set("severity", problem.error ? "error" : "warning").set("message", problem.message);
    problems.push(std::move(one));
  }
  auto result = JsonValue::object();
  result.set("sound", report.sound())
      .set("name", report.name)
      .set("uuid", report.uuid.to_string())
      .set("generation", report.generation)
      .set("problems", std::move(problems))
      .set("text", bdev::fsck_text(report, dump));
  co_return result;
}

std::unique_ptr<Module> make_lvol(Engine& engine) {
  return std::make_unique<LvolModule>(engine);
}

}  // namespace basalt::rpc
