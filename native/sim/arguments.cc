// SPDX-License-Identifier: Apache-2.0
#include "sim/arguments.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <set>

#include "sim/plan_file.h"

namespace basalt::sim {
namespace {

constexpr uint64_t any = std::numeric_limits<uint64_t>::max();

struct NumberOption {
  uint64_t min;
  uint64_t max;
  void (*set)(Arguments&, uint64_t);
};
const std::map<std::string, NumberOption>& number_options() {
  static const std::map<std::string, NumberOption> options = {
      {"--seeds", {1, any, [](Arguments& to, uint64_t value) { to.seeds = value; }}},
      {"--seed", {0, any, [](Arguments& to, uint64_t value) { to.seed = value; }}},
      {"--minutes", {1, 1'000'000, [](Arguments& to, uint64_t value) { to.minutes = value; }}},
      {"--jobs", {1, 1024, [](Arguments& to, uint64_t value) { to.jobs = value; }}},
      {"--crash-states", {1, any, [](Arguments& to, uint64_t value) { to.crash_states = value; }}},
      {"--speed", {1, 100'000, [](Arguments& to, uint64_t value) { to.speed_s = value; }}},
  };
  return options;
}

const std::map<std::string, std::string Arguments::*>& text_options() {
  static const std::map<std::string, std::string Arguments::*> options = {{"--regressions", &Arguments::regressions},
                                                                          {"--found", &Arguments::found},
                                                                          {"--plan", &Arguments::plan},
                                                                          {"--history", &Arguments::history}};
  return options;
}

const std::map<std::string, void (*)(Arguments&)>& flags() {
  static const std::map<std::string, void (*)(Arguments&)> options = {
      {"--verbose", [](Arguments& to) { to.verbose = true; }},
      {"--no-shrink", [](Arguments& to) { to.shrink = false; }},
      {"--keep", [](Arguments& to) { to.keep = true; }},
      {"--require-coverage", [](Arguments& to) { to.require_coverage = true; }},
  };
  return options;
}

// Decimal, or 0x and hexadecimal: all of it.
std::optional<uint64_t> number_of(const std::string& text) {
  const bool hex = text.starts_with("0x");
  const char* const begin = text.data() + (hex ? 2 : 0);
  const char* const end = text.data() + text.size();
  uint64_t value = 0;
  const auto [at, error] = std::from_chars(begin, end, value, hex ? 16 : 10);
  if (error != std::errc() || at != end) return std::nullopt;
  return value;
}

std::string range_text(const NumberOption& option) {
  if (option.max != any) return "a number from " + std::to_string(option.min) + " to " + std::to_string(option.max);
  return option.min == 0 ? "a number, decimal or 0x..." : "a number of at least " + std::to_string(option.min);
}

std::string suite_list() {
  std::string text;
  for (const Suite suite : all_suites)
    text += std::string(suite_name(suite)) + ", ";
  return text.substr(0, text.size() - 2) + " or all";
}

std::string read_option(const std::string& name, const std::string& value, Arguments* out) {
  const auto refused = [&](const std::string& right) { return name + ": " + right + ", not '" + value + "'"; };
  if (const auto number = number_options().find(name); number != number_options().end()) {
    const auto read = number_of(value);
    if (!read || *read < number->second.min || *read > number->second.max) return refused(range_text(number->second));
    number->second.set(*out, *read);
    return "";
  }
  if (const auto text = text_options().find(name); text != text_options().end()) {
    if (value.empty()) return name + ": a path, not ''";
    out->*text->second = value;
    return "";
  }
  if (name == "--bug") {
    out->bugs.push_back(value);
    return "";
  }
  if (value == "all") return "";
  const auto suite = suite_from(value);
  if (!suite) return refused(suite_list());
  out->suites = {*suite};
  return "";
}

std::string bug_list(Suite suite) {
  std::string text;
  for (const BugName& bug : bug_names()) {
    if (has_bug(suite, bug)) text += (text.empty() ? "" : ", ") + std::string(bug.name);
  }
  return text;
}

// A bug must be one of every suite that is asked for: otherwise a run would be honest and say nothing about it.
std::string check_bugs(const Arguments& arguments) {
  for (const std::string& name : arguments.bugs) {
    for (const Suite suite : arguments.suites) {
      RunOptions options;
      options.suite = suite;
      if (plant(name, &options)) continue;
      const std::string has = bug_list(suite);
      return "--bug: suite " + std::string(suite_name(suite)) + " has no planted bug '" + name + "'; it has " + has;
    }
  }
  return "";
}

std::string check_together(const Arguments& arguments, const std::set<std::string>& given) {
  const auto first_of = [&](std::initializer_list<const char*> names) {
    const auto found = std::find_if(names.begin(), names.end(), [&](const char* name) { return given.contains(name); });
    return found == names.end() ? std::string() : std::string(*found);
  };
  for (const char* alone : {"--plan", "--speed"}) {
    if (!given.contains(alone)) continue;
    const std::string other = first_of(
        {"--suite", "--seeds", "--seed", "--minutes", "--bug", "--require-coverage", "--nightly", "--crash-states"});
    if (!other.empty()) return std::string(alone) + ": says what runs; " + other + " does not go with it";
  }
  if (given.contains("--plan") && given.contains("--speed")) return "--plan: does not go with --speed";
  const bool data = std::find(arguments.suites.begin(), arguments.suites.end(), Suite::data) != arguments.suites.end();
  if (arguments.crash_states > 0 && !data) return "--crash-states: only the suite data has crash states";
  if (arguments.require_coverage && !arguments.all_asked())
    return "--require-coverage: only all suites together reach every rare event; leave out --suite";
  const bool one_run = given.contains("--seed") && !given.contains("--seeds") && !given.contains("--minutes");
  if (given.contains("--history") && !given.contains("--plan") &&
      !(one_run && arguments.suites == std::vector<Suite>{Suite::cluster_ts}))
    return "--history: needs one run, --plan FILE or --suite cluster-ts --seed N";
  return check_bugs(arguments);
}

}  // namespace

const char* usage_text() {
  return "usage: npm run sim -- [--suite data|target|cluster|cluster-ts|all] [--seeds N] [--seed 0x...] [--minutes N]\n"
         "                      [--nightly | --require-coverage] [--keep] [--no-shrink] [--jobs N] [--verbose] [--bug "
         "NAME]\n"
         "                      [--history FILE] [--crash-states N]\n"
         "       npm run sim -- --plan FILE [--keep] [--verbose] [--history FILE]\n"
         "       npm run sim -- --speed SECONDS\n";
}

bool plant(const std::string& name, RunOptions* options) {
  for (const BugName& bug : bug_names()) {
    if (name == bug.name && has_bug(options->suite, bug)) return options->bugs.*bug.flag = true;
  }
  return false;
}

Result<Arguments> read_arguments(const std::vector<std::string>& words) {
  Arguments out;
  std::set<std::string> given;
  const auto wrong = [](const std::string& what) { return Error{Errc::invalid_argument, what}; };
  for (size_t i = 0; i < words.size(); i++) {
    const std::string& name = words[i];
    given.insert(name);
    if (const auto flag = flags().find(name); flag != flags().end()) {
      flag->second(out);
      continue;
    }
    if (name == "--nightly") continue;
    const bool known =
        number_options().contains(name) || text_options().contains(name) || name == "--suite" || name == "--bug";
    if (!known) return wrong(name + ": unknown option");
    if (i + 1 == words.size()) return wrong(name + ": its value is missing");
    const std::string problem = read_option(name, words[++i], &out);
    if (!problem.empty()) return wrong(problem);
  }
  if (given.contains("--nightly")) {
    out.require_coverage = true;
    if (!out.minutes && !out.seeds) out.minutes = 60;
  }
  const std::string problem = check_together(out, given);
  if (!problem.empty()) return wrong(problem);
  if (out.verbose) out.jobs = 1;
  return out;
}

}  // namespace basalt::sim
