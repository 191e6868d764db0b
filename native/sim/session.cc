// SPDX-License-Identifier: Apache-2.0
#include "sim/session.h"

#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "sim/plan_file.h"
#include "sim/shrink.h"

namespace basalt::sim {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int run_limit_s = 300;
constexpr size_t shrink_tries_max = 150;
constexpr uint64_t twice_every = 20;

// Two failures are of one kind when these are the same: what stands before the first colon.
std::string kind_of(const GuardedResult& result) {
  if (result.end != End::finished) return "crash";
  return result.run.explanation.substr(0, result.run.explanation.find(':'));
}

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%" PRIx64, value);
  return text;
}

const char* end_text(const GuardedResult& result) {
  if (result.end == End::crashed) return "CRASHED";
  if (result.end == End::hung) return "HUNG";
  return "FAILED";
}

}  // namespace

Session::Session(const Arguments& arguments, const Interrupt& interrupt)
    : arguments_(arguments),
      interrupt_(interrupt),
      guard_({.jobs = arguments.jobs, .limit_s = run_limit_s, .verbose = arguments.verbose, .stop_fd = interrupt.fd()}),
      began_(Clock::now()) {}

void Session::start(RunOptions options, const std::string& name, const std::string& path) {
  while (guard_.full() && !stopped())
    take_one();
  if (stopped()) return;
  options.verbose = arguments_.verbose;
  options.history = arguments_.history;
  options.worker = arguments_.worker;
  names_[next_number_] = {name, path};
  guard_.start(
      next_number_++, [options] { return run_once(options); }, options);
}

int Session::end() {
  while (!guard_.empty() && !stopped())
    take_one();
  const bool interrupted = stopped();
  if (interrupted) tell_interrupted();
  const std::vector<std::string> never = report_coverage();
  tell_totals();
  const bool uncovered = arguments_.require_coverage && !interrupted && !never.empty();
  if (uncovered) {
    std::printf("error: never reached:");
    for (const std::string& name : never)
      std::printf(" %s", name.c_str());
    std::printf("\n");
  }
  const uint64_t crash_states = totals_[Suite::data].crash_states;
  const bool few_states = arguments_.crash_states > crash_states && !interrupted;
  if (few_states)
    std::printf("error: %" PRIu64 " distinct crash states, %" PRIu64 " are asked for\n", crash_states,
                arguments_.crash_states);
  std::printf("%" PRIu64 " passed, %" PRIu64 " failed, trace %016" PRIx64 "\n", passed_, failed_, trace_);
  std::fflush(stdout);
  if (interrupted) return 130;
  if (crash_) return 6;
  if (correctness_) return 4;
  if (liveness_) return 3;
  if (unstable_) return 5;
  return uncovered || few_states ? 7 : 0;
}

void Session::take_one() {
  auto done = guard_.wait();
  if (!done) {
    stopped_ = true;
    return;
  }
  waiting_.emplace(done->first, std::move(done->second));
  while (!waiting_.empty() && waiting_.begin()->first == told_number_) {
    const auto first = waiting_.extract(waiting_.begin());
    tell(first.mapped(), names_[told_number_]);
    names_.erase(told_number_++);
  }
}

void Session::tell(const GuardedResult& result, const Named& named) {
  const RunResult& run = result.run;
  bool stable = true;
  if (result.passed() && told_number_ % twice_every == 0 && !stopped()) {
    const GuardedResult second = again(result.options);
    stable = second.end == End::stopped || second.run.trace_hash == run.trace_hash;
  }
  const bool passed = result.passed() && stable;
  std::printf("%s: %s trace %016" PRIx64 "; %" PRIu64 " ops, %.1f virtual s, %.2f s; %s\n", named.name.c_str(),
              passed ? "passed" : end_text(result), run.trace_hash, run.op_count,
              static_cast<double>(run.virtual_ns) / 1e9, result.cpu_s, run.summary.c_str());
  if (!stable) std::printf("  the same seed gave another history\n");
  if (!run.explanation.empty()) std::printf("%s\n", run.explanation.c_str());
  if (!result.output.empty()) std::printf("%s", result.output.c_str());
  std::fflush(stdout);
  count(result, stable, passed);
  if (!result.passed()) write_plan(result, named);
  std::fflush(stdout);
}

void Session::count(const GuardedResult& result, bool stable, bool passed) {
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
  const auto add = [this](const std::string& name, const std::string& text, uint64_t count) {
    Event& event = events_[name];
    event.text = text;
    event.count += count;
  };
  // A worker's marks are its own: it tells those that it reached itself.
  for (size_t i = 0; i < mark_count && result.options.suite != Suite::cluster_ts; i++)
    add(mark_name(static_cast<Mark>(i)), mark_text(static_cast<Mark>(i)), result.marks[i]);
  for (const RareEvent& event : run.rare_events)
    add(event.name, event.text, event.count);
}

GuardedResult Session::again(const RunOptions& options) {
  RunOptions quiet = options;
  quiet.verbose = false;
  quiet.history.clear();
  return run_guarded(quiet, run_limit_s, interrupt_.fd());
}

RunOptions Session::smaller(const GuardedResult& failed) {
  if (failed.run.step_count == 0 && failed.run.client_count == 0) return failed.options;
  const std::string wanted = kind_of(failed);
  const auto fails = [&](const RunOptions& candidate) {
    if (stopped()) return false;
    const GuardedResult result = again(candidate);
    return result.end != End::stopped && !result.passed() && kind_of(result) == wanted;
  };
  std::printf("  making it small\n");
  std::fflush(stdout);
  return shrink({failed.options, failed.run.step_count, failed.run.client_count}, fails, shrink_tries_max);
}

// A file of it: in the cache, or with --keep among the regressions. A run that comes from a file is as small as it
// gets, and is written again only to be kept.
void Session::write_plan(const GuardedResult& failed, const Named& named) {
  namespace fs = std::filesystem;
  const bool from_seed = named.path.empty();
  const std::string suite = suite_name(failed.options.suite);
  PlanFile plan;
  plan.options = failed.options;
  GuardedResult smallest = failed;
  if (from_seed && arguments_.shrink && !stopped()) {
    plan.options = smaller(failed);
    // What the file says is what its replay shows.
    if (plan.options.reduction != failed.options.reduction && !stopped()) smallest = again(plan.options);
  }
  if (smallest.end == End::stopped || smallest.passed()) smallest = failed;
  plan.found = smallest.end == End::finished ? smallest.run.explanation : "crash";
  const std::string seed = hex(plan.options.seed);
  std::string path = named.path;
  if (from_seed || arguments_.keep) {
    const fs::path folder = arguments_.keep ? arguments_.regressions : arguments_.found;
    std::error_code error;
    fs::create_directories(folder, error);
    path = (folder / (suite + "-" + seed + ".json")).string();
    PlanFile kept = plan;
    // A regression must pass once the code is right.
    if (arguments_.keep && kept.options.bugs != PlantedBugs{}) {
      std::printf("  kept without the planted bugs: a regression is a run that must pass\n");
      kept.options.bugs = {};
    }
    std::ofstream out(path);
    out << plan_text(kept);
    out.close();
    if (!out) std::printf("  error: cannot write %s\n", path.c_str());
  }
  std::string bugs;
  for (const std::string& bug : arguments_.bugs)
    bugs += " --bug " + bug;
  if (from_seed)
    std::printf("  again: npm run sim -- --suite %s --seed %s%s\n", suite.c_str(), seed.c_str(), bugs.c_str());
  std::printf("  plan: %s\n  replay: npm run sim -- --plan %s --verbose\n", path.c_str(), path.c_str());
  if (failed.options.suite == Suite::cluster_ts)
    std::printf("  what its hosts saw: npm run sim -- --plan %s --history FILE\n", path.c_str());
  if (!arguments_.keep && from_seed)
    std::printf("  keep it as a regression: npm run sim -- --plan %s --keep\n", path.c_str());
}

void Session::tell_interrupted() {
  // What has ended and was waiting for its turn.
  for (const auto& [number, result] : waiting_) {
    told_number_ = number;
    tell(result, names_[number]);
    names_.erase(number);
  }
  waiting_.clear();
  std::string running;
  for (const auto& [number, named] : names_)
    running += (running.empty() ? "" : ", ") + named.name;
  std::printf("interrupted; in progress: %s\n", running.empty() ? "nothing" : running.c_str());
}

void Session::tell_totals() const {
  for (const auto& [suite, total] : totals_) {
    std::printf("%s: %" PRIu64 " runs, %.0f virtual s, %" PRIu64 " ops, %" PRIu64
                " crash states, %.1f CPU s: %.0f virtual s and %.0f ops per CPU minute\n",
                suite_name(suite), total.runs, total.virtual_s, total.ops, total.crash_states, total.cpu_s,
                total.virtual_s / total.cpu_s * 60, static_cast<double>(total.ops) / total.cpu_s * 60);
  }
  std::printf("%.1f s\n", std::chrono::duration<double>(Clock::now() - began_).count());
}

std::vector<std::string> Session::report_coverage() const {
  std::vector<std::string> never;
  for (const auto& [name, event] : events_) {
    if (event.count == 0) never.push_back(name);
  }
  std::printf("rare events: %zu of %zu reached\n", events_.size() - never.size(), events_.size());
  for (const auto& [name, event] : events_)
    std::printf("  %-26s %10" PRIu64 "%s %s\n", name.c_str(), event.count, event.count == 0 ? " NEVER" : "",
                event.text.c_str());
  return never;
}

}  // namespace basalt::sim
