// SPDX-License-Identifier: Apache-2.0
// Dispatcher: the table of methods. Modules add theirs at start; call() finds one and runs it.
// Thread: the management reactor. A method runs as a coroutine there; several run interleaved.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/task.h"
#include "engine/rpc/rpc_result.h"

namespace basalt::rpc {

using Handler = std::function<Task<RpcResult>(JsonValue params)>;

class Dispatcher {
 public:
  Dispatcher() = default;
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  void add(std::string_view method, Handler handler);
  // For member coroutines: dispatcher.add("name", this, &Module::handler).
  template <class Owner>
  void add(std::string_view method, Owner* owner, Task<RpcResult> (Owner::*member)(JsonValue)) {
    add(method, [owner, member](JsonValue params) { return (owner->*member)(std::move(params)); });
  }

  Task<RpcResult> call(std::string method, JsonValue params);
  std::vector<std::string> methods() const;

 private:
  std::map<std::string, Handler, std::less<>> handlers_;
};

}  // namespace basalt::rpc
