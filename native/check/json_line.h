// SPDX-License-Identifier: Apache-2.0
// JsonLine: one line's object, whose fields are asked for one by one. The first thing that is wrong is remembered;
// unknown fields show at the end.
#pragma once

#include <rapidjson/document.h>

#include <set>
#include <string>
#include <vector>

namespace basalt::check {

class JsonLine {
 public:
  // False: no JSON object.
  bool parse(const std::string& text);
  const std::string& problem() const { return problem_; }
  bool good() const { return problem_.empty(); }
  void fail(const std::string& problem) {
    if (problem_.empty()) problem_ = problem;
  }
  bool has(const char* name) const { return document_.HasMember(name); }

  // Of a missing field these give `missing`; without it, that is a problem.
  uint64_t number(const char* name, uint64_t max, const uint64_t* missing = nullptr);
  uint64_t number(const char* name, uint64_t max, uint64_t missing) { return number(name, max, &missing); }
  // A number, or a string of decimal digits.
  uint64_t wide(const char* name, const uint64_t* missing = nullptr);
  bool flag(const char* name, bool missing);
  std::string text(const char* name, const std::string* missing = nullptr);
  std::vector<std::string> texts(const char* name);
  // Fields that nobody asked for are a problem.
  void finish();

 private:
  const rapidjson::Value* find(const char* name, bool needed);
  rapidjson::Document document_;
  std::set<std::string> known_;
  std::string problem_;
};

}  // namespace basalt::check
