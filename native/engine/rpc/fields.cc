// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/fields.h"

#include <algorithm>
#include <charconv>

#include "base/hex.h"

namespace basalt::rpc {
namespace {

using Kind = JsonValue::Kind;

const JsonValue& empty_object() {
  static const JsonValue empty = JsonValue::object();
  return empty;
}

const std::vector<JsonValue>& no_items() {
  static const std::vector<JsonValue> none;
  return none;
}

// What was given, for the error text; long strings are cut.
std::string shown(const JsonValue& value) {
  constexpr size_t shown_bytes_max = 64;
  if (value.is(Kind::object) || value.is(Kind::array)) return json_kind_name(value);
  if (value.is(Kind::string) && value.string().size() > shown_bytes_max) return "a longer string";
  return value.to_text();
}

std::optional<uint64_t> decimal(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return number;
}

}  // namespace

Fields::Fields(const JsonValue& value, std::string path) : value_(value), path_(std::move(path)) {
  if (!value.is(Kind::object) && !value.is(Kind::null)) {
    problem_ = path_ + ": must be an object of named parameters, is " + json_kind_name(value);
  }
}

std::string Fields::path_of(std::string_view name) const {
  return path_ + "." + std::string(name);
}

void Fields::refuse(std::string_view name, std::string_view problem) {
  if (!problem_) problem_ = path_of(name) + ": " + std::string(problem);
}

void Fields::wrong(std::string_view name, const JsonValue& value, std::string_view right) {
  refuse(name, "must be " + std::string(right) + ", is " + shown(value));
}

void Fields::adopt(Fields& nested) {
  if (auto error = nested.error(); error && !problem_) problem_ = std::move(error->message);
}

const JsonValue* Fields::get(std::string_view name) {
  known_.emplace_back(name);
  return value_.is(Kind::object) ? value_.find(name) : nullptr;
}

const JsonValue* Fields::need(std::string_view name) {
  const JsonValue* value = get(name);
  if (value == nullptr) refuse(name, "is missing");
  return value;
}

bool Fields::has(std::string_view name) {
  return get(name) != nullptr;
}

bool Fields::is_null(std::string_view name) {
  const JsonValue* value = get(name);
  return value != nullptr && value->is(Kind::null);
}

std::string Fields::as_string(std::string_view name, const JsonValue& value) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (!value.is(Kind::string) || value.string().empty() || value.string().size() > string_bytes_max ||
      std::any_of(value.string().begin(), value.string().end(), control)) {
    wrong(name, value, "a string of 1 to " + std::to_string(string_bytes_max) + " printable bytes");
    return {};
  }
  return value.string();
}

std::string Fields::string(std::string_view name) {
  const JsonValue* value = need(name);
  return value == nullptr ? std::string() : as_string(name, *value);
}

std::string Fields::string_or(std::string_view name, std::string_view otherwise) {
  const JsonValue* value = get(name);
  return value == nullptr ? std::string(otherwise) : as_string(name, *value);
}

std::string Fields::secret(std::string_view name) {
  const JsonValue* value = need(name);
  if (value == nullptr) return {};
  if (!value->is(Kind::string) || value->string().empty() || value->string().size() > string_bytes_max) {
    refuse(name, "must be a string of 1 to " + std::to_string(string_bytes_max) + " bytes");
    return {};
  }
  return value->string();
}

std::string Fields::hex(std::string_view name, size_t bytes_max) {
  const JsonValue* value = need(name);
  if (value == nullptr) return {};
  std::optional<std::string> bytes;
  if (value->is(Kind::string) && value->string().size() <= bytes_max * 2) bytes = from_hex(value->string());
  if (!bytes || bytes->empty()) {
    refuse(name, "must be 1 to " + std::to_string(bytes_max) + " bytes, as hexadecimal digits");
    return {};
  }
  return *bytes;
}

uint64_t Fields::as_natural(std::string_view name, const JsonValue& value, NaturalRange range) {
  if (!value.is(Kind::natural) || value.natural() < range.min || value.natural() > range.max) {
    wrong(name, value, "an integer from " + std::to_string(range.min) + " to " + std::to_string(range.max));
    return range.min;
  }
  return value.natural();
}

uint64_t Fields::natural(std::string_view name, NaturalRange range) {
  const JsonValue* value = need(name);
  return value == nullptr ? range.min : as_natural(name, *value, range);
}

uint64_t Fields::natural_or(std::string_view name, uint64_t otherwise, NaturalRange range) {
  const JsonValue* value = get(name);
  return value == nullptr ? otherwise : as_natural(name, *value, range);
}

bool Fields::boolean(std::string_view name) {
  const JsonValue* value = need(name);
  if (value == nullptr) return false;
  if (!value->is(Kind::boolean)) wrong(name, *value, "true or false");
  return value->boolean();
}

bool Fields::boolean_or(std::string_view name, bool otherwise) {
  return has(name) ? boolean(name) : otherwise;
}

std::optional<Uuid> Fields::uuid(std::string_view name) {
  const JsonValue* value = get(name);
  if (value == nullptr) return std::nullopt;
  std::optional<Uuid> parsed;
  if (value->is(Kind::string)) parsed = Uuid::parse(value->string());
  if (!parsed) wrong(name, *value, "a UUID such as 6fbe5ee2-8d0a-4c5e-9f0e-0c3b7a5b7e11");
  return parsed;
}

Uuid Fields::uuid_required(std::string_view name) {
  if (need(name) == nullptr) return {};
  return uuid(name).value_or(Uuid{});
}

uint64_t Fields::epoch(std::string_view name) {
  const JsonValue* value = need(name);
  if (value == nullptr) return 0;
  std::optional<uint64_t> number;
  if (value->is(Kind::natural)) number = value->natural();
  if (value->is(Kind::string)) number = decimal(value->string());
  if (!number || *number == 0) {
    wrong(name, *value, "a number or a decimal string from 1 to 18446744073709551615");
    return 0;
  }
  return *number;
}

std::optional<uint64_t> Fields::epoch_optional(std::string_view name) {
  if (!has(name)) return std::nullopt;
  return epoch(name);
}

size_t Fields::choice(std::string_view name, const std::vector<std::string_view>& choices) {
  const JsonValue* value = need(name);
  if (value == nullptr) return 0;
  if (value->is(Kind::string)) {
    const auto found = std::find(choices.begin(), choices.end(), value->string());
    if (found != choices.end()) return static_cast<size_t>(found - choices.begin());
  }
  std::string list;
  for (std::string_view choice : choices)
    list += (list.empty() ? "" : ", ") + std::string(choice);
  wrong(name, *value, (choices.size() > 1 ? "one of " : "") + list);
  return 0;
}

size_t Fields::choice_or(std::string_view name, size_t otherwise, const std::vector<std::string_view>& choices) {
  return has(name) ? choice(name, choices) : otherwise;
}

std::vector<std::string> Fields::strings(std::string_view name, size_t count_min, size_t count_max) {
  std::vector<std::string> found;
  for (const JsonValue& item : objects(name, count_min, count_max)) {
    const std::string place = std::string(name) + "[" + std::to_string(found.size()) + "]";
    found.push_back(as_string(place, item));
  }
  return found;
}

const JsonValue& Fields::object(std::string_view name) {
  const JsonValue* value = need(name);
  if (value == nullptr) return empty_object();
  if (!value->is(Kind::object)) {
    wrong(name, *value, "an object");
    return empty_object();
  }
  return *value;
}

const std::vector<JsonValue>& Fields::objects(std::string_view name, size_t count_min, size_t count_max) {
  const JsonValue* value = need(name);
  if (value == nullptr) return no_items();
  if (!value->is(Kind::array) || value->items().size() < count_min || value->items().size() > count_max) {
    wrong(name, *value, "an array of " + std::to_string(count_min) + " to " + std::to_string(count_max) + " entries");
    return no_items();
  }
  return value->items();
}

std::optional<RpcError> Fields::error() {
  if (!problem_ && value_.is(Kind::object)) {
    const auto& members = value_.members();
    for (size_t i = 0; i < members.size() && !problem_; i++) {
      const std::string& name = members[i].first;
      if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
        refuse(name.substr(0, 64), "is not a parameter of this method");
      } else if (value_.find(name) != &members[i].second) {
        refuse(name, "is given twice");
      }
    }
  }
  if (!problem_) return std::nullopt;
  return RpcError{code::invalid_params, *problem_, {}};
}

}  // namespace basalt::rpc
