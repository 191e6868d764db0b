// SPDX-License-Identifier: Apache-2.0
// engined: an engine as a program of its own, driven by JSON-RPC on a Unix socket; for gdb, perf, sanitizers, and tools
// that speak SPDK's JSON-RPC. SIGTERM or SIGINT stops it in order, a second one at once.
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "engine/local_engine.h"
#include "engine/version.h"

namespace {

using namespace basalt;

constexpr const char* usage =
    "usage: engined --rpc unix:/path [--reactors N] [--poll adaptive|busy|interrupt] [--poller io_uring|epoll]\n";

bool parse_reactors(std::string_view text, EngineConfig* config) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), config->reactor_count);
  return error == std::errc() && end == text.data() + text.size() && config->reactor_count >= 1 &&
         config->reactor_count <= reactor_count_max;
}

bool parse_poll(std::string_view text, EngineConfig* config) {
  if (text == "adaptive") config->poll_mode = PollMode::adaptive;
  if (text == "busy") config->poll_mode = PollMode::busy;
  if (text == "interrupt") config->poll_mode = PollMode::interrupt;
  return text == "adaptive" || text == "busy" || text == "interrupt";
}

bool parse_poller(std::string_view text, EngineConfig* config) {
  if (text == "io_uring") config->poller = env::PollerKind::io_uring;
  if (text == "epoll") config->poller = env::PollerKind::epoll;
  return text == "io_uring" || text == "epoll";
}

// Says what is wrong with the arguments; empty: nothing.
std::string parse(int argc, char** argv, EngineConfig* config) {
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 == argc) return std::string(name) + ": needs a value";
    const std::string_view value = argv[i + 1];
    if (name == "--rpc") {
      if (value.substr(0, 5) != "unix:" || value.size() == 5) return "--rpc: must be unix:/path";
      config->rpc_path = value.substr(5);
    } else if (name == "--reactors") {
      if (!parse_reactors(value, config)) return "--reactors: must be a number from 1 to 64";
    } else if (name == "--poll") {
      if (!parse_poll(value, config)) return "--poll: must be adaptive, busy or interrupt";
    } else if (name == "--poller") {
      if (!parse_poller(value, config)) return "--poller: must be io_uring or epoll";
    } else {
      return std::string(name) + ": no such option";
    }
  }
  return config->rpc_path.empty() ? "--rpc is missing" : "";
}

// Only calls that are safe in a signal handler.
void on_abort(int) {
  const auto say = [](const char* text) { (void)!write(STDERR_FILENO, text, std::strlen(text)); };
  char thread[16] = "?";
  pthread_getname_np(pthread_self(), thread, sizeof(thread));
  say("engined ");
  say(version);
  say(": aborted on thread ");
  say(thread);
  say("\n");
  void* frames[64];
  backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
}

void install_abort_report() {
  void* frame;
  backtrace(&frame, 1);  // loads what it needs now, not in the handler
  struct sigaction action = {};
  action.sa_handler = on_abort;
  action.sa_flags = SA_RESETHAND;
  for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE})
    sigaction(signal, &action, nullptr);
}

void wait_for_stop(const sigset_t& signals) {
  int signal = 0;
  sigwait(&signals, &signal);
  std::fprintf(stderr, "engined: stopping\n");
  // The next one ends the process as it would any.
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  EngineConfig config;
  if (const std::string problem = parse(argc, argv, &config); !problem.empty()) {
    std::fprintf(stderr, "engined: %s\n%s", problem.c_str(), usage);
    return 2;
  }
  install_abort_report();
  // Blocked before any thread starts: reactors inherit that.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  basalt::LocalEngine local(config);
  if (auto started = local.start(); !started) {
    std::fprintf(stderr, "engined: %s\n", started.error().message.c_str());
    return 1;
  }
  std::fprintf(stderr, "engined %s: serving unix:%s\n", version, config.rpc_path.c_str());
  wait_for_stop(signals);
  local.begin_stop();
  if (local.finish_stop(seconds(10))) return 0;
  std::fprintf(stderr, "engined: not stopped within 10 s\n");
  std::abort();
}
