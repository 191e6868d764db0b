// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/dispatcher.h"

#include "base/assert.h"
#include "engine/rpc/spdk_params.h"

namespace basalt::rpc {

void Dispatcher::add(std::string_view method, Handler handler) {
  const bool added = handlers_.emplace(std::string(method), std::move(handler)).second;
  BASALT_ASSERT(added);
}

Task<RpcResult> Dispatcher::call(std::string method, JsonValue params) {
  const auto found = handlers_.find(method);
  if (found == handlers_.end()) {
    RpcError error{code::method_not_found, "method not found: " + method.substr(0, 64), {}};
    co_return error;
  }
  auto running = found->second(without_spdk_defaults(method, std::move(params)));
  auto result = co_await running;
  co_return result;
}

std::vector<std::string> Dispatcher::methods() const {
  std::vector<std::string> names;
  for (const auto& [name, handler] : handlers_)
    names.push_back(name);
  return names;
}

}  // namespace basalt::rpc
