// SPDX-License-Identifier: Apache-2.0
// Environment: what the addon keeps per JavaScript environment: its inbox, its engines, and the constructors. Attached
// as instance data; nothing is at file scope.
//
// Teardown with I/O in flight: the clean-up hook stops and joins every engine first (their I/O ends or is aborted), so
// that afterwards no reactor touches JavaScript memory. It is registered after the inbox, hence runs before its end.
#pragma once

#include "napi/node_api.h"

#include <memory>
#include <set>

#include "napi/inbox.h"

namespace basalt::addon {

class EngineHandle;

class Environment {
 public:
  static Environment& attach(Napi::Env env);
  static Environment& of(Napi::Env env);

  const std::shared_ptr<Inbox>& inbox() const { return inbox_; }
  void add(EngineHandle* engine) { engines_.insert(engine); }
  void remove(EngineHandle* engine) { engines_.erase(engine); }

  Napi::FunctionReference engine_constructor;
  Napi::FunctionReference bdev_handle_constructor;

 private:
  explicit Environment(Napi::Env env);
  void tear_down();
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  std::set<EngineHandle*> engines_;
};

// A promise's two ends; settled on the JavaScript thread. Holds the event loop until then. In a worker that is being
// terminated no promise can be made: nothing must be begun then, and the caller returns without a value.
class Pending {
 public:
  Pending(Napi::Env env, std::shared_ptr<Inbox> inbox);
  bool made() const { return deferred_ != nullptr; }
  Napi::Promise promise(Napi::Env env) const { return {env, promise_}; }  // in the scope that made it
  void resolve(Napi::Env env, Napi::Value value);
  void reject(Napi::Env env, Napi::Value error);

 private:
  // Not a Napi::Promise::Deferred: that leaves both without a value when it fails.
  napi_deferred deferred_ = nullptr;
  napi_value promise_ = nullptr;
  std::shared_ptr<Inbox> inbox_;
};

Napi::Value illegal_state(Napi::Env env, const char* message);

}  // namespace basalt::addon
