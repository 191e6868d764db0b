// SPDX-License-Identifier: Apache-2.0
// RpcResult: what a method answers: a value, or an error with a code of docs/rpc.md.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/result.h"
#include "engine/rpc/json.h"

namespace basalt::rpc {

namespace code {
constexpr int parse_error = -32700;
constexpr int invalid_request = -32600;
constexpr int method_not_found = -32601;
constexpr int invalid_params = -32602;
}  // namespace code

struct RpcError {
  int code = 0;
  std::string message;
  JsonValue data;  // null: none
};

// The negative errno that stands for an Errc on the wire.
int errc_to_code(Errc errc);

class [[nodiscard]] RpcResult {
 public:
  RpcResult(JsonValue value) : state_(std::in_place_index<0>, std::move(value)) {}
  RpcResult(RpcError error) : state_(std::in_place_index<1>, std::move(error)) {}
  RpcResult(Error error) : RpcResult(RpcError{errc_to_code(error.code), std::move(error.message), {}}) {}

  bool ok() const { return state_.index() == 0; }
  const JsonValue& value() const { return std::get<0>(state_); }
  const RpcError& error() const { return std::get<1>(state_); }

 private:
  std::variant<JsonValue, RpcError> state_;
};

inline RpcResult done() {
  return JsonValue(true);
}

}  // namespace basalt::rpc
