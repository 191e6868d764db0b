// SPDX-License-Identifier: Apache-2.0
// What JavaScript may ask of its process, beside engines.
//
//   refuseCoreDumps()   env/linux/core_dumps.h
#pragma once

#include "napi/node_api.h"

namespace basalt::addon {

void define_process_calls(Napi::Env env, Napi::Object exports);

}  // namespace basalt::addon
