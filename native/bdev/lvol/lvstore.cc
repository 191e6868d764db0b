// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/lvstore.h"

#include "base/bytes.h"

namespace basalt::bdev {
namespace {

Uuid make_uuid(env::Env& env) {
  Uuid uuid;
  env.random(uuid.bytes.data(), uuid.bytes.size());
  uuid.bytes[6] = static_cast<uint8_t>((uuid.bytes[6] & 0x0f) | 0x40);
  uuid.bytes[8] = static_cast<uint8_t>((uuid.bytes[8] & 0x3f) | 0x80);
  return uuid;
}

Outcome base_usable(const BdevInfo& info) {
  if (info.block_size_bytes != 512 && info.block_size_bytes != lvs::block_bytes) {
    return Error{Errc::unsupported, info.name + ": an lvstore needs blocks of 512 or 4096 bytes"};
  }
  for (IoType type : {IoType::read, IoType::write, IoType::flush, IoType::write_zeroes}) {
    if (!info.io_types.has(type)) {
      return Error{Errc::unsupported, info.name + ": an lvstore needs read, write, flush and write_zeroes"};
    }
  }
  return success();
}

// Refuses what is not blank, and not to be overwritten.
Task<Outcome> look_for_content(lvs::Device device, bool force) {
  if (force) co_return success();
  lvs::BlockMemory area(lvs::superblock_area_blocks);
  const nvme::Status status = co_await device.transfer(IoType::read, 0, lvs::superblock_area_blocks, area.data());
  if (!status.ok()) co_return lvs::io_error("reading the superblock area", status);
  for (uint32_t slot = 0; slot < lvs::superblock_slot_count; slot++) {
    const uint8_t* block = area.block(size_t{slot} * lvs::superblock_stride_blocks);
    if (load_le<uint32_t>(block) == lvs::block_magic) {
      co_return Error{Errc::exists, device.handle().info().name + ": carries an lvstore already"};
    }
  }
  if (!all_zero(area.data(), size_t{lvs::superblock_area_blocks} * lvs::block_bytes)) {
    co_return Error{Errc::exists, device.handle().info().name + ": is not blank; force overwrites what it holds"};
  }
  co_return success();
}

}  // namespace

LvStore::LvStore(Reactor& reactor, Handle base, const lvs::Layout& layout, const Uuid& uuid, std::string name)
    : reactor_(reactor),
      layout_(layout),
      uuid_(uuid),
      name_(std::move(name)),
      device_(base),
      pages_(layout_),
      states_(layout_.cluster_blocks()),
      space_(layout_, pages_),
      journal_(reactor, device_, layout_, *this),
      directory_in_b_(layout_.directory_pages) {}

LvStore::~LvStore() {
  BASALT_ASSERT(background_count_ == 0 && space_waiters_.empty() && starved_.empty());
  while (pages_.pop_dirty() != nullptr) {
  }
  while (hidden_.pop_front() != nullptr) {
  }
  // Children unlink themselves from their parent's list.
  for (auto& [id, layer] : layers_)
    layer->set_parent(nullptr, 0);
}

Task<Result<std::unique_ptr<LvStore>>> LvStore::create(Reactor& reactor, Handle base, LvStoreOptions options) {
  Outcome usable = base_usable(base.info());
  if (!usable) co_return std::move(usable).error();
  if (!lvs::name_valid(options.name)) {
    co_return Error{Errc::invalid_argument,
                    "name: 1 to 63 letters, digits, '_', '.', '-', the first a letter or digit"};
  }
  const lvs::Device device(base);
  Result<lvs::Layout> made = lvs::Layout::make(device.count_blocks(), options.cluster_bytes);
  if (!made) co_return std::move(made).error();
  const lvs::Layout layout = *made;
  Outcome blank = co_await look_for_content(device, options.force);
  if (!blank) co_return std::move(blank).error();
  // No superblock first: what happens until the new one is stable leaves a blank device, not half a store.
  nvme::Status status = co_await device.transfer(IoType::write_zeroes, 0, lvs::superblock_area_blocks, nullptr);
  if (status.ok()) status = co_await device.flush();
  const uint64_t zero_to = options.clear ? layout.device_blocks : layout.data_first_block;
  if (status.ok()) status = co_await device.transfer(IoType::write_zeroes, 0, zero_to, nullptr);
  if (status.ok()) status = co_await device.flush();
  if (!status.ok()) co_return lvs::io_error("clearing the base", status);

  const Uuid uuid = options.uuid.is_zero() ? make_uuid(reactor.env()) : options.uuid;
  std::unique_ptr<LvStore> store(new LvStore(reactor, base, layout, uuid, options.name));
  if (!options.clear) store->space_.set_all_dirty();
  store->incarnation_ = 1;
  status = co_await store->checkpoint(1, false);
  if (!status.ok()) co_return lvs::io_error("writing the first superblock", status);
  store->journal_.start(uuid, 1, store->generation_, 1);
  store->kick_keeper();
  co_return store;
}

Task<Outcome> LvStore::close() {
  BASALT_ASSERT(!closed_);
  for (const auto& [id, layer] : layers_)
    BASALT_ASSERT(layer->lvol == nullptr || !layer->lvol->busy());
  closing_ = true;
  while (background_count_ > 0) {
    Signal<Unit> idle;
    background_idle_ = &idle;
    co_await idle;
  }
  if (checksums_ != nullptr && !failed()) (void)(co_await checksums_->trim()).ok();  // else the store has failed now
  closed_ = true;
  const Error had_failed{Errc::io, name_ + ": the lvstore had failed; what was not flushed may be lost"};
  if (failed()) co_return had_failed;
  space_.return_reserve();
  checkpointing_ = true;
  const nvme::Status status = co_await checkpoint(journal_.completed_sequence() + 1, true);
  checkpointing_ = false;
  if (!status.ok()) co_return lvs::io_error("the last checkpoint", status);
  co_return success();
}

void LvStore::background_left() {
  if (--background_count_ == 0 && background_idle_ != nullptr) std::exchange(background_idle_, nullptr)->set(Unit{});
}

Uuid LvStore::random_uuid() {
  return make_uuid(reactor_.env());
}

lvs::Layer* LvStore::by_id(uint32_t id) {
  const auto found = layers_.find(id);
  return found == layers_.end() ? nullptr : found->second.get();
}

Lvol* LvStore::find(const std::string& name) {
  const auto found = by_name_.find(name);
  if (found == by_name_.end() || found->second->lvol->deleting_) return nullptr;
  return found->second->lvol.get();
}

Lvol* LvStore::find(const Uuid& uuid) {
  const auto found = by_uuid_.find(uuid);
  if (found == by_uuid_.end() || found->second->lvol->deleting_) return nullptr;
  return found->second->lvol.get();
}

std::vector<Lvol*> LvStore::list() {
  std::vector<Lvol*> all;
  for (const auto& [name, layer] : by_name_) {
    if (!layer->lvol->deleting_) all.push_back(layer->lvol.get());
  }
  // The hash's order must not show.
  std::sort(all.begin(), all.end(), [](const Lvol* a, const Lvol* b) { return a->layer_->id < b->layer_->id; });
  return all;
}

LvStoreStats LvStore::stats() const {
  LvStoreStats stats{.cluster_bytes = layout_.cluster_bytes,
                     .total_clusters = layout_.cluster_count,
                     .free_clusters = space_.free_count(),
                     .to_zero_clusters = space_.to_zero_count(),
                     .checkpoint_count = checkpoint_count_,
                     .journal_used_blocks = journal_.used_blocks(),
                     .journal_completed_sequence = journal_.completed_sequence(),
                     .failed = journal_.failed(),
                     .refused_count = refused_count_,
                     .checksum_mismatch_count = checksums_ == nullptr ? 0 : checksums_->mismatch_count(),
                     .memory_bytes = states_.memory_bytes()};
  if (checksums_ != nullptr) {
    stats.memory_bytes += checksums_->memory_bytes();
    stats.checksum_lost_records = checksums_->lost_record_count();
  }
  for (const auto& [id, layer] : layers_) {
    stats.hidden_layers += layer->hidden() && !layer->area();
    if (layer->area()) stats.checksum_clusters = layer->map.mapped_count();
    stats.memory_bytes += layer->map.memory_bytes();
  }
  return stats;
}

std::vector<LayerInfo> LvStore::layers() const {
  std::vector<LayerInfo> out;
  for (const auto& [id, layer] : layers_) {
    out.push_back({.id = id,
                   .parent_id = layer->parent == nullptr ? 0 : layer->parent->id,
                   .flags = layer->flags,
                   .name = layer->name,
                   .uuid = layer->uuid,
                   .size_bytes = layer->count_blocks * lvs::block_bytes,
                   .overlap_bytes = layer->overlap_blocks * lvs::block_bytes,
                   .mapped_clusters = layer->map.mapped_count(),
                   .extents_pages = layer->map.window_count(),
                   .attribute_bytes = static_cast<uint32_t>(layer->attribute.size())});
  }
  std::sort(out.begin(), out.end(), [](const LayerInfo& a, const LayerInfo& b) { return a.id < b.id; });
  return out;
}

lvs::Layer* LvStore::insert_layer(uint32_t id, uint64_t count_blocks) {
  auto layer = std::make_unique<Layer>(layout_, pages_, states_, id, count_blocks);
  Layer* out = layer.get();
  layers_.emplace(id, std::move(layer));
  if (id >= lvol_id_next_) lvol_id_next_ = id + 1;
  return out;
}

void LvStore::name_layer(Layer& layer, std::string name, const Uuid& uuid) {
  if (const auto found = by_name_.find(layer.name); found != by_name_.end() && found->second == &layer)
    by_name_.erase(found);
  if (const auto found = by_uuid_.find(layer.uuid); found != by_uuid_.end() && found->second == &layer)
    by_uuid_.erase(found);
  layer.name = std::move(name);
  layer.uuid = uuid;
  if (layer.name.empty()) return;
  by_name_[layer.name] = &layer;
  by_uuid_[uuid] = &layer;
}

void LvStore::show_layer(Layer& layer) {
  layer.lvol.reset(new Lvol(*this, layer));
}

void LvStore::hide_layer(Layer& layer) {
  name_layer(layer, {}, {});
  layer.attribute.clear();
  if (!layer.area()) hidden_.push_back(&layer);
}

void LvStore::erase_layer(Layer* layer) {
  BASALT_ASSERT(layer->child_count == 0);
  name_layer(*layer, {}, {});
  layer->set_parent(nullptr, 0);
  layer->map.clear();
  if (layer->page.number != lvs::no_page) pages_.give(layer->page);
  layers_.erase(layer->id);
}

// Writes records that go together in one journal block.
Task<Outcome> LvStore::commit(std::span<const lvs::Record> records, bool durable, bool flush_first) {
  if (failed() || closing_) co_return Error{Errc::io, name_ + ": the lvstore has failed or is closing"};
  const auto bytes = std::make_unique<uint8_t[]>(records.size() * lvs::record_bytes_max);
  lvs::JournalEntry entry;
  entry.records = bytes.get();
  for (const lvs::Record& record : records)
    entry.length_bytes += lvs::encode_record(record, bytes.get() + entry.length_bytes);
  entry.flush_first = flush_first;
  background_count_++;
  nvme::Status status = co_await lvs::journal_wait(journal_, entry);
  if (status.ok() && durable) {
    const uint64_t sequence = journal_.completed_sequence();
    status = co_await device_.flush();
    if (status.ok() && !failed()) {
      journal_.flushed(sequence);
    } else {
      if (status.ok()) status = nvme::status::write_fault;
      fail();
    }
  }
  background_left();
  if (!status.ok()) co_return lvs::io_error("the journal", status);
  co_return success();
}

void LvStore::fail() {
  if (!journal_.failed()) {
    journal_.fail();
    journal_failed();
  }
}

lvs::Op* LvStore::take_op(Io* io, Lvol* lvol) {
  Op* op = ops_.take();
  if (op == nullptr) {
    io->forwarded.target = lvol;
    starved_.push_back(io);
    return nullptr;
  }
  op->lvol = lvol;
  op->io = io;
  op->waiter = {};
  op->exclusive = op->holds_range = op->asynchronous = op->reading = false;
  op->done_blocks = 0;
  return op;
}

void LvStore::give_op(Op* op) {
  ops_.give(op);
  if (starved_.empty()) [[likely]]
    return;
  Io* io = starved_.pop_front();
  Lvol* lvol = static_cast<Lvol*>(io->forwarded.target);
  lvol->begin(take_op(io, lvol));
}

}  // namespace basalt::bdev
