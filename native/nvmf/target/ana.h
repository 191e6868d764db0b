// SPDX-License-Identifier: Apache-2.0
// SubsystemListener: a subsystem at one listener, with the ANA state of each group there. States are written on the
// home reactor and read by queues on every reactor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "nvme/spec.h"
#include "nvmf/target/transport.h"

namespace basalt::nvmf {

class SubsystemListener {
 public:
  SubsystemListener(Listener& listener, uint32_t ana_group_max)
      : listener(listener), ana_group_max_(ana_group_max), states_(new std::atomic<uint8_t>[ana_group_max + 1]) {
    for (uint32_t group = 0; group <= ana_group_max; group++)
      states_[group].store(static_cast<uint8_t>(nvme::AnaState::optimized), std::memory_order_relaxed);
  }

  nvme::AnaState state(uint32_t group) const {
    if (group > ana_group_max_) return nvme::AnaState::inaccessible;
    return static_cast<nvme::AnaState>(states_[group].load(std::memory_order_relaxed));
  }
  void set_state(uint32_t group, nvme::AnaState state) {
    states_[group].store(static_cast<uint8_t>(state), std::memory_order_seq_cst);
  }

  Listener& listener;

 private:
  const uint32_t ana_group_max_;
  std::unique_ptr<std::atomic<uint8_t>[]> states_;
};

}  // namespace basalt::nvmf
