// SPDX-License-Identifier: Apache-2.0
#include "recorder/arguments.h"

#include <charconv>
#include <map>
#include <set>

namespace basalt::recorder {
namespace {

constexpr uint64_t any = UINT64_MAX;
constexpr uint64_t blocks_max = uint64_t{1} << 32;
constexpr uint64_t length_s_default = 10;

struct Number {
  uint64_t min;
  uint64_t max;
  void (*set)(Arguments&, uint64_t);
};

const std::map<std::string, Number>& numbers() {
  static const std::map<std::string, Number> known = {
      {"--volume", {0, any, [](Arguments& to, uint64_t value) { to.volume = value; }}},
      {"--seed", {0, any, [](Arguments& to, uint64_t value) { to.seed = value; }}},
      {"--first", {0, blocks_max, [](Arguments& to, uint64_t value) { to.first_block = value; }}},
      {"--blocks", {1, blocks_max, [](Arguments& to, uint64_t value) { to.block_count = value; }}},
      {"--clients", {1, 256, [](Arguments& to, uint64_t value) { to.client_count = value; }}},
      {"--rate", {1, 10'000'000, [](Arguments& to, uint64_t value) { to.rate = value; }}},
      {"--ops", {1, any, [](Arguments& to, uint64_t value) { to.operation_count = value; }}},
      {"--seconds", {1, 10'000'000, [](Arguments& to, uint64_t value) { to.length_s = value; }}},
  };
  return known;
}

const std::map<std::string, std::string Arguments::*>& paths() {
  static const std::map<std::string, std::string Arguments::*> known = {{"--device", &Arguments::device},
                                                                        {"--history", &Arguments::history}};
  return known;
}

const std::map<std::string, bool Arguments::*>& flags() {
  static const std::map<std::string, bool Arguments::*> known = {
      {"--resume", &Arguments::resume}, {"--erase", &Arguments::erase}, {"--durable", &Arguments::durable}};
  return known;
}

// Decimal, or 0x and hexadecimal: all of it.
bool take_number(const std::string& text, uint64_t* out) {
  const bool hex = text.starts_with("0x");
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data() + (hex ? 2 : 0), end, *out, hex ? 16 : 10);
  return error == std::errc() && at == end;
}

std::string range_text(const Number& number) {
  if (number.max == any && number.min == 0) return "a number, decimal or 0x...";
  if (number.max == any) return "a number of at least " + std::to_string(number.min);
  return "a number from " + std::to_string(number.min) + " to " + std::to_string(number.max);
}

// "" or what is wrong.
std::string take_value(const std::string& name, const std::string& value, Arguments* out) {
  if (const auto path = paths().find(name); path != paths().end()) {
    if (value.empty()) return name + ": a path, not ''";
    out->*path->second = value;
    return "";
  }
  const Number& number = numbers().at(name);
  uint64_t read = 0;
  if (!take_number(value, &read) || read < number.min || read > number.max)
    return name + ": " + range_text(number) + ", not '" + value + "'";
  number.set(*out, read);
  return "";
}

std::string check_together(const Arguments& arguments) {
  if (arguments.device.empty()) return "--device: is missing";
  if (arguments.history.empty()) return "--history: is missing";
  if (arguments.device == arguments.history) return "--history: must not be what --device names";
  if (arguments.resume && arguments.erase) return "--erase: does not go with --resume, which reads what was written";
  if (arguments.resume && arguments.volume) return "--volume: does not go with --resume, the history has it";
  return "";
}

}  // namespace

const char* usage_text() {
  return "usage: basalt_history --device PATH --history PATH [--seconds N] [--ops N] [--rate N] [--clients N] [--seed "
         "N]\n"
         "                      [--first BLOCK] [--blocks N] [--volume N] [--erase | --resume] [--durable]\n"
         "Works on blocks of a device and writes a history that basalt_check judges (docs/history-format.md).\n";
}

Result<Arguments> read_arguments(const std::vector<std::string>& words) {
  const auto wrong = [](const std::string& what) { return Error{Errc::invalid_argument, what}; };
  Arguments out;
  std::set<std::string> given;
  for (size_t i = 0; i < words.size(); i++) {
    const std::string& name = words[i];
    if (!given.insert(name).second) return wrong(name + ": given twice");
    if (const auto flag = flags().find(name); flag != flags().end()) {
      out.*flag->second = true;
      continue;
    }
    if (!numbers().contains(name) && !paths().contains(name)) return wrong(name + ": unknown option");
    if (i + 1 == words.size()) return wrong(name + ": its value is missing");
    const std::string problem = take_value(name, words[++i], &out);
    if (!problem.empty()) return wrong(problem);
  }
  const std::string problem = check_together(out);
  if (!problem.empty()) return wrong(problem);
  if (out.operation_count == 0 && out.length_s == 0) out.length_s = length_s_default;
  return out;
}

}  // namespace basalt::recorder
