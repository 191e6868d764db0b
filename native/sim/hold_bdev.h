// SPDX-License-Identifier: Apache-2.0
// HoldBdev: passes everything to the bdev below, or holds it back while told to: parks requests inside a process.
#pragma once

#include <vector>

#include "bdev/bdev.h"
#include "bdev/handle.h"

namespace basalt::sim {

class HoldBdev final : public bdev::Bdev {
 public:
  HoldBdev(Reactor& home, bdev::Bdev& base) : Bdev(home), base_(base) { info_ = base.info(); }

  void submit(bdev::Io* io) override {
    const bool writes = io->type == bdev::IoType::write || io->type == bdev::IoType::write_zeroes;
    if (hold_writes && writes) {
      held_.push_back(io);
    } else {
      base_.submit(io);
    }
  }
  Task<Outcome> close() override {
    release();
    co_return success();
  }
  Instant last_success_sent() const override { return base_.last_success_sent(); }

  void release() {
    hold_writes = false;
    for (bdev::Io* io : std::exchange(held_, {}))
      base_.submit(io);
  }
  size_t held_count() const { return held_.size(); }

  bool hold_writes = false;

 private:
  bdev::Bdev& base_;
  std::vector<bdev::Io*> held_;
};

}  // namespace basalt::sim
