// SPDX-License-Identifier: Apache-2.0
// bdev_lvol_create, _snapshot, _clone, _delete, _resize, _rename, _set_read_only, _inflate, _decouple_parent,
// _get_lvols; basalt_lvol_scrub.
#include "base/hex.h"
#include "engine/rpc/lvol_module.h"
#include "ns/gate_record.h"

namespace basalt::rpc {
namespace {

constexpr uint64_t mib_bytes = 1 << 20;
constexpr NaturalRange size_in_mib_range{.min = 1, .max = uint64_t{1} << 33};

std::string lvol_name(Fields& in, std::string_view field) {
  std::string name = in.string(field);
  if (name.find('/') != std::string::npos) in.refuse(field, "must not contain a slash");
  return name;
}

RpcError refused(Error error) {
  return {errc_to_code(error.code), std::move(error.message), {}};
}

}  // namespace

Task<RpcResult> LvolModule::create_lvol(JsonValue params) {
  Fields in(params);
  bdev::LvolOptions options;
  options.name = lvol_name(in, "lvol_name");
  const uint64_t size_mib = in.natural("size_in_mib", size_in_mib_range);
  options.size_bytes = size_mib * mib_bytes;
  const std::string store_name = in.string_or("lvs_name", "");
  const auto store_uuid = in.uuid("uuid");
  need_one(in, "lvs_name", "uuid");
  const bool thin = in.boolean_or("thin_provision", false);
  options.checksums = in.boolean_or("checksums", false);
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
  const std::string name = lvol_bdev_name(store, options.name);
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

// What changes an lvol obeys its gate: an epoch below the recorded one is fenced.
std::optional<RpcError> LvolModule::subject(const std::string& name, uint64_t epoch, Subject* out) {
  auto found = engine_.bdevs().find(name, "lvol");
  if (!found) return refused(std::move(found).error());
  out->entry = *found;
  auto recorded = ns::highest_epoch(out->entry->bdev->attribute());
  if (!recorded) return refused(std::move(recorded).error());
  if (*recorded > epoch) {
    auto data = JsonValue::object();
    data.set("epoch", std::to_string(*recorded));
    return RpcError{errc_to_code(Errc::fenced), name + " obeys epoch " + std::to_string(*recorded), std::move(data)};
  }
  const size_t slash = out->entry->name.find('/');
  auto store = find(out->entry->name.substr(0, slash), std::nullopt);
  if (!store) return refused(std::move(store).error());
  out->held = *store;
  out->name = out->entry->name.substr(slash + 1);
  return std::nullopt;
}

Task<RpcResult> LvolModule::snapshot(JsonValue params) {
  return derive(std::move(params), true);
}

Task<RpcResult> LvolModule::clone(JsonValue params) {
  return derive(std::move(params), false);
}

Task<RpcResult> LvolModule::derive(JsonValue params, bool snapshot) {
  Fields in(params);
  const std::string source = in.string(snapshot ? "lvol_name" : "snapshot_name");
  bdev::LvolOptions options;
  options.name = lvol_name(in, snapshot ? "snapshot_name" : "clone_name");
  options.uuid = in.uuid(snapshot ? "snapshot_uuid" : "clone_uuid").value_or(engine_.make_uuid());
  const uint64_t epoch = in.epoch_optional("epoch").value_or(0);
  if (auto error = in.error()) co_return *error;
  Subject of;
  if (auto error = subject(source, epoch, &of)) co_return *error;
  bdev::LvStore& store = *of.held->store;
  const std::string name = lvol_bdev_name(store, options.name);
  if (auto reserved = engine_.bdevs().reserve(name); !reserved) co_return std::move(reserved).error();
  auto deriving =
      snapshot ? store.snapshot_lvol(of.name, std::move(options)) : store.clone_lvol(of.name, std::move(options));
  auto made = co_await deriving;
  if (!made) {
    engine_.bdevs().withdraw(name);
    co_return std::move(made).error();
  }
  engine_.bdevs().publish_foreign(name, **made);
  co_return JsonValue(name);
}

Outcome LvolModule::snapshot_begins(bdev::LvStore& store, const std::string& name) {
  return engine_.bdevs().reserve(lvol_bdev_name(store, name));
}

void LvolModule::snapshot_ended(bdev::LvStore& store, const std::string& name, bdev::Lvol* made) {
  const std::string bdev_name = lvol_bdev_name(store, name);
  if (made == nullptr) return engine_.bdevs().withdraw(bdev_name);
  engine_.bdevs().publish_foreign(bdev_name, *made);
}

Task<RpcResult> LvolModule::delete_lvol(JsonValue params) {
  Fields in(params);
  const std::string name = in.string("name");
  const uint64_t epoch = in.epoch_optional("epoch").value_or(0);
  if (auto error = in.error()) co_return *error;
  Subject of;
  if (auto error = subject(name, epoch, &of)) co_return *error;
  const std::string full_name = of.entry->name;
  if (auto retired = engine_.bdevs().retire(*of.entry); !retired) co_return std::move(retired).error();
  auto deleting = of.held->store->delete_lvol(of.name);
  auto deleted = co_await deleting;
  if (!deleted) {
    engine_.bdevs().unretire(*of.entry);
    co_return std::move(deleted).error();
  }
  engine_.bdevs().withdraw(full_name);
  co_return done();
}

// Growing is possible while the lvol is in use; its users see it when they ask again.
Task<RpcResult> LvolModule::resize(JsonValue params) {
  Fields in(params);
  const std::string name = in.string("name");
  const uint64_t size_bytes = in.natural("size_in_mib", size_in_mib_range) * mib_bytes;
  const uint64_t epoch = in.epoch_optional("epoch").value_or(0);
  if (auto error = in.error()) co_return *error;
  Subject of;
  if (auto error = subject(name, epoch, &of)) co_return *error;
  const bdev::BdevInfo& info = of.entry->bdev->info();
  if (size_bytes < info.count_blocks * info.block_size_bytes && of.entry->used()) {
    co_return Error{Errc::busy, "bdev " + of.entry->name + " cannot shrink: it is in use by " + of.entry->first_user()};
  }
  auto resizing = of.held->store->resize_lvol(of.name, size_bytes);
  auto resized = co_await resizing;
  if (!resized) co_return std::move(resized).error();
  co_return done();
}

Task<RpcResult> LvolModule::rename(JsonValue params) {
  Fields in(params);
  const std::string old_name = in.string("old_name");
  const std::string new_name = lvol_name(in, "new_name");
  const uint64_t epoch = in.epoch_optional("epoch").value_or(0);
  if (auto error = in.error()) co_return *error;
  Subject of;
  if (auto error = subject(old_name, epoch, &of)) co_return *error;
  BdevRegistry& bdevs = engine_.bdevs();
  bdev::LvStore& store = *of.held->store;
  const std::string old_bdev = of.entry->name;
  const std::string new_bdev = lvol_bdev_name(store, new_name);
  if (new_bdev == old_bdev) co_return done();
  if (auto reserved = bdevs.reserve(new_bdev); !reserved) co_return std::move(reserved).error();
  if (auto retired = bdevs.retire(*of.entry); !retired) {
    bdevs.withdraw(new_bdev);
    co_return std::move(retired).error();
  }
  bdev::Bdev& lvol = *of.entry->bdev;
  auto renaming = store.rename_lvol(of.name, new_name);
  auto renamed = co_await renaming;
  if (!renamed) {
    bdevs.unretire(*of.entry);
    bdevs.withdraw(new_bdev);
    co_return std::move(renamed).error();
  }
  bdevs.withdraw(old_bdev);
  bdevs.publish_foreign(new_bdev, lvol);
  co_return done();
}

Task<RpcResult> LvolModule::set_read_only(JsonValue params) {
  return change(std::move(params), &bdev::LvStore::set_read_only);
}

Task<RpcResult> LvolModule::inflate(JsonValue params) {
  return change(std::move(params), &bdev::LvStore::inflate_lvol);
}

Task<RpcResult> LvolModule::decouple_parent(JsonValue params) {
  return change(std::move(params), &bdev::LvStore::decouple_lvol);
}

Task<RpcResult> LvolModule::change(JsonValue params, Task<Outcome> (bdev::LvStore::*method)(std::string)) {
  Fields in(params);
  const std::string name = in.string("name");
  const uint64_t epoch = in.epoch_optional("epoch").value_or(0);
  if (auto error = in.error()) co_return *error;
  Subject of;
  if (auto error = subject(name, epoch, &of)) co_return *error;
  auto changing = (*of.held->store.*method)(of.name);
  auto changed = co_await changing;
  if (!changed) co_return std::move(changed).error();
  co_return done();
}

// Reads what the lvol holds (of a range, when one is given) and answers when it is through; I/O goes on meanwhile.
// Writes nothing: what was found is repaired by the raid above, when it reads or scrubs.
Task<RpcResult> LvolModule::scrub(JsonValue params) {
  Fields in(params);
  const std::string name = in.string("name");
  constexpr NaturalRange blocks_range{.min = 0, .max = uint64_t{1} << 52};
  bdev::LvolScrubOptions options;
  options.bytes_per_s = in.natural_or("bytes_per_s", 0, {.min = 0, .max = uint64_t{1} << 40});
  options.first_block = in.natural_or("first_block", 0, blocks_range);
  options.count_blocks = in.natural_or("num_blocks", blocks_range.max, blocks_range);
  if (auto error = in.error()) co_return *error;
  Subject of;
  if (auto error = subject(name, UINT64_MAX, &of)) co_return *error;
  auto scrubbing = of.held->store->scrub_lvol(of.name, options);
  auto scrubbed = co_await scrubbing;
  if (!scrubbed) co_return std::move(scrubbed).error();
  auto result = JsonValue::object();
  result.set("checked_blocks", scrubbed->checked_blocks).set("bad_blocks", scrubbed->bad_blocks);
  co_return result;
}

Task<RpcResult> LvolModule::get_lvols(JsonValue params) {
  Fields in(params);
  const auto uuid = in.uuid("lvs_uuid");
  const std::string name = in.string_or("lvs_name", "");
  const bool with_sizes = in.boolean_or("sizes", false);
  const bool with_notes = in.boolean_or("notes", false);
  if (auto error = in.error()) co_return *error;
  std::vector<std::string> stores;
  if (uuid || !name.empty()) {
    auto found = find(name, uuid);
    if (!found) co_return std::move(found).error();
    stores.push_back((*found)->store->name());
  } else {
    for (const auto& [key, held] : stores_) {
      if (!held->busy) stores.push_back(key);
    }
  }
  auto list = JsonValue::array();
  for (const std::string& store : stores) {
    auto found = find(store, std::nullopt);
    if (!found) continue;  // deleted while sizes were counted
    Held& held = **found;
    std::vector<std::string> lvols;
    for (const bdev::Lvol* lvol : held.store->list())
      lvols.push_back(lvol->name());
    for (const std::string& lvol_name : lvols) {
      std::optional<bdev::LvolSizes> sizes;
      if (with_sizes) {
        auto again = find(store, std::nullopt);
        if (!again) break;
        auto counting = (*again)->store->lvol_sizes(lvol_name);
        auto counted = co_await counting;
        if (!counted) continue;
        sizes = *counted;
      }
      auto still = find(store, std::nullopt);
      const bdev::Lvol* lvol = still ? (*still)->store->find(lvol_name) : nullptr;
      if (lvol == nullptr) continue;
      JsonValue one = describe_lvol(**still, *lvol);
      if (with_notes) {
        const auto note = ns::decode_note(lvol->attribute());
        one.set("note", note.ok() ? to_hex(note.value()) : std::string());
      }
      if (sizes) one.set("exclusive_bytes", sizes->exclusive_bytes).set("shared_bytes", sizes->shared_bytes);
      list.push(std::move(one));
    }
  }
  co_return list;
}

JsonValue LvolModule::describe_lvol(const Held& held, const bdev::Lvol& lvol) {
  auto lvs = JsonValue::object();
  lvs.set("name", held.store->name()).set("uuid", held.store->uuid().to_string());
  // A record that cannot be read keeps its gate shut: no epoch is high enough.
  const auto epoch = ns::highest_epoch(lvol.attribute());
  const bdev::Lvol* base = lvol.base();
  auto clones = JsonValue::array();
  for (const bdev::Lvol* clone : lvol.clones())
    clones.push(JsonValue(clone->name()));
  auto one = JsonValue::object();
  one.set("alias", lvol_bdev_name(*held.store, lvol.name()))
      .set("uuid", lvol.uuid().to_string())
      .set("name", lvol.name())
      .set("is_thin_provisioned", true)
      .set("is_snapshot", lvol.is_snapshot())
      .set("is_clone", lvol.depth() > 0)
      .set("is_read_only", lvol.read_only())
      .set("checksums", lvol.checksums())
      .set("base_snapshot", base == nullptr ? JsonValue() : JsonValue(base->name()))
      .set("clones", std::move(clones))
      .set("lvs", std::move(lvs))
      .set("num_blocks", lvol.info().count_blocks)
      .set("num_allocated_clusters", lvol.allocated_bytes() / held.store->stats().cluster_bytes)
      .set("allocated_bytes", lvol.allocated_bytes())
      .set("epoch", std::to_string(epoch.ok() ? epoch.value() : UINT64_MAX));
  return one;
}

}  // namespace basalt::rpc
