// SPDX-License-Identifier: Apache-2.0
// Loading: superblock, directory, pages, journal; everything is read and checked before anything is written.
#include <algorithm>

#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {

using lvs::corrupt;

namespace {

constexpr uint64_t read_blocks_max = io_bytes_max / lvs::block_bytes;

}  // namespace

// The valid superblock of the highest generation, in a memory of one block.
Task<Result<std::unique_ptr<lvs::BlockMemory>>> LvStore::read_superblock(lvs::Device device) {
  if (device.count_blocks() < lvs::superblock_area_blocks)
    co_return Error{Errc::not_found, "no lvstore: the device is too small"};
  lvs::BlockMemory area(lvs::superblock_area_blocks);
  nvme::Status status = co_await device.transfer(IoType::read, 0, lvs::superblock_area_blocks, area.data());
  const uint8_t* newest = nullptr;
  bool traces = false;
  // A sector that cannot be read takes its slot with it, as damage does.
  for (uint32_t slot = 0; status.type() == nvme::StatusType::media && slot < lvs::superblock_slot_count; slot++) {
    const uint64_t address_blocks = uint64_t{slot} * lvs::superblock_stride_blocks;
    uint8_t* block = area.block(address_blocks);
    const nvme::Status one = co_await device.transfer(IoType::read, address_blocks, 1, block);
    if (one.ok()) continue;
    std::memset(block, 0, lvs::block_bytes);
    traces = true;
    if (one.type() != nvme::StatusType::media) status = one;
  }
  if (!status.ok() && status.type() != nvme::StatusType::media)
    co_return lvs::io_error("reading the superblocks", status);
  for (uint32_t slot = 0; slot < lvs::superblock_slot_count; slot++) {
    const uint64_t address_blocks = uint64_t{slot} * lvs::superblock_stride_blocks;
    const uint8_t* block = area.block(address_blocks);
    traces |= lvs::header_of(block).magic == lvs::block_magic;
    if (!lvs::block_matches(block, lvs::BlockType::superblock, lvs::uuid_of(lvs::header_of(block).store_uuid),
                            address_blocks))
      continue;
    if (newest != nullptr &&
        std::memcmp(lvs::header_of(newest).store_uuid, lvs::header_of(block).store_uuid, 16) != 0) {
      co_return corrupt("superblocks of two different stores");
    }
    if (newest == nullptr || lvs::header_of(block).generation > lvs::header_of(newest).generation) newest = block;
  }
  if (newest == nullptr && traces) co_return corrupt("no superblock is intact");
  if (newest == nullptr) co_return Error{Errc::not_found, device.handle().info().name + ": carries no lvstore"};
  auto out = std::make_unique<lvs::BlockMemory>(1);
  std::memcpy(out->data(), newest, lvs::block_bytes);
  co_return out;
}

Task<Result<std::unique_ptr<LvStore>>> LvStore::read_all(Reactor& reactor, Handle base, Opening opening) {
  if (base.info().block_size_bytes != 512 && base.info().block_size_bytes != lvs::block_bytes) {
    co_return Error{Errc::unsupported, base.info().name + ": an lvstore needs blocks of 512 or 4096 bytes"};
  }
  const lvs::Device device(base);
  Result<std::unique_ptr<lvs::BlockMemory>> found = co_await read_superblock(device);
  if (!found) co_return std::move(found).error();
  const auto& superblock = *reinterpret_cast<const lvs::Superblock*>((*found)->data());
  // Of a device that has shrunk, what is left can be read where all metadata is.
  const bool shrunk = opening == Opening::read_only && device.count_blocks() < superblock.device_blocks &&
                      device.count_blocks() > superblock.data_first_block;
  Outcome known = lvs::check_superblock(superblock, shrunk ? superblock.device_blocks : device.count_blocks());
  if (!known) co_return std::move(known).error();

  std::unique_ptr<LvStore> store(new LvStore(reactor, base, lvs::layout_of(superblock),
                                             lvs::uuid_of(superblock.header.store_uuid),
                                             std::string(superblock.name, superblock.name_length_bytes)));
  store->generation_ = superblock.header.generation;
  store->incompatible_ = superblock.incompatible;
  store->lvol_id_next_ = superblock.lvol_id_next;
  store->partial_ = shrunk;
  if (shrunk) store->refusal_ = lvs::check_superblock(superblock, device.count_blocks()).error();
  Outcome outcome = co_await store->read_directory(superblock);
  if (!outcome) co_return std::move(outcome).error();
  outcome = co_await store->read_pages();
  if (!outcome) co_return std::move(outcome).error();
  outcome = store->link_layers();
  if (!outcome) co_return std::move(outcome).error();
  outcome = store->claim_clusters();
  if (!outcome) co_return std::move(outcome).error();
  outcome = co_await store->replay(superblock);
  if (!outcome) co_return std::move(outcome).error();
  store->incarnation_ = superblock.incarnation;
  outcome = co_await store->load_checksums();
  if (outcome) co_return store;
  const bool bearable = opening == Opening::read_only && (shrunk || outcome.error().code == Errc::corrupt);
  if (!bearable) co_return std::move(outcome).error();
  store->lose_checksums(std::move(outcome).error());
  co_return store;
}

Task<Result<std::unique_ptr<LvStore>>> LvStore::load(Reactor& reactor, Handle base) {
  Result<std::unique_ptr<LvStore>> read = co_await read_all(reactor, base, Opening::read_write);
  if (!read) co_return std::move(read).error();
  std::unique_ptr<LvStore> store = std::move(*read);
  // A new incarnation: what the journal holds now can never be taken for what will be written.
  const uint64_t next_sequence = store->journal_.completed_sequence() + 1;
  store->incarnation_++;
  const nvme::Status status = co_await store->checkpoint(next_sequence, false);
  if (!status.ok()) co_return lvs::io_error("the checkpoint after loading", status);
  store->journal_.start(store->uuid_, store->incarnation_, store->generation_, next_sequence);
  if (store->checksums_ != nullptr) {
    Outcome replayed = co_await store->checksums_->replay();
    if (!replayed) co_return std::move(replayed).error();
  }
  if (store->space_.to_zero_count() > 0) store->kick_keeper();
  store->kick_folder();
  co_return store;
}

Task<Result<std::unique_ptr<LvStore>>> LvStore::inspect(Reactor& reactor, Handle base) {
  Result<std::unique_ptr<LvStore>> read = co_await read_all(reactor, base, Opening::read_only);
  if (!read) co_return read;
  LvStore& store = **read;
  store.read_only_ = true;
  store.fail();  // so nothing is written through it
  if (store.checksums_ != nullptr) {
    Outcome known = co_await store.checksums_->replay(lvs::Checksums::Replay::in_memory);
    if (!known && known.error().code != Errc::corrupt && !store.partial_) co_return std::move(known).error();
    if (!known) store.lose_checksums(std::move(known).error());
  }
  co_return read;
}

Task<Outcome> LvStore::read_directory(const lvs::Superblock& superblock) {
  lvs::BlockMemory memory(1);
  for (uint32_t d = 0; d < layout_.directory_pages; d++) {
    directory_in_b_[d] = superblock.directory_selector[d / 8] >> d % 8 & 1;
    const uint64_t address_blocks = layout_.directory_block(d, directory_in_b_[d]);
    const nvme::Status status = co_await device_.transfer(IoType::read, address_blocks, 1, memory.data());
    if (!status.ok()) co_return lvs::io_error("reading the directory", status);
    const bool right = lvs::block_matches(memory.data(), lvs::BlockType::directory, uuid_, address_blocks) &&
                       lvs::header_of(memory.data()).index == d &&
                       lvs::header_of(memory.data()).generation <= generation_;
    if (!right || !pages_.read_directory(d, memory.data() + sizeof(lvs::BlockHeader))) {
      co_return corrupt("directory page " + std::to_string(d) + " is damaged");
    }
  }
  co_return success();
}

Task<Outcome> LvStore::read_pages() {
  lvs::BlockMemory memory(read_blocks_max);
  const auto step = static_cast<uint32_t>(read_blocks_max / 2);
  for (uint32_t first = 0; first < layout_.page_count; first += step) {
    const uint32_t end = std::min(first + step, layout_.page_count);
    uint32_t used_end = first;  // exclusive
    uint32_t used_first = end;
    for (uint32_t number = first; number < end; number++) {
      if (pages_.slot(number) == lvs::Slot::none) continue;
      used_end = number + 1;
      used_first = std::min(used_first, number);
    }
    if (used_end == first) continue;
    const nvme::Status status = co_await device_.transfer(IoType::read, layout_.page_block(used_first, lvs::Slot::a),
                                                          2 * uint64_t{used_end - used_first}, memory.data());
    if (!status.ok()) co_return lvs::io_error("reading the pages", status);
    for (uint32_t number = used_first; number < used_end; number++) {
      const lvs::Slot slot = pages_.slot(number);
      if (slot == lvs::Slot::none) continue;
      const uint8_t* block = memory.block(2 * size_t{number - used_first} + (slot == lvs::Slot::b ? 1 : 0));
      Outcome adopted = adopt_page(number, block);
      if (!adopted) co_return std::move(adopted).error();
    }
  }
  co_return success();
}

Outcome LvStore::adopt_page(uint32_t number, const uint8_t* block) {
  const Error damaged = corrupt("page " + std::to_string(number) + " is damaged");
  const lvs::BlockHeader& header = lvs::header_of(block);
  const auto type = static_cast<lvs::BlockType>(header.type);
  const uint64_t address_blocks = layout_.page_block(number, pages_.slot(number));
  if (!lvs::block_matches(block, type, uuid_, address_blocks) || header.generation > generation_) return damaged;
  const uint8_t* payload = block + sizeof(lvs::BlockHeader);
  if (number < layout_.dirty_map_pages) {
    if (type != lvs::BlockType::dirty_map || header.index != number) return damaged;
    space_.read_page(number, payload);
    return success();
  }
  if (header.owner == 0 || header.owner >= lvol_id_next_ || !pages_.claim(number)) return damaged;
  const auto id = static_cast<uint32_t>(header.owner);
  // Extents may come before their lvol: read_pages() goes by number. They are looked at in claim_clusters().
  if (type == lvs::BlockType::extents && header.index <= UINT32_MAX) {
    loading_extents_.push_back({id, static_cast<uint32_t>(header.index), number,
                                std::vector<uint8_t>(payload, payload + lvs::payload_bytes_max)});
    return success();
  }
  if (type != lvs::BlockType::lvol || by_id(id) != nullptr) return damaged;
  const auto& page = *reinterpret_cast<const lvs::LvolPage*>(block);
  const std::string name(page.name, std::min<size_t>(page.name_length_bytes, lvs::name_bytes_max));
  const Uuid uuid = lvs::uuid_of(page.uuid);
  const bool layers = (incompatible_ & lvs::incompatible_layers) != 0;
  const bool hidden = (page.flags & lvs::layer_hidden) != 0;
  const bool named = hidden ? page.name_length_bytes == 0 && uuid.is_zero()
                            : page.name_length_bytes == name.size() && lvs::name_valid(name) &&
                                  !by_name_.contains(name) && !by_uuid_.contains(uuid);
  const bool plain = page.parent_id == 0 && page.flags == 0 && page.overlap_blocks == 0;
  constexpr uint32_t only_with_checksums = lvs::layer_checksums | lvs::layer_area;
  constexpr uint32_t area = lvs::layer_area | lvs::layer_hidden | lvs::layer_read_only;
  const bool flags_sound =
      (page.flags & ~uint32_t{lvs::layer_flags_known}) == 0 &&
      ((page.flags & only_with_checksums) == 0 || (incompatible_ & lvs::incompatible_checksums) != 0) &&
      ((page.flags & lvs::layer_area) == 0 || (page.flags == area && page.parent_id == 0));
  const bool sound = named && size_sound(page.size_bytes).ok() && (plain || layers) && flags_sound &&
                     (!hidden || (page.flags & lvs::layer_read_only) != 0) &&
                     page.overlap_blocks <= page.size_bytes / lvs::block_bytes &&
                     (page.parent_id != 0 || page.overlap_blocks == 0) &&
                     page.attribute_length_bytes <= Bdev::attribute_bytes_max;
  if (!sound) return damaged;
  Layer* layer = insert_layer(id, page.size_bytes / lvs::block_bytes);
  layer->page.number = number;
  layer->flags = page.flags;
  layer->published = true;
  layer->attribute.assign(reinterpret_cast<const char*>(page.attribute), page.attribute_length_bytes);
  if (hidden) {
    hide_layer(*layer);
  } else {
    name_layer(*layer, name, uuid);
    show_layer(*layer);
  }
  if (page.parent_id != 0) loading_layers_.push_back({id, page.parent_id, page.overlap_blocks});
  return success();
}

// Parents may come after their children: read_pages() goes by number.
Outcome LvStore::link_layers() {
  const std::vector<LoadingLayer> loading = std::exchange(loading_layers_, {});
  for (const LoadingLayer& link : loading) {
    Layer* parent = by_id(link.parent_id);
    if (parent == nullptr || link.parent_id == link.id || !parent->read_only() ||
        link.overlap_blocks > parent->count_blocks) {
      return corrupt("lvol page " + std::to_string(by_id(link.id)->page.number) + " names a parent that cannot be");
    }
    by_id(link.id)->set_parent(parent, link.overlap_blocks);
  }
  for (const LoadingLayer& link : loading) {
    if (by_id(link.id)->depth() <= lvs::layer_depth_max) continue;
    for (const LoadingLayer& other : loading)
      by_id(other.id)->set_parent(nullptr, 0);  // it may be a circle
    return corrupt("lvol " + std::to_string(link.id) + " has more layers below it than there may be");
  }
  return success();
}

Outcome LvStore::claim_clusters() {
  space_.recount();
  for (const LoadingExtents& extents : std::exchange(loading_extents_, {})) {
    Layer* layer = by_id(extents.lvol_id);
    const lvs::ClusterMap::ReadOptions options{.layers = (incompatible_ & lvs::incompatible_layers) != 0,
                                               .has_parent = layer != nullptr && layer->parent != nullptr};
    if (layer == nullptr || !layer->map.read_window(extents.index, extents.page, options, extents.payload.data())) {
      return corrupt("extents page " + std::to_string(extents.page) + " makes no sense");
    }
  }
  std::vector<Layer*> layers;
  for (const auto& [id, layer] : layers_)
    layers.push_back(layer.get());
  std::sort(layers.begin(), layers.end(), [](const Layer* a, const Layer* b) { return a->id < b->id; });
  for (Layer* layer : layers) {
    bool single = true;
    layer->map.for_each_used(0, layer->map.cluster_count(), [&](uint32_t cluster) {
      const uint32_t physical = layer->map.find(cluster)->physical;
      if (physical != lvs::no_cluster) single = single && space_.dirty(physical) && space_.map(physical);
    });
    if (!single) {
      return corrupt((layer->hidden() ? "hidden layer " + std::to_string(layer->id) : layer->name) +
                     ": a cluster is used twice, or is not recorded as in use");
    }
  }
  return success();
}

Task<Outcome> LvStore::replay(const lvs::Superblock& superblock) {
  const uint32_t ring_blocks = layout_.journal_blocks;
  lvs::BlockMemory ring(ring_blocks);
  const nvme::Status status =
      co_await device_.transfer(IoType::read, layout_.journal_first_block, ring_blocks, ring.data());
  if (!status.ok()) co_return lvs::io_error("reading the journal", status);
  const auto block_at = [&](uint32_t place) -> const lvs::JournalBlock* {
    const uint8_t* block = ring.block(place);
    const uint64_t address_blocks = layout_.journal_first_block + place;
    if (!lvs::block_matches(block, lvs::BlockType::journal, uuid_, address_blocks)) return nullptr;
    if (lvs::header_of(block).length_bytes < 16 || lvs::header_of(block).owner % ring_blocks != place) return nullptr;
    return reinterpret_cast<const lvs::JournalBlock*>(block);
  };
  uint64_t sequence = superblock.journal_start_sequence;
  for (uint32_t i = 0; i < ring_blocks; i++, sequence++) {
    const lvs::JournalBlock* block = block_at(static_cast<uint32_t>(sequence % ring_blocks));
    if (block == nullptr || block->incarnation != superblock.incarnation || block->header.owner != sequence) break;
    if (block->header.generation > generation_) break;  // refused below
    if (!apply_all(block->records, block->header.length_bytes - 16)) {
      co_return corrupt("journal block " + std::to_string(sequence) + " contradicts the metadata");
    }
  }
  // The journal ends at the first block that is not there. What follows it was never flushed; if it was, a block or a
  // superblock has been lost.
  for (uint32_t place = 0; place < ring_blocks; place++) {
    const lvs::JournalBlock* block = block_at(place);
    if (block == nullptr) continue;
    if (block->header.generation > generation_ || block->incarnation > superblock.incarnation) {
      co_return corrupt("the journal is newer than every intact superblock");
    }
    if (block->incarnation == superblock.incarnation && block->header.owner > sequence &&
        block->stable_sequence >= sequence) {
      co_return corrupt("journal block " + std::to_string(sequence) + " is damaged, and later ones are intact");
    }
  }
  journal_.start(uuid_, superblock.incarnation, generation_, sequence);
  co_return success();
}

}  // namespace basalt::bdev
