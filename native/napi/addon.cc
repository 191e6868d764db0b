// SPDX-License-Identifier: Apache-2.0
// The addon's entry: one call per environment (the main thread, and every worker). It only lists.
#include "napi/node_api.h"

#include "napi/bdev_handle.h"
#include "napi/engine_handle.h"
#include "napi/environment.h"
#include "napi/mark_counter.h"
#include "napi/process_calls.h"
#include "napi/sim_world_handle.h"

namespace basalt::addon {
namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  Environment& environment = Environment::attach(env);
  EngineHandle::define(env, environment, exports);
  BdevHandle::define(env, environment);
  SimWorldHandle::define(env, exports);
  MarkCounter::define(env, exports);
  define_process_calls(env, exports);
  return exports;
}

}  // namespace
}  // namespace basalt::addon

static Napi::Object basalt_init(Napi::Env env, Napi::Object exports) {
  return basalt::addon::init(env, exports);
}

NODE_API_MODULE(basalt_native, basalt_init)
