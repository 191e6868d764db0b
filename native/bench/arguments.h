// SPDX-License-Identifier: Apache-2.0
// `--name value` arguments of the benchmark programs; a wrong one ends the program with its name.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

namespace basalt::bench {

class Arguments {
 public:
  Arguments(int argc, char** argv, int first) {
    for (int i = first; i < argc; i += 2) {
      const std::string name = argv[i];
      if (name.rfind("--", 0) != 0 || i + 1 == argc) fail(name, "expected --name value");
      values_[name.substr(2)] = argv[i + 1];
    }
  }
  std::string text(const std::string& name, const std::string& otherwise) {
    const auto found = values_.find(name);
    if (found == values_.end()) return otherwise;
    const std::string value = found->second;
    values_.erase(found);
    return value;
  }
  std::string text(const std::string& name) {
    const std::string value = text(name, "");
    if (value.empty()) fail("--" + name, "is missing");
    return value;
  }
  uint64_t number(const std::string& name, uint64_t otherwise, uint64_t max) {
    const std::string value = text(name, std::to_string(otherwise));
    char* end = nullptr;
    const unsigned long long number = std::strtoull(value.c_str(), &end, 10);
    if (*end != '\0' || value.empty() || number > max)
      fail("--" + name, "must be a number up to " + std::to_string(max));
    return number;
  }
  void end() const {
    if (!values_.empty()) fail("--" + values_.begin()->first, "no such option");
  }
  [[noreturn]] static void fail(const std::string& name, const std::string& problem) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), problem.c_str());
    std::exit(2);
  }

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace basalt::bench
