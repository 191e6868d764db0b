// SPDX-License-Identifier: Apache-2.0
// Simulation: engines in a simulated world (env/sim): any number in one thread, in virtual time. It is how a program in
// another language drives them: nodes and disks go by name, time by step().
//
// Thread: one, the caller's; nothing runs but inside step(). Engines are used as ever (Engine::call and so on): what
// they are asked is carried out by a later step.
// Invariants: - a node has at most one engine that lives; a killed one is never destroyed (a killed process runs no
//               destructors), only its payload memory is given back
//             - one seed and the same calls give the same history: trace_hash() tells
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "engine/config.h"
#include "engine/engine.h"
#include "engine/engine_host.h"
#include "env/sim/sim_world.h"

namespace basalt {

// One process on a simulated node.
class SimulatedEngine final : public EngineHost {
 public:
  SimulatedEngine(env::SimNode& node, const EngineConfig& config);

  Engine& engine() override { return *engine_; }
  Outcome start() override { return engine_->start(); }
  void begin_stop(std::function<void()> stopped) override;
  // Never waits: the simulation must have been stepped until it stopped.
  bool finish_stop(Duration patience) override;

  // SIGKILL; with `power` the machine's power goes, too. The engine must not be used afterwards.
  void kill(bool power);

 private:
  env::SimNode& node_;
  std::unique_ptr<Engine> engine_;
  bool stopped_ = false;
};

class Simulation {
 public:
  Simulation(uint64_t seed, const env::SimKnobs& knobs) : world_(seed, knobs) {}

  // A process on the node of that name: a new node, or one whose last process has ended or was killed.
  std::unique_ptr<SimulatedEngine> make_engine(const std::string& node, const EngineConfig& config);
  env::SimNode* find_node(const std::string& name);
  env::SimWorld& world() { return world_; }

  // Runs until `condition` holds (asked between events) or the time is `limit`.
  void step(Instant limit, const std::function<bool()>& condition);

 private:
  env::SimWorld world_;
  std::map<std::string, env::SimNode*> nodes_;
};

}  // namespace basalt
