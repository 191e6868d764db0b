// SPDX-License-Identifier: Apache-2.0
// Nemesis: strikes a cluster at random moments and heals again, within what its redundancy promises (the fault atlas):
//
//   - of each leg's in-sync copies at least one keeps its data reachable to some controller at all times: one disk node
//     at a time is down, hung or failing, and only when every leg has all its copies
//   - everything may be killed at once, or lose its power at once; then nothing else strikes until it is up again
//   - controllers, networks and the store may fail in any number, as long as they come back
#pragma once

#include <string>

#include "sim/cluster.h"
#include "sim/run.h"

namespace basalt::sim {

class Nemesis {
 public:
  Nemesis(Cluster& cluster, env::SimRandom& random, Suite suite, bool verbose);

  // One strike, or one healing; then waits for a random while.
  void step();
  std::string summary() const;

 private:
  void disk_fault();
  void end_disk_fault();
  void controller_fault();
  void network_fault();
  void store_fault();
  void everything();
  bool on(uint32_t kind) const { return (kinds_ >> kind & 1) != 0; }
  void note(const std::string& what);
  std::string node_at_random();

  Cluster& cluster_;
  env::SimRandom& random_;
  const Suite suite_;
  const bool verbose_;
  uint32_t kinds_ = 0;  // which kinds strike in this run, as bits
  int hurt_disk_ = -1;
  uint64_t strike_count_ = 0;
  std::string struck_;
};

}  // namespace basalt::sim
