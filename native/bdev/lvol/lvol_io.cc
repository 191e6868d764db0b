// SPDX-License-Identifier: Apache-2.0
// The data path of an lvol: ranges, reads, first writes and overwrites, unmap, flush.
#include <algorithm>

#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {
namespace {

Lvol* lvol_of(Io* child) {
  return static_cast<lvs::Op*>(child->context)->lvol;
}
lvs::Op* op_of(Io* child) {
  return static_cast<lvs::Op*>(child->context);
}

void zero_pieces(const Iovec* iov, size_t count, uint64_t offset_bytes, uint64_t length_bytes) {
  for (size_t i = 0; i < count && length_bytes > 0; i++) {
    if (offset_bytes >= iov[i].length_bytes) {
      offset_bytes -= iov[i].length_bytes;
      continue;
    }
    const uint64_t take = std::min<uint64_t>(iov[i].length_bytes - offset_bytes, length_bytes);
    std::memset(static_cast<char*>(iov[i].base) + offset_bytes, 0, take);
    length_bytes -= take;
    offset_bytes = 0;
  }
}

bool overlap(const lvs::Op& a, const lvs::Op& b) {
  return a.first_cluster <= b.last_cluster && b.first_cluster <= a.last_cluster;
}

}  // namespace

void Lvol::submit(Io* io) {
  nvme::Status status = check(*io);
  const bool changes = io->type != IoType::read && io->type != IoType::flush;
  if (changes && (layer_->read_only() || store_.read_only())) {
    status = nvme::status::namespace_write_protected.dnr();
  }
  if (!status.ok()) {
    complete_later(io, status);
    return;
  }
  op_count_++;
  Op* op = store_.take_op(io, this);
  if (op != nullptr) begin(op);
}

void Lvol::begin(Op* op) {
  if (op->io->type == IoType::flush) {
    flush_start(op);
    return;
  }
  const uint32_t cluster_blocks = store_.layout_.cluster_blocks();
  op->first_cluster = static_cast<uint32_t>(op->io->offset_blocks / cluster_blocks);
  op->last_cluster = static_cast<uint32_t>((op->io->offset_blocks + op->io->count_blocks - 1) / cluster_blocks);
  op->exclusive = op->io->type == IoType::unmap || op->io->type == IoType::write_zeroes;
  op->holds_range = true;
  exclusive_count_ += op->exclusive;
  if (exclusive_count_ == 0 || range_free(op, nullptr)) [[likely]] {
    active_.push_back(op);
    start(op);
  } else {
    waiting_.push_back(op);
  }
}

// Whether nothing that overlaps, and must not, is active or waits before it (before == nullptr: it is the last).
bool Lvol::range_free(Op* op, Op* before) {
  bool free = true;
  const auto look = [&](Op* other) {
    if (other != op && (op->exclusive || other->exclusive) && overlap(*op, *other)) free = false;
  };
  active_.for_each(look);
  for (Op* other = waiting_.front(); other != nullptr && other != before && free; other = waiting_.next(other))
    look(other);
  return free;
}

// start() may finish an Op at once and come back here: the outer call goes on from the front then.
void Lvol::wake_waiting() {
  if (waking_) return;
  waking_ = true;
  for (Op* op = waiting_.front(); op != nullptr;) {
    if (!range_free(op, op)) {
      op = waiting_.next(op);
      continue;
    }
    waiting_.remove(op);
    active_.push_back(op);
    start_late(op);
    op = waiting_.front();
  }
  waking_ = false;
}

// While it waited, the lvol may have become smaller or read-only.
void Lvol::start_late(Op* op) {
  if (op->io == nullptr) {
    home().defer(op);  // a hold
  } else if (op->io->offset_blocks + op->io->count_blocks > info_.count_blocks) {
    finish(op, nvme::status::lba_out_of_range.dnr());
  } else if (read_only() && op->io->type != IoType::read) {
    finish(op, nvme::status::namespace_write_protected.dnr());
  } else {
    start(op);
  }
}

void Lvol::start(Op* op) {
  switch (op->io->type) {
    case IoType::read:
      store_.read_begins(op);
      read_next(op);
      return;
    case IoType::write:
      write_start(op, false);
      return;
    default:
      unmap_start(op);
  }
}

Lvol::Hold Lvol::hold(Op& op, uint32_t first_cluster, uint32_t last_cluster) {
  op.lvol = this;
  op.io = nullptr;
  op.exclusive = op.holds_range = true;
  op.first_cluster = first_cluster;
  op.last_cluster = last_cluster;
  op.run = [](Work* work) { static_cast<Op*>(work)->waiter.resume(); };
  return {*this, op};
}

bool Lvol::Hold::await_suspend(std::coroutine_handle<> waiter) {
  op.waiter = waiter;
  lvol.exclusive_count_++;
  if (lvol.range_free(&op, nullptr)) {
    lvol.active_.push_back(&op);
    return false;
  }
  lvol.waiting_.push_back(&op);
  return true;
}

void Lvol::release(Op& op) {
  active_.remove(&op);
  exclusive_count_--;
  if (!waiting_.empty()) wake_waiting();
}

void Lvol::shorten(Op& op, uint32_t last_cluster) {
  if (last_cluster >= op.last_cluster) return;
  op.last_cluster = last_cluster;
  if (!waiting_.empty()) wake_waiting();
}

// Prepares the child for op->run_blocks from op->done_blocks on. False: the pieces do not fit.
bool Lvol::point_child(Op* op, IoType type, uint64_t base_block) {
  store_.device_.prepare(op->child, type, base_block, op->run_blocks);
  op->child.fua = type == IoType::write && op->io->fua;
  op->child.context = op;
  if (op->run_blocks == op->io->count_blocks) [[likely]] {
    op->child.iov = op->io->iov;
    op->child.iov_count = op->io->iov_count;
    return true;
  }
  if (op->slice == nullptr) op->slice = std::make_unique<Iovec[]>(iov_count_max);
  const size_t used = iovec_slice(op->io->iov, op->io->iov_count, uint64_t{op->done_blocks} * lvs::block_bytes,
                                  uint64_t{op->run_blocks} * lvs::block_bytes, op->slice.get(), iov_count_max);
  op->child.iov = op->slice.get();
  op->child.iov_count = static_cast<uint16_t>(used);
  return used > 0;
}

void Lvol::read_next(Op* op) {
  Io* io = op->io;
  while (op->done_blocks < io->count_blocks) {
    const auto run = layer_->read_run(io->offset_blocks + op->done_blocks, io->count_blocks - op->done_blocks);
    if (!run.data) {
      zero_pieces(io->iov, io->iov_count, uint64_t{op->done_blocks} * lvs::block_bytes,
                  uint64_t{run.count_blocks} * lvs::block_bytes);
      op->done_blocks += run.count_blocks;
      continue;
    }
    op->run_blocks = run.count_blocks;
    if (!point_child(op, IoType::read, run.base_block)) {
      finish(op, nvme::status::data_sgl_length_invalid.dnr());
      return;
    }
    op->child.done = [](Io* child) {
      Op* op = op_of(child);
      op->asynchronous = true;
      op->done_blocks += op->run_blocks;
      if (!child->status.ok()) {
        op->lvol->finish(op, child->status);
      } else {
        op->lvol->read_next(op);
      }
    };
    store_.submit_data(*layer_, &op->child);
    return;
  }
  finish(op, nvme::status::success);
}

void Lvol::write_start(Op* op, bool retried) {
  if (store_.failed()) {
    finish(op, nvme::status::write_fault);
    return;
  }
  uint32_t new_clusters = 0;
  for (uint32_t cluster = op->first_cluster; cluster <= op->last_cluster; cluster++) {
    const lvs::ClusterEntry* entry = layer_->map.find(cluster);
    new_clusters += entry == nullptr || !entry->mapped();
  }
  if (new_clusters > 0) {
    const LvStore::Admission admission = store_.admit(op, new_clusters, retried);
    if (admission == LvStore::Admission::queued) return;
    bool windows = admission == LvStore::Admission::granted;
    for (uint32_t cluster = op->first_cluster; windows && cluster <= op->last_cluster; cluster++) {
      windows = layer_->map.make_window(cluster);
    }
    if (!windows) {
      store_.refused_count_++;
      finish(op, nvme::status::capacity_exceeded);
      return;
    }
    for (uint32_t cluster = op->first_cluster; cluster <= op->last_cluster; cluster++) {
      if (layer_->map.find(cluster)->mapped()) continue;
      layer_->map.assign(cluster, store_.space_.take_reserved(), true);
    }
    store_.kick_keeper();
  }
  write_next(op);
}

void Lvol::write_next(Op* op) {
  if (op->done_blocks == op->io->count_blocks) {
    publish(op);
    return;
  }
  const uint64_t base_block = layer_->map.write_run(op->io->offset_blocks + op->done_blocks,
                                                    op->io->count_blocks - op->done_blocks, op->run_blocks);
  if (!point_child(op, IoType::write, base_block)) {
    finish(op, nvme::status::data_sgl_length_invalid.dnr());
    return;
  }
  op->child.done = [](Io* child) {
    Op* op = op_of(child);
    op->asynchronous = true;
    op->done_blocks += op->run_blocks;
    if (!child->status.ok()) {
      op->lvol->write_failed(op);
    } else {
      op->lvol->write_next(op);
    }
  };
  store_.submit_data(*layer_, &op->child);
}

// Unpublished blocks may hold anything of this write now.
void Lvol::write_failed(Op* op) {
  for (uint32_t cluster = op->first_cluster; cluster <= op->last_cluster; cluster++)
    layer_->map.find(cluster)->fresh = 0;
  finish(op, op->child.status);
}

// The data is there: record the blocks that were no data before. Overwrites have nothing to record.
void Lvol::publish(Op* op) {
  const uint32_t cluster_blocks = store_.layout_.cluster_blocks();
  const uint64_t end = op->io->offset_blocks + op->io->count_blocks;
  uint32_t length_bytes = 0;
  bool flush_first = false;
  for (uint32_t cluster = op->first_cluster; cluster <= op->last_cluster; cluster++) {
    const uint64_t cluster_start = uint64_t{cluster} * cluster_blocks;
    const auto first = static_cast<uint32_t>(std::max(op->io->offset_blocks, cluster_start) - cluster_start);
    const auto count = static_cast<uint32_t>(std::min(end, cluster_start + cluster_blocks) - cluster_start) - first;
    const lvs::ClusterEntry& entry = *layer_->map.find(cluster);
    if (layer_->states.all(entry.states, first, count, lvs::BlockState::data)) continue;
    // Where the parent's data shows, zeroes would be neither the old content nor the new.
    flush_first |= !entry.fresh || layer_->hides_data(cluster_start + first, count);
    const lvs::Record record{.type = lvs::RecordType::map,
                             .lvol_id = layer_->id,
                             .cluster = cluster,
                             .count = count,
                             .physical = entry.physical,
                             .first_block = first,
                             .uuid = {},
                             .text = {}};
    length_bytes += lvs::encode_record(record, op->records + length_bytes);
  }
  if (length_bytes == 0) [[likely]] {
    finish_stable(op);
    return;
  }
  op->entry.records = op->records;
  op->entry.length_bytes = length_bytes;
  op->entry.flush_first = flush_first && !layer_->checksums();  // their log has it
  op->entry.context = op;
  op->entry.done = [](lvs::JournalEntry* entry) {
    Op* op = static_cast<Op*>(entry->context);
    if (entry->status.ok()) {
      op->lvol->finish_stable(op);
    } else {
      op->lvol->finish(op, entry->status);
    }
  };
  store_.journal_.append(&op->entry);
}

void Lvol::unmap_start(Op* op) {
  if (store_.failed()) {
    finish(op, nvme::status::write_fault);
    return;
  }
  const uint32_t cluster_blocks = store_.layout_.cluster_blocks();
  const uint64_t begin = op->io->offset_blocks;
  const uint64_t end = begin + op->io->count_blocks;
  uint32_t length_bytes = 0;
  const auto add = [&](lvs::RecordType type, uint32_t cluster, uint32_t first_block, uint32_t count) {
    const lvs::Record record{.type = type,
                             .lvol_id = layer_->id,
                             .cluster = cluster,
                             .count = count,
                             .first_block = first_block,
                             .uuid = {},
                             .text = {}};
    length_bytes += lvs::encode_record(record, op->records + length_bytes);
  };
  // The parts of clusters at both ends become zero blocks; whole clusters between them are given back.
  uint32_t whole_first = op->first_cluster;
  uint32_t whole_end = op->last_cluster + 1;
  bool windows = true;
  layer_->map.pin();
  for (uint32_t cluster : {op->first_cluster, op->last_cluster}) {
    const uint64_t cluster_start = uint64_t{cluster} * cluster_blocks;
    const uint64_t cluster_end = std::min(cluster_start + cluster_blocks, info_.count_blocks);
    if (begin <= cluster_start && end >= cluster_end) continue;
    const uint64_t from = std::max(begin, cluster_start);
    const auto count = static_cast<uint32_t>(std::min(end, cluster_end) - from);
    const bool again = cluster == op->last_cluster && whole_first > cluster;  // first and last are one
    if (!again && layer_->shows_data(from, count)) {
      windows = windows && layer_->map.make_window(cluster);
      add(lvs::RecordType::zero, cluster, static_cast<uint32_t>(from - cluster_start), count);
    }
    if (cluster == op->first_cluster) whole_first = cluster + 1;
    if (cluster == op->last_cluster) whole_end = cluster;
  }
  if (whole_first < whole_end && (layer_->map.used_count() > 0 || layer_->parent != nullptr)) {
    windows = windows && make_windows_over_parent(whole_first, whole_end);
    add(lvs::RecordType::unmap, whole_first, 0, whole_end - whole_first);
  }
  if (!windows) {
    store_.refused_count_++;
    unmap_ended(op);
    finish(op, nvme::status::capacity_exceeded);
    return;
  }
  if (length_bytes == 0) {
    unmap_ended(op);
    finish_stable(op);
    return;
  }
  op->entry.records = op->records;
  op->entry.length_bytes = length_bytes;
  op->entry.flush_first = false;
  op->entry.context = op;
  op->entry.done = [](lvs::JournalEntry* entry) {
    Op* op = static_cast<Op*>(entry->context);
    op->asynchronous = true;
    op->lvol->unmap_ended(op);
    if (entry->status.ok()) {
      op->lvol->finish_stable(op);
    } else {
      op->lvol->finish(op, entry->status);
    }
  };
  store_.journal_.append(&op->entry);
}

void Lvol::unmap_ended(Op* op) {
  layer_->map.unpin();
  if (layer_->parent == nullptr) return;
  const uint32_t window_clusters = layer_->map.window_clusters();
  for (uint32_t index = op->first_cluster / window_clusters; index <= op->last_cluster / window_clusters; index++)
    layer_->map.drop_unused_window(index * window_clusters);
}

// Zero over a parent has to be written down: the windows in which something may show through.
bool Lvol::make_windows_over_parent(uint32_t first_cluster, uint32_t end_cluster) {
  if (layer_->parent == nullptr) return true;
  const uint32_t window_clusters = layer_->map.window_clusters();
  for (uint32_t index = first_cluster / window_clusters; index <= (end_cluster - 1) / window_clusters; index++) {
    if (layer_->window_below(index) && !layer_->map.make_window(index * window_clusters)) return false;
  }
  return true;
}

// The write's own blocks went out with FUA; the records that make them readable may still be in the base's cache.
void Lvol::finish_stable(Op* op) {
  if (!op->io->fua || store_.journal_.all_stable()) [[likely]] {
    finish(op, nvme::status::success);
    return;
  }
  flush_start(op);
}

void Lvol::flush_start(Op* op) {
  if (store_.failed()) {
    finish(op, nvme::status::write_fault);
    return;
  }
  op->flush_sequence = store_.journal_.completed_sequence();
  store_.device_.prepare(op->child, IoType::flush, 0, 0);
  op->child.context = op;
  op->child.done = [](Io* child) {
    Op* op = op_of(child);
    LvStore& store = lvol_of(child)->store_;
    op->asynchronous = true;
    nvme::Status status = child->status;
    if (!status.ok()) {
      store.fail();
    } else if (store.failed()) {
      status = nvme::status::write_fault;  // a flush that failed meanwhile may have been about the same data
    } else {
      store.journal_.flushed(op->flush_sequence);
    }
    op->lvol->finish(op, status);
  };
  store_.device_.submit(&op->child);
}

void Lvol::finish(Op* op, nvme::Status status) {
  Io* io = op->io;
  const bool asynchronous = op->asynchronous;
  if (op->holds_range) {
    if (op->reading) store_.read_ended(op);
    active_.remove(op);
    exclusive_count_ -= op->exclusive;
    if (!waiting_.empty()) wake_waiting();
  }
  op_count_--;
  store_.give_op(op);
  if (asynchronous) {
    complete_now(io, status);
  } else {
    complete_later(io, status);
  }
}

}  // namespace basalt::bdev
