// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/json.h"

#include "base/assert.h"

#define RAPIDJSON_ASSERT(expression) BASALT_ASSERT(expression)
#define RAPIDJSON_NOEXCEPT_ASSERT(expression) BASALT_ASSERT(expression)
#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

namespace basalt::rpc {
namespace {

// The parser takes the escape of a low surrogate alone, and makes bytes of it that are no UTF-8.
bool has_lone_surrogate(std::string_view text) {
  for (size_t i = 0; i + 1 < text.size(); i++) {
    if (text[i] == '\xed' && static_cast<uint8_t>(text[i + 1]) >= 0xa0) return true;
  }
  return false;
}

// Receives the parser's events and builds the tree; says no at the limits, which ends the parse.
class Builder {
 public:
  bool Null() { return add(JsonValue()); }
  bool Bool(bool value) { return add(JsonValue(value)); }
  bool Int(int value) { return add(JsonValue(value)); }
  bool Uint(unsigned value) { return add(JsonValue(uint64_t{value})); }
  bool Int64(int64_t value) { return add(JsonValue(value)); }
  bool Uint64(uint64_t value) { return add(JsonValue(value)); }
  bool Double(double value) { return add(JsonValue(value)); }
  bool RawNumber(const char*, rapidjson::SizeType, bool) { return false; }
  bool String(const char* text, rapidjson::SizeType length, bool) {
    if (has_lone_surrogate({text, length})) return refuse("a string holds half of a surrogate pair");
    return add(JsonValue(std::string(text, length)));
  }
  bool StartObject() { return open(JsonValue::object()); }
  bool StartArray() { return open(JsonValue::array()); }
  bool EndObject(rapidjson::SizeType) { return close(); }
  bool EndArray(rapidjson::SizeType) { return close(); }
  bool Key(const char* text, rapidjson::SizeType length, bool) {
    if (has_lone_surrogate({text, length})) return refuse("a name holds half of a surrogate pair");
    open_.back().next_name.assign(text, length);
    return true;
  }

  JsonValue take() { return std::move(root_); }
  const char* refusal() const { return refusal_; }

 private:
  struct Open {
    JsonValue value;
    std::string next_name;
  };
  bool refuse(const char* why) {
    refusal_ = why;
    return false;
  }
  bool count() { return ++count_ <= json_values_max || refuse("it holds too many values"); }
  bool open(JsonValue value) {
    if (open_.size() == json_depth_max) return refuse("it is nested too deeply");
    open_.push_back({std::move(value), {}});
    return count();
  }
  bool close() {
    JsonValue value = std::move(open_.back().value);
    open_.pop_back();
    return place(std::move(value));
  }
  bool add(JsonValue value) { return count() && place(std::move(value)); }
  bool place(JsonValue value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().value.is(JsonValue::Kind::array)) {
      open_.back().value.push(std::move(value));
    } else {
      open_.back().value.set(open_.back().next_name, std::move(value));
    }
    return true;
  }

  JsonValue root_;
  std::vector<Open> open_;
  size_t count_ = 0;
  const char* refusal_ = nullptr;
};

using Writer = rapidjson::Writer<rapidjson::StringBuffer>;

void write(Writer& out, const JsonValue& value) {
  switch (value.kind()) {
    case JsonValue::Kind::null:
      out.Null();
      return;
    case JsonValue::Kind::boolean:
      out.Bool(value.boolean());
      return;
    case JsonValue::Kind::negative:
      out.Int64(value.negative());
      return;
    case JsonValue::Kind::natural:
      out.Uint64(value.natural());
      return;
    case JsonValue::Kind::real:
      out.Double(value.real());
      return;
    case JsonValue::Kind::string:
      out.String(value.string().c_str(), static_cast<rapidjson::SizeType>(value.string().size()));
      return;
    case JsonValue::Kind::array:
      out.StartArray();
      for (const JsonValue& item : value.items())
        write(out, item);
      out.EndArray();
      return;
    case JsonValue::Kind::object:
      out.StartObject();
      for (const auto& [name, member] : value.members()) {
        out.Key(name.c_str(), static_cast<rapidjson::SizeType>(name.size()));
        write(out, member);
      }
      out.EndObject();
      return;
  }
}

}  // namespace

JsonValue::JsonValue(int64_t value) {
  if (value < 0) {
    kind_ = Kind::negative;
    negative_ = value;
  } else {
    kind_ = Kind::natural;
    natural_ = static_cast<uint64_t>(value);
  }
}

JsonValue JsonValue::array() {
  JsonValue value;
  value.kind_ = Kind::array;
  return value;
}

JsonValue JsonValue::object() {
  JsonValue value;
  value.kind_ = Kind::object;
  return value;
}

const JsonValue* JsonValue::find(std::string_view name) const {
  for (auto member = members_.rbegin(); member != members_.rend(); ++member) {
    if (member->first == name) return &member->second;
  }
  return nullptr;
}

JsonValue& JsonValue::set(std::string_view name, JsonValue value) {
  BASALT_ASSERT(kind_ == Kind::object);
  members_.emplace_back(std::string(name), std::move(value));
  return *this;
}

JsonValue& JsonValue::push(JsonValue value) {
  BASALT_ASSERT(kind_ == Kind::array);
  items_.push_back(std::move(value));
  return *this;
}

std::string JsonValue::to_text() const {
  rapidjson::StringBuffer buffer;
  Writer out(buffer);
  write(out, *this);
  return {buffer.GetString(), buffer.GetSize()};
}

Result<JsonValue> parse_json(std::string_view text) {
  if (text.size() > json_bytes_max) {
    return Error{Errc::invalid_argument, "not JSON: longer than " + std::to_string(json_bytes_max) + " bytes"};
  }
  // The parser takes one for the end of the text, and would not see what follows.
  if (text.find('\0') != std::string_view::npos) return Error{Errc::invalid_argument, "not JSON: a zero byte"};
  rapidjson::MemoryStream bytes(text.data(), text.size());
  rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> stream(bytes);
  rapidjson::Reader reader;
  Builder builder;
  const auto parsed =
      reader.Parse<rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag>(stream, builder);
  if (parsed.IsError()) {
    const char* why = builder.refusal() != nullptr ? builder.refusal() : rapidjson::GetParseError_En(parsed.Code());
    return Error{Errc::invalid_argument,
                 std::string("not JSON: ") + why + " (at byte " + std::to_string(parsed.Offset()) + ")"};
  }
  return builder.take();
}

const char* json_kind_name(const JsonValue& value) {
  switch (value.kind()) {
    case JsonValue::Kind::null:
      return "null";
    case JsonValue::Kind::boolean:
      return "a boolean";
    case JsonValue::Kind::negative:
      return "a negative number";
    case JsonValue::Kind::natural:
      return "a number";
    case JsonValue::Kind::real:
      return "a number with a fraction";
    case JsonValue::Kind::string:
      return "a string";
    case JsonValue::Kind::array:
      return "an array";
    case JsonValue::Kind::object:
      return "an object";
  }
  return "unknown";
}

}  // namespace basalt::rpc
