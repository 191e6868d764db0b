// SPDX-License-Identifier: Apache-2.0
// Workload: clients on the hosts, each with one operation at a time: reads anywhere, changes in the client's own blocks
// (or anywhere, when blocks are shared). Every client draws from a stream of its own.
#pragma once

#include <vector>

#include "sim/cluster.h"
#include "sim/run.h"

namespace basalt::sim {

struct WorkloadMix {
  uint32_t client_count = 3;
  bool shared_blocks = false;
  uint32_t hot_blocks = 16;  // most operations fall into so many; fewer: more meetings
  uint32_t reads = 4;        // weights
  uint32_t writes = 4;
  uint32_t zeroes = 1;
  uint32_t flushes = 1;
  double fua_chance = 0.1;
  Duration think_max = milliseconds(8);
};
WorkloadMix random_mix(env::SimRandom& random);

class Workload {
 public:
  Workload(Cluster& cluster, uint64_t seed, const WorkloadMix& mix, const Reduction& reduction);
  ~Workload();
  void start();
  void stop() { stopped_ = true; }  // nothing new is asked

 private:
  void ask(uint32_t client);
  void ended(OpIndex index);
  SimHost& host_of(uint32_t client) { return cluster_.host(client % cluster_.host_count()); }

  struct Client {
    env::SimRandom random;
    uint64_t asked_count = 0;
  };
  Cluster& cluster_;
  const WorkloadMix mix_;
  const Reduction reduction_;
  std::vector<Client> clients_;
  bool stopped_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace basalt::sim
