// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/cluster_map.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"

namespace basalt::bdev::lvs {
namespace {

// The bits first..first+count-1 that lie in word `word`, as a mask.
uint64_t word_mask(uint32_t word, uint32_t first, uint32_t count) {
  const uint64_t begin = std::max<uint64_t>(first, uint64_t{word} * 64) - uint64_t{word} * 64;
  const uint64_t end = std::min<uint64_t>(uint64_t{first} + count, uint64_t{word} * 64 + 64) - uint64_t{word} * 64;
  return (end == 64 ? ~uint64_t{0} : (uint64_t{1} << end) - 1) & ~((uint64_t{1} << begin) - 1);
}

}  // namespace

uint32_t PlanePool::take() {
  if (free_.empty()) {
    chunks_.push_back(std::make_unique<uint64_t[]>(size_t{chunk_planes} * plane_words_));
    for (uint32_t i = chunk_planes; i > 0; i--)
      free_.push_back(count_ + i - 1);
    count_ += chunk_planes;
    BASALT_ASSERT(count_ < ClusterEntry::no_data);
  }
  const uint32_t plane = free_.back();
  free_.pop_back();
  std::memset(words(plane), 0, size_t{plane_words_} * 8);
  return plane;
}

ClusterMap::ClusterMap(const Layout& layout, PageTable& pages, PlanePool& planes, uint32_t lvol_id,
                       uint64_t count_blocks)
    : layout_(layout),
      pages_(pages),
      planes_(planes),
      lvol_id_(lvol_id),
      cluster_blocks_(layout.cluster_blocks()),
      cluster_shift_(static_cast<uint32_t>(std::countr_zero(layout.cluster_blocks()))),
      window_clusters_(layout.clusters_per_extents()),
      cluster_count_(static_cast<uint32_t>((count_blocks + layout.cluster_blocks() - 1) / layout.cluster_blocks())) {}

ClusterMap::~ClusterMap() {
  // The store is going: nothing is dirty that matters, but nodes must not be linked.
  for_each_window([](Window& window) {
    if (window.dirty_node.linked()) window.dirty_node.unlink();
  });
}

Window* ClusterMap::window_of(uint32_t cluster) {
  const uint32_t index = cluster / window_clusters_;
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
  for (uint32_t i = 0; i < window_clusters_; i++)
    window->entries[i].plane = ClusterEntry::no_data;
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
  const uint32_t index = window.index;
  groups_[index / group_windows]->windows[index % group_windows].reset();
}

void ClusterMap::drop_plane(ClusterEntry& entry) {
  if (entry.plane != ClusterEntry::all_data && entry.plane != ClusterEntry::no_data) planes_.give(entry.plane);
  entry.plane = ClusterEntry::no_data;
}

void ClusterMap::assign(uint32_t cluster, uint32_t physical, bool fresh) {
  Window* window = window_of(cluster);
  ClusterEntry& entry = window->entries[cluster % window_clusters_];
  BASALT_ASSERT(entry.physical == no_cluster && entry.plane == ClusterEntry::no_data);
  entry.physical = physical;
  entry.fresh = fresh;
  window->mapped_count++;
  mapped_count_++;
  pages_.mark(*window);
}

uint32_t ClusterMap::remove(uint32_t cluster) {
  Window* window = window_of(cluster);
  if (window == nullptr) return no_cluster;
  ClusterEntry& entry = window->entries[cluster % window_clusters_];
  const uint32_t physical = entry.physical;
  if (physical == no_cluster) return no_cluster;
  drop_plane(entry);
  entry.physical = no_cluster;
  entry.fresh = 0;
  mapped_count_--;
  if (--window->mapped_count == 0) {
    drop_window(*window);
  } else {
    pages_.mark(*window);
  }
  return physical;
}

bool ClusterMap::block_is_data(const ClusterEntry& entry, uint32_t block) {
  if (entry.plane == ClusterEntry::all_data) return true;
  if (entry.plane == ClusterEntry::no_data) return false;
  return planes_.words(entry.plane)[block / 64] >> (block % 64) & 1;
}

bool ClusterMap::all_data(const ClusterEntry& entry, uint32_t first_block, uint32_t count_blocks) {
  if (entry.plane == ClusterEntry::all_data) return true;
  if (entry.plane == ClusterEntry::no_data) return false;
  const uint64_t* words = planes_.words(entry.plane);
  for (uint32_t word = first_block / 64; word <= (first_block + count_blocks - 1) / 64; word++) {
    const uint64_t mask = word_mask(word, first_block, count_blocks);
    if ((words[word] & mask) != mask) return false;
  }
  return true;
}

void ClusterMap::set_data(uint32_t cluster, uint32_t first_block, uint32_t count_blocks, bool data) {
  Window* window = window_of(cluster);
  ClusterEntry& entry = window->entries[cluster % window_clusters_];
  BASALT_ASSERT(entry.physical != no_cluster);
  pages_.mark(*window);
  const uint32_t uniform = data ? ClusterEntry::all_data : ClusterEntry::no_data;
  if (entry.plane == uniform) return;
  if (count_blocks == cluster_blocks_) {
    drop_plane(entry);
    entry.plane = uniform;
    return;
  }
  if (entry.plane == ClusterEntry::all_data || entry.plane == ClusterEntry::no_data) {
    const bool was_data = entry.plane == ClusterEntry::all_data;
    entry.plane = planes_.take();
    if (was_data) {
      uint64_t* words = planes_.words(entry.plane);
      for (uint32_t i = 0; i < planes_.plane_words(); i++)
        words[i] = word_mask(i, 0, cluster_blocks_);
    }
  }
  uint64_t* words = planes_.words(entry.plane);
  for (uint32_t word = first_block / 64; word <= (first_block + count_blocks - 1) / 64; word++) {
    const uint64_t mask = word_mask(word, first_block, count_blocks);
    words[word] = data ? words[word] | mask : words[word] & ~mask;
  }
  // Uniform again?
  for (uint32_t i = 0; i < planes_.plane_words(); i++) {
    if (words[i] != (data ? word_mask(i, 0, cluster_blocks_) : 0)) return;
  }
  drop_plane(entry);
  entry.plane = uniform;
}

uint32_t ClusterMap::same_state_blocks(const ClusterEntry& entry, uint32_t first_block, uint32_t count_max, bool data) {
  if (entry.plane == ClusterEntry::all_data || entry.plane == ClusterEntry::no_data) return count_max;
  const uint64_t* words = planes_.words(entry.plane);
  uint32_t count = 0;
  while (count < count_max) {
    const uint32_t block = first_block + count;
    const uint64_t word = (data ? ~words[block / 64] : words[block / 64]) >> (block % 64);
    const uint32_t in_word = 64 - block % 64;
    const uint32_t same =
        word == 0 ? in_word : std::min<uint32_t>(static_cast<uint32_t>(std::countr_zero(word)), in_word);
    count += same;
    if (same < in_word) break;
  }
  return std::min(count, count_max);
}

ClusterMap::Run ClusterMap::read_run(uint64_t block, uint32_t count_blocks) {
  Run run;
  while (run.count_blocks < count_blocks) {
    const auto cluster = static_cast<uint32_t>(block >> cluster_shift_);
    const auto in_cluster = static_cast<uint32_t>(block & (cluster_blocks_ - 1));
    const uint32_t part = std::min(count_blocks - run.count_blocks, cluster_blocks_ - in_cluster);
    const ClusterEntry* entry = find(cluster);
    const bool mapped = entry != nullptr && entry->physical != no_cluster;
    const bool data = mapped && block_is_data(*entry, in_cluster);
    const uint64_t base_block = data ? layout_.cluster_block(entry->physical) + in_cluster : 0;
    if (run.count_blocks == 0) {
      run.data = data;
      run.base_block = base_block;
    } else if (run.data != data || (data && run.base_block + run.count_blocks != base_block)) {
      break;
    }
    const uint32_t same = mapped ? same_state_blocks(*entry, in_cluster, part, data) : part;
    run.count_blocks += same;
    block += same;
    if (same < part) break;
  }
  return run;
}

ClusterMap::Run ClusterMap::write_run(uint64_t block, uint32_t count_blocks) {
  Run run{true, 0, 0};
  while (run.count_blocks < count_blocks) {
    const auto cluster = static_cast<uint32_t>(block >> cluster_shift_);
    const auto in_cluster = static_cast<uint32_t>(block & (cluster_blocks_ - 1));
    const uint32_t part = std::min(count_blocks - run.count_blocks, cluster_blocks_ - in_cluster);
    const ClusterEntry* entry = find(cluster);
    BASALT_ASSERT(entry != nullptr && entry->physical != no_cluster);
    const uint64_t base_block = layout_.cluster_block(entry->physical) + in_cluster;
    if (run.count_blocks == 0) {
      run.base_block = base_block;
    } else if (run.base_block + run.count_blocks != base_block) {
      break;
    }
    run.count_blocks += part;
    block += part;
  }
  return run;
}

void ClusterMap::write_window(Window& window, uint8_t* payload) {
  const uint32_t entry_bytes = layout_.entry_bytes();
  for (uint32_t i = 0; i < window_clusters_; i++) {
    const ClusterEntry& entry = window.entries[i];
    ExtentEntry out{entry.physical, static_cast<uint16_t>(ExtentKind::none), 0};
    if (entry.physical != no_cluster) out.kind = static_cast<uint16_t>(ExtentKind::plain);
    uint8_t* at = payload + size_t{i} * entry_bytes;
    std::memcpy(at, &out, sizeof(out));
    if (entry.physical == no_cluster) continue;
    for (uint32_t block = 0; block < cluster_blocks_; block++) {
      const auto state = static_cast<uint8_t>(block_is_data(entry, block) ? BlockState::data : BlockState::zero);
      at[sizeof(out) + block / 4] |= static_cast<uint8_t>(state << block % 4 * 2);
    }
  }
}

bool ClusterMap::read_window(uint32_t index, uint32_t page_number, const uint8_t* payload) {
  if (uint64_t{index} * window_clusters_ >= cluster_count_) return false;
  if (window_of(index * window_clusters_) != nullptr) return false;
  Window& window = add_window(index, page_number);
  const uint32_t entry_bytes = layout_.entry_bytes();
  for (uint32_t i = 0; i < window_clusters_; i++) {
    const uint8_t* at = payload + size_t{i} * entry_bytes;
    ExtentEntry in;
    std::memcpy(&in, at, sizeof(in));
    if (in.kind == static_cast<uint16_t>(ExtentKind::none) && in.physical == no_cluster) continue;
    const uint64_t cluster = uint64_t{index} * window_clusters_ + i;
    if (in.kind != static_cast<uint16_t>(ExtentKind::plain) || cluster >= cluster_count_) return false;
    if (in.physical >= layout_.cluster_count) return false;
    ClusterEntry& entry = window.entries[i];
    entry.physical = in.physical;
    window.mapped_count++;
    mapped_count_++;
    const uint32_t plane = planes_.take();
    uint64_t* words = planes_.words(plane);
    uint32_t data_count = 0;
    bool valid = true;
    for (uint32_t block = 0; block < cluster_blocks_; block++) {
      const uint8_t state = at[sizeof(in) + block / 4] >> (block % 4 * 2) & 3;
      valid &= state <= static_cast<uint8_t>(BlockState::zero);
      if (state != static_cast<uint8_t>(BlockState::data)) continue;
      words[block / 64] |= uint64_t{1} << (block % 64);
      data_count++;
    }
    entry.plane = plane;
    if (data_count == 0 || data_count == cluster_blocks_) {
      drop_plane(entry);
      if (data_count > 0) entry.plane = ClusterEntry::all_data;
    }
    if (!valid) return false;
  }
  return true;
}

void ClusterMap::clear() {
  for_each_window([&](Window& window) {
    for (uint32_t i = 0; i < window_clusters_; i++)
      drop_plane(window.entries[i]);
    pages_.give(window);
  });
  groups_.clear();
  mapped_count_ = 0;
}

}  // namespace basalt::bdev::lvs
