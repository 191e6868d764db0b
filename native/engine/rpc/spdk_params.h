// SPDX-License-Identifier: Apache-2.0
// SPDK's parameters that mean nothing here. Clients written for SPDK send them with the value that asks for nothing:
// that is accepted. Any other value stays, and the method refuses the parameter by name: nobody is promised what does
// not happen.
#pragma once

#include <string_view>

#include "engine/rpc/json.h"

namespace basalt::rpc {

// `params` without those parameters of `method`.
JsonValue without_spdk_defaults(std::string_view method, JsonValue params);

}  // namespace basalt::rpc
