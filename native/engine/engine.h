// SPDX-License-Identifier: Apache-2.0
// Engine: one data path composed - memory, reactors, bdevs, exports - and the methods that drive it (docs/rpc.md).
// Two engines in one process do not know of each other.
//
// Threads: start(), call(), subscribe(), open_bdev(), stop() and join() from any thread that is not a reactor's;
// everything else on reactor 0, the management reactor, where methods and modules run.
// Invariants: - a call is answered exactly once, also when the engine stops (`closed`)
//             - stop(): modules abort, running methods end, then everything comes down from the top; nothing is left
//             - after join() no thread of the engine runs, and nothing calls back any more
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "base/result.h"
#include "base/task.h"
#include "engine/bdev_access.h"
#include "engine/bdev_registry.h"
#include "engine/config.h"
#include "engine/event_bus.h"
#include "engine/keyring.h"
#include "engine/module.h"
#include "engine/rpc/dispatcher.h"
#include "engine/rpc/json.h"
#include "engine/user_memory.h"
#include "env/env.h"
#include "memory/arena.h"
#include "runtime/reactor.h"

namespace basalt {

class Fabric;

class Engine {
 public:
  Engine(env::Env& env, EngineConfig config);
  ~Engine();  // never started, or joined
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Outcome start();

  // `answer` is {"result": ...} or {"error": {"code", "message", "data"?}} as text. Runs on the management reactor.
  using Answer = std::function<void(std::string answer)>;
  void call(std::string method, std::string params_json, Answer answer);
  // Events as text, from now on, until the engine ends. `sink` runs on the management reactor.
  void subscribe(std::function<void(std::string event)> sink);
  using Opened = std::function<void(Result<BdevAccess*> access)>;
  void open_bdev(std::string name, Opened opened);
  // Waits for the access's transfers; `access` is gone when `closed` runs.
  void close_bdev(BdevAccess* access, std::function<void()> closed);

  // Once. `stopped` runs on the management reactor when nothing is left; then join().
  void stop(std::function<void()> stopped);
  void join();

  const std::shared_ptr<UserMemory>& user_memory() const { return user_memory_; }
  // For a simulated process that was killed: gives all payload memory back. Nothing of the engine runs afterwards, not
  // even its destructor.
  void forget_memory();

  // For modules, on the management reactor.
  env::Env& env() { return env_; }
  const EngineConfig& config() const { return config_; }
  Reactor& management() { return *reactors_.front(); }
  const std::vector<std::unique_ptr<Reactor>>& reactors() const { return reactors_; }
  Reactor& pick_reactor() { return *reactors_[next_reactor_++ % reactors_.size()]; }  // for connections, in turn
  BdevRegistry& bdevs() { return bdevs_; }
  EventBus& events() { return events_; }
  Keyring& keyring() { return keyring_; }
  Fabric& fabric() { return *fabric_; }
  rpc::Dispatcher& dispatcher() { return dispatcher_; }
  bool stopping() const { return stopping_; }
  Uuid make_uuid();
  // Runs a method for a transport; counted, so that stop() waits for it.
  Task<rpc::RpcResult> run_method(std::string method, rpc::JsonValue params);

 private:
  // Runs `work` on the management reactor.
  void on_management(std::function<void()> work);
  Task<void> answer_call(std::string method, std::string params_json, Answer answer);
  Task<void> close_access(BdevAccess* access, std::function<void()> closed);
  Task<void> shut_down(std::function<void()> stopped);
  Task<bool> stop_accesses();

  env::Env& env_;
  const EngineConfig config_;
  const std::shared_ptr<Arena> arena_;
  const std::shared_ptr<UserMemory> user_memory_;
  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::vector<std::unique_ptr<env::LoopHandle>> loops_;
  size_t next_reactor_ = 0;
  EventBus events_;
  BdevRegistry bdevs_;
  Keyring keyring_;
  rpc::Dispatcher dispatcher_;
  std::unique_ptr<Fabric> fabric_;
  ModuleList modules_;
  std::vector<std::unique_ptr<BdevAccess>> accesses_;
  Gate methods_running_;
  bool stopping_ = false;
  bool started_ = false;
  bool joined_ = false;
};

// The user of a BdevAccess in the registry.
constexpr const char* access_user = "an open handle";

}  // namespace basalt
