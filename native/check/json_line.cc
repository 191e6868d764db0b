// SPDX-License-Identifier: Apache-2.0
#include "check/json_line.h"

#include <rapidjson/error/en.h>

#include <charconv>

namespace basalt::check {
namespace {
constexpr size_t depth_max = 8;

// Deeply nested input must not be recursed into.
bool too_deep(const std::string& text) {
  size_t depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); i++) {
    if (quoted && text[i] == '\\') {
      i++;
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else if (!quoted && (text[i] == '{' || text[i] == '[')) {
      if (++depth > depth_max) return true;
    } else if (!quoted && (text[i] == '}' || text[i] == ']') && depth > 0) {
      depth--;
    }
  }
  return false;
}
}  // namespace

bool JsonLine::parse(const std::string& text) {
  if (too_deep(text)) {
    fail("nested too deeply");
    return false;
  }
  document_.Parse(text.data(), text.size());
  if (document_.HasParseError()) {
    fail("not JSON: " + std::string(rapidjson::GetParseError_En(document_.GetParseError())) + " (column " +
         std::to_string(document_.GetErrorOffset() + 1) + ")");
  } else if (!document_.IsObject()) {
    fail("not an object");
  }
  return good();
}

const rapidjson::Value* JsonLine::find(const char* name, bool needed) {
  known_.insert(name);
  const auto found = document_.FindMember(name);
  if (found != document_.MemberEnd()) return &found->value;
  if (needed) fail("'" + std::string(name) + "' is missing");
  return nullptr;
}

uint64_t JsonLine::number(const char* name, uint64_t max, const uint64_t* missing) {
  const rapidjson::Value* value = find(name, missing == nullptr);
  if (value == nullptr) return missing == nullptr ? 0 : *missing;
  if (value->IsUint64() && value->GetUint64() <= max) return value->GetUint64();
  fail("'" + std::string(name) + "': a whole number from 0 to " + std::to_string(max));
  return 0;
}

uint64_t JsonLine::wide(const char* name, const uint64_t* missing) {
  const rapidjson::Value* value = find(name, missing == nullptr);
  if (value == nullptr) return missing == nullptr ? 0 : *missing;
  if (value->IsUint64()) return value->GetUint64();
  uint64_t number = 0;
  if (value->IsString()) {
    const char* end = value->GetString() + value->GetStringLength();
    const auto [at, error] = std::from_chars(value->GetString(), end, number);
    if (error == std::errc() && at == end) return number;
  }
  fail("'" + std::string(name) + "': a whole number of 64 bits, or its decimal digits as a string");
  return 0;
}

bool JsonLine::flag(const char* name, bool missing) {
  const rapidjson::Value* value = find(name, false);
  if (value == nullptr) return missing;
  if (!value->IsBool()) fail("'" + std::string(name) + "': true or false");
  return value->IsTrue();
}

std::string JsonLine::text(const char* name, const std::string* missing) {
  const rapidjson::Value* value = find(name, missing == nullptr);
  if (value == nullptr) return missing == nullptr ? "" : *missing;
  if (value->IsString()) return {value->GetString(), value->GetStringLength()};
  fail("'" + std::string(name) + "': a string");
  return "";
}

std::vector<std::string> JsonLine::texts(const char* name) {
  std::vector<std::string> out;
  const rapidjson::Value* value = find(name, true);
  if (value == nullptr) return out;
  if (!value->IsArray()) {
    fail("'" + std::string(name) + "': an array of strings");
    return out;
  }
  for (const rapidjson::Value& entry : value->GetArray()) {
    if (!entry.IsString()) {
      fail("'" + std::string(name) + "': an array of strings");
      return out;
    }
    out.emplace_back(entry.GetString(), entry.GetStringLength());
  }
  return out;
}

void JsonLine::finish() {
  if (!good()) return;
  std::set<std::string> seen;
  for (const auto& member : document_.GetObject()) {
    const std::string name(member.name.GetString(), member.name.GetStringLength());
    if (!known_.contains(name)) return fail("'" + name + "' is no field of such a line");
    if (!seen.insert(name).second) return fail("'" + name + "' stands there twice");
  }
}

}  // namespace basalt::check
