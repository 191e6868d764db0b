// SPDX-License-Identifier: Apache-2.0
#include "sim/worker.h"

#include <rapidjson/document.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <cstring>

#include "base/assert.h"
#include "sim/plan_file.h"

namespace basalt::sim {
namespace {

using rapidjson::Value;

RunResult crashed(const std::string& why) {
  RunResult result;
  result.failure = Failure::crash;
  result.explanation = why;
  return result;
}

std::vector<std::string> command_line(const RunOptions& options) {
  std::vector<std::string> words = options.worker;
  PlanFile plan;
  plan.options = options;
  words.push_back(plan_text(plan));
  if (options.verbose) words.push_back("--verbose");
  if (!options.history.empty()) words.insert(words.end(), {"--history", options.history});
  return words;
}

// Its output; its exit status in `status`.
std::string run_command(const std::vector<std::string>& words, int* status) {
  std::vector<char*> argv;
  for (const std::string& word : words)
    argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  int output[2];
  BASALT_ASSERT(pipe(output) == 0);
  const pid_t pid = fork();
  BASALT_ASSERT(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(output[1], STDOUT_FILENO);
    close(output[0]);
    close(output[1]);
    execvp(argv[0], argv.data());
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
  }
  close(output[1]);
  std::string text;
  char bytes[65536];
  for (ssize_t count = 0; (count = read(output[0], bytes, sizeof(bytes))) > 0;)
    text.append(bytes, static_cast<size_t>(count));
  close(output[0]);
  waitpid(pid, status, 0);
  return text;
}

const char* read_failure(const Value& value, Failure* out) {
  static constexpr const char* names[] = {"none", "liveness", "correctness", "crash"};
  for (size_t i = 0; i < std::size(names); i++) {
    if (!value.IsString() || value.GetString() != std::string(names[i])) continue;
    *out = static_cast<Failure>(i);
    return nullptr;
  }
  return "failure";
}

bool read_hash(const Value& value, uint64_t* out) {
  if (!value.IsString() || value.GetStringLength() != 16) return false;
  const char* const begin = value.GetString();
  const auto [at, error] = std::from_chars(begin, begin + 16, *out, 16);
  return error == std::errc() && at == begin + 16;
}

bool read_events(const Value& value, std::vector<RareEvent>* out) {
  if (!value.IsArray()) return false;
  for (const Value& entry : value.GetArray()) {
    if (!entry.IsObject() || !entry.HasMember("name") || !entry.HasMember("text") || !entry.HasMember("count"))
      return false;
    if (!entry["name"].IsString() || !entry["text"].IsString() || !entry["count"].IsUint64()) return false;
    out->push_back({entry["name"].GetString(), entry["text"].GetString(), entry["count"].GetUint64()});
  }
  return true;
}

}  // namespace

Result<RunResult> parse_worker_answer(const std::string& text) {
  rapidjson::Document document;
  document.Parse(text.data(), text.size());
  const auto invalid = [](const std::string& what) { return Error{Errc::invalid_argument, what}; };
  if (document.HasParseError() || !document.IsObject()) return invalid("not a JSON object");
  for (const char* name : {"failure", "explanation", "summary", "trace", "ops", "takeovers", "virtual_ns", "steps",
                           "clients", "rare_events"}) {
    if (!document.HasMember(name)) return invalid(std::string(name) + ": missing");
  }
  RunResult out;
  if (const char* wrong = read_failure(document["failure"], &out.failure)) return invalid(wrong);
  for (const auto& [name, field] : {std::pair("explanation", &out.explanation), std::pair("summary", &out.summary)}) {
    if (!document[name].IsString()) return invalid(name);
    *field = document[name].GetString();
  }
  if (!read_hash(document["trace"], &out.trace_hash)) return invalid("trace");
  for (const auto& [name, field] : {std::pair("ops", &out.op_count), std::pair("takeovers", &out.takeover_count)}) {
    if (!document[name].IsUint64()) return invalid(name);
    *field = document[name].GetUint64();
  }
  for (const auto& [name, field] : {std::pair("steps", &out.step_count), std::pair("clients", &out.client_count)}) {
    if (!document[name].IsUint()) return invalid(name);
    *field = document[name].GetUint();
  }
  if (!document["virtual_ns"].IsNumber()) return invalid("virtual_ns");
  out.virtual_ns = static_cast<int64_t>(document["virtual_ns"].GetDouble());
  if (!read_events(document["rare_events"], &out.rare_events)) return invalid("rare_events");
  return out;
}

RunResult run_worker(const RunOptions& options) {
  int status = 0;
  const std::string answer = run_command(command_line(options), &status);
  if (WIFSIGNALED(status)) return crashed(std::string("the worker ended by ") + strsignal(WTERMSIG(status)));
  if (WEXITSTATUS(status) != 0)
    return crashed("the worker ended with exit code " + std::to_string(WEXITSTATUS(status)));
  auto result = parse_worker_answer(answer);
  if (!result.ok()) return crashed("the worker's answer is not one: " + result.error().message);
  return std::move(result).value();
}

}  // namespace basalt::sim
