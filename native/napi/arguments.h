// SPDX-License-Identifier: Apache-2.0
// Checks of what JavaScript passes in; a wrong argument throws a TypeError with its path and yields nothing.
#pragma once

#include "napi/node_api.h"

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

namespace basalt::addon {

inline void throw_type_error(Napi::Env env, const std::string& path, const char* right) {
  Napi::TypeError::New(env, path + ": must be " + right).ThrowAsJavaScriptException();
}

inline std::optional<std::string> string_argument(Napi::Env env, Napi::Value value, const std::string& path) {
  if (!value.IsString()) {
    throw_type_error(env, path, "a string");
    return std::nullopt;
  }
  return value.As<Napi::String>().Utf8Value();
}

inline std::optional<uint64_t> natural_argument(Napi::Env env, Napi::Value value, const std::string& path) {
  constexpr double safe_integer_max = 9007199254740991.0;
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(number >= 0) || number > safe_integer_max || number != std::floor(number)) {
    throw_type_error(env, path, "an integer from 0 to 2^53-1");
    return std::nullopt;
  }
  return static_cast<uint64_t>(number);
}

}  // namespace basalt::addon
