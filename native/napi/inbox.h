// SPDX-License-Identifier: Apache-2.0
// Inbox: the one way from reactors to one JavaScript thread. Deliveries are queued by any thread and run in batches on
// the JavaScript thread; the queue wakes it once per batch, and never waits for it. A simulated engine's inbox wakes
// nobody: whoever steps the simulation runs what has come, at once and in order.
//
// Invariants: - a delivery runs at most once, on the JavaScript thread; those that the environment's end leaves are
//               dropped unrun
//             - the event loop is kept alive while somebody holds it (hold/let_go), not by queued events
#pragma once

#include "napi/node_api.h"

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace basalt::addon {

class Inbox : public std::enable_shared_from_this<Inbox> {
 public:
  using Delivery = std::function<void(Napi::Env env)>;

  void open(Napi::Env env);  // JavaScript thread
  void open_stepped();       // the same, for a simulated engine
  void shut();               // JavaScript thread; later deliveries are dropped

  void deliver(Delivery delivery);  // any thread

  // JavaScript thread: operations under way keep the event loop alive.
  void hold(Napi::Env env);
  void let_go(Napi::Env env);

  // Of a simulated engine.
  bool empty();
  void run_batch(Napi::Env env);

 private:
  static void woken(napi_env env, napi_value callback, void* inbox, void* data);

  std::mutex mutex_;
  std::vector<Delivery> queue_;
  bool woken_ = false;
  bool open_ = false;
  bool stepped_ = false;
  napi_threadsafe_function wake_ = nullptr;
  size_t held_count_ = 0;  // JavaScript thread
};

}  // namespace basalt::addon
