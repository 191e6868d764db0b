// SPDX-License-Identifier: Apache-2.0
// ClusterMap: one lvol's logical clusters - where each is, and which of its blocks are data. In windows, one per
// extents page, made when something in them is first mapped. A cluster whose blocks are all data, or none, needs no
// bits.
//
// Memory holds one bit per block (data or not): without parents, the states `parent` and `zero` read the same.
// Memory: 8 bytes per cluster and 1 bit per block of mixed clusters: at most 41 MiB per TiB at 1 MiB per cluster.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bdev/lvol/page.h"

namespace basalt::bdev::lvs {

// Bits of clusters that are partly data, in equal pieces ("planes") that are reused.
class PlanePool {
 public:
  explicit PlanePool(uint32_t cluster_blocks) : plane_words_((cluster_blocks + 63) / 64) {}
  uint32_t take();  // all zero
  void give(uint32_t plane) { free_.push_back(plane); }
  uint64_t* words(uint32_t plane) {
    return &chunks_[plane / chunk_planes][size_t{plane % chunk_planes} * plane_words_];
  }
  uint32_t plane_words() const { return plane_words_; }

 private:
  static constexpr uint32_t chunk_planes = 256;
  const uint32_t plane_words_;
  uint32_t count_ = 0;
  std::vector<std::unique_ptr<uint64_t[]>> chunks_;
  std::vector<uint32_t> free_;
};

struct ClusterEntry {
  uint32_t physical = no_cluster;
  // Blocks that are not data are zero on stable media (the cluster was taken from the reserve by this process and
  // nothing but published data was written since). Otherwise data is flushed before it is published.
  uint32_t fresh : 1 = 0;
  uint32_t plane : 31 = 0;  // or one of:
  static constexpr uint32_t all_data = 0x7fffffff;
  static constexpr uint32_t no_data = 0x7ffffffe;
};
static_assert(sizeof(ClusterEntry) == 8);

struct Window : Page {
  uint32_t lvol_id = 0;
  uint32_t index = 0;
  uint32_t mapped_count = 0;
  std::unique_ptr<ClusterEntry[]> entries;
};

class ClusterMap {
 public:
  // A stretch of blocks that can be served with one operation on the base.
  struct Run {
    bool data = false;
    uint64_t base_block = 0;
    uint32_t count_blocks = 0;
  };

  ClusterMap(const Layout& layout, PageTable& pages, PlanePool& planes, uint32_t lvol_id, uint64_t count_blocks);
  ~ClusterMap();

  uint32_t cluster_count() const { return cluster_count_; }
  uint32_t mapped_count() const { return mapped_count_; }
  ClusterEntry* find(uint32_t cluster);                          // nullptr: its window does not exist
  bool make_window(uint32_t cluster);                            // false: no page left
  void assign(uint32_t cluster, uint32_t physical, bool fresh);  // the window exists, the cluster is not mapped
  uint32_t remove(uint32_t cluster);                             // returns the physical cluster, or no_cluster
  void set_data(uint32_t cluster, uint32_t first_block, uint32_t count_blocks, bool data);
  bool all_data(const ClusterEntry& entry, uint32_t first_block, uint32_t count_blocks);

  Run read_run(uint64_t block, uint32_t count_blocks);   // data or zeroes
  Run write_run(uint64_t block, uint32_t count_blocks);  // all clusters are mapped; adjacent ones are joined

  template <class F>
  void for_each_window(F&& f) {
    for (auto& group : groups_) {
      if (group == nullptr) continue;
      for (uint32_t i = 0; i < group_windows; i++) {
        if (group->windows[i] != nullptr) f(*group->windows[i]);
      }
    }
  }
  // Calls f(cluster) for each mapped cluster of the range.
  template <class F>
  void for_each_mapped(uint32_t first_cluster, uint32_t count, F&& f) {
    const uint64_t end = uint64_t{first_cluster} + count;
    for (uint64_t cluster = first_cluster; cluster < end;) {
      const ClusterEntry* entry = find(static_cast<uint32_t>(cluster));
      if (entry == nullptr) {
        cluster = skip_window(cluster);
        continue;
      }
      if (entry->physical != no_cluster) f(static_cast<uint32_t>(cluster));
      cluster++;
    }
  }

  void write_window(Window& window, uint8_t* payload);
  // Adopts what a page says. False: it makes no sense. The physical clusters are still to be claimed.
  bool read_window(uint32_t index, uint32_t page_number, const uint8_t* payload);
  void clear();  // gives all pages and planes back

 private:
  static constexpr uint32_t group_windows = 512;
  struct Group {
    std::unique_ptr<Window> windows[group_windows];
  };
  uint64_t skip_window(uint64_t cluster) const;
  Window* window_of(uint32_t cluster);
  Window& add_window(uint32_t index, uint32_t page_number);
  void drop_window(Window& window);
  void drop_plane(ClusterEntry& entry);
  uint32_t same_state_blocks(const ClusterEntry& entry, uint32_t first_block, uint32_t count_max, bool data);
  bool block_is_data(const ClusterEntry& entry, uint32_t block);

  const Layout& layout_;
  PageTable& pages_;
  PlanePool& planes_;
  const uint32_t lvol_id_;
  const uint32_t cluster_blocks_;
  const uint32_t cluster_shift_;
  const uint32_t window_clusters_;
  const uint32_t cluster_count_;
  uint32_t mapped_count_ = 0;
  std::vector<std::unique_ptr<Group>> groups_;
};

}  // namespace basalt::bdev::lvs
