// SPDX-License-Identifier: Apache-2.0
// Result<T>: the control path's expected failures as values. (The data path completes with nvme::Status instead.)
// An Error has a stable code, and a message that names the field or object and what would be right.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>

#include "base/assert.h"

namespace basalt {

enum class Errc : uint8_t {
  invalid_argument,  // the caller's input is wrong; nothing was changed
  not_found,
  exists,     // the name or id is taken
  busy,       // in use: claimed, locked or still open
  no_space,   // the pool or device is full
  no_memory,  // a bounded resource ran out
  io,         // the device or the network failed
  permission,
  unsupported,  // a capability this engine, kernel or format does not have
  corrupt,      // checksums or structure wrong, or an unknown incompatible format
  fenced,       // a higher epoch holds the object
  timed_out,
  closed,       // the object or the peer went away
  unreachable,  // no connection to the peer
};

const char* errc_name(Errc code);

struct Error {
  Errc code;
  std::string message;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    BASALT_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    BASALT_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    BASALT_ASSERT(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    BASALT_ASSERT(!ok());
    return *std::get_if<1>(&state_);
  }
  Error&& error() && {
    BASALT_ASSERT(!ok());
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  std::variant<T, Error> state_;
};

struct Unit {};
using Outcome = Result<Unit>;  // success without a value
inline Outcome success() {
  return Unit{};
}

}  // namespace basalt
