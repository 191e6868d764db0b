// SPDX-License-Identifier: Apache-2.0
#include "engine/simulation.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/assert.h"

namespace basalt {
namespace {

void keep_for_ever(Engine* engine) {
  // The one thing here that outlives its owner: leak checkers must go on seeing the dead.
  static auto* const graveyard = new std::vector<Engine*>();
  graveyard->push_back(engine);
}

}  // namespace

SimulatedEngine::SimulatedEngine(env::SimNode& node, const EngineConfig& config)
    : node_(node), engine_(std::make_unique<Engine>(node, config)) {}

void SimulatedEngine::begin_stop(std::function<void()> stopped) {
  engine_->stop([this, stopped = std::move(stopped)] {
    stopped_ = true;
    if (stopped) stopped();
  });
}

bool SimulatedEngine::finish_stop(Duration) {
  if (!stopped_) return false;
  engine_->join();
  return true;
}

void SimulatedEngine::kill(bool power) {
  if (power) {
    node_.power_cut();
  } else {
    node_.crash();
  }
  engine_->forget_memory();
  keep_for_ever(engine_.release());
}

std::unique_ptr<SimulatedEngine> Simulation::make_engine(const std::string& node, const EngineConfig& config) {
  env::SimNode*& found = nodes_[node];
  if (found == nullptr) found = &world_.add_node(node);
  found->restart();
  return std::make_unique<SimulatedEngine>(*found, config);
}

env::SimNode* Simulation::find_node(const std::string& name) {
  const auto found = nodes_.find(name);
  return found == nodes_.end() ? nullptr : found->second;
}

void Simulation::step(Instant limit, const std::function<bool()>& condition) {
  world_.run_until(condition, std::max(limit - world_.now(), Duration{}));
}

}  // namespace basalt
