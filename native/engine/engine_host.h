// SPDX-License-Identifier: Apache-2.0
// EngineHost: an Engine together with the world that it lives in, as a program that embeds one sees it: the real one
// (LocalEngine) or a simulated process (SimulatedEngine).
#pragma once

#include <functional>

#include "base/result.h"
#include "base/time.h"

namespace basalt {

class Engine;

class EngineHost {
 public:
  virtual ~EngineHost() = default;
  virtual Engine& engine() = 0;
  virtual Outcome start() = 0;
  // Once; `stopped` runs on a reactor when all has ended.
  virtual void begin_stop(std::function<void()> stopped) = 0;
  // Waits for that, and joins. False: it took longer than `patience`. Not on a reactor.
  virtual bool finish_stop(Duration patience) = 0;
};

}  // namespace basalt
