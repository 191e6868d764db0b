// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/cluster_map.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"

namespace basalt::bdev::lvs {

ClusterMap::ClusterMap(const Layout& layout, PageTable& pages, BlockStates& states, uint32_t lvol_id,
                       uint64_t count_blocks)
    : layout_(layout),
      pages_(pages),
      states_(states),
      lvol_id_(lvol_id),
      cluster_blocks_(layout.cluster_blocks()),
      cluster_shift_(static_cast<uint32_t>(std::countr_zero(layout.cluster_blocks()))),
      window_clusters_(layout.clusters_per_extents()),
      cluster_count_(0) {
  resize(count_blocks);
}

ClusterMap::~ClusterMap() {
  // The store is going: nothing is dirty that matters, but nodes must not be linked.
  for_each_window([](Window& window) {
    if (window.dirty_node.linked()) window.dirty_node.unlink();
  });
}

void ClusterMap::resize(uint64_t count_blocks) {
  cluster_count_ = static_cast<uint32_t>((count_blocks + cluster_blocks_ - 1) / cluster_blocks_);
}

Window* ClusterMap::window_at(uint32_t index) {
  const uint32_t group = index / group_windows;
  if (group >= groups_.size() || groups_[group] == nullptr) return nullptr;
  return groups_[group]->windows[index % group_windows].get();
}

uint64_t ClusterMap::skip_window(uint64_t cluster) const {
  const uint64_t index = cluster / window_clusters_;
  const uint64_t group = index / group_windows;
  if (group >= groups_.size()) return UINT64_MAX;
  if (groups_[group] == nullptr) return (group + 1) * group_windows * window_clusters_;
  return (index + 1) * window_clusters_;
}

uint64_t ClusterMap::next_used(uint64_t cluster) {
  while (cluster < cluster_count_) {
    const Window* window = window_of(static_cast<uint32_t>(cluster));
    if (window == nullptr) {
      cluster = skip_window(cluster);
      continue;
    }
    if (window->entries[cluster % window_clusters_].used()) return cluster;
    cluster++;
  }
  return UINT64_MAX;
}

ClusterEntry* ClusterMap::find(uint32_t cluster) {
  Window* window = window_of(cluster);
  return window == nullptr ? nullptr : &window->entries[cluster % window_clusters_];
}

Window& ClusterMap::add_window(uint32_t index, uint32_t page_number) {
  const uint32_t group = index / group_windows;
  if (group >= groups_.size()) groups_.resize(group + 1);
  if (groups_[group] == nullptr) groups_[group] = std::make_unique<Group>();
  auto& window = groups_[group]->windows[index % group_windows];
  BASALT_ASSERT(window == nullptr);
  window = std::make_unique<Window>();
  window->number = page_number;
  window->lvol_id = lvol_id_;
  window->index = index;
  window->entries = std::make_unique<ClusterEntry[]>(window_clusters_);
  window_count_++;
  return *window;
}

bool ClusterMap::make_window(uint32_t cluster) {
  if (window_of(cluster) != nullptr) return true;
  uint32_t number;
  if (!pages_.take(number)) return false;
  add_window(cluster / window_clusters_, number);
  return true;
}

void ClusterMap::drop_window(Window& window) {
  pages_.give(window);
  window_count_--;
  const uint32_t index = window.index;
  groups_[index / group_windows]->windows[index % group_windows].reset();
}

void ClusterMap::drop_unused_window(uint32_t cluster) {
  Window* window = window_of(cluster);
  if (window != nullptr && window->used_count == 0 && pin_count_ == 0) drop_window(*window);
}

// An entry has changed. Its window goes when it was the last used one.
void ClusterMap::note(Window& window, bool was_used, bool is_used) {
  if (was_used != is_used) {
    window.used_count += is_used ? 1u : ~0u;
    used_count_ += is_used ? 1u : ~0u;
  }
  if (window.used_count == 0 && pin_count_ == 0) {
    drop_window(window);
  } else {
    pages_.mark(window);
  }
}

void ClusterMap::assign(uint32_t cluster, uint32_t physical, bool fresh) {
  Window* window = window_of(cluster);
  ClusterEntry& entry = window->entries[cluster % window_clusters_];
  BASALT_ASSERT(!entry.mapped());
  const bool was_used = entry.used();
  entry.physical = physical;
  entry.fresh = fresh;
  mapped_count_++;
  note(*window, was_used, true);
}

uint32_t ClusterMap::take_physical(uint32_t cluster) {
  Window* window = window_of(cluster);
  if (window == nullptr) return no_cluster;
  ClusterEntry& entry = window->entries[cluster % window_clusters_];
  if (!entry.mapped()) return no_cluster;
  BASALT_ASSERT(!states_.any(entry.states, BlockState::data));
  const uint32_t physical = std::exchange(entry.physical, no_cluster);
  entry.fresh = 0;
  mapped_count_--;
  note(*window, true, entry.used());
  return physical;
}

uint32_t ClusterMap::remove(uint32_t cluster) {
  Window* window = window_of(cluster);
  if (window == nullptr) return no_cluster;
  ClusterEntry& entry = window->entries[cluster % window_clusters_];
  if (!entry.used()) return no_cluster;
  const uint32_t physical = std::exchange(entry.physical, no_cluster);
  states_.drop(entry.states);
  entry.states = BlockStates::all_parent;
  entry.fresh = 0;
  mapped_count_ -= physical != no_cluster;
  note(*window, true, false);
  return physical;
}

void ClusterMap::set_states(uint32_t cluster, uint32_t first_block, uint32_t count_blocks, BlockState state) {
  Window* window = window_of(cluster);
  ClusterEntry& entry = window->entries[cluster % window_clusters_];
  const bool was_used = entry.used();
  BASALT_ASSERT(state != BlockState::data || entry.mapped());
  entry.states = states_.set(entry.states, first_block, count_blocks, state) & 0x7fffffff;
  note(*window, was_used, entry.used());
}

uint64_t ClusterMap::write_run(uint64_t block, uint32_t count_blocks, uint32_t& run_blocks) {
  uint64_t start = 0;
  run_blocks = 0;
  while (run_blocks < count_blocks) {
    const auto in_cluster = static_cast<uint32_t>(block & (cluster_blocks_ - 1));
    const uint32_t part = std::min(count_blocks - run_blocks, cluster_blocks_ - in_cluster);
    const ClusterEntry* entry = find(static_cast<uint32_t>(block >> cluster_shift_));
    BASALT_ASSERT(entry != nullptr && entry->mapped());
    const uint64_t base_block = layout_.cluster_block(entry->physical) + in_cluster;
    if (run_blocks == 0) {
      start = base_block;
    } else if (start + run_blocks != base_block) {
      break;
    }
    run_blocks += part;
    block += part;
  }
  return start;
}

void ClusterMap::write_window(Window& window, bool parent_as_zero, uint8_t* payload) {
  const uint32_t entry_bytes = layout_.entry_bytes();
  for (uint32_t i = 0; i < window_clusters_; i++) {
    const ClusterEntry& entry = window.entries[i];
    ExtentEntry out{entry.physical, static_cast<uint16_t>(ExtentKind::none), 0};
    // In a layer without parent a cluster without a place is nothing.
    const bool used = entry.mapped() || (entry.used() && !parent_as_zero);
    if (used) out.kind = static_cast<uint16_t>(entry.mapped() ? ExtentKind::plain : ExtentKind::states);
    uint8_t* at = payload + size_t{i} * entry_bytes;
    std::memcpy(at, &out, sizeof(out));
    if (used) states_.write(entry.states, parent_as_zero, at + sizeof(out));
  }
}

bool ClusterMap::read_window(uint32_t index, uint32_t page_number, const ReadOptions& options, const uint8_t* payload) {
  if (uint64_t{index} * window_clusters_ >= cluster_count_) return false;
  if (window_at(index) != nullptr) return false;
  Window& window = add_window(index, page_number);
  const uint32_t entry_bytes = layout_.entry_bytes();
  for (uint32_t i = 0; i < window_clusters_; i++) {
    const uint8_t* at = payload + size_t{i} * entry_bytes;
    ExtentEntry in;
    std::memcpy(&in, at, sizeof(in));
    const auto kind = static_cast<ExtentKind>(in.kind);
    if (kind == ExtentKind::none && in.physical == no_cluster) continue;
    const uint64_t cluster = uint64_t{index} * window_clusters_ + i;
    const bool plain = kind == ExtentKind::plain && in.physical < layout_.cluster_count;
    const bool states_only = kind == ExtentKind::states && in.physical == no_cluster && options.layers;
    if ((!plain && !states_only) || in.reserved != 0 || cluster >= cluster_count_) return false;
    BlockStates::Code code;
    if (!states_.read(at + sizeof(in), code)) return false;
    if (states_only && (code == BlockStates::all_parent || states_.any(code, BlockState::data))) return false;
    if (states_only && !options.has_parent) {
      states_.drop(code);  // from before it lost its parent
      continue;
    }
    ClusterEntry& entry = window.entries[i];
    entry.states = code & 0x7fffffff;
    entry.physical = in.physical;
    mapped_count_ += plain;
    window.used_count++;
    used_count_++;
  }
  return true;
}

void ClusterMap::clear() {
  for_each_window([&](Window& window) {
    for (uint32_t i = 0; i < window_clusters_; i++)
      states_.drop(window.entries[i].states);
    pages_.give(window);
  });
  groups_.clear();
  mapped_count_ = used_count_ = window_count_ = 0;
}

uint64_t ClusterMap::memory_bytes() const {
  return groups_.size() * sizeof(Group) + window_count_ * (sizeof(Window) + window_clusters_ * sizeof(ClusterEntry));
}

}  // namespace basalt::bdev::lvs
