// SPDX-License-Identifier: Apache-2.0
// ClusterMap: one layer's logical clusters - where each is, and what each of its blocks is. In windows, one per extents
// page, made when something in them is first mapped. A cluster may have states without a place (all of it parent or
// zero).
//
// Memory: 8 bytes per cluster, and the bits of clusters whose blocks differ (block_states.h): at most 41 MiB per TiB at
// 1 MiB per cluster, 73 MiB if every cluster mixes all three states.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bdev/lvol/block_states.h"
#include "bdev/lvol/page.h"

namespace basalt::bdev::lvs {

struct ClusterEntry {
  uint32_t physical = no_cluster;
  // Blocks that are not data are zero on stable media (the cluster was taken from the reserve by this process and
  // nothing but published data was written since). Otherwise data is flushed before it is published.
  uint32_t fresh : 1 = 0;
  uint32_t states : 31 = BlockStates::all_parent;

  bool mapped() const { return physical != no_cluster; }
  bool used() const { return mapped() || states != BlockStates::all_parent; }
};
static_assert(sizeof(ClusterEntry) == 8);

struct Window : Page {
  uint32_t lvol_id = 0;
  uint32_t index = 0;
  uint32_t used_count = 0;
  std::unique_ptr<ClusterEntry[]> entries;
};

class ClusterMap {
 public:
  ClusterMap(const Layout& layout, PageTable& pages, BlockStates& states, uint32_t lvol_id, uint64_t count_blocks);
  ~ClusterMap();

  uint32_t cluster_count() const { return cluster_count_; }
  void resize(uint64_t count_blocks);  // nothing is used beyond it
  uint32_t mapped_count() const { return mapped_count_; }
  uint32_t used_count() const { return used_count_; }
  uint32_t window_clusters() const { return window_clusters_; }
  uint32_t window_count() const { return window_count_; }

  ClusterEntry* find(uint32_t cluster);  // nullptr: its window does not exist
  bool has_window(uint32_t index) { return window_at(index) != nullptr; }
  bool make_window(uint32_t cluster);         // false: no page left
  void drop_unused_window(uint32_t cluster);  // if nothing in it is used
  // While pinned, windows that were made stay, also when nothing in them is used: what waits for a journal write finds
  // those it has made.
  void pin() { pin_count_++; }
  void unpin() { pin_count_--; }
  void assign(uint32_t cluster, uint32_t physical, bool fresh);  // the window exists, the cluster is not mapped
  uint32_t take_physical(uint32_t cluster);                      // the states stay; no_cluster: it has none
  uint32_t remove(uint32_t cluster);                             // place and states; the place, or no_cluster
  void set_states(uint32_t cluster, uint32_t first_block, uint32_t count_blocks, BlockState state);

  // A stretch of mapped blocks that lie side by side on the base.
  uint64_t write_run(uint64_t block, uint32_t count_blocks, uint32_t& run_blocks);

  template <class F>
  void for_each_window(F&& f) {
    for (auto& group : groups_) {
      if (group == nullptr) continue;
      for (uint32_t i = 0; i < group_windows; i++) {
        if (group->windows[i] != nullptr) f(*group->windows[i]);
      }
    }
  }
  // The first used cluster at or after this one; UINT64_MAX: none.
  uint64_t next_used(uint64_t cluster);
  // Calls f(cluster) for each used cluster of the range; f may remove it.
  template <class F>
  void for_each_used(uint32_t first_cluster, uint32_t count, F&& f) {
    const uint64_t end = uint64_t{first_cluster} + count;
    for (uint64_t c = next_used(first_cluster); c < end; c = next_used(c + 1))
      f(static_cast<uint32_t>(c));
  }

  void write_window(Window& window, bool parent_as_zero, uint8_t* payload);
  struct ReadOptions {
    bool layers = false;      // the store has incompatible_layers
    bool has_parent = false;  // this layer
  };
  // Adopts what a page says. False: it makes no sense. The physical clusters are still to be claimed.
  bool read_window(uint32_t index, uint32_t page_number, const ReadOptions& options, const uint8_t* payload);
  void clear();  // gives all pages and planes back
  uint64_t memory_bytes() const;

 private:
  static constexpr uint32_t group_windows = 64;
  struct Group {
    std::unique_ptr<Window> windows[group_windows];
  };
  uint64_t skip_window(uint64_t cluster) const;
  Window* window_at(uint32_t index);
  Window* window_of(uint32_t cluster) { return window_at(cluster / window_clusters_); }
  Window& add_window(uint32_t index, uint32_t page_number);
  void drop_window(Window& window);
  void note(Window& window, bool was_used, bool is_used);

  const Layout& layout_;
  PageTable& pages_;
  BlockStates& states_;
  const uint32_t lvol_id_;
  const uint32_t cluster_blocks_;
  const uint32_t cluster_shift_;
  const uint32_t window_clusters_;
  uint32_t cluster_count_;
  uint32_t mapped_count_ = 0;
  uint32_t used_count_ = 0;
  uint32_t window_count_ = 0;
  uint32_t pin_count_ = 0;
  std::vector<std::unique_ptr<Group>> groups_;
};

}  // namespace basalt::bdev::lvs
