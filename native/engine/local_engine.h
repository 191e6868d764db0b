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
#include "engine/engine_host.h"
#include "env/env.h"

namespace basalt {

// For a process whose engine holds keys: env/linux/core_dumps.h.
void refuse_core_dumps();

class LocalEngine final : public EngineHost {
 public:
  explicit LocalEngine(const EngineConfig& config);

  Engine& engine() override { return engine_; }
  Outcome start() override { return engine_.start(); }
  void begin_stop(std::function<void()> stopped = {}) override;
  bool finish_stop(Duration patience) override;

 private:
  const std::unique_ptr<env::Env> env_;
  Engine engine_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
};

}  // namespace basalt
