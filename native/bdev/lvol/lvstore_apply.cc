// SPDX-License-Identifier: Apache-2.0
// What journal records do to memory: the same code when a record was just written and when it is replayed. Everything
// is checked, because a replayed record comes from outside.
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
    case lvs::RecordType::attribute: {
      Lvol* lvol = by_id(record.lvol_id);
      if (lvol == nullptr || !lvol->published_) return false;
      lvol->attribute_ = std::string(record.text);
      pages_.mark(lvol->page_);
      return true;
    }
    case lvs::RecordType::map:
      return apply_map(record);
    case lvs::RecordType::zero:
      return apply_blocks_zero(record);
    case lvs::RecordType::unmap:
      return apply_unmap(record);
    case lvs::RecordType::reserve:
    case lvs::RecordType::clean:
      return apply_clusters(record);
  }
  return false;
}

bool LvStore::apply_create(const lvs::Record& record) {
  Lvol* lvol = by_id(record.lvol_id);
  if (lvol == nullptr) {
    const std::string name(record.text);
    if (record.lvol_id == 0 || !lvs::name_valid(name) || find(name) != nullptr || find(record.uuid) != nullptr)
      return false;
    if (record.size_bytes == 0 || record.size_bytes % lvs::block_bytes != 0) return false;
    if (record.size_bytes / layout_.cluster_bytes >= lvs::no_cluster) return false;
    uint32_t page;
    if (!pages_.take(page)) return false;
    lvol = insert_lvol(record.lvol_id, name, record.uuid, record.size_bytes / lvs::block_bytes);
    lvol->page_.number = page;
  }
  if (lvol->published_) return false;
  lvol->published_ = true;
  pages_.mark(lvol->page_);
  return true;
}

bool LvStore::apply_delete(const lvs::Record& record) {
  Lvol* lvol = by_id(record.lvol_id);
  if (lvol == nullptr || !lvol->published_) return false;
  lvol->map_.for_each_window([&](lvs::Window& window) {
    for (uint32_t i = 0; i < layout_.clusters_per_extents(); i++) {
      if (window.entries[i].physical != lvs::no_cluster) space_.unmap(window.entries[i].physical);
    }
  });
  lvol->map_.clear();
  erase_lvol(lvol);
  return true;
}

bool LvStore::apply_map(const lvs::Record& record) {
  Lvol* lvol = by_id(record.lvol_id);
  const uint32_t cluster_blocks = layout_.cluster_blocks();
  if (lvol == nullptr || record.cluster >= lvol->map_.cluster_count()) return false;
  if (record.count == 0 || record.count > cluster_blocks || record.first_block > cluster_blocks - record.count)
    return false;
  if (!lvol->map_.make_window(record.cluster)) return false;
  const lvs::ClusterEntry& entry = *lvol->map_.find(record.cluster);
  if (entry.physical == lvs::no_cluster) {
    // Replay. It was dirty on disk before anything was written to it.
    if (record.physical >= layout_.cluster_count || !space_.dirty(record.physical)) return false;
    if (!space_.map(record.physical)) return false;
    lvol->map_.assign(record.cluster, record.physical, false);
  } else if (entry.physical != record.physical) {
    return false;
  }
  lvol->map_.set_data(record.cluster, record.first_block, record.count, true);
  return true;
}

bool LvStore::apply_blocks_zero(const lvs::Record& record) {
  Lvol* lvol = by_id(record.lvol_id);
  const uint32_t cluster_blocks = layout_.cluster_blocks();
  if (lvol == nullptr || record.cluster >= lvol->map_.cluster_count()) return false;
  if (record.count == 0 || record.count > cluster_blocks || record.first_block > cluster_blocks - record.count)
    return false;
  lvs::ClusterEntry* entry = lvol->map_.find(record.cluster);
  if (entry == nullptr || entry->physical == lvs::no_cluster) return true;
  lvol->map_.set_data(record.cluster, record.first_block, record.count, false);
  entry->fresh = 0;  // the old bytes are still there
  // Nothing left in it, and no parent that states would have to hide: give the cluster back.
  if (entry->plane == lvs::ClusterEntry::no_data) free_clusters(*lvol, record.cluster, 1);
  return true;
}

bool LvStore::apply_unmap(const lvs::Record& record) {
  Lvol* lvol = by_id(record.lvol_id);
  if (lvol == nullptr || record.count == 0 || record.cluster >= lvol->map_.cluster_count()) return false;
  if (record.count > lvol->map_.cluster_count() - record.cluster) return false;
  free_clusters(*lvol, record.cluster, record.count);
  return true;
}

bool LvStore::apply_clusters(const lvs::Record& record) {
  if (record.count == 0 || record.cluster >= layout_.cluster_count) return false;
  if (record.count > layout_.cluster_count - record.cluster) return false;
  space_.set_dirty({record.cluster, record.count}, record.type == lvs::RecordType::reserve);
  return true;
}

void LvStore::free_clusters(Lvol& lvol, uint32_t first_cluster, uint32_t count) {
  lvol.map_.for_each_mapped(first_cluster, count, [&](uint32_t cluster) { space_.unmap(lvol.map_.remove(cluster)); });
}

void LvStore::journal_progress() {
  const bool due = journal_.used_blocks() > layout_.journal_blocks / 2 || pages_.dirty_count() > dirty_pages_max;
  if (due && !checkpointing_ && !failed()) {
    checkpointing_ = true;
    background_count_++;
    spawn(checkpoint_in_background());
  }
  if (space_.to_zero_count() > 0) kick_keeper();
}

void LvStore::journal_failed() {
  wake_space_waiters();
}

}  // namespace basalt::bdev
