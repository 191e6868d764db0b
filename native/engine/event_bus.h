// SPDX-License-Identifier: Apache-2.0
// EventBus: what happens by itself (docs/rpc.md, Events), told to everyone who subscribed, in order.
// Thread: the management reactor. A sink must not subscribe or unsubscribe from inside its call.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "engine/rpc/json.h"

namespace basalt {

class EventBus {
 public:
  // Gets {"method": ..., "params": {...}}.
  using Sink = std::function<void(const rpc::JsonValue& event)>;

  uint64_t subscribe(Sink sink) {
    sinks_.emplace(++last_id_, std::move(sink));
    return last_id_;
  }
  void unsubscribe(uint64_t id) { sinks_.erase(id); }

  void emit(std::string_view method, rpc::JsonValue params) {
    auto event = rpc::JsonValue::object();
    event.set("method", method).set("params", std::move(params));
    for (const auto& [id, sink] : sinks_)
      sink(event);
  }

 private:
  uint64_t last_id_ = 0;
  std::map<uint64_t, Sink> sinks_;
};

}  // namespace basalt
