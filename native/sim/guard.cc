// SPDX-License-Identifier: Apache-2.0
#include "sim/guard.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "base/assert.h"

namespace basalt::sim {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t output_bytes_max = 6000;

void put(std::string& out, uint64_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
void put(std::string& out, const std::string& text) {
  put(out, static_cast<uint64_t>(text.size()));
  out += text;
}

struct Parcel {
  const std::string& bytes;
  size_t at = 0;
  bool good = true;
  uint64_t number() {
    uint64_t value = 0;
    if (at + sizeof(value) > bytes.size()) good = false;
    if (!good) return 0;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    at += sizeof(value);
    return value;
  }
  std::string text() {
    const uint64_t length = number();
    if (!good || length > bytes.size() - at) good = false;
    if (!good) return "";
    at += length;
    return bytes.substr(at - length, length);
  }
};

std::string pack(const RunResult& run, const MarkTable& marks) {
  std::string out;
  put(out, static_cast<uint64_t>(run.failure));
  put(out, run.explanation);
  put(out, run.summary);
  for (const uint64_t value :
       {run.trace_hash, run.op_count, run.takeover_count, run.crash_state_count, static_cast<uint64_t>(run.virtual_ns),
        uint64_t{run.step_count}, uint64_t{run.client_count}})
    put(out, value);
  for (size_t i = 0; i < mark_count; i++)
    put(out, marks.count(static_cast<Mark>(i)));
  put(out, static_cast<uint64_t>(run.rare_events.size()));
  for (const RareEvent& event : run.rare_events) {
    put(out, event.name);
    put(out, event.text);
    put(out, event.count);
  }
  return out;
}

bool unpack(const std::string& bytes, GuardedResult* out) {
  Parcel in{bytes};
  RunResult& run = out->run;
  run.failure = static_cast<Failure>(in.number());
  run.explanation = in.text();
  run.summary = in.text();
  run.trace_hash = in.number();
  run.op_count = in.number();
  run.takeover_count = in.number();
  run.crash_state_count = in.number();
  run.virtual_ns = static_cast<int64_t>(in.number());
  run.step_count = static_cast<uint32_t>(in.number());
  run.client_count = static_cast<uint32_t>(in.number());
  for (uint64_t& count : out->marks)
    count = in.number();
  const uint64_t event_count = in.number();
  for (uint64_t i = 0; i < event_count && in.good; i++) {
    RareEvent event;
    event.name = in.text();
    event.text = in.text();
    event.count = in.number();
    run.rare_events.push_back(std::move(event));
  }
  return in.good && in.at == bytes.size();
}

void write_all(int fd, const std::string& bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t count = write(fd, bytes.data() + at, bytes.size() - at);
    if (count <= 0) _exit(1);
    at += static_cast<size_t>(count);
  }
}

// A child and all that it has started.
void kill_group(pid_t pid) {
  kill(-pid, SIGKILL);
  kill(pid, SIGKILL);  // when it has not made its group yet
}

void become_child() {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// False: at its end.
bool read_some(int fd, std::string* out) {
  char bytes[65536];
  const ssize_t count = read(fd, bytes, sizeof(bytes));
  if (count <= 0) return false;
  out->append(bytes, static_cast<size_t>(count));
  return true;
}

}  // namespace

struct Guard::Child {
  uint64_t number = 0;
  RunOptions options;
  pid_t pid = 0;
  int result_fd = -1;
  int output_fd = -1;
  std::string result;
  std::string output;
  Clock::time_point began;
  bool stopped = false;
};

Guard::Guard(const Options& options) : options_(options) {}

Guard::~Guard() {
  for (const auto& child : children_) {
    kill_group(child->pid);
    waitpid(child->pid, nullptr, 0);
    close(child->result_fd);
    if (child->output_fd >= 0) close(child->output_fd);
  }
}

bool Guard::full() const {
  return children_.size() >= std::max<size_t>(1, options_.jobs);
}
bool Guard::empty() const {
  return children_.empty();
}

void Guard::start(uint64_t number, const std::function<RunResult()>& run, const RunOptions& options) {
  BASALT_ASSERT(!full());
  int results[2];
  int outputs[2] = {-1, -1};
  BASALT_ASSERT(pipe(results) == 0);
  if (!options_.verbose) BASALT_ASSERT(pipe(outputs) == 0);
  std::fflush(nullptr);
  const pid_t pid = fork();
  BASALT_ASSERT(pid >= 0);
  if (pid == 0) {
    become_child();
    close(results[0]);
    if (!options_.verbose) {
      dup2(outputs[1], STDERR_FILENO);
      close(outputs[0]);
      close(outputs[1]);
    }
    MarkTable marks;
    const CountMarks counting(marks);
    write_all(results[1], pack(run(), marks));
    _exit(0);
  }
  setpgid(pid, pid);
  close(results[1]);
  if (outputs[1] >= 0) close(outputs[1]);
  auto child = std::make_unique<Child>();
  child->number = number;
  child->options = options;
  child->pid = pid;
  child->result_fd = results[0];
  child->output_fd = outputs[0];
  child->began = Clock::now();
  children_.push_back(std::move(child));
}

std::optional<std::pair<uint64_t, GuardedResult>> Guard::wait() {
  BASALT_ASSERT(!children_.empty());
  for (;;) {
    std::vector<pollfd> fds;
    for (const auto& child : children_) {
      fds.push_back({child->result_fd, POLLIN, 0});
      fds.push_back({child->output_fd, POLLIN, 0});
    }
    fds.push_back({options_.stop_fd, POLLIN, 0});
    poll(fds.data(), fds.size(), 1000);
    if (fds.back().revents != 0) return std::nullopt;
    for (size_t i = 0; i < children_.size(); i++) {
      Child& child = *children_[i];
      if (fds[2 * i + 1].revents != 0 && !read_some(child.output_fd, &child.output)) {
        close(child.output_fd);
        child.output_fd = -1;
      }
      if (child.output.size() > 2 * output_bytes_max) child.output.erase(0, child.output.size() - output_bytes_max);
      const bool late = Clock::now() - child.began > std::chrono::seconds(options_.limit_s);
      if (late && !child.stopped) {
        child.stopped = true;
        kill_group(child.pid);
      }
      if (fds[2 * i].revents == 0 || read_some(child.result_fd, &child.result)) continue;
      while (child.output_fd >= 0 && read_some(child.output_fd, &child.output)) {
      }
      GuardedResult out;
      out.options = child.options;
      out.real_s = std::chrono::duration<double>(Clock::now() - child.began).count();
      int status = 0;
      rusage usage{};
      wait4(child.pid, &status, 0, &usage);
      const auto time_s = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
      };
      out.cpu_s = time_s(usage.ru_utime) + time_s(usage.ru_stime);
      const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0 && unpack(child.result, &out);
      if (!ended_well || out.run.failure == Failure::crash) {
        out.end = child.stopped ? End::hung : End::crashed;
        out.output = child.output.substr(child.output.size() - std::min(child.output.size(), output_bytes_max));
        if (WIFSIGNALED(status)) out.output += std::string("ended by ") + strsignal(WTERMSIG(status)) + "\n";
      }
      close(child.result_fd);
      if (child.output_fd >= 0) close(child.output_fd);
      const uint64_t number = child.number;
      children_.erase(children_.begin() + static_cast<ptrdiff_t>(i));
      return std::make_pair(number, std::move(out));
    }
  }
}

GuardedResult run_guarded(const RunOptions& options, int limit_s, int stop_fd) {
  Guard guard({.limit_s = limit_s, .stop_fd = stop_fd});
  guard.start(
      0, [&] { return run_once(options); }, options);
  auto done = guard.wait();
  if (done) return std::move(done->second);
  GuardedResult stopped;
  stopped.options = options;
  stopped.end = End::stopped;
  return stopped;
}

}  // namespace basalt::sim
