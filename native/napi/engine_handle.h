// SPDX-License-Identifier: Apache-2.0
// EngineHandle: the JavaScript class `Engine`: a thin door to one engine, real or simulated. Policy and defaults live
// in TypeScript.
//
//   new Engine({reactors, cores, poll, poller, memoryBytes, rpcPath})   every property present, null where none
//   rpc(method, paramsJson) → Promise<string>       onEvent(callback)       allocate(bytes) → ArrayBuffer
//   openBdev(name) → Promise<BdevHandle>             close() → Promise<void>
//
// Thread: JavaScript. An engine lives until close(), or until its environment ends. A simulated one (SimWorld makes it)
// answers within SimWorld.deliver(), and may be killed.
#pragma once

#include "napi/node_api.h"

#include <memory>
#include <string>

#include "engine/engine_host.h"
#include "napi/environment.h"

namespace basalt::addon {

struct SimSeat;

class EngineHandle final : public Napi::ObjectWrap<EngineHandle> {
 public:
  static void define(Napi::Env env, Environment& environment, Napi::Object exports);
  explicit EngineHandle(const Napi::CallbackInfo& info);
  ~EngineHandle() override;

  // Stops and joins, blocking: the environment's end. A simulated engine is killed.
  void end_now();
  // Of a simulated engine: what it was asked is never answered.
  void kill(bool power);
  const std::shared_ptr<Inbox>& inbox() const { return inbox_; }
  const std::string& node() const;  // a simulated engine's

 private:
  Napi::Value rpc(const Napi::CallbackInfo& info);
  Napi::Value on_event(const Napi::CallbackInfo& info);
  Napi::Value allocate(const Napi::CallbackInfo& info);
  Napi::Value open_bdev(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  bool refuse_closed(Napi::Env env);
  void closed();
  void forget();

  Environment& environment_;
  std::shared_ptr<Inbox> inbox_;
  std::unique_ptr<EngineHost> host_;
  std::unique_ptr<SimSeat> seat_;  // of a simulated engine
  // False as soon as close() was called: handles of bdevs look here.
  std::shared_ptr<bool> open_ = std::make_shared<bool>(false);
  std::shared_ptr<Napi::FunctionReference> listener_;
  Napi::Reference<Napi::Promise> closing_;
};

}  // namespace basalt::addon
