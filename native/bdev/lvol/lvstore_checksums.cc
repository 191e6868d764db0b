// SPDX-License-Identifier: Apache-2.0
// Where a store's checksums are: in the clusters of a layer that is nobody's, taken and recorded before the first
// checksummed lvol is made.
#include <algorithm>

#include "bdev/lvol/lvstore_control.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t scrub_chunk_blocks = 64;
constexpr Duration scrub_sleep_max = milliseconds(100);
constexpr size_t maps_per_block = lvs::journal_block_records_bytes_max / lvs::map_record_bytes;

}  // namespace

void LvStore::plant(const LvolPlantedBugs& bugs) {
  bugs_ = bugs;
  if (checksums_ != nullptr) checksums_->plant(bugs.checksums);
}

lvs::Layer* LvStore::checksum_layer() {
  for (const auto& [id, layer] : layers_) {
    if (layer->area()) return layer.get();
  }
  return nullptr;
}

bool LvStore::apply_area(const lvs::Record& record) {
  if ((incompatible_ & lvs::incompatible_checksums) == 0 || record.lvol_id == 0 || checksum_layer() != nullptr)
    return false;
  if (record.size_bytes != uint64_t{lvs::ChecksumArea(layout_).cluster_count} * layout_.cluster_bytes) return false;
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr) {
    // Replay.
    uint32_t page;
    if (!pages_.take(page)) return false;
    layer = insert_layer(record.lvol_id, record.size_bytes / lvs::block_bytes);
    layer->page.number = page;
  }
  if (layer->published) return false;
  layer->flags = lvs::layer_area | lvs::layer_hidden | lvs::layer_read_only;
  layer->published = true;
  pages_.mark(layer->page);
  return true;
}

bool LvStore::area_whole(Layer& layer) {
  const uint32_t count = lvs::ChecksumArea(layout_).cluster_count;
  if (layer.map.cluster_count() != count || layer.parent != nullptr || layer.child_count > 0) return false;
  for (uint32_t cluster = 0; cluster < count; cluster++) {
    const lvs::ClusterEntry* entry = layer.map.find(cluster);
    if (entry == nullptr || !entry->mapped()) return false;
    if (!states_.all(entry->states, 0, layout_.cluster_blocks(), lvs::BlockState::data)) return false;
  }
  return true;
}

void LvStore::open_area(Layer& layer) {
  std::vector<uint32_t> clusters;
  for (uint32_t cluster = 0; cluster < layer.map.cluster_count(); cluster++)
    clusters.push_back(layer.map.find(cluster)->physical);
  lvs::ChecksumHost& host = *this;
  checksums_ = std::make_unique<lvs::Checksums>(reactor_, device_, layout_, uuid_, host, std::move(clusters));
  checksums_->plant(bugs_.checksums);
}

// Reads only. An area that is not whole, or not begun, belongs to a first checksummed lvol that was never made.
Task<Outcome> LvStore::load_checksums() {
  const bool needed =
      std::any_of(layers_.begin(), layers_.end(), [](const auto& entry) { return entry.second->checksums(); });
  Layer* layer = checksum_layer();
  if (layer == nullptr || !area_whole(*layer)) {
    if (needed) co_return lvs::corrupt("the area of the checksums is not whole");
    co_return success();
  }
  open_area(*layer);
  Outcome loaded = co_await checksums_->load();
  // Nobody's checksums, never made or damaged, are no reason to refuse the rest. Whoever wants some makes them anew.
  const bool unusable = !loaded && (loaded.error().code == Errc::not_found || loaded.error().code == Errc::corrupt);
  if (unusable && !needed) {
    checksums_.reset();
    co_return success();
  }
  if (!loaded && loaded.error().code == Errc::not_found) co_return lvs::corrupt(loaded.error().message);
  co_return loaded;
}

// Of a store that is only read: blocks that cannot be verified are not shown.
void LvStore::lose_checksums(Error why) {
  checksums_.reset();
  partial_ = true;
  if (!refusal_) refusal_ = std::move(why);
}

// Completes later, as the base would.
void LvStore::submit_partial(const Layer& layer, Io* io) {
  const bool there = (io->offset_blocks + io->count_blocks) / device_.factor() <= device_.count_blocks();
  if (there && !layer.checksums()) return device_.submit(io);
  if (there && checksums_ != nullptr) return checksums_->submit(io);
  io->status = nvme::status::unrecovered_read_error;
  io->run = [](Work* work) {
    Io* refused = static_cast<Io*>(work);
    refused->done(refused);
  };
  reactor_.defer(io);
}

// Looked at before anything is changed: a store that has no room stays one that older code can load.
Outcome LvStore::room_for_area() {
  if (checksum_layer() != nullptr) return success();  // fill_area() looks itself
  const uint32_t count = lvs::ChecksumArea(layout_).cluster_count;
  if (space_.free_count() < count)
    return Error{Errc::no_space, name_ + ": checksums need " + std::to_string(count) + " clusters"};
  const uint32_t windows = (count + layout_.clusters_per_extents() - 1) / layout_.clusters_per_extents();
  constexpr uint32_t layers = 2;  // the area's, and the lvol that is to be made
  if (pages_.free_count() < windows + layers) return Error{Errc::no_space, name_ + ": no metadata page is left"};
  return success();
}

// With the control lock held.
Task<Outcome> LvStore::enable_checksums() {
  if (checksums_ != nullptr) co_return success();
  Outcome outcome = room_for_area();
  if (!outcome) co_return outcome;
  outcome = co_await enable(lvs::incompatible_checksums | lvs::incompatible_layers);
  if (!outcome) co_return outcome;
  Layer* layer = checksum_layer();
  if (layer == nullptr) {
    const uint64_t size_bytes = uint64_t{lvs::ChecksumArea(layout_).cluster_count} * layout_.cluster_bytes;
    Result<Layer*> made = make_layer(size_bytes / lvs::block_bytes);
    if (!made) co_return std::move(made).error();
    const uint32_t id = (*made)->id;
    const lvs::Record record{
        .type = lvs::RecordType::checksum_area, .lvol_id = id, .size_bytes = size_bytes, .uuid = {}, .text = {}};
    outcome = co_await commit({&record, 1}, true);
    if (!outcome) {
      drop_unpublished(id);
      co_return outcome;
    }
    layer = by_id(id);
  }
  outcome = co_await fill_area(layer->id);
  if (!outcome) co_return outcome;
  open_area(*layer);
  outcome = co_await checksums_->format();
  if (!outcome) {
    fail();
    checksums_.reset();
  }
  co_return outcome;
}

// Clusters of the reserve: they read as zeroes from stable media.
Task<Outcome> LvStore::fill_area(uint32_t id) {
  Layer* layer = by_id(id);
  const uint32_t count = layer->map.cluster_count();
  if (space_.free_count() < count - layer->map.mapped_count()) {
    co_return Error{Errc::no_space, name_ + ": checksums need " + std::to_string(count) + " clusters"};
  }
  std::vector<lvs::Record> records;
  for (uint32_t cluster = 0; cluster < count; cluster++) {
    if (!layer->map.make_window(cluster)) co_return Error{Errc::no_space, name_ + ": no metadata page is left"};
    if (!layer->map.find(cluster)->mapped()) {
      if (closing_ || failed()) co_return Error{Errc::io, name_ + ": the lvstore has failed or is closing"};
      Op wait;
      co_await ClusterWait{*this, wait};
      if (wait.physical == lvs::no_cluster) co_return no_cluster_for_it();
      layer->map.assign(cluster, wait.physical, true);
      kick_keeper();
    }
    records.push_back({.type = lvs::RecordType::map,
                       .lvol_id = id,
                       .cluster = cluster,
                       .count = layout_.cluster_blocks(),
                       .physical = layer->map.find(cluster)->physical,
                       .uuid = {},
                       .text = {}});
    if (records.size() < maps_per_block && cluster + 1 < count) continue;
    Outcome outcome = co_await commit(records, true);
    if (!outcome) co_return outcome;
    records.clear();
  }
  co_return success();
}

// What the log says of a cluster that was freed must not be carried out again over its next owner's data.
FramedTask<nvme::Status> LvStore::forget_checksums() {
  if (checksums_ == nullptr) co_return nvme::status::success;
  const nvme::Status status = co_await checksums_->trim();
  co_return status;
}

Task<nvme::Status> LvStore::transfer_data(const Layer& layer, IoType type, uint64_t block, uint32_t count_blocks,
                                          uint8_t* memory, uint32_t* tags) {
  if (layer.checksums()) return checksums_->copy(type, block, count_blocks, memory, tags);
  return device_.transfer(type, block, count_blocks, memory);
}

Task<Result<LvolScrub>> LvStore::scrub_lvol(std::string name, LvolScrubOptions options) {
  Busy busy(*this);
  LvolScrub scrub;
  const std::unique_ptr<lvs::BlockMemory> memory = std::make_unique<lvs::BlockMemory>(scrub_chunk_blocks);
  Instant due = reactor_.now();
  uint64_t single_until = 0;  // what failed is read again block by block
  for (uint64_t block = options.first_block; !closing_;) {
    Lvol* lvol = find(name);
    if (lvol == nullptr) co_return Error{Errc::not_found, name + ": no such lvol"};
    const uint64_t asked_end = options.count_blocks > UINT64_MAX - options.first_block
                                   ? UINT64_MAX
                                   : options.first_block + options.count_blocks;
    const uint64_t end = std::min(asked_end, lvol->count_blocks());
    if (block >= end) co_return scrub;
    const uint64_t count_max = block < single_until ? 1 : scrub_chunk_blocks;
    const Layer::Run run = lvol->layer_->read_run(block, static_cast<uint32_t>(std::min(count_max, end - block)));
    if (run.data) {
      const nvme::Status status = co_await scrub_run(lvol, block, run.count_blocks, memory->data());
      if (!status.ok() && run.count_blocks > 1) {
        single_until = block + run.count_blocks;
        continue;
      }
      scrub.checked_blocks += run.count_blocks;
      scrub.bad_blocks += !status.ok();
      if (options.bytes_per_s > 0) {
        due = due + nanoseconds(static_cast<int64_t>(uint64_t{run.count_blocks} * lvs::block_bytes * 1'000'000'000 /
                                                     options.bytes_per_s));
        // In slices: close() waits for this.
        for (Duration ahead = due - reactor_.now(); ahead > Duration{} && !closing_; ahead = due - reactor_.now())
          co_await sleep_for(reactor_, std::min(ahead, scrub_sleep_max));
      }
    }
    block += run.count_blocks;
    co_await hop(reactor_);
  }
  co_return Error{Errc::closed, name_ + ": is being closed"};
}

Task<nvme::Status> LvStore::scrub_run(Lvol* lvol, uint64_t block, uint32_t count_blocks, uint8_t* memory) {
  Io io;
  Iovec iov{memory, size_t{count_blocks} * lvs::block_bytes};
  io.iov = &iov;
  io.iov_count = 1;
  io.offset_blocks = block;
  io.count_blocks = count_blocks;
  const Handle handle(*lvol, reactor_);
  const nvme::Status status = co_await io_wait(handle, io);
  co_return status;
}

}  // namespace basalt::bdev
