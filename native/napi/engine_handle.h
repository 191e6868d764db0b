// SPDX-License-Identifier: Apache-2.0
// EngineHandle: the JavaScript class `Engine`: a thin door to one LocalEngine. Policy and defaults live in TypeScript.
//
//   new Engine({reactors, cores, poll, poller, memoryBytes, rpcPath})   every property present, null where none
//   rpc(method, paramsJson) → Promise<string>       onEvent(callback)       allocate(bytes) → ArrayBuffer
//   openBdev(name) → Promise<BdevHandle>             close() → Promise<void>
//
// Thread: JavaScript. An engine lives until close(), or until its environment ends.
#pragma once

#include "napi/node_api.h"

#include <memory>
#include <string>

#include "engine/local_engine.h"
#include "napi/environment.h"

namespace basalt::addon {

class EngineHandle final : public Napi::ObjectWrap<EngineHandle> {
 public:
  static void define(Napi::Env env, Environment& environment, Napi::Object exports);
  explicit EngineHandle(const Napi::CallbackInfo& info);
  ~EngineHandle() override;

  // Stops and joins, blocking: the environment's end.
  void end_now();

 private:
  Napi::Value rpc(const Napi::CallbackInfo& info);
  Napi::Value on_event(const Napi::CallbackInfo& info);
  Napi::Value allocate(const Napi::CallbackInfo& info);
  Napi::Value open_bdev(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  bool refuse_closed(Napi::Env env);
  void closed();

  Environment& environment_;
  std::unique_ptr<LocalEngine> local_;
  // False as soon as close() was called: handles of bdevs look here.
  std::shared_ptr<bool> open_ = std::make_shared<bool>(false);
  std::shared_ptr<Napi::FunctionReference> listener_;
  Napi::Reference<Napi::Promise> closing_;
};

}  // namespace basalt::addon
