// SPDX-License-Identifier: Apache-2.0
// Module: one family of methods with the objects behind it. Lives as long as the engine, on the management reactor.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "base/task.h"
#include "engine/rpc/dispatcher.h"

namespace basalt {

class Engine;

class Module {
 public:
  virtual ~Module() = default;
  virtual void register_methods(rpc::Dispatcher& dispatcher) = 0;

  // Once, before the reactors run.
  virtual Outcome start() { return success(); }
  // The engine ends: take nothing new from outside, and fail at once what would wait for somebody.
  virtual void abort() {}
  // Ends what nobody uses (any more) and waits for it; true when there was something. Called again and again, all
  // modules in turn, until none has anything left: so stacks come down from the top.
  virtual Task<bool> stop_some() { co_return false; }
};

using ModuleList = std::vector<std::unique_ptr<Module>>;

// All families, exports first: the order in which they stop. (engine/rpc/modules.cc; it only lists.)
ModuleList make_modules(Engine& engine);

}  // namespace basalt
