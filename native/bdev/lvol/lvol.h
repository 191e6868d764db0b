// SPDX-License-Identifier: Apache-2.0
// Lvol: one thin volume of an LvStore, or a snapshot of one, as a bdev of 4 KiB blocks. Made, kept and destroyed by the
// store; used on the store's reactor (others go through a Handle). It shows a layer (layer.h); a snapshot puts a new
// layer under the same Lvol.
//
// Order within an lvol: reads and writes share a cluster; unmap, write_zeroes and the store's own holds (a snapshot's
// cut, a shrink, copies from a parent) have the clusters they touch alone. Whoever overlaps waits, first come first
// served. That keeps a cluster from being freed under a write. A cluster that is freed under a read from another lvol
// is not used again before that read has ended (LvStore::reads_passed()).
//
// A write completes when its data, and the record that makes it readable, have been completed by the base.
#pragma once

#include "bdev/bdev.h"
#include "bdev/lvol/control.h"
#include "bdev/lvol/journal.h"
#include "bdev/lvol/layer.h"
#include "bdev/lvol/record.h"

namespace basalt::bdev {

class LvStore;
class Lvol;

namespace lvs {

constexpr uint32_t clusters_per_write_max = io_bytes_max / cluster_bytes_min + 1;

// What the store knows of one Io while it runs; or, without an Io, a coroutine of the store that waits for a range or
// for a cluster.
struct Op : Work {
  ListNode node;        // active, or waiting for its range
  ListNode space_node;  // waiting for clusters
  Lvol* lvol = nullptr;
  Io* io = nullptr;
  std::coroutine_handle<> waiter;  // without Io
  bool exclusive = false;
  bool holds_range = false;
  bool asynchronous = false;  // something completed since submit(): the Io may be completed at once
  bool reading = false;       // a read that has begun (not one that waits for its range)
  bool read_phase = false;    // then: which of the two counts it is in
  uint32_t first_cluster = 0;
  uint32_t last_cluster = 0;
  uint32_t physical = no_cluster;  // a coroutine's
  uint32_t done_blocks = 0;
  uint32_t run_blocks = 0;
  uint64_t flush_sequence = 0;
  Io child;
  JournalEntry entry;
  std::unique_ptr<Iovec[]> slice;  // made when first needed, then kept with the pooled Op
  uint8_t records[clusters_per_write_max * map_record_bytes];
};

}  // namespace lvs

class Lvol final : public Bdev {
 public:
  ~Lvol() override;

  void submit(Io* io) override;
  Task<Outcome> close() override;
  Task<Outcome> set_attribute(std::string value) override;
  std::string attribute() const override { return layer_->attribute; }
  Task<Outcome> snapshot(std::string name, std::function<bool()> may_begin) override;
  Task<Outcome> prepare_snapshot() override;

  const std::string& name() const { return info_.name; }
  const Uuid& uuid() const { return info_.uuid; }
  uint64_t size_bytes() const { return info_.count_blocks * lvs::block_bytes; }
  uint64_t allocated_bytes() const;  // of its own clusters; what it shares with a snapshot counts there
  bool read_only() const { return layer_->read_only(); }
  bool checksums() const { return layer_->checksums(); }
  bool is_snapshot() const { return (layer_->flags & lvs::layer_snapshot) != 0; }
  uint32_t depth() const { return layer_->depth(); }
  const Lvol* base() const;                 // the nearest lvol below; nullptr: none
  std::vector<const Lvol*> clones() const;  // the nearest ones above

 private:
  friend class LvStore;
  using Op = lvs::Op;
  friend struct lvs::Layer;
  Lvol(LvStore& store, lvs::Layer& layer);
  void show(lvs::Layer& layer);  // name, uuid and size become the layer's

  // lvol_io.cc
  void begin(Op* op);
  void start(Op* op);
  void start_late(Op* op);
  bool range_free(Op* op, Op* before);
  void wake_waiting();
  void read_next(Op* op);
  void write_start(Op* op, bool retried);
  void write_next(Op* op);
  void write_failed(Op* op);
  void publish(Op* op);
  void unmap_start(Op* op);
  void unmap_ended(Op* op);
  bool make_windows_over_parent(uint32_t first_cluster, uint32_t end_cluster);  // false: no page left
  void flush_start(Op* op);
  void finish_stable(Op* op);  // a FUA becomes stable first
  void finish(Op* op, nvme::Status status);
  bool point_child(Op* op, IoType type, uint64_t base_block);

  // co_await hold(op, first, last): alone with these clusters, until release(op). The Op is the caller's.
  struct Hold;
  Hold hold(Op& op, uint32_t first_cluster, uint32_t last_cluster);
  void release(Op& op);
  void shorten(Op& op, uint32_t last_cluster);  // the rest of the held clusters is free for others

  bool busy() const { return op_count_ > 0 || attributes_in_flight_ > 0; }

  LvStore& store_;
  lvs::Layer* layer_;
  bool deleting_ = false;
  bool cutting_ = false;  // a snapshot is being made: the layer is about to change
  bool waking_ = false;
  uint32_t op_count_ = 0;
  uint32_t attributes_in_flight_ = 0;
  lvs::WaitList attributes_changed_;  // the end of a cut, or of the last attribute in flight
  uint32_t exclusive_count_ = 0;      // active and waiting
  List<Op, &Op::node> active_;
  List<Op, &Op::node> waiting_;
};

struct Lvol::Hold {
  Lvol& lvol;
  Op& op;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiter);
  void await_resume() const noexcept {}
};

}  // namespace basalt::bdev
