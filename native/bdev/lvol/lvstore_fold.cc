// SPDX-License-Identifier: Apache-2.0
// What moves between layers. A hidden layer with one child is folded into it: clusters that only the child reads change
// hands by a journal record; where both have the cluster, the blocks that the child still reads are copied first. It
// runs by itself, in steps of one copied cluster or of what one record hands over, and goes on after a restart. Inflate
// and decouple copy up what an lvol reads from below, a cluster at a time.
#include <algorithm>

#include "bdev/lvol/lvstore_control.h"

namespace basalt::bdev {
namespace {

constexpr size_t records_per_block = lvs::journal_block_records_bytes_max / lvs::map_record_bytes - 2;
constexpr uint32_t clusters_per_turn = 4096;
constexpr size_t copiers_max = 16;  // runs of a cluster that are copied at the same time

}  // namespace

void LvStore::kick_folder() {
  if (folding_ || closing_ || failed() || next_to_fold() == nullptr) return;
  folding_ = true;
  background_count_++;
  spawn(fold_layers());
}

lvs::Layer* LvStore::next_to_fold() {
  for (Layer* layer = hidden_.front(); layer != nullptr; layer = hidden_.next(layer)) {
    if (layer->child_count == 0) return layer;
    if (layer->child_count == 1 && layer->children.front()->decouple_count == 0) return layer;
  }
  return nullptr;
}

Task<void> LvStore::fold_layers() {
  co_await hop(reactor_);
  bool worked = true;
  while (worked && !failed() && !closing_) {
    co_await control_.take();
    Turn turn(*this);
    Layer* layer = next_to_fold();
    if (layer == nullptr) break;
    worked = co_await fold_step(layer);
  }
  folding_ = false;
  if (worked) kick_folder();
  background_left();
}

// False: it cannot go on now (no page, an error of the base). The next deletion, or the next load, tries again.
Task<bool> LvStore::fold_step(Layer* layer) {
  const bool empty = layer->map.used_count() == 0;
  if (layer->child_count == 0 || empty) {
    const lvs::Record record{.type = layer->child_count == 0 ? lvs::RecordType::lvol_delete : lvs::RecordType::splice,
                             .lvol_id = layer->id,
                             .uuid = {},
                             .text = {}};
    const Outcome outcome = co_await commit({&record, 1}, false);
    kick_keeper();
    co_return outcome.ok();
  }
  Layer* child = layer->children.front();
  const auto first = static_cast<uint32_t>(layer->map.next_used(0));
  uint32_t end = fold_end(*layer, *child, first);
  Lvol* writer = child->read_only() ? nullptr : child->lvol.get();
  Op hold;
  if (writer != nullptr) {
    co_await writer->hold(hold, first, end - 1);
    // What was written while it waited has places of its own now.
    end = std::min(end, fold_end(*layer, *child, first));
    writer->shorten(hold, end - 1);
  }
  child->map.pin();
  Outcome outcome = success();
  if (first < child->map.cluster_count() && !child->map.make_window(first)) {
    outcome = Error{Errc::no_space, name_ + ": no metadata page is left"};
  }
  if (outcome.ok()) {
    const lvs::Record record{.type = lvs::RecordType::fold,
                             .lvol_id = layer->id,
                             .cluster = first,
                             .count = end - first,
                             .uuid = {},
                             .text = {}};
    std::vector<CopyRun> runs;
    if (must_copy(*layer, *child, first)) runs_from(*child, first, CopyFrom::parent, runs, nullptr);
    outcome = co_await copy_runs(child, first, std::move(runs), &record);
  }
  child->map.unpin();
  child->map.drop_unused_window(first);
  if (writer != nullptr) writer->release(hold);
  kick_keeper();
  co_return outcome.ok();
}

bool LvStore::must_copy(Layer& layer, Layer& child, uint32_t cluster) {
  if (!layer.needed_by(child, cluster)) return false;
  const lvs::ClusterEntry* entry = child.map.find(cluster);
  return entry != nullptr && entry->mapped();
}

// Where the step that begins at `first` ends: one cluster that has to be copied, for the child's users wait meanwhile,
// and so does whoever wants to change the tree; or as many of a window as take no more than a journal record.
uint32_t LvStore::fold_end(Layer& layer, Layer& child, uint32_t first) {
  const uint32_t window_clusters = layer.map.window_clusters();
  const uint32_t window_end = std::min((first / window_clusters + 1) * window_clusters, layer.map.cluster_count());
  if (must_copy(layer, child, first)) return first + 1;
  uint32_t end = first + 1;
  while (end < window_end && !must_copy(layer, child, end))
    end++;
  return end;
}

// What a layer's cluster shows of the layer below it, or of all below. `zeroes`: blocks that only the parent makes
// zero.
void LvStore::runs_from(Layer& layer, uint32_t cluster, CopyFrom from, std::vector<CopyRun>& runs,
                        std::vector<lvs::Record>* zeroes) {
  const uint32_t cluster_blocks = layout_.cluster_blocks();
  const uint64_t start = uint64_t{cluster} * cluster_blocks;
  if (start >= layer.overlap_blocks) return;
  const auto visible = static_cast<uint32_t>(std::min<uint64_t>(layer.overlap_blocks - start, cluster_blocks));
  const lvs::BlockStates::Code own = layer.states_of(cluster);
  const lvs::BlockStates::Code below = layer.parent->states_of(cluster);
  for (uint32_t block = 0; block < visible;) {
    uint32_t count = states_.same_blocks(own, block, visible - block);
    if (states_.at(own, block) == lvs::BlockState::parent) {
      const Layer::Run run = layer.parent->resolve(start + block, count);
      const uint32_t same = states_.same_blocks(below, block, count);
      const lvs::BlockState state = states_.at(below, block);
      if (from == CopyFrom::all) {
        count = run.count_blocks;
        if (run.data) runs.push_back({run.base_block, block, count});
      } else {
        count = same;
        if (state == lvs::BlockState::data) runs.push_back({run.base_block, block, count});
        if (state == lvs::BlockState::zero && zeroes != nullptr) {
          zeroes->push_back({.type = lvs::RecordType::zero,
                             .lvol_id = layer.id,
                             .cluster = cluster,
                             .count = count,
                             .first_block = block,
                             .uuid = {},
                             .text = {}});
        }
      }
    }
    block += count;
  }
}

// The runs of one cluster, on their way. Copiers share them; the last one to end wakes who waits.
struct LvStore::Copying {
  Copying(const std::vector<CopyRun>& what, uint64_t where, size_t memory_blocks)
      : runs(what), target_block(where), memory(memory_blocks) {}
  const std::vector<CopyRun>& runs;
  const uint64_t target_block;
  lvs::BlockMemory memory;  // of the whole cluster
  size_t next = 0;
  size_t copier_count = 1;  // and the one who waits
  Outcome outcome = success();
  std::coroutine_handle<> waiter;
  void done() {
    if (--copier_count == 0 && waiter) waiter.resume();
  }
  bool await_ready() noexcept { return --copier_count == 0; }
  void await_suspend(std::coroutine_handle<> coroutine) noexcept { waiter = coroutine; }
  void await_resume() const noexcept {}
};

Task<void> LvStore::copy_some(Copying& copying, const Layer* layer) {
  std::vector<uint32_t> tags(layer->checksums() ? layout_.cluster_blocks() : 0);
  while (copying.next < copying.runs.size() && copying.outcome.ok()) {
    const CopyRun& run = copying.runs[copying.next++];
    uint8_t* memory = copying.memory.block(run.first_block);
    nvme::Status status =
        co_await transfer_data(*layer, IoType::read, run.base_block, run.count_blocks, memory, tags.data());
    if (!status.ok()) {
      copying.outcome = lvs::io_error("reading a block to copy", status);
      break;
    }
    status = co_await transfer_data(*layer, IoType::write, copying.target_block + run.first_block, run.count_blocks,
                                    memory, tags.data());
    if (!status.ok()) copying.outcome = lvs::io_error("writing a copied block", status);
  }
  copying.done();
}

// Into a cluster that has its place, and that nobody writes meanwhile. `last` becomes true together with the last of
// the copies; without runs, by itself.
Task<Outcome> LvStore::copy_runs(Layer* to, uint32_t cluster, std::vector<CopyRun> runs, const lvs::Record* last) {
  if (runs.empty()) {
    if (last == nullptr) co_return success();
    Outcome outcome = co_await commit({last, 1}, false);
    co_return outcome;
  }
  const uint32_t physical = to->map.find(cluster)->physical;
  Copying copying(runs, layout_.cluster_block(physical), layout_.cluster_blocks());
  for (size_t i = 0; i < std::min(copiers_max, runs.size()); i++) {
    copying.copier_count++;
    spawn(copy_some(copying, to));
  }
  co_await copying;
  if (!copying.outcome) {
    // Some may have been written: what is not recorded is no zeroes now.
    to->map.find(cluster)->fresh = 0;
    co_return std::move(copying.outcome);
  }
  std::vector<lvs::Record> records;
  for (size_t i = 0; i < runs.size(); i++) {
    records.push_back({.type = lvs::RecordType::map,
                       .lvol_id = to->id,
                       .cluster = cluster,
                       .count = runs[i].count_blocks,
                       .physical = physical,
                       .first_block = runs[i].first_block,
                       .uuid = {},
                       .text = {}});
    const bool ends = i + 1 == runs.size();
    if (records.size() < records_per_block && !ends) continue;
    const bool first_block = i < records_per_block;
    if (ends && last != nullptr) records.push_back(*last);
    // The copies are stable before they are all that is left: one flush for all of them.
    Outcome outcome = co_await commit(records, false, first_block);
    if (!outcome) co_return outcome;
    records.clear();
  }
  co_return success();
}

Task<Outcome> LvStore::inflate_lvol(std::string name) {
  return take_parent_in(std::move(name), CopyFrom::all);
}

Task<Outcome> LvStore::decouple_lvol(std::string name) {
  return take_parent_in(std::move(name), CopyFrom::parent);
}

// Keeps a layer as it is while a child takes over what it has: what was looked at must not get more.
struct LvStore::Decoupling {
  explicit Decoupling(LvStore& store) : store(store) {}
  Decoupling(const Decoupling&) = delete;
  Decoupling& operator=(const Decoupling&) = delete;
  ~Decoupling() {
    move_to(0);
    store.kick_folder();
  }
  void move_to(uint32_t id) {
    if (Layer* parent = store.by_id(parent_id)) parent->decouple_count--;
    parent_id = id;
    if (Layer* parent = store.by_id(id)) parent->decouple_count++;
  }
  LvStore& store;
  uint32_t parent_id = 0;
};

Task<Outcome> LvStore::take_parent_in(std::string name, CopyFrom from) {
  Busy busy(*this);
  Decoupling decoupling(*this);
  uint32_t id = 0;
  for (uint32_t cluster = 0;;) {
    co_await control_.take();
    Turn turn(*this);
    Result<Layer*> found = writable(name);
    if (!found) co_return std::move(found).error();
    Layer* layer = *found;
    if (layer->parent == nullptr) co_return success();
    if (layer->id != id || layer->parent->id != decoupling.parent_id) {
      // The parent was hidden, and has been folded.
      if (id == layer->id && from == CopyFrom::parent) co_return success();
      // The first turn; or a snapshot was made since the last one: from the start, for what was copied stays there.
      cluster = 0;
      id = layer->id;
      decoupling.move_to(layer->parent->id);
    }
    const auto end = static_cast<uint32_t>((layer->overlap_blocks + layer->cluster_blocks - 1) / layer->cluster_blocks);
    bool copied = false;
    for (uint32_t looked = 0; looked < clusters_per_turn && cluster < end && !copied; looked++, cluster++) {
      const bool below = from == CopyFrom::all ? layer->mapped_below(cluster)
                                               : layer->parent->states_of(cluster) != lvs::BlockStates::all_parent;
      if (!below) continue;
      Outcome outcome = co_await take_cluster_in(layer, cluster, from);
      if (!outcome) co_return outcome;
      copied = true;
    }
    if (cluster >= end) {
      const Layer* above = from == CopyFrom::all ? nullptr : layer->parent->parent;
      const lvs::Record record{.type = lvs::RecordType::reparent,
                               .lvol_id = id,
                               .uuid = {},
                               .text = {},
                               .other_id = above == nullptr ? 0 : above->id};
      Outcome outcome = co_await commit({&record, 1}, true);
      kick_folder();
      co_return outcome;
    }
    if (!copied) co_await hop(reactor_);
  }
}

bool LvStore::retry_coroutine(Op* op) {
  const Admission admission = admit(op, 1, true);
  if (admission == Admission::queued) return false;
  if (admission == Admission::granted) op->physical = space_.take_reserved();
  reactor_.defer(op);
  return true;
}

Task<Outcome> LvStore::take_cluster_in(Layer* layer, uint32_t cluster, CopyFrom from) {
  Lvol* lvol = layer->lvol.get();
  Op hold;
  co_await lvol->hold(hold, cluster, cluster);
  layer->map.pin();
  std::vector<CopyRun> runs;
  std::vector<lvs::Record> zeroes;
  runs_from(*layer, cluster, from, runs, layer->parent->parent == nullptr ? nullptr : &zeroes);
  Outcome outcome = success();
  if ((!runs.empty() || !zeroes.empty()) && !layer->map.make_window(cluster)) {
    outcome = Error{Errc::no_space, name_ + ": no metadata page is left"};
  }
  if (outcome.ok() && !runs.empty() && !layer->map.find(cluster)->mapped()) {
    Op wait;
    co_await ClusterWait{*this, wait};
    if (wait.physical == lvs::no_cluster) {
      outcome = no_cluster_for_it();
    } else {
      layer->map.assign(cluster, wait.physical, true);
      kick_keeper();
    }
  }
  if (outcome.ok() && !runs.empty()) outcome = co_await copy_runs(layer, cluster, std::move(runs));
  for (size_t i = 0; i < zeroes.size() && outcome.ok(); i += records_per_block) {
    const size_t count = std::min(records_per_block, zeroes.size() - i);
    outcome = co_await commit({&zeroes[i], count}, false);
  }
  layer->map.unpin();
  layer->map.drop_unused_window(cluster);
  lvol->release(hold);
  co_return outcome;
}

}  // namespace basalt::bdev
