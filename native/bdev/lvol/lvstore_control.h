// SPDX-License-Identifier: Apache-2.0
// For the files of LvStore that change the tree of layers: they hold the store open, take turns, and wait for clusters.
#pragma once

#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {

// close() waits for it.
struct LvStore::Busy {
  explicit Busy(LvStore& store) : store(store) { store.background_count_++; }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
  ~Busy() { store.background_left(); }
  LvStore& store;
};

// After control_.take(): gives it back.
struct LvStore::Turn {
  explicit Turn(LvStore& store) : store(store) {}
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() { store.control_.give(); }
  LvStore& store;
};

// A cluster for a coroutine, as admit() gives them to writes.
struct LvStore::ClusterWait {
  LvStore& store;
  Op& op;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiter) {
    op.waiter = waiter;
    op.io = nullptr;
    op.physical = lvs::no_cluster;
    op.run = [](Work* work) { static_cast<Op*>(work)->waiter.resume(); };
    const Admission admission = store.admit(&op, 1, false);
    if (admission == Admission::granted) op.physical = store.space_.take_reserved();
    return admission == Admission::queued;
  }
  void await_resume() const noexcept {}
};

}  // namespace basalt::bdev
