// SPDX-License-Identifier: Apache-2.0
// bdev_examine, bdev_lvol_*: thin stores on bdevs, and their volumes as bdevs named <store>/<volume>.
#include <map>

#include "bdev/handle.h"
#include "bdev/lvol/lvstore.h"
#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"
#include "ns/gate_record.h"

namespace basalt::rpc {
namespace {

constexpr uint64_t mib_bytes = uint64_t{1} << 20;

class LvolModule final : public Module {
 public:
  explicit LvolModule(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_examine", this, &LvolModule::examine);
    dispatcher.add("bdev_lvol_create_lvstore", this, &LvolModule::create_store);
    dispatcher.add("bdev_lvol_delete_lvstore", this, &LvolModule::delete_store);
    dispatcher.add("bdev_lvol_get_lvstores", this, &LvolModule::get_stores);
    dispatcher.add("bdev_lvol_create", this, &LvolModule::create);
    dispatcher.add("bdev_lvol_delete", this, &LvolModule::remove);
    dispatcher.add("bdev_lvol_get_lvols", this, &LvolModule::get_lvols);
  }

  Task<bool> stop_some() override {
    for (auto& [name, held] : stores_) {
      if (used_lvol(*held.store) != nullptr) continue;
      auto closing = close_store(name);
      co_await closing;
      co_return true;  // the map has changed
    }
    co_return false;
  }

 private:
  struct Held {
    std::unique_ptr<bdev::LvStore> store;
    std::string base;
  };

  static std::string alias_of(const bdev::LvStore& store, const bdev::Lvol& lvol) {
    return store.name() + "/" + lvol.name();
  }
  static std::string store_user(const std::string& base) { return "the lvstore on " + base; }

  BdevRegistry::Entry* used_lvol(bdev::LvStore& store) {
    for (bdev::Lvol* lvol : store.list()) {
      auto found = engine_.bdevs().find(alias_of(store, *lvol));
      if (found && (*found)->used()) return *found;
    }
    return nullptr;
  }

  // Nobody uses its lvols. A store that failed is let go as well: what it holds is told at its next loading.
  Task<Outcome> close_store(std::string name) {
    Held held = std::move(stores_.extract(name).mapped());
    for (bdev::Lvol* lvol : held.store->list()) {
      const std::string alias = alias_of(*held.store, *lvol);
      auto found = engine_.bdevs().find(alias);
      if (!found) continue;
      BASALT_ASSERT(engine_.bdevs().retire(**found).ok());
      engine_.bdevs().withdraw(alias);
    }
    auto closing = held.store->close();
    auto closed = co_await closing;
    held.store.reset();
    engine_.bdevs().release(held.base, store_user(held.base));
    co_return closed;
  }

  Outcome adopt(std::unique_ptr<bdev::LvStore> store, const std::string& base) {
    const std::string name = store->name();
    for (bdev::Lvol* lvol : store->list()) {
      const std::string alias = alias_of(*store, *lvol);
      if (auto reserved = engine_.bdevs().reserve(alias); !reserved) return reserved;
      engine_.bdevs().publish_foreign(alias, *lvol);
    }
    stores_[name] = {std::move(store), base};
    return success();
  }

  Task<RpcResult> examine(JsonValue params) {
    Fields in(params);
    const std::string base = in.string("name");
    if (auto error = in.error()) co_return *error;
    for (const auto& [name, held] : stores_) {
      if (held.base == base) co_return done();  // loaded already
    }
    auto claimed = engine_.bdevs().claim(base, store_user(base));
    if (!claimed) co_return std::move(claimed).error();
    auto loading = bdev::LvStore::load(engine_.management(), bdev::Handle(**claimed, engine_.management()));
    auto loaded = co_await loading;
    if (!loaded) {
      engine_.bdevs().release(base, store_user(base));
      // Nothing of ours on it: examined, and that is all.
      if (loaded.error().code == Errc::not_found) co_return done();
      co_return std::move(loaded).error();
    }
    if (stores_.contains((*loaded)->name())) {
      const std::string name = (*loaded)->name();
      auto closing = (*loaded)->close();
      co_await closing;
      loaded->reset();
      engine_.bdevs().release(base, store_user(base));
      co_return Error{Errc::exists, "an lvstore called " + name + " is loaded from " + stores_[name].base};
    }
    if (auto adopted = adopt(std::move(*loaded), base); !adopted) co_return std::move(adopted).error();
    co_return done();
  }

  Task<RpcResult> create_store(JsonValue params) {
    Fields in(params);
    const std::string base = in.string("bdev_name");
    bdev::LvStoreOptions options;
    options.name = in.string("lvs_name");
    options.cluster_bytes =
        static_cast<uint32_t>(in.natural_or("cluster_sz", mib_bytes, {.min = 65536, .max = 1u << 30}));
    options.clear = in.choice_or("clear_method", 1, {"none", "unmap", "write_zeroes"}) != 0;
    options.uuid = engine_.make_uuid();
    if (auto error = in.error()) co_return *error;
    if (stores_.contains(options.name)) {
      co_return Error{Errc::exists, "an lvstore called " + options.name + " is on " + stores_[options.name].base};
    }
    auto claimed = engine_.bdevs().claim(base, store_user(base));
    if (!claimed) co_return std::move(claimed).error();
    auto creating = bdev::LvStore::create(engine_.management(), bdev::Handle(**claimed, engine_.management()), options);
    auto created = co_await creating;
    if (!created) {
      engine_.bdevs().release(base, store_user(base));
      co_return std::move(created).error();
    }
    const std::string uuid = (*created)->uuid().to_string();
    if (auto adopted = adopt(std::move(*created), base); !adopted) co_return std::move(adopted).error();
    co_return JsonValue(uuid);
  }

  // By uuid or lvs_name, exactly one of them.
  Result<Held*> store_of(Fields& in, std::string_view uuid_field, std::optional<RpcError>& wrong) {
    const std::optional<Uuid> uuid = in.uuid(uuid_field);
    const std::string name = in.string_or("lvs_name", "");
    if (uuid.has_value() == !name.empty())
      in.refuse("lvs_name", "or " + std::string(uuid_field) + ": give exactly one");
    wrong = in.error();
    if (wrong) return Error{Errc::invalid_argument, wrong->message};
    for (auto& [held_name, held] : stores_) {
      if (uuid ? held.store->uuid() == *uuid : held_name == name) return &held;
    }
    return Error{Errc::not_found, "no lvstore " + (uuid ? uuid->to_string() : name)};
  }

  Task<RpcResult> delete_store(JsonValue params) {
    Fields in(params);
    std::optional<RpcError> wrong;
    auto found = store_of(in, "uuid", wrong);
    if (wrong) co_return *wrong;
    if (!found) co_return std::move(found).error();
    const std::string name = (*found)->store->name();
    const std::string base = (*found)->base;
    if (const size_t count = (*found)->store->list().size(); count > 0) {
      co_return Error{Errc::busy, "lvstore " + name + " still has " + std::to_string(count) + " lvols"};
    }
    auto closing = close_store(name);
    co_await closing;
    auto claimed = engine_.bdevs().claim(base, store_user(base));
    if (!claimed) co_return std::move(claimed).error();
    const bdev::Handle handle(**claimed, engine_.management());
    bdev::Io io;
    io.type = bdev::IoType::write_zeroes;
    io.fua = true;
    nvme::Status status = nvme::status::success;
    for (uint64_t at = 0; at < handle.info().count_blocks && status.ok(); at += io.count_blocks) {
      io.offset_blocks = at;
      io.count_blocks = static_cast<uint32_t>(std::min<uint64_t>(handle.info().count_blocks - at, 1u << 30));
      status = co_await bdev::io_wait(handle, io);
    }
    engine_.bdevs().release(base, store_user(base));
    if (!status.ok()) co_return Error{Errc::io, "clearing " + base + ": " + nvme::to_string(status)};
    co_return done();
  }

  Task<RpcResult> get_stores(JsonValue params) {
    Fields in(params);
    const std::optional<Uuid> uuid = in.uuid("uuid");
    const std::string name = in.string_or("lvs_name", "");
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    for (auto& [held_name, held] : stores_) {
      if ((uuid && held.store->uuid() != *uuid) || (!name.empty() && held_name != name)) continue;
      const bdev::LvStoreStats stats = held.store->stats();
      auto one = JsonValue::object();
      one.set("uuid", held.store->uuid().to_string())
          .set("name", held_name)
          .set("base_bdev", held.base)
          .set("total_data_clusters", stats.total_clusters)
          .set("free_clusters", stats.free_clusters)
          .set("block_size", 4096)
          .set("cluster_size", stats.cluster_bytes);
      list.push(std::move(one));
    }
    if (list.items().empty() && (uuid || !name.empty())) {
      co_return Error{Errc::not_found, "no lvstore " + (uuid ? uuid->to_string() : name)};
    }
    co_return list;
  }

  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    bdev::LvolOptions options;
    options.name = in.string("lvol_name");
    options.size_bytes = in.natural("size_in_mib", {.min = 1, .max = safe_integer_max / mib_bytes}) * mib_bytes;
    options.uuid = in.uuid("lvol_uuid").value_or(engine_.make_uuid());
    if (!in.boolean_or("thin_provision", true)) in.refuse("thin_provision", "must be true: lvols are thin");
    std::optional<RpcError> wrong;
    auto found = store_of(in, "uuid", wrong);
    if (wrong) co_return *wrong;
    if (!found) co_return std::move(found).error();
    bdev::LvStore& store = *(*found)->store;
    const std::string alias = store.name() + "/" + options.name;
    if (auto reserved = engine_.bdevs().reserve(alias); !reserved) co_return std::move(reserved).error();
    auto creating = store.create_lvol(options);
    auto created = co_await creating;
    if (!created) {
      engine_.bdevs().withdraw(alias);
      co_return std::move(created).error();
    }
    engine_.bdevs().publish_foreign(alias, **created);
    co_return JsonValue(alias);
  }

  Task<RpcResult> remove(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const std::optional<uint64_t> epoch = in.epoch_optional("epoch");
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "lvol");
    if (!found) co_return std::move(found).error();
    BdevRegistry::Entry* entry = *found;
    auto highest = ns::highest_epoch(entry->bdev->attribute());
    if (!highest) co_return std::move(highest).error();
    if (*highest > epoch.value_or(0)) {
      auto data = JsonValue::object();
      data.set("epoch", std::to_string(*highest));
      co_return RpcError{
          errc_to_code(Errc::fenced),
          entry->name + ": epoch " + std::to_string(*highest) + " drives it; a delete needs at least that",
          std::move(data)};
    }
    if (auto retired = engine_.bdevs().retire(*entry); !retired) co_return std::move(retired).error();
    const std::string alias = entry->name;
    const size_t slash = alias.find('/');
    auto deleting = stores_[alias.substr(0, slash)].store->delete_lvol(alias.substr(slash + 1));
    auto deleted = co_await deleting;
    if (!deleted) {
      engine_.bdevs().unretire(*entry);
      co_return std::move(deleted).error();
    }
    engine_.bdevs().withdraw(alias);
    co_return done();
  }

  Task<RpcResult> get_lvols(JsonValue params) {
    Fields in(params);
    const std::optional<Uuid> uuid = in.uuid("lvs_uuid");
    const std::string name = in.string_or("lvs_name", "");
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    for (auto& [held_name, held] : stores_) {
      if ((uuid && held.store->uuid() != *uuid) || (!name.empty() && held_name != name)) continue;
      for (bdev::Lvol* lvol : held.store->list()) {
        auto highest = ns::highest_epoch(lvol->attribute());
        auto lvs = JsonValue::object();
        lvs.set("name", held_name).set("uuid", held.store->uuid().to_string());
        auto one = JsonValue::object();
        one.set("alias", alias_of(*held.store, *lvol))
            .set("uuid", lvol->uuid().to_string())
            .set("name", lvol->name())
            .set("is_thin_provisioned", true)
            .set("lvs", std::move(lvs))
            .set("num_blocks", lvol->info().count_blocks)
            .set("allocated_bytes", lvol->allocated_bytes())
            .set("epoch", std::to_string(highest ? *highest : UINT64_MAX));
        list.push(std::move(one));
      }
    }
    co_return list;
  }

  Engine& engine_;
  std::map<std::string, Held> stores_;  // by name
};

}  // namespace

std::unique_ptr<Module> make_lvol(Engine& engine) {
  return std::make_unique<LvolModule>(engine);
}

}  // namespace basalt::rpc
