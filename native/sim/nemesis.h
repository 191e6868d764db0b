// SPDX-License-Identifier: Apache-2.0
// Nemesis: strikes a cluster at random moments and heals again, within what its redundancy promises (the fault atlas):
//
//   - of each leg's in-sync copies at least one keeps its data reachable to some controller at all times: one disk node
//     at a time is down, hung or failing, and only when every leg has all its copies
//   - everything may be killed at once, or lose its power at once; then nothing else strikes until it is up again
//   - controllers, networks and the store may fail in any number, as long as they come back
//
// Every step draws from a stream of its own: leaving one out leaves the others as they are.
#pragma once

#include <string>

#include "sim/cluster.h"
#include "sim/run.h"

namespace basalt::sim {

class Nemesis {
 public:
  struct Plan {
    uint32_t kinds = 0;    // which kinds strike in this run, as bits
    uint32_t intense = 0;  // these too, more often than the others
    uint32_t step_count = 0;
  };
  // Steady: controllers and their networks stay.
  static Plan random_plan(env::SimRandom& random, bool steady);
  // With a bug planted: what it needs to show.
  static uint32_t random_intense(env::SimRandom& random, const PlantedBugs& bugs);
  static bool needs_intense(const PlantedBugs& bugs) {
    return bugs.forget_epoch || bugs.ignore_read_lease || bugs.ignore_own_marks;
  }

  Nemesis(Cluster& cluster, uint64_t seed, const Plan& plan, bool verbose)
      : cluster_(cluster), random_(seed), seed_(seed), plan_(plan), verbose_(verbose) {}

  // One strike, or one healing; then waits for a random while.
  void step(uint32_t index);
  std::string summary() const;

 private:
  void disk_fault();
  void end_disk_fault();
  void controller_fault();
  void network_fault();
  void store_fault();
  void everything();
  // The active controller is set apart, stopped or killed in the middle of its work, followed by another one, and
  // comes back, with what it had in hand.
  void ambush();
  void set_apart(const std::string& victim);
  void restart_a_disk();
  // Intense ones: whole stories that redundancy must survive, each with what its bug needs.
  void intense_strike();
  void divide();
  void wake_old_controller();
  void cut_power_of_one();
  bool on(uint32_t kind) const { return (plan_.kinds >> kind & 1) != 0; }
  void note(const std::string& what);
  void pass(Duration max);  // a random while
  ControllerNode& a_controller();
  std::string node_at_random();

  Cluster& cluster_;
  env::SimRandom random_;
  const uint64_t seed_;
  const Plan plan_;
  const bool verbose_;
  int hurt_disk_ = -1;
  uint64_t strike_count_ = 0;
};

}  // namespace basalt::sim
