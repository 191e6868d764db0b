// SPDX-License-Identifier: Apache-2.0
// BdevHandle: the JavaScript class of one opened bdev. read(offset, view) and write(offset, view) move the view's own
// memory; the promise resolves when the engine is done with it, and rejects with an error that has the NVMe `status`.
#pragma once

#include "napi/node_api.h"

#include <memory>
#include <optional>

#include "engine/engine.h"
#include "napi/environment.h"

namespace basalt::addon {

class BdevHandle final : public Napi::ObjectWrap<BdevHandle> {
 public:
  struct Opening {
    Engine* engine = nullptr;
    std::shared_ptr<bool> engine_open;
    BdevAccess* access = nullptr;
    std::shared_ptr<Inbox> inbox;
  };
  static void define(Napi::Env env, Environment& environment);
  static Napi::Value make(Napi::Env env, Opening opening);
  explicit BdevHandle(const Napi::CallbackInfo& info);
  ~BdevHandle() override;

 private:
  struct Op;
  struct View {
    char* memory;
    size_t bytes;
    Napi::Object object;
  };
  Napi::Value info(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value flush(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  Napi::Value move(const Napi::CallbackInfo& info, Transfer::Type type);
  static std::optional<View> view_argument(Napi::Env env, Napi::Value value);
  bool refuse_closed(Napi::Env env);
  bool usable() const { return open_ && *opening_.engine_open; }

  Opening opening_;
  bool open_ = false;
  Napi::Reference<Napi::Promise> closing_;
};

}  // namespace basalt::addon
