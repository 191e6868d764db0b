// SPDX-License-Identifier: Apache-2.0
#include "engine/local_engine.h"

#include <chrono>

#include "env/linux/core_dumps.h"
#include "env/linux/linux_env.h"

namespace basalt {

void refuse_core_dumps() {
  env::refuse_core_dumps();
}

LocalEngine::LocalEngine(const EngineConfig& config) : env_(env::make_linux_env()), engine_(*env_, config) {}

void LocalEngine::begin_stop(std::function<void()> stopped) {
  engine_.stop([this, stopped = std::move(stopped)] {
    // Told last: finish_stop() may end this object as soon as it knows.
    if (stopped) stopped();
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_one();
  });
}

bool LocalEngine::finish_stop(Duration patience) {
  {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::nanoseconds(patience.ns), [this] { return stopped_; })) return false;
  }
  engine_.join();
  return true;
}

}  // namespace basalt
