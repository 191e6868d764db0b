// SPDX-License-Identifier: Apache-2.0
// LinkPlan: of some runs, ways between nodes that lose packets and take their time, from when the cluster has started
// until all faults end. Nothing is lost for good: what follows on a connection waits until it has been sent again, so
// keep-alives, lease renewals and takeovers come late, each way for itself.
#pragma once

#include <string>

#include "sim/cluster.h"

namespace basalt::sim {

struct LinkPlan {
  double share = 0;                                 // of the ways, each direction for itself
  env::SimLink worst = {.retransmit = Duration{}};  // each way is as bad as this, or less

  bool bad() const { return share > 0; }
  // Drawn apart from everything else: other draws stay what they are. `lease`: of reads; most ways are fast enough that
  // one can be held.
  static LinkPlan random(uint64_t seed, Duration lease);
  void begin(Cluster& cluster, uint64_t seed) const;
  std::string summary() const;
};

}  // namespace basalt::sim
