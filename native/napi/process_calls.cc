// SPDX-License-Identifier: Apache-2.0
#include "napi/process_calls.h"

#include "engine/local_engine.h"

namespace basalt::addon {

void define_process_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("refuseCoreDumps", Napi::Function::New(
                                     env, [](const Napi::CallbackInfo&) { refuse_core_dumps(); }, "refuseCoreDumps"));
}

}  // namespace basalt::addon
