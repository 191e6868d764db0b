// SPDX-License-Identifier: Apache-2.0
// sim: random runs of stacks, targets and whole clusters in virtual time. The last line is
// `N passed, N failed, trace <16 hex digits>`.
//
//   sim [--suite data|target|cluster|all] [--seeds N] [--seed 0x...] [--first N] [--minutes M] [--jobs N] [--verbose]
//       [--regressions FOLDER] [--plan FILE] [--keep FOLDER] [--no-shrink] [--bug NAME] [--require-coverage]
//   sim --speed SECONDS
//
// Each run is a process of its own: a crash is a result. Exit codes, the first that applies: 6 a crash or a hang,
// 4 correctness, 3 liveness, 5 a seed that gave two histories, 7 a rare event that was never reached, 2 wrong usage.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "sim/guard.h"
#include "sim/plan_file.h"
#include "sim/shrink.h"

namespace {

using namespace basalt;
using namespace basalt::sim;
using Clock = std::chrono::steady_clock;

constexpr int run_limit_s = 300;
constexpr size_t shrink_tries_max = 150;
constexpr uint64_t twice_every = 20;

struct Arguments {
  std::vector<Suite> suites = {Suite::data, Suite::target, Suite::cluster};
  uint64_t seeds = 20;
  uint64_t first = 1;
  std::optional<uint64_t> seed;
  uint64_t minutes = 0;  // 0: no limit
  uint64_t jobs = 1;
  uint64_t speed_s = 0;
  bool verbose = false;
  bool shrink = true;
  bool require_coverage = false;
  std::string regressions;
  std::string plan;
  std::string keep;
  PlantedBugs bugs;
};

int usage(const std::string& problem) {
  std::fprintf(stderr,
               "sim: %s\nusage: sim [--suite data|target|cluster|all] [--seeds N] [--seed 0x...] [--first N] "
               "[--minutes M] [--jobs N]\n           [--verbose] [--regressions FOLDER] [--plan FILE] [--keep FOLDER] "
               "[--no-shrink] [--bug NAME]\n           [--require-coverage] | --speed SECONDS\n",
               problem.c_str());
  return 2;
}

bool read_number(const char* text, uint64_t* out) {
  char* end = nullptr;
  *out = std::strtoull(text, &end, 0);
  return *text != '\0' && *text != '-' && *end == '\0';
}

bool plant(const std::string& name, PlantedBugs* bugs) {
  for (const BugName& bug : bug_names()) {
    if (name == bug.name) return bugs->*bug.flag = true;
  }
  return false;
}

// 0: go on.
int read_arguments(int count, char** texts, Arguments* out) {
  const std::map<std::string, uint64_t*> numbers = {{"--seeds", &out->seeds},
                                                    {"--first", &out->first},
                                                    {"--minutes", &out->minutes},
                                                    {"--jobs", &out->jobs},
                                                    {"--speed", &out->speed_s}};
  const std::map<std::string, std::string*> strings = {
      {"--regressions", &out->regressions}, {"--plan", &out->plan}, {"--keep", &out->keep}};
  for (int i = 1; i < count; i++) {
    const std::string name = texts[i];
    if (name == "--verbose" || name == "--no-shrink" || name == "--require-coverage") {
      out->verbose |= name == "--verbose";
      out->shrink &= name != "--no-shrink";
      out->require_coverage |= name == "--require-coverage";
      continue;
    }
    if (i + 1 == count) return usage(name + ": unknown, or its value is missing");
    const char* value = texts[++i];
    if (const auto number = numbers.find(name); number != numbers.end()) {
      if (!read_number(value, number->second) || *number->second == 0) return usage(name + ": a number of at least 1");
    } else if (const auto string = strings.find(name); string != strings.end()) {
      *string->second = value;
    } else if (name == "--suite") {
      if (std::string(value) == "all") continue;
      const auto suite = suite_from(value);
      if (!suite) return usage(std::string("--suite: data, target, cluster or all, not '") + value + "'");
      out->suites = {*suite};
    } else if (name == "--seed") {
      if (!read_number(value, &out->seed.emplace())) return usage("--seed: a number, 0x... or decimal");
    } else if (name == "--bug") {
      if (!plant(value, &out->bugs)) return usage(std::string("--bug: no planted bug is called '") + value + "'");
    } else {
      return usage("unknown option " + name);
    }
  }
  return 0;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// All runs of one call: in order of their numbers, whatever order they end in.
class Session {
 public:
  explicit Session(const Arguments& arguments)
      : arguments_(arguments),
        guard_({.jobs = arguments.jobs, .limit_s = run_limit_s, .verbose = arguments.verbose}),
        began_(Clock::now()) {}

  void start(const RunOptions& options, const std::string& name) {
    while (guard_.full())
      take_one();
    names_[next_number_] = name;
    const uint64_t number = next_number_++;
    guard_.start(
        number, [options] { return run_once(options); }, options);
  }

  int end() {
    while (!guard_.empty())
      take_one();
    const bool covered = report_coverage();
    const double real_s = std::chrono::duration<double>(Clock::now() - began_).count();
    for (const auto& [suite, total] : totals_) {
      std::printf(
          "%s: %llu runs, %.0f virtual s, %llu ops, %llu crash states, %.1f CPU s: %.0f virtual s and %.0f "
          "ops per CPU minute\n",
          suite_name(suite), static_cast<unsigned long long>(total.runs), total.virtual_s,
          static_cast<unsigned long long>(total.ops), static_cast<unsigned long long>(total.crash_states), total.cpu_s,
          total.virtual_s / total.cpu_s * 60, static_cast<double>(total.ops) / total.cpu_s * 60);
    }
    std::printf("%.1f s\n", real_s);
    std::printf("%llu passed, %llu failed, trace %016llx\n", static_cast<unsigned long long>(passed_),
                static_cast<unsigned long long>(failed_), static_cast<unsigned long long>(trace_));
    if (crash_) return 6;
    if (correctness_) return 4;
    if (liveness_) return 3;
    if (unstable_) return 5;
    return arguments_.require_coverage && !covered ? 7 : 0;
  }

 private:
  struct Total {
    uint64_t runs = 0;
    double virtual_s = 0;
    uint64_t ops = 0;
    uint64_t crash_states = 0;
    double cpu_s = 0;
  };

  void take_one() {
    auto [number, result] = guard_.wait();
    waiting_.emplace(number, std::move(result));
    while (!waiting_.empty() && waiting_.begin()->first == told_number_) {
      tell(waiting_.begin()->second, names_[told_number_]);
      names_.erase(told_number_);
      waiting_.erase(waiting_.begin());
      told_number_++;
    }
  }

  void tell(const GuardedResult& result, const std::string& name) {
    const RunResult& run = result.run;
    bool stable = true;
    const bool twice = result.passed() && told_number_ % twice_every == 0;
    if (twice) stable = run_guarded(result.options, run_limit_s).run.trace_hash == run.trace_hash;
    const bool passed = result.passed() && stable;
    static constexpr const char* ends[] = {"FAILED", "CRASHED", "HUNG"};
    std::printf("%s: %s trace %016llx; %llu ops, %.1f virtual s, %.2f s; %s\n", name.c_str(),
                passed ? "passed" : ends[static_cast<size_t>(result.end)],
                static_cast<unsigned long long>(run.trace_hash), static_cast<unsigned long long>(run.op_count),
                static_cast<double>(run.virtual_ns) / 1e9, result.cpu_s, run.summary.c_str());
    if (!stable) std::printf("  the same seed gave another history\n");
    if (!run.explanation.empty()) std::printf("%s\n", run.explanation.c_str());
    if (!result.output.empty()) std::printf("%s", result.output.c_str());
    count(result, stable, passed);
    if (!result.passed()) keep(result);
    std::fflush(stdout);
  }

  void count(const GuardedResult& result, bool stable, bool passed) {
    const RunResult& run = result.run;
    (passed ? passed_ : failed_)++;
    trace_ = (trace_ ^ run.trace_hash) * 0x100000001b3;
    crash_ |= result.end != End::finished;
    liveness_ |= run.failure == Failure::liveness;
    correctness_ |= run.failure == Failure::correctness;
    unstable_ |= !stable;
    Total& total = totals_[result.options.suite];
    total.runs++;
    total.virtual_s += static_cast<double>(run.virtual_ns) / 1e9;
    total.ops += run.op_count;
    total.crash_states += run.crash_state_count;
    total.cpu_s += result.cpu_s;
    for (size_t i = 0; i < mark_count; i++)
      marks_[i] += result.marks[i];
  }

  // Makes it small, and a file of it.
  void keep(const GuardedResult& failed) {
    PlanFile plan;
    plan.options = failed.options;
    const auto rule = [](const GuardedResult& result) {
      if (result.end != End::finished) return std::string("crash");
      return result.run.explanation.substr(0, result.run.explanation.find(':'));
    };
    const std::string wanted = rule(failed);
    const bool can_shrink = failed.run.step_count > 0 || failed.run.client_count > 0;
    if (arguments_.shrink && can_shrink) {
      const auto fails = [&](const RunOptions& candidate) {
        const GuardedResult again = run_guarded(candidate, run_limit_s);
        return !again.passed() && rule(again) == wanted;
      };
      plan.options = shrink({failed.options, failed.run.step_count, failed.run.client_count}, fails, shrink_tries_max);
    }
    plan.options.verbose = false;
    plan.found = failed.end == End::finished ? failed.run.explanation : "crash";
    char seed[24];
    std::snprintf(seed, sizeof(seed), "0x%llx", static_cast<unsigned long long>(plan.options.seed));
    const std::string folder = arguments_.keep.empty() ? "." : arguments_.keep;
    const std::string path = folder + "/" + suite_name(plan.options.suite) + "-" + seed + ".json";
    std::error_code ignored;
    std::filesystem::create_directories(folder, ignored);
    std::ofstream(path) << plan_text(plan);
    std::printf(
        "  again: npm run sim -- --suite %s --seed %s --verbose\n  smaller: npm run sim -- --plan %s --verbose "
        "(belongs into test/sim once it is understood)\n",
        suite_name(plan.options.suite), seed, path.c_str());
  }

  bool report_coverage() const {
    size_t reached = 0;
    for (const uint64_t count : marks_)
      reached += count > 0;
    std::printf("rare events: %zu of %zu reached\n", reached, mark_count);
    for (size_t i = 0; i < mark_count; i++) {
      const auto mark = static_cast<Mark>(i);
      std::printf("  %-24s %10llu%s %s\n", mark_name(mark), static_cast<unsigned long long>(marks_[i]),
                  marks_[i] == 0 ? " NEVER" : "", mark_text(mark));
    }
    return reached == mark_count;
  }

  const Arguments& arguments_;
  Guard guard_;
  const Clock::time_point began_;
  uint64_t next_number_ = 0;
  uint64_t told_number_ = 0;
  std::map<uint64_t, std::string> names_;
  std::map<uint64_t, GuardedResult> waiting_;
  std::map<Suite, Total> totals_;
  std::array<uint64_t, mark_count> marks_{};
  uint64_t passed_ = 0;
  uint64_t failed_ = 0;
  uint64_t trace_ = 0xcbf29ce484222325;
  bool crash_ = false;
  bool liveness_ = false;
  bool correctness_ = false;
  bool unstable_ = false;
};

// 0: all of them are in the session.
int start_plans(const Arguments& arguments, Session* session) {
  std::vector<std::filesystem::path> paths;
  if (!arguments.plan.empty()) paths = {arguments.plan};
  if (arguments.plan.empty() && !arguments.regressions.empty() && !arguments.seed) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(arguments.regressions, ignored)) {
      if (entry.path().extension() == ".json") paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
  }
  for (const auto& path : paths) {
    auto plan = parse_plan(read_file(path));
    if (!plan.ok()) return usage(path.string() + ": " + plan.error().message);
    RunOptions options = plan->options;
    options.verbose = arguments.verbose;
    const bool asked =
        std::find(arguments.suites.begin(), arguments.suites.end(), options.suite) != arguments.suites.end();
    if (asked || !arguments.plan.empty()) session->start(options, path.filename().string());
  }
  return 0;
}

void start_seeds(const Arguments& arguments, Session* session) {
  const auto end = arguments.minutes == 0
                       ? Clock::time_point::max()
                       : Clock::now() + std::chrono::minutes(static_cast<int64_t>(arguments.minutes));
  const uint64_t runs = arguments.seed ? 1 : arguments.minutes != 0 ? UINT64_MAX : arguments.seeds;
  for (uint64_t i = 0; i < runs && Clock::now() < end; i++) {
    for (const Suite suite : arguments.suites) {
      RunOptions options;
      options.seed = arguments.seed ? *arguments.seed : arguments.first + i;
      options.suite = suite;
      options.bugs = arguments.bugs;
      options.verbose = arguments.verbose;
      char name[64];
      std::snprintf(name, sizeof(name), "%s 0x%llx", suite_name(suite), static_cast<unsigned long long>(options.seed));
      session->start(options, name);
    }
  }
}

int measure_speed(uint64_t virtual_s) {
  Guard guard({.limit_s = 600});
  guard.start(0, [virtual_s] { return run_speed(seconds(static_cast<int64_t>(virtual_s))); }, {});
  const GuardedResult result = guard.wait().second;
  if (!result.passed()) {
    std::printf("%s\n%s", result.run.explanation.c_str(), result.output.c_str());
    return 6;
  }
  const double virtual_time_s = static_cast<double>(result.run.virtual_ns) / 1e9;
  std::printf(
      "5 nodes: %.1f virtual s, %llu ops (%.0f per virtual s) in %.2f s of one core: %.0f virtual s per minute "
      "and core\n",
      virtual_time_s, static_cast<unsigned long long>(result.run.op_count),
      static_cast<double>(result.run.op_count) / virtual_time_s, result.cpu_s, virtual_time_s / result.cpu_s * 60);
  return 0;
}

}  // namespace

int main(int count, char** texts) {
  Arguments arguments;
  if (const int code = read_arguments(count, texts, &arguments); code != 0) return code;
  if (arguments.verbose) arguments.jobs = 1;
  if (arguments.speed_s > 0) return measure_speed(arguments.speed_s);
  Session session(arguments);
  if (const int code = start_plans(arguments, &session); code != 0) return code;
  if (arguments.plan.empty()) start_seeds(arguments, &session);
  return session.end();
}
