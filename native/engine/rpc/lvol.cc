// SPDX-License-Identifier: Apache-2.0
// bdev_lvol_*, bdev_examine: lvstores and their lvols. A lvol's bdev is named <lvs_name>/<lvol_name>.
#include <set>

#include "bdev/lvol/lvstore.h"
#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"
#include "ns/gate_record.h"

namespace basalt::rpc {
namespace {

constexpr Duration space_interval = seconds(2);
constexpr uint64_t mib_bytes = 1 << 20;

std::string store_user(const std::string& name) {
  return "lvstore " + name;
}

class Lvol final : public Module {
 public:
  explicit Lvol(Engine& engine) : engine_(engine) {
    space_timer_.module = this;
    space_timer_.run = [](Work* work) { static_cast<SpaceTimer*>(work)->module->look_at_space(); };
  }

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_examine", this, &Lvol::examine);
    dispatcher.add("bdev_lvol_create_lvstore", this, &Lvol::create_lvstore);
    dispatcher.add("bdev_lvol_delete_lvstore", this, &Lvol::delete_lvstore);
    dispatcher.add("bdev_lvol_get_lvstores", this, &Lvol::get_lvstores);
    dispatcher.add("bdev_lvol_create", this, &Lvol::create_lvol);
    dispatcher.add("bdev_lvol_delete", this, &Lvol::delete_lvol);
    dispatcher.add("bdev_lvol_get_lvols", this, &Lvol::get_lvols);
  }

  void abort() override { engine_.management().cancel(&space_timer_); }

  Task<bool> stop_some() override {
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

 private:
  struct Held {
    std::unique_ptr<bdev::LvStore> store;
    std::string base;
    uint64_t reported_free_clusters = 0;
    bool busy = false;  // being closed or deleted
  };
  struct SpaceTimer : Timer {
    Lvol* module = nullptr;
  };

  static std::string bdev_name(const bdev::LvStore& store, const std::string& lvol) {
    return store.name() + "/" + lvol;
  }

  Result<Held*> find(const std::string& name, const std::optional<Uuid>& uuid) {
    for (const auto& [key, held] : stores_) {
      const bool is_it = uuid ? held->store->uuid() == *uuid : key == name;
      if (is_it && held->busy) return Error{Errc::busy, "lvstore " + key + " is being deleted"};
      if (is_it) return held.get();
    }
    return Error{Errc::not_found, "lvstore " + (uuid ? uuid->to_string() : name) + " does not exist"};
  }

  // Exactly one of the two names the store.
  static void need_one(Fields& in, std::string_view name_field, std::string_view uuid_field) {
    if (in.has(name_field) == in.has(uuid_field)) {
      in.refuse(name_field, "give exactly one of " + std::string(name_field) + " and " + std::string(uuid_field));
    }
  }

  Task<RpcResult> create_lvstore(JsonValue params) {
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

  void adopt(std::unique_ptr<bdev::LvStore> store, const std::string& base) {
    auto held = std::make_unique<Held>();
    held->store = std::move(store);
    held->base = base;
    held->reported_free_clusters = held->store->stats().free_clusters;
    const std::string name = held->store->name();
    stores_.emplace(name, std::move(held));
    if (!space_timer_.armed() && !engine_.stopping()) engine_.management().arm_after(&space_timer_, space_interval);
  }

  Task<RpcResult> examine(JsonValue params) {
    Fields in(params);
    const std::string base = in.string("name");
    if (auto error = in.error()) co_return *error;
    for (const auto& [name, held] : stores_) {
      if (held->base == base) co_return done();
    }
    static constexpr std::string_view user = "bdev_examine";
    auto claimed = engine_.bdevs().claim(base, user);
    if (!claimed) co_return std::move(claimed).error();
    Reactor& home = engine_.management();
    auto loading = bdev::LvStore::load(home, bdev::Handle(**claimed, home));
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

  // The claim of the base becomes the store's; every lvol gets its name. All or nothing.
  Task<Outcome> publish_all(std::unique_ptr<bdev::LvStore> store, std::string base) {
    BdevRegistry& bdevs = engine_.bdevs();
    std::vector<std::string> reserved;
    Outcome outcome = success();
    if (stores_.contains(store->name()) || making_.contains(store->name())) {
      outcome = Error{Errc::exists, "bdev " + base + " carries lvstore " + store->name() + ", a name that is taken"};
    }
    const auto lvols = store->list();
    for (size_t i = 0; i < lvols.size() && outcome.ok(); i++) {
      const std::string name = bdev_name(*store, lvols[i]->name());
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

  Task<RpcResult> delete_lvstore(JsonValue params) {
    Fields in(params);
    const auto uuid = in.uuid("uuid");
    const std::string name = in.string_or("lvs_name", "");
    need_one(in, "lvs_name", "uuid");
    if (auto error = in.error()) co_return *error;
    auto found = find(name, uuid);
    if (!found) co_return std::move(found).error();
    Held& held = **found;
    const std::string store_name = held.store->name();
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

  // Without its superblocks a disk counts as empty.
  Task<Outcome> wipe(std::string base) {
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

  Task<RpcResult> get_lvstores(JsonValue params) {
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

  static JsonValue describe(const Held& held) {
    const auto stats = held.store->stats();
    auto one = JsonValue::object();
    one.set("uuid", held.store->uuid().to_string())
        .set("name", held.store->name())
        .set("base_bdev", held.base)
        .set("total_data_clusters", stats.total_clusters)
        .set("free_clusters", stats.free_clusters)
        .set("block_size", bdev::lvs::block_bytes)
        .set("cluster_size", stats.cluster_bytes);
    return one;
  }

  Task<RpcResult> create_lvol(JsonValue params) {
    Fields in(params);
    bdev::LvolOptions options;
    options.name = in.string("lvol_name");
    if (options.name.find('/') != std::string::npos) in.refuse("lvol_name", "must not contain a slash");
    const uint64_t size_mib = in.natural("size_in_mib", {.min = 1, .max = uint64_t{1} << 33});
    options.size_bytes = size_mib * mib_bytes;
    const std::string store_name = in.string_or("lvs_name", "");
    const auto store_uuid = in.uuid("uuid");
    need_one(in, "lvs_name", "uuid");
    const bool thin = in.boolean_or("thin_provision", false);
    options.uuid = in.uuid("lvol_uuid").value_or(engine_.make_uuid());
    if (auto error = in.error()) co_return *error;
    auto found = find(store_name, store_uuid);
    if (!found) co_return std::move(found).error();
    bdev::LvStore& store = *(*found)->store;
    const auto stats = store.stats();
    if (!thin && options.size_bytes > stats.free_clusters * stats.cluster_bytes) {
      co_return Error{Errc::no_space, "lvstore " + store.name() + " has " + std::to_string(stats.free_clusters) +
                                          " free clusters of " + std::to_string(stats.cluster_bytes) + " bytes"};
    }
    const std::string name = bdev_name(store, options.name);
    if (auto reserved = engine_.bdevs().reserve(name); !reserved) co_return std::move(reserved).error();
    auto creating = store.create_lvol(std::move(options));
    auto made = co_await creating;
    if (!made) {
      engine_.bdevs().withdraw(name);
      co_return std::move(made).error();
    }
    engine_.bdevs().publish_foreign(name, **made);
    co_return JsonValue(name);
  }

  Task<RpcResult> delete_lvol(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const uint64_t epoch = in.epoch_optional("epoch").value_or(0);
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "lvol");
    if (!found) co_return std::move(found).error();
    BdevRegistry::Entry& entry = **found;
    auto recorded = ns::highest_epoch(entry.bdev->attribute());
    if (!recorded) co_return std::move(recorded).error();
    if (*recorded > epoch) {
      auto data = JsonValue::object();
      data.set("epoch", std::to_string(*recorded));
      RpcError fenced{errc_to_code(Errc::fenced), name + " obeys epoch " + std::to_string(*recorded), std::move(data)};
      co_return fenced;
    }
    const std::string full_name = entry.name;
    const size_t slash = full_name.find('/');
    auto store = find(full_name.substr(0, slash), std::nullopt);
    if (!store) co_return std::move(store).error();
    if (auto retired = engine_.bdevs().retire(entry); !retired) co_return std::move(retired).error();
    auto deleting = (*store)->store->delete_lvol(full_name.substr(slash + 1));
    auto deleted = co_await deleting;
    if (!deleted) {
      engine_.bdevs().unretire(entry);
      co_return std::move(deleted).error();
    }
    engine_.bdevs().withdraw(full_name);
    co_return done();
  }

  Task<RpcResult> get_lvols(JsonValue params) {
    Fields in(params);
    const auto uuid = in.uuid("lvs_uuid");
    const std::string name = in.string_or("lvs_name", "");
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    if (uuid || !name.empty()) {
      auto found = find(name, uuid);
      if (!found) co_return std::move(found).error();
      describe_lvols(**found, &list);
      co_return list;
    }
    for (const auto& [key, held] : stores_) {
      if (!held->busy) describe_lvols(*held, &list);
    }
    co_return list;
  }

  static void describe_lvols(const Held& held, JsonValue* list) {
    for (const bdev::Lvol* lvol : held.store->list()) {
      auto lvs = JsonValue::object();
      lvs.set("name", held.store->name()).set("uuid", held.store->uuid().to_string());
      // A record that cannot be read keeps its gate shut: no epoch is high enough.
      const auto epoch = ns::highest_epoch(lvol->attribute());
      auto one = JsonValue::object();
      one.set("alias", bdev_name(*held.store, lvol->name()))
          .set("uuid", lvol->uuid().to_string())
          .set("name", lvol->name())
          .set("is_thin_provisioned", true)
          .set("lvs", std::move(lvs))
          .set("num_blocks", lvol->info().count_blocks)
          .set("allocated_bytes", lvol->allocated_bytes())
          .set("epoch", std::to_string(epoch.ok() ? epoch.value() : UINT64_MAX));
      list->push(std::move(one));
    }
  }

  // All lvols of the store retire, or none.
  bool retire_lvols(Held& held) {
    std::vector<BdevRegistry::Entry*> entries;
    for (bdev::Lvol* lvol : held.store->list()) {
      auto found = engine_.bdevs().find(bdev_name(*held.store, lvol->name()));
      if (!found || (*found)->used()) return false;
      entries.push_back(*found);
    }
    for (BdevRegistry::Entry* entry : entries) {
      auto retired = engine_.bdevs().retire(*entry);
      BASALT_ASSERT(retired.ok());
    }
    return true;
  }

  Task<void> close_store(std::string name) {
    auto held = std::move(stores_.find(name)->second);
    stores_.erase(name);
    for (bdev::Lvol* lvol : held->store->list())
      engine_.bdevs().withdraw(bdev_name(*held->store, lvol->name()));
    auto closing = held->store->close();
    auto closed = co_await closing;
    // A store that had failed says so at every write; its next load tells what is there.
    (void)closed.ok();
    held->store.reset();
    engine_.bdevs().release(held->base, store_user(name));
  }

  // Thin volumes fill by writes, so space is looked at now and then; told only when it changed.
  void look_at_space() {
    for (const auto& [name, held] : stores_) {
      if (held->busy) continue;
      const auto stats = held->store->stats();
      if (stats.free_clusters == held->reported_free_clusters) continue;
      held->reported_free_clusters = stats.free_clusters;
      auto event = JsonValue::object();
      event.set("lvs_name", name)
          .set("free_clusters", stats.free_clusters)
          .set("total_data_clusters", stats.total_clusters);
      engine_.events().emit("lvstore_space", std::move(event));
    }
    if (!stores_.empty()) engine_.management().arm_after(&space_timer_, space_interval);
  }

  Engine& engine_;
  SpaceTimer space_timer_;
  std::map<std::string, std::unique_ptr<Held>> stores_;
  std::set<std::string> making_;
};

}  // namespace

std::unique_ptr<Module> make_lvol(Engine& engine) {
  return std::make_unique<Lvol>(engine);
}

}  // namespace basalt::rpc
