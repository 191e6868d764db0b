// SPDX-License-Identifier: Apache-2.0
// JsonValue: a JSON text as a tree, for requests and answers of the control path. The parser behind it (RapidJSON) is
// seen by json.cc only. Input is bounded: bytes, nesting and the number of values.
// Integers keep all 64 bits; a number with a fraction or exponent is a real.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace basalt::rpc {

class JsonValue {
 public:
  enum class Kind : uint8_t { null, boolean, negative, natural, real, string, array, object };
  using Member = std::pair<std::string, JsonValue>;

  JsonValue() = default;  // null
  JsonValue(bool value) : kind_(Kind::boolean), boolean_(value) {}
  JsonValue(uint64_t value) : kind_(Kind::natural), natural_(value) {}
  JsonValue(uint32_t value) : JsonValue(uint64_t{value}) {}
  JsonValue(int64_t value);
  JsonValue(int value) : JsonValue(int64_t{value}) {}
  JsonValue(double value) : kind_(Kind::real), real_(value) {}
  JsonValue(std::string value) : kind_(Kind::string), string_(std::move(value)) {}
  JsonValue(std::string_view value) : JsonValue(std::string(value)) {}
  JsonValue(const char* value) : JsonValue(std::string(value)) {}
  static JsonValue array();
  static JsonValue object();

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool boolean() const { return boolean_; }
  uint64_t natural() const { return natural_; }
  int64_t negative() const { return negative_; }
  double real() const { return real_; }
  const std::string& string() const { return string_; }
  const std::vector<JsonValue>& items() const { return items_; }
  const std::vector<Member>& members() const { return members_; }
  const JsonValue* find(std::string_view name) const;  // nullptr: absent. The last of equal names.

  // Building; returns *this so that objects read as lists of fields.
  JsonValue& set(std::string_view name, JsonValue value);
  JsonValue& push(JsonValue value);

  std::string to_text() const;

 private:
  Kind kind_ = Kind::null;
  bool boolean_ = false;
  union {
    uint64_t natural_ = 0;
    int64_t negative_;
    double real_;
  };
  std::string string_;
  std::vector<JsonValue> items_;
  std::vector<Member> members_;
};

constexpr size_t json_bytes_max = size_t{1} << 20;
constexpr unsigned json_depth_max = 32;
constexpr size_t json_values_max = 65536;

Result<JsonValue> parse_json(std::string_view text);

// "a string", "an object": for error texts.
const char* json_kind_name(const JsonValue& value);

}  // namespace basalt::rpc
