// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/layer.h"

#include <algorithm>
#include <bit>

#include "bdev/lvol/lvol.h"

namespace basalt::bdev::lvs {

Layer::Layer(const Layout& layout, PageTable& pages, BlockStates& states, uint32_t id, uint64_t count_blocks)
    : id(id),
      count_blocks(count_blocks),
      map(layout, pages, states, id, count_blocks),
      layout(layout),
      states(states),
      cluster_blocks(layout.cluster_blocks()),
      cluster_shift(static_cast<uint32_t>(std::countr_zero(layout.cluster_blocks()))) {
  page.type = BlockType::lvol;
  page.layer = this;
}

Layer::~Layer() {
  if (page.dirty_node.linked()) page.dirty_node.unlink();
  if (hidden_node.linked()) hidden_node.unlink();
  if (sibling.linked()) sibling.unlink();
  while (children.pop_front() != nullptr) {
  }
}

uint32_t Layer::depth() const {
  uint32_t depth = 0;
  for (const Layer* layer = parent; layer != nullptr && depth <= layer_depth_max; layer = layer->parent)
    depth++;
  return depth;
}

void Layer::set_parent(Layer* layer, uint64_t overlap) {
  if (parent != nullptr) {
    parent->child_count--;
    sibling.unlink();
  }
  parent = layer;
  overlap_blocks = layer == nullptr ? 0 : overlap;
  if (layer != nullptr) {
    layer->children.push_back(this);
    layer->child_count++;
  }
}

void Layer::resize(uint64_t new_count_blocks) {
  count_blocks = new_count_blocks;
  overlap_blocks = std::min(overlap_blocks, new_count_blocks);
  map.resize(new_count_blocks);
}

Layer::Run Layer::resolve(uint64_t block, uint32_t count_max) {
  const auto cluster = static_cast<uint32_t>(block >> cluster_shift);
  const auto in_cluster = static_cast<uint32_t>(block & (cluster_blocks - 1));
  uint32_t count = std::min(count_max, cluster_blocks - in_cluster);
  for (Layer* layer = this;;) {
    const ClusterEntry* entry = layer->map.find(cluster);
    if (entry != nullptr && entry->used()) {
      const BlockState state = states.at(entry->states, in_cluster);
      count = states.same_blocks(entry->states, in_cluster, count);
      if (state == BlockState::data) return {true, layout.cluster_block(entry->physical) + in_cluster, count};
      if (state == BlockState::zero) return {false, 0, count};
    }
    if (block >= layer->overlap_blocks) return {false, 0, count};
    count = static_cast<uint32_t>(std::min<uint64_t>(count, layer->overlap_blocks - block));
    layer = layer->parent;
  }
}

Layer::Run Layer::read_run(uint64_t block, uint32_t count_blocks) {
  Run run = resolve(block, count_blocks);
  while (run.count_blocks < count_blocks) {
    const Run next = resolve(block + run.count_blocks, count_blocks - run.count_blocks);
    if (next.data != run.data || (run.data && next.base_block != run.base_block + run.count_blocks)) break;
    run.count_blocks += next.count_blocks;
  }
  return run;
}

bool Layer::shows_data(uint64_t block, uint32_t count) {
  while (count > 0) {
    const Run run = resolve(block, count);
    if (run.data) return true;
    block += run.count_blocks;
    count -= run.count_blocks;
  }
  return false;
}

bool Layer::hides_data(uint64_t block, uint32_t count) {
  if (parent == nullptr) return false;
  const auto cluster = static_cast<uint32_t>(block >> cluster_shift);
  const BlockStates::Code code = states_of(cluster);
  const uint64_t end = std::min(block + count, overlap_blocks);
  while (block < end) {
    const auto in_cluster = static_cast<uint32_t>(block & (cluster_blocks - 1));
    const uint32_t same = states.same_blocks(code, in_cluster, static_cast<uint32_t>(end - block));
    if (states.at(code, in_cluster) == BlockState::parent && parent->shows_data(block, same)) return true;
    block += same;
  }
  return false;
}

bool Layer::mapped_below(uint32_t cluster) {
  const uint64_t block = uint64_t{cluster} << cluster_shift;
  for (Layer* layer = this; block < layer->overlap_blocks;) {
    layer = layer->parent;
    const ClusterEntry* entry = layer->map.find(cluster);
    if (entry != nullptr && entry->mapped()) return true;
  }
  return false;
}

bool Layer::window_below(uint32_t window_index) {
  for (Layer* layer = parent; layer != nullptr; layer = layer->parent) {
    if (layer->map.has_window(window_index)) return true;
  }
  return false;
}

bool Layer::needed_by(Layer& child, uint32_t cluster) {
  const ClusterEntry* entry = map.find(cluster);
  const uint64_t start = uint64_t{cluster} << cluster_shift;
  if (entry == nullptr || !entry->mapped() || start >= child.overlap_blocks) return false;
  const auto visible = static_cast<uint32_t>(std::min<uint64_t>(child.overlap_blocks - start, cluster_blocks));
  const BlockStates::Code above = child.states_of(cluster);
  for (uint32_t word = 0; word * 64 < visible; word++) {
    const uint32_t blocks = visible - word * 64;
    const uint64_t mask = blocks >= 64 ? ~uint64_t{0} : (uint64_t{1} << blocks) - 1;
    const uint64_t data = states.bits(entry->states, word, BlockState::data);
    if ((data & states.bits(above, word, BlockState::parent) & mask) != 0) return true;
  }
  return false;
}

BlockStates::Code Layer::states_of(uint32_t cluster) {
  const ClusterEntry* entry = map.find(cluster);
  return entry == nullptr ? BlockStates::all_parent : entry->states;
}

}  // namespace basalt::bdev::lvs
