// SPDX-License-Identifier: Apache-2.0
// Lvol: one thin volume of an LvStore, as a bdev of 4 KiB blocks. Made, kept and destroyed by the store; used on the
// store's reactor (others go through a Handle).
//
// Order within an lvol: reads and writes share a cluster; unmap and write_zeroes have the clusters they touch alone.
// Whoever overlaps waits, first come first served. That keeps a cluster from being freed under an I/O.
//
// A write completes when its data, and the record that makes it readable, have been completed by the base.
#pragma once

#include "bdev/bdev.h"
#include "bdev/lvol/cluster_map.h"
#include "bdev/lvol/journal.h"
#include "bdev/lvol/record.h"

namespace basalt::bdev {

class LvStore;
class Lvol;

namespace lvs {

constexpr uint32_t clusters_per_write_max = io_bytes_max / cluster_bytes_min + 1;

// What the store knows of one Io while it runs.
struct Op {
  ListNode node;        // active, or waiting for its range
  ListNode space_node;  // waiting for clusters
  Lvol* lvol = nullptr;
  Io* io = nullptr;
  bool exclusive = false;
  bool holds_range = false;
  bool asynchronous = false;  // something completed since submit(): the Io may be completed at once
  uint32_t first_cluster = 0;
  uint32_t last_cluster = 0;
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
  std::string attribute() const override { return attribute_; }

  const std::string& name() const { return info_.name; }
  const Uuid& uuid() const { return info_.uuid; }
  uint64_t size_bytes() const { return info_.count_blocks * lvs::block_bytes; }
  uint64_t allocated_bytes() const;

 private:
  friend class LvStore;
  using Op = lvs::Op;
  Lvol(LvStore& store, uint32_t id, std::string name, const Uuid& uuid, uint64_t count_blocks);

  // lvol_io.cc
  void begin(Op* op);
  void start(Op* op);
  bool range_free(Op* op, Op* before);
  void wake_waiting();
  void read_next(Op* op);
  void write_start(Op* op, bool retried);
  void write_next(Op* op);
  void write_failed(Op* op);
  void publish(Op* op);
  void unmap_start(Op* op);
  void flush_start(Op* op);
  void finish_stable(Op* op);  // a FUA becomes stable first
  void finish(Op* op, nvme::Status status);
  bool point_child(Op* op, IoType type, uint64_t base_block);

  bool busy() const { return op_count_ > 0 || control_count_ > 0; }
  void write_page(uint8_t* block) const;

  LvStore& store_;
  const uint32_t id_;
  std::string attribute_;
  lvs::Page page_;
  lvs::ClusterMap map_;
  bool published_ = false;  // its creation is in the journal
  bool deleting_ = false;
  bool waking_ = false;
  uint32_t op_count_ = 0;
  uint32_t control_count_ = 0;
  uint32_t exclusive_count_ = 0;  // active and waiting
  List<Op, &Op::node> active_;
  List<Op, &Op::node> waiting_;
};

}  // namespace basalt::bdev
