// SPDX-License-Identifier: Apache-2.0
// LocalEngine: an Engine in the real world, for programs that only embed one.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "base/result.h"
#include "engine/config.h"
#include "engine/engine.h"
#include "env/env.h"

namespace basalt {

class LocalEngine {
 public:
  explicit LocalEngine(const EngineConfig& config);

  Outcome start() { return engine_.start(); }
  // Once; `stopped` runs on a reactor when all has ended.
  void begin_stop(std::function<void()> stopped = {});
  // Waits for that, and joins. False: it took longer than `patience`. Not on a reactor.
  bool finish_stop(Duration patience);
  Engine& engine() { return engine_; }

 private:
  const std::unique_ptr<env::Env> env_;
  Engine engine_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
};

}  // namespace basalt
