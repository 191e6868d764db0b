// SPDX-License-Identifier: Apache-2.0
// For the files of LvStore that change the tree of layers: they hold the store open, and take turns.
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

}  // namespace basalt::bdev
