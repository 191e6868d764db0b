// SPDX-License-Identifier: Apache-2.0
// What journal records do to memory: the same code when a record was just written and when it is replayed. Everything
// is checked, because a replayed record comes from outside.
#include <algorithm>

#include "base/probe.h"
#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {

void LvStore::journal_apply(const uint8_t* records, uint32_t length_bytes) {
  const bool applied = apply_all(records, length_bytes);
  BASALT_ASSERT(applied);
}

bool LvStore::apply_all(const uint8_t* records, uint32_t length_bytes) {
  while (length_bytes > 0) {
    lvs::Record record;
    const uint32_t used = lvs::decode_record(records, length_bytes, record);
    if (used == 0 || !apply(record)) return false;
    records += used;
    length_bytes -= used;
  }
  return true;
}

bool LvStore::apply(const lvs::Record& record) {
  switch (record.type) {
    case lvs::RecordType::lvol_create:
      return apply_create(record);
    case lvs::RecordType::lvol_delete:
      return apply_delete(record);
    case lvs::RecordType::attribute:
      return apply_attribute(record);
    case lvs::RecordType::map:
      return apply_map(record);
    case lvs::RecordType::zero:
      return apply_blocks_zero(record);
    case lvs::RecordType::unmap:
      return apply_unmap(record);
    case lvs::RecordType::reserve:
    case lvs::RecordType::clean:
      return apply_clusters(record);
    case lvs::RecordType::snapshot:
      return apply_snapshot(record);
    case lvs::RecordType::clone:
      return apply_clone(record);
    case lvs::RecordType::resize:
      return apply_resize(record);
    case lvs::RecordType::rename:
      return apply_rename(record);
    case lvs::RecordType::set_flags:
      return apply_flags(record);
    case lvs::RecordType::fold:
      return apply_fold(record);
    case lvs::RecordType::splice:
      return apply_splice(record);
    case lvs::RecordType::reparent:
      return apply_reparent(record);
    case lvs::RecordType::checksum_area:
      return apply_area(record);
  }
  return false;
}

bool LvStore::apply_create(const lvs::Record& record) {
  const std::string name(record.text);
  if (record.lvol_id == 0 || !lvs::name_valid(name) || by_name_.contains(name) || by_uuid_.contains(record.uuid))
    return false;
  if (!size_sound(record.size_bytes).ok()) return false;
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr) {
    // Replay.
    uint32_t page;
    if (!pages_.take(page)) return false;
    layer = insert_layer(record.lvol_id, record.size_bytes / lvs::block_bytes);
    layer->page.number = page;
  }
  if (layer->published) return false;
  publish(*layer, name, record.uuid);
  return true;
}

void LvStore::publish(Layer& layer, std::string name, const Uuid& uuid) {
  name_layer(layer, std::move(name), uuid);
  show_layer(layer);
  layer.published = true;
  pages_.mark(layer.page);
}

bool LvStore::apply_attribute(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr || !layer->published || layer->hidden()) return false;
  layer->attribute = std::string(record.text);
  pages_.mark(layer->page);
  return true;
}

bool LvStore::apply_delete(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr || !layer->published || layer->child_count > 0) return false;
  layer->map.for_each_window([&](lvs::Window& window) {
    for (uint32_t i = 0; i < layout_.clusters_per_extents(); i++) {
      if (window.entries[i].mapped()) space_.unmap(window.entries[i].physical);
    }
  });
  erase_layer(layer);
  return true;
}

bool LvStore::apply_map(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  const uint32_t cluster_blocks = layout_.cluster_blocks();
  if (layer == nullptr || record.cluster >= layer->map.cluster_count()) return false;
  if (record.count == 0 || record.count > cluster_blocks || record.first_block > cluster_blocks - record.count)
    return false;
  if (!layer->map.make_window(record.cluster)) return false;
  const lvs::ClusterEntry& entry = *layer->map.find(record.cluster);
  if (!entry.mapped()) {
    // Replay. It was dirty on disk before anything was written to it.
    if (record.physical >= layout_.cluster_count || !space_.dirty(record.physical)) return false;
    if (!space_.map(record.physical)) return false;
    layer->map.assign(record.cluster, record.physical, false);
  } else if (entry.physical != record.physical) {
    return false;
  }
  layer->map.set_states(record.cluster, record.first_block, record.count, lvs::BlockState::data);
  return true;
}

bool LvStore::apply_blocks_zero(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  const uint32_t cluster_blocks = layout_.cluster_blocks();
  if (layer == nullptr || record.cluster >= layer->map.cluster_count()) return false;
  if (record.count == 0 || record.count > cluster_blocks || record.first_block > cluster_blocks - record.count)
    return false;
  if (layer->parent != nullptr && !layer->map.make_window(record.cluster)) return false;
  lvs::ClusterEntry* entry = layer->map.find(record.cluster);
  if (entry == nullptr || (!entry->used() && layer->parent == nullptr)) return true;
  entry->fresh = 0;  // the old bytes are still there
  layer->map.set_states(record.cluster, record.first_block, record.count, lvs::BlockState::zero);
  drop_place_without_data(*layer, record.cluster);
  return true;
}

// Gives the cluster back when no block of it is data any more. Over a parent the states stay.
void LvStore::drop_place_without_data(Layer& layer, uint32_t cluster) {
  const lvs::ClusterEntry* entry = layer.map.find(cluster);
  if (entry == nullptr || !entry->used() || states_.any(entry->states, lvs::BlockState::data)) return;
  const uint32_t physical = layer.parent == nullptr ? layer.map.remove(cluster) : layer.map.take_physical(cluster);
  if (physical != lvs::no_cluster) space_.unmap(physical);
}

bool LvStore::apply_unmap(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr || record.count == 0 || record.cluster >= layer->map.cluster_count()) return false;
  if (record.count > layer->map.cluster_count() - record.cluster) return false;
  if (layer->parent == nullptr) {
    layer->map.for_each_used(record.cluster, record.count, [&](uint32_t cluster) { free_cluster(*layer, cluster); });
    return true;
  }
  // Where something would show through, zero has to be written down.
  const uint32_t window_clusters = layer->map.window_clusters();
  const uint32_t end = record.cluster + record.count;
  for (uint32_t cluster = record.cluster; cluster < end;) {
    const uint32_t index = cluster / window_clusters;
    const uint32_t window_end = std::min(end, (index + 1) * window_clusters);
    const bool looked_at = layer->map.has_window(index) || layer->window_below(index);
    for (; looked_at && cluster < window_end; cluster++) {
      if (!layer->mapped_below(cluster)) {
        free_cluster(*layer, cluster);
        continue;
      }
      if (!layer->map.make_window(cluster)) return false;
      layer->map.set_states(cluster, 0, layout_.cluster_blocks(), lvs::BlockState::zero);
      drop_place_without_data(*layer, cluster);
    }
    cluster = window_end;
  }
  return true;
}

void LvStore::free_cluster(Layer& layer, uint32_t cluster) {
  const uint32_t physical = layer.map.remove(cluster);
  if (physical != lvs::no_cluster) space_.unmap(physical);
}

bool LvStore::apply_clusters(const lvs::Record& record) {
  if (record.count == 0 || record.cluster >= layout_.cluster_count) return false;
  if (record.count > layout_.cluster_count - record.cluster) return false;
  space_.set_dirty({record.cluster, record.count}, record.type == lvs::RecordType::reserve);
  return true;
}

void LvStore::journal_progress() {
  const bool due = journal_.used_blocks() > layout_.journal_blocks / 2 || pages_.dirty_count() > dirty_pages_max;
  if (due && !checkpointing_ && !failed()) {
    checkpointing_ = true;
    background_count_++;
    reach(Mark::checkpoint_during_io);
    begin_checkpoint();
  }
  if (space_.to_zero_count() > 0) kick_keeper();
}

void LvStore::journal_failed() {
  wake_space_waiters();
  if (checksums_ != nullptr) checksums_->fail();
}

}  // namespace basalt::bdev
