// SPDX-License-Identifier: Apache-2.0
// Reads the constructor's configuration object. Every property must be there; what is wrong throws with its path.
#pragma once

#include "napi/node_api.h"

#include <optional>

#include "engine/config.h"

namespace basalt::addon {

std::optional<EngineConfig> read_engine_config(Napi::Env env, Napi::Value value);

}  // namespace basalt::addon
