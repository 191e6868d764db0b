// SPDX-License-Identifier: Apache-2.0
// Layer: what an lvol's blocks are made of. Each has its own clusters; a block that it does not have shows through from
// its parent. An lvol's head is a layer that is written; a snapshot is one that is never written again. A clone is a
// layer above a snapshot. A deleted snapshot that others still read is a hidden layer, until it can be folded into its
// only child (lvstore_fold.cc).
//
// Owned by the store, used on its reactor.
// Invariants: - a physical cluster belongs to exactly one layer
//             - a layer with children is read-only: what they see of it does not change
//             - overlap_blocks <= the parent's and the layer's own count_blocks; 0 without parent
//             - depth() <= layer_depth_max
#pragma once

#include <memory>
#include <string>

#include "base/list.h"
#include "base/uuid.h"
#include "bdev/lvol/cluster_map.h"

namespace basalt::bdev {

class Lvol;

namespace lvs {

struct Layer;
struct LayerPage : Page {
  Layer* layer = nullptr;
};

struct Layer {
  // What one operation on the base can serve.
  struct Run {
    bool data = false;
    uint64_t base_block = 0;
    uint32_t count_blocks = 0;
  };

  Layer(const Layout& layout, PageTable& pages, BlockStates& states, uint32_t id, uint64_t count_blocks);
  ~Layer();
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  const uint32_t id;
  std::string name;
  Uuid uuid;
  uint64_t count_blocks;
  uint64_t overlap_blocks = 0;
  uint32_t flags = 0;
  std::string attribute;
  LayerPage page;
  ClusterMap map;
  Layer* parent = nullptr;
  ListNode sibling;
  List<Layer, &Layer::sibling> children;
  uint32_t child_count = 0;
  ListNode hidden_node;         // in the store's list while hidden
  std::unique_ptr<Lvol> lvol;   // none while hidden
  bool published = false;       // its creation is in the journal
  uint32_t decouple_count = 0;  // children that are being decoupled from it: nothing is folded into it meanwhile

  bool read_only() const { return (flags & layer_read_only) != 0; }
  bool hidden() const { return (flags & layer_hidden) != 0; }
  bool checksums() const { return (flags & layer_checksums) != 0; }
  bool area() const { return (flags & layer_area) != 0; }  // of the checksums: hidden, and stays
  uint32_t depth() const;
  void set_parent(Layer* layer, uint64_t overlap);
  void resize(uint64_t new_count_blocks);

  // Where a block comes from; at most to the end of its cluster. Bounded by the depth, and takes no memory.
  Run resolve(uint64_t block, uint32_t count_max);
  Run read_run(uint64_t block, uint32_t count_blocks);  // adjacent pieces joined
  // Whether anything in a range within one cluster is data, here or below.
  bool shows_data(uint64_t block, uint32_t count_blocks);
  // The same, looking only below the blocks that are in state parent here.
  bool hides_data(uint64_t block, uint32_t count_blocks);
  // Some layer below has a place for this cluster.
  bool mapped_below(uint32_t cluster);
  bool window_below(uint32_t window_index);
  // Some block of this layer's cluster is data that the child shows.
  bool needed_by(Layer& child, uint32_t cluster);
  BlockStates::Code states_of(uint32_t cluster);

  const Layout& layout;
  BlockStates& states;
  const uint32_t cluster_blocks;
  const uint32_t cluster_shift;
};

}  // namespace lvs
}  // namespace basalt::bdev
