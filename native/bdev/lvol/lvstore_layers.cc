// SPDX-License-Identifier: Apache-2.0
// The tree of layers as its users see it: create, snapshot, clone, delete, resize, rename. One at a time; each is one
// journal block, written and flushed before it counts.
#include <algorithm>

#include "bdev/lvol/lvstore_control.h"

namespace basalt::bdev {
namespace {

Error bad_name() {
  return {Errc::invalid_argument, "name: 1 to 63 letters, digits, '_', '.', '-', the first a letter or digit"};
}
Error no_such(const std::string& name) {
  return {Errc::not_found, name + ": no such lvol"};
}
Error too_deep(const std::string& name) {
  return {Errc::unsupported,
          name + ": has " + std::to_string(lvs::layer_depth_max) + " layers below it already, the most there may be"};
}
Error is_read_only(const std::string& name) {
  return {Errc::invalid_argument, name + ": is read-only"};
}
constexpr lvs::Record record_of(lvs::RecordType type, uint32_t id) {
  return {.type = type, .lvol_id = id, .uuid = {}, .text = {}};
}

}  // namespace

Result<lvs::Layer*> LvStore::writable(const std::string& name) {
  const Lvol* lvol = find(name);
  if (lvol == nullptr) return no_such(name);
  if (lvol->read_only()) return is_read_only(name);
  return lvol->layer_;
}

Outcome LvStore::new_name_free(const LvolOptions& options) const {
  if (!lvs::name_valid(options.name)) return bad_name();
  if (by_name_.contains(options.name)) return Error{Errc::exists, options.name + ": the name is taken"};
  if (by_uuid_.contains(options.uuid)) return Error{Errc::exists, options.uuid.to_string() + ": the uuid is taken"};
  return success();
}

Result<lvs::Layer*> LvStore::make_layer(uint64_t count_blocks) {
  uint32_t page;
  if (!pages_.take(page)) return Error{Errc::no_space, name_ + ": no metadata page is left"};
  Layer* layer = insert_layer(lvol_id_next_, count_blocks);
  layer->page.number = page;
  return layer;
}

void LvStore::drop_unpublished(uint32_t id) {
  Layer* layer = by_id(id);
  if (layer != nullptr && !layer->published) erase_layer(layer);
}

Task<Result<Lvol*>> LvStore::create_lvol(LvolOptions options) {
  if (!lvs::name_valid(options.name)) co_return bad_name();
  Outcome sound = size_sound(options.size_bytes);
  if (!sound) co_return std::move(sound).error();
  if (options.uuid.is_zero()) options.uuid = random_uuid();
  Busy busy(*this);
  co_await control_.take();
  Turn turn(*this);
  Outcome free = new_name_free(options);
  if (!free) co_return std::move(free).error();
  if (options.checksums) {
    Outcome enabled = co_await enable_checksums();
    if (!enabled) co_return std::move(enabled).error();
  }
  Result<Layer*> made = make_layer(options.size_bytes / lvs::block_bytes);
  if (!made) co_return std::move(made).error();
  const uint32_t id = (*made)->id;
  lvs::Record records[2] = {record_of(lvs::RecordType::lvol_create, id), record_of(lvs::RecordType::set_flags, id)};
  records[0].size_bytes = options.size_bytes;
  records[0].uuid = options.uuid;
  records[0].text = options.name;
  records[1].flags = lvs::layer_checksums;
  Outcome outcome = co_await commit({records, size_t{1} + options.checksums}, true);
  if (!outcome) {
    drop_unpublished(id);
    co_return std::move(outcome).error();
  }
  co_return by_id(id)->lvol.get();
}

// The bits in the superblock, before the first record that older code would not know.
Task<Outcome> LvStore::enable(uint64_t features) {
  if ((incompatible_ & features) == features) co_return success();
  while (checkpointing_)
    co_await checkpoint_ended_.wait();
  if (failed() || closing_) co_return Error{Errc::io, name_ + ": the lvstore has failed or is closing"};
  incompatible_ |= features;
  checkpointing_ = true;
  background_count_++;
  co_await checkpoint_in_background();
  if (failed()) co_return Error{Errc::io, name_ + ": the lvstore has failed"};
  co_return success();
}

// Nothing is in flight on the lvol, and nothing starts, until cut_ended().
Task<void> LvStore::cut(Lvol* lvol, Op* hold) {
  lvol->cutting_ = true;
  while (lvol->attributes_in_flight_ > 0)
    co_await lvol->attributes_changed_.wait();
  co_await lvol->hold(*hold, 0, UINT32_MAX);
}

void LvStore::cut_ended(Lvol* lvol, Op* hold) {
  lvol->release(*hold);
  lvol->cutting_ = false;
  lvol->attributes_changed_.wake_all();
}

Task<Outcome> LvStore::prepare_snapshot(std::string name) {
  Busy busy(*this);
  co_await control_.take();
  Turn turn(*this);
  Result<Layer*> source = writable(name);
  if (!source) co_return std::move(source).error();
  if ((*source)->depth() >= lvs::layer_depth_max) co_return too_deep(name);
  Outcome outcome = co_await enable_layers();
  co_return outcome;
}

Task<Result<Lvol*>> LvStore::snapshot_lvol(std::string name, LvolOptions options, std::function<bool()> may_begin) {
  if (options.uuid.is_zero()) options.uuid = random_uuid();
  Busy busy(*this);
  co_await control_.take();
  Turn turn(*this);
  Result<Layer*> source = writable(name);
  if (!source) co_return std::move(source).error();
  Outcome free = new_name_free(options);
  if (!free) co_return std::move(free).error();
  if ((*source)->depth() >= lvs::layer_depth_max) co_return too_deep(name);
  Outcome outcome = co_await enable_layers();
  if (!outcome) co_return std::move(outcome).error();
  Result<Layer*> head = make_layer((*source)->count_blocks);
  if (!head) co_return std::move(head).error();
  const uint32_t head_id = (*head)->id;
  const uint32_t id = (*source)->id;
  lvs::Record record = record_of(lvs::RecordType::snapshot, id);
  record.other_id = head_id;
  record.flags = lvs::layer_read_only | lvs::layer_snapshot;
  record.uuid = options.uuid;
  record.text = options.name;
  Lvol* lvol = (*source)->lvol.get();
  if (may_begin && !may_begin()) {
    drop_unpublished(head_id);
    co_return Error{Errc::fenced, name + ": another writer has it"};
  }
  Op hold;
  co_await cut(lvol, &hold);
  outcome = co_await commit({&record, 1}, true);
  cut_ended(lvol, &hold);
  if (!outcome) {
    drop_unpublished(head_id);
    co_return std::move(outcome).error();
  }
  co_return by_id(id)->lvol.get();
}

Task<Result<Lvol*>> LvStore::clone_lvol(std::string name, LvolOptions options) {
  if (options.uuid.is_zero()) options.uuid = random_uuid();
  Busy busy(*this);
  co_await control_.take();
  Turn turn(*this);
  Lvol* lvol = find(name);
  if (lvol == nullptr) co_return no_such(name);
  Outcome free = new_name_free(options);
  if (!free) co_return std::move(free).error();
  if (lvol->depth() >= lvs::layer_depth_max) co_return too_deep(name);
  Outcome outcome = co_await enable_layers();
  if (!outcome) co_return std::move(outcome).error();
  // Of a writable lvol: what it is now becomes a hidden layer below both.
  const bool cuts = !lvol->read_only();
  const uint32_t source_id = lvol->layer_->id;
  Result<Layer*> clone = make_layer(lvol->layer_->count_blocks);
  if (!clone) co_return std::move(clone).error();
  const uint32_t id = (*clone)->id;
  lvs::Record records[2] = {record_of(lvs::RecordType::snapshot, source_id), record_of(lvs::RecordType::clone, id)};
  records[1].other_id = source_id;
  records[1].uuid = options.uuid;
  records[1].text = options.name;
  if (!cuts) {
    outcome = co_await commit({&records[1], 1}, true);
  } else {
    Result<Layer*> head = make_layer(lvol->layer_->count_blocks);
    if (!head) {
      drop_unpublished(id);
      co_return std::move(head).error();
    }
    const uint32_t head_id = (*head)->id;
    records[0].other_id = head_id;
    records[0].flags = lvs::layer_read_only | lvs::layer_hidden;
    Op hold;
    co_await cut(lvol, &hold);
    outcome = co_await commit(records, true);
    cut_ended(lvol, &hold);
    drop_unpublished(head_id);
  }
  if (!outcome) {
    drop_unpublished(id);
    co_return std::move(outcome).error();
  }
  co_return by_id(id)->lvol.get();
}

Task<Outcome> LvStore::delete_lvol(std::string name) {
  Busy busy(*this);
  co_await control_.take();
  Turn turn(*this);
  Lvol* lvol = find(name);
  if (lvol == nullptr) co_return no_such(name);
  if (lvol->busy()) co_return Error{Errc::busy, name + ": has I/O in flight"};
  lvol->deleting_ = true;
  const uint32_t id = lvol->layer_->id;
  const bool needed = lvol->layer_->child_count > 0;
  lvs::Record record = record_of(needed ? lvs::RecordType::set_flags : lvs::RecordType::lvol_delete, id);
  record.flags = lvs::layer_read_only | lvs::layer_hidden;
  Outcome outcome = co_await commit({&record, 1}, true);
  // Gone when the record was written.
  if (Layer* left = by_id(id); left != nullptr && left->lvol != nullptr) left->lvol->deleting_ = false;
  if (outcome) {
    kick_keeper();
    kick_folder();
  }
  co_return outcome;
}

Outcome LvStore::size_sound(uint64_t size_bytes) const {
  if (size_bytes == 0 || size_bytes % lvs::block_bytes != 0) {
    return Error{Errc::invalid_argument, "size_bytes: a multiple of 4096, not zero"};
  }
  if (size_bytes / layout_.cluster_bytes >= lvs::no_cluster) {
    return Error{Errc::invalid_argument, "size_bytes: more clusters than an lvol can have"};
  }
  return success();
}

Task<Outcome> LvStore::resize_lvol(std::string name, uint64_t size_bytes) {
  Outcome sound = size_sound(size_bytes);
  if (!sound) co_return sound;
  Busy busy(*this);
  co_await control_.take();
  Turn turn(*this);
  Result<Layer*> found = writable(name);
  if (!found) co_return std::move(found).error();
  Layer* layer = *found;
  if (size_bytes == layer->count_blocks * lvs::block_bytes) co_return success();
  Outcome outcome = co_await enable_layers();
  if (!outcome) co_return outcome;
  lvs::Record record = record_of(lvs::RecordType::resize, layer->id);
  record.size_bytes = size_bytes;
  Lvol* lvol = layer->lvol.get();
  Op hold;
  co_await lvol->hold(hold, 0, UINT32_MAX);
  outcome = co_await commit({&record, 1}, true);
  lvol->release(hold);
  kick_keeper();
  co_return outcome;
}

Task<Outcome> LvStore::rename_lvol(std::string name, std::string new_name) {
  Busy busy(*this);
  co_await control_.take();
  Turn turn(*this);
  Lvol* lvol = find(name);
  if (lvol == nullptr) co_return no_such(name);
  if (!lvs::name_valid(new_name)) co_return bad_name();
  if (new_name == name) co_return success();
  if (by_name_.contains(new_name)) co_return Error{Errc::exists, new_name + ": the name is taken"};
  Outcome outcome = co_await enable_layers();
  if (!outcome) co_return outcome;
  lvs::Record record = record_of(lvs::RecordType::rename, lvol->layer_->id);
  record.text = new_name;
  outcome = co_await commit({&record, 1}, true);
  co_return outcome;
}

Task<Outcome> LvStore::set_read_only(std::string name) {
  Busy busy(*this);
  co_await control_.take();
  Turn turn(*this);
  Lvol* lvol = find(name);
  if (lvol == nullptr) co_return no_such(name);
  if (lvol->read_only()) co_return success();
  Outcome outcome = co_await enable_layers();
  if (!outcome) co_return outcome;
  lvs::Record record = record_of(lvs::RecordType::set_flags, lvol->layer_->id);
  record.flags = lvol->layer_->flags | lvs::layer_read_only;
  Op hold;
  co_await lvol->hold(hold, 0, UINT32_MAX);
  outcome = co_await commit({&record, 1}, true);
  lvol->release(hold);
  co_return outcome;
}

Task<Result<LvolSizes>> LvStore::lvol_sizes(std::string name) {
  constexpr uint32_t clusters_per_turn = 4096;
  Busy busy(*this);
  const Lvol* lvol = find(name);
  if (lvol == nullptr) co_return no_such(name);
  const uint32_t id = lvol->layer_->id;
  LvolSizes sizes;
  for (uint64_t cluster = 0;;) {
    Layer* layer = by_id(id);
    if (layer == nullptr) co_return no_such(name);
    for (uint32_t i = 0; i < clusters_per_turn; i++) {
      cluster = layer->map.next_used(cluster);
      if (cluster == UINT64_MAX) co_return sizes;
      const auto at = static_cast<uint32_t>(cluster++);
      if (!layer->map.find(at)->mapped()) continue;
      bool needed = false;
      layer->children.for_each([&](Layer* child) { needed = needed || layer->needed_by(*child, at); });
      (needed ? sizes.shared_bytes : sizes.exclusive_bytes) += layout_.cluster_bytes;
    }
    co_await hop(reactor_);
  }
}

}  // namespace basalt::bdev
