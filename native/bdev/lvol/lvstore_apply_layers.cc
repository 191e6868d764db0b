// SPDX-License-Identifier: Apache-2.0
// Records that change the tree of layers, or what belongs to which of them.
#include <algorithm>

#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {

// The layer keeps its clusters and becomes read-only; a new one above it takes its name, uuid and attribute, and the
// Lvol that its users know.
bool LvStore::apply_snapshot(const lvs::Record& record) {
  constexpr uint32_t hidden = lvs::layer_read_only | lvs::layer_hidden;
  constexpr uint32_t named = lvs::layer_read_only | lvs::layer_snapshot;
  Layer* layer = by_id(record.lvol_id);
  Layer* head = by_id(record.other_id);
  const std::string name(record.text);
  if (layer == nullptr || !layer->published || layer->read_only() || record.other_id == 0) return false;
  if (layer->depth() >= lvs::layer_depth_max || (head != nullptr && head->published)) return false;
  const bool sound = record.flags == hidden ? name.empty()
                                            : record.flags == named && lvs::name_valid(name) &&
                                                  !by_name_.contains(name) && !by_uuid_.contains(record.uuid);
  if (!sound) return false;
  if (head == nullptr) {
    uint32_t page;
    if (!pages_.take(page)) return false;
    head = insert_layer(record.other_id, layer->count_blocks);
    head->page.number = page;
  }
  head->resize(layer->count_blocks);
  head->set_parent(layer, layer->count_blocks);
  const std::string head_name = layer->name;
  const Uuid head_uuid = layer->uuid;
  head->attribute = layer->attribute;
  head->lvol = std::move(layer->lvol);
  const uint32_t inherited = layer->flags & lvs::layer_checksums;
  head->flags = inherited;
  layer->flags = record.flags | inherited;
  if (record.flags == hidden) {
    hide_layer(*layer);
  } else {
    name_layer(*layer, name, record.uuid);
    show_layer(*layer);
  }
  name_layer(*head, head_name, head_uuid);
  head->lvol->show(*head);
  head->published = true;
  pages_.mark(layer->page);
  pages_.mark(head->page);
  return true;
}

bool LvStore::apply_clone(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  Layer* parent = by_id(record.other_id);
  const std::string name(record.text);
  if (record.lvol_id == 0 || parent == nullptr || !parent->published || !parent->read_only()) return false;
  if (parent->depth() >= lvs::layer_depth_max || (layer != nullptr && layer->published)) return false;
  if (!lvs::name_valid(name) || by_name_.contains(name) || by_uuid_.contains(record.uuid)) return false;
  if (layer == nullptr) {
    uint32_t page;
    if (!pages_.take(page)) return false;
    layer = insert_layer(record.lvol_id, parent->count_blocks);
    layer->page.number = page;
  }
  layer->flags = parent->flags & lvs::layer_checksums;
  layer->resize(parent->count_blocks);
  layer->set_parent(parent, parent->count_blocks);
  publish(*layer, name, record.uuid);
  return true;
}

bool LvStore::apply_resize(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr || !layer->published || layer->read_only()) return false;
  if (!size_sound(record.size_bytes).ok()) return false;
  const uint64_t blocks = record.size_bytes / lvs::block_bytes;
  const uint32_t cluster_blocks = layout_.cluster_blocks();
  if (blocks < layer->count_blocks) {
    const auto whole = static_cast<uint32_t>((blocks + cluster_blocks - 1) / cluster_blocks);
    layer->map.for_each_used(whole, layer->map.cluster_count() - whole,
                             [&](uint32_t cluster) { free_cluster(*layer, cluster); });
    // What lies beyond the end in the last cluster must not come back with it.
    const auto kept = static_cast<uint32_t>(blocks % cluster_blocks);
    lvs::ClusterEntry* entry = kept == 0 ? nullptr : layer->map.find(whole - 1);
    if (entry != nullptr && entry->used()) {
      entry->fresh = 0;
      layer->map.set_states(whole - 1, kept, cluster_blocks - kept, lvs::BlockState::zero);
      drop_place_without_data(*layer, whole - 1);
    }
  }
  layer->resize(blocks);
  layer->lvol->show(*layer);
  pages_.mark(layer->page);
  return true;
}

bool LvStore::apply_rename(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  const std::string name(record.text);
  if (layer == nullptr || !layer->published || layer->hidden()) return false;
  if (!lvs::name_valid(name) || by_name_.contains(name)) return false;
  name_layer(*layer, name, layer->uuid);
  layer->lvol->show(*layer);
  pages_.mark(layer->page);
  return true;
}

bool LvStore::apply_flags(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr || !layer->published || layer->hidden()) return false;
  if ((record.flags & ~uint32_t{lvs::layer_flags_known}) != 0 || (record.flags & lvs::layer_area) != 0) return false;
  // Only an lvol that is new can begin to have checksums; none ever ceases to.
  const bool begins = record.flags == lvs::layer_checksums && layer->flags == 0 && layer->parent == nullptr &&
                      layer->child_count == 0 && layer->map.used_count() == 0 &&
                      (incompatible_ & lvs::incompatible_checksums) != 0;
  if (!begins && (record.flags & lvs::layer_read_only) == 0) return false;
  if (!begins && (record.flags & lvs::layer_checksums & ~layer->flags) != 0) return false;
  layer->flags = record.flags | (layer->flags & lvs::layer_checksums);
  if (layer->hidden()) {
    layer->lvol.reset();
    hide_layer(*layer);
  } else {
    layer->lvol->show(*layer);
  }
  pages_.mark(layer->page);
  return true;
}

bool LvStore::apply_fold(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr || !layer->hidden() || layer->child_count != 1) return false;
  if (record.count == 0 || record.cluster >= layer->map.cluster_count()) return false;
  if (record.count > layer->map.cluster_count() - record.cluster) return false;
  Layer& child = *layer->children.front();
  bool done = true;
  layer->map.for_each_used(record.cluster, record.count,
                           [&](uint32_t cluster) { done = done && fold_cluster(*layer, child, cluster); });
  return done;
}

// False: the child has a place of its own and still reads something of this one: it had to be copied before.
bool LvStore::fold_cluster(Layer& layer, Layer& child, uint32_t cluster) {
  const uint32_t cluster_blocks = layout_.cluster_blocks();
  const uint64_t start = uint64_t{cluster} * cluster_blocks;
  const auto visible = start >= child.overlap_blocks
                           ? 0
                           : static_cast<uint32_t>(std::min<uint64_t>(child.overlap_blocks - start, cluster_blocks));
  const bool needed = layer.needed_by(child, cluster);
  if (visible > 0 && !child.map.make_window(cluster)) return false;
  const lvs::ClusterEntry* entry = visible == 0 ? nullptr : child.map.find(cluster);
  if (needed && entry->mapped()) return false;
  if (needed) child.map.assign(cluster, layer.map.find(cluster)->physical, false);
  const lvs::BlockStates::Code below = layer.states_of(cluster);
  for (uint32_t block = 0; block < visible;) {
    const lvs::BlockStates::Code above = child.states_of(cluster);
    uint32_t count = states_.same_blocks(above, block, visible - block);
    count = states_.same_blocks(below, block, count);
    const lvs::BlockState state = states_.at(below, block);
    // A zero matters only where it hides something further down; data not needed here is none the child shows.
    const bool takes = state == lvs::BlockState::data || (state == lvs::BlockState::zero && layer.parent != nullptr);
    if (states_.at(above, block) == lvs::BlockState::parent && takes)
      child.map.set_states(cluster, block, count, state);
    block += count;
  }
  if (visible > 0) child.map.drop_unused_window(cluster);
  if (needed) {
    layer.map.remove(cluster);
  } else {
    free_cluster(layer, cluster);
  }
  return true;
}

bool LvStore::apply_splice(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr || !layer->hidden() || layer->child_count != 1 || layer->map.used_count() > 0) return false;
  Layer* child = layer->children.front();
  child->set_parent(layer->parent, std::min(child->overlap_blocks, layer->overlap_blocks));
  pages_.mark(child->page);
  erase_layer(layer);
  return true;
}

bool LvStore::apply_reparent(const lvs::Record& record) {
  Layer* layer = by_id(record.lvol_id);
  if (layer == nullptr || layer->parent == nullptr || layer->read_only()) return false;
  Layer* above = layer->parent->parent;
  if (record.other_id == 0) {
    layer->set_parent(nullptr, 0);
  } else if (above != nullptr && above->id == record.other_id) {
    layer->set_parent(above, std::min(layer->overlap_blocks, layer->parent->overlap_blocks));
  } else {
    return false;
  }
  pages_.mark(layer->page);
  return true;
}

}  // namespace basalt::bdev
