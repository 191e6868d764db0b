// SPDX-License-Identifier: Apache-2.0
// basalt_crowd: many connections to an NVMe/TCP target, for what they cost it and those that work beside them.
//
//   basalt_crowd idle --port 4420 --nqn nqn.… --queues 100 [--per-host 5] [--queue-depth 127]
//                                       so many connected queues, admin queues among them, that ask for nothing but
//                                       keep-alives; says "ready", and holds them until it is killed
//   basalt_crowd half-open --port 4420 --count 10000 [--per-second 1000]
//                                       so many sockets that never say a word; says "ready", and from then on replaces
//                                       the oldest by new ones until it is killed
//   basalt_crowd reconnect --port 4420 --nqn nqn.… --count 1000
//                                       a whole association (two queues, enabled, identified, shut down) after the
//                                       other; says how many a second as one line of JSON
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <string_view>

#include "bench/arguments.h"
#include "env/linux/linux_env.h"
#include "nvmf/host/controller.h"
#include "nvmf/transport/tcp/tcp_host.h"

namespace basalt::bench {
namespace {

struct Plan {
  std::string mode;
  std::string port;
  std::string nqn;
  uint64_t count = 0;
  uint64_t per_host = 5;
  uint64_t per_second = 1000;
  uint16_t queue_depth = 127;
};

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "basalt_crowd: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

void say_ready() {
  std::printf("ready\n");
  std::fflush(stdout);
}

// As many sockets as the system lets this process have.
void raise_descriptor_limit(uint64_t wanted) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted + 64) Arguments::fail("--count", "is above the limit of open files (ulimit -n)");
}

// ---- hosts
// -----------------------------------------------------------------------------------------------------------

struct Quiet final : nvmf::HostController::Listener {
  bool lost = false;
  void controller_lost(const Error& reason) override {
    std::fprintf(stderr, "basalt_crowd: a connection was lost: %s\n", reason.message.c_str());
    lost = true;
  }
  void namespaces_changed() override {}
};

struct Program : Work {
  Reactor& reactor;
  nvmf::TcpHostTransport& transport;
  const Plan& plan;
  Quiet quiet;
  std::vector<std::unique_ptr<nvmf::HostController>> held;
  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;
  int code = 0;
  Program(Reactor& on, nvmf::TcpHostTransport& through, const Plan& what)
      : reactor(on), transport(through), plan(what) {}
};

nvmf::HostControllerOptions host_options(const Plan& plan, env::Env& env, uint64_t number, uint16_t io_queue_count) {
  nvmf::HostControllerOptions options;
  options.address = {"127.0.0.1", plan.port};
  options.subnqn = plan.nqn;
  options.hostnqn = "nqn.2024-01.io.basalt:crowd-" + std::to_string(number);
  env.random(options.hostid.bytes.data(), options.hostid.bytes.size());
  options.io_queue_count = io_queue_count;
  options.io_queue_depth = plan.queue_depth;
  return options;
}

// One host after the other, each with an admin queue and the I/O queues that are left of its share.
Task<bool> gather(Program* program) {
  const Plan& plan = program->plan;
  uint64_t left = plan.count;
  for (uint64_t number = 0; left > 0; number++) {
    const uint64_t share = std::max<uint64_t>(2, std::min(left, plan.per_host));
    left -= std::min(left, share);
    auto controller = std::make_unique<nvmf::HostController>(
        program->reactor, program->transport,
        host_options(plan, program->reactor.env(), number, static_cast<uint16_t>(share - 1)), &program->quiet);
    auto connecting = controller->connect();
    const Outcome connected = co_await connecting;
    if (!connected) {
      std::fprintf(stderr, "basalt_crowd: host %llu: %s\n", static_cast<unsigned long long>(number),
                   connected.error().message.c_str());
      co_return false;
    }
    if (controller->io_queue_count() + 1 != share) {
      std::fprintf(stderr, "basalt_crowd: the target gives only %zu I/O queues\n", controller->io_queue_count());
      co_return false;
    }
    program->held.push_back(std::move(controller));
  }
  co_return true;
}

Task<bool> reconnect(Program* program) {
  env::Env& env = program->reactor.env();
  const Instant begin = env.now();
  for (uint64_t i = 0; i < program->plan.count; i++) {
    nvmf::HostController controller(program->reactor, program->transport, host_options(program->plan, env, 0, 1),
                                    &program->quiet);
    auto connecting = controller.connect();
    const Outcome connected = co_await connecting;
    auto closing = controller.close();
    co_await closing;
    if (!connected) {
      std::fprintf(stderr, "basalt_crowd: connection %llu: %s\n", static_cast<unsigned long long>(i),
                   connected.error().message.c_str());
      co_return false;
    }
  }
  const double seconds = static_cast<double>((env.now() - begin).ns) / 1e9;
  std::printf("{\"count\":%llu,\"seconds\":%.3f,\"per_s\":%.1f}\n",
              static_cast<unsigned long long>(program->plan.count), seconds,
              static_cast<double>(program->plan.count) / seconds);
  co_return true;
}

Task<void> run_program(Program* program) {
  auto working = program->plan.mode == "idle" ? gather(program) : reconnect(program);
  const bool good = co_await working;
  const std::lock_guard lock(program->mutex);
  program->code = good ? 0 : 1;
  program->ended = true;
  program->changed.notify_one();
}

int run_hosts(env::Env& env, const Plan& plan) {
  raise_descriptor_limit(plan.mode == "idle" ? plan.count : 0);
  Arena arena(size_t{4} << 30);
  Reactor reactor(env, arena, {});
  if (auto made = reactor.init(); !made) {
    std::fprintf(stderr, "basalt_crowd: %s\n", made.error().message.c_str());
    return 1;
  }
  nvmf::TcpHostTransport transport;
  Program program(reactor, transport, plan);
  program.run = [](Work* work) { spawn(run_program(static_cast<Program*>(work))); };
  const auto loop = env.start(reactor, {"crowd", -1});
  reactor.post(&program);
  {
    std::unique_lock lock(program.mutex);
    program.changed.wait(lock, [&] { return program.ended; });
  }
  if (program.code == 0 && plan.mode == "idle") {
    say_ready();
    pause();  // the signal that ends it ends the process, and with it all connections at once
  }
  if (!program.held.empty()) std::_Exit(program.code);
  reactor.stop();
  return program.code;
}

// ---- strangers
// -------------------------------------------------------------------------------------------------------

int open_socket(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) die("connect");
  return fd;
}

int hold_half_open(const Plan& plan) {
  raise_descriptor_limit(plan.count);
  const auto port = static_cast<uint16_t>(std::strtoul(plan.port.c_str(), nullptr, 10));
  std::deque<int> held;
  while (held.size() < plan.count)
    held.push_back(open_socket(port));
  say_ready();
  constexpr int step_ms = 10;
  for (;;) {
    poll(nullptr, 0, step_ms);
    for (uint64_t i = 0; i < plan.per_second * step_ms / 1000; i++) {
      close(held.front());
      held.pop_front();
      held.push_back(open_socket(port));
    }
  }
}

Plan read_plan(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode != "idle" && mode != "half-open" && mode != "reconnect")
    Arguments::fail("basalt_crowd", "expected idle, half-open or reconnect");
  Arguments arguments(argc, argv, 2);
  Plan plan;
  plan.mode = mode;
  plan.port = arguments.text("port");
  plan.count = arguments.number(mode == "idle" ? "queues" : "count", 100, 100'000);
  if (mode == "half-open") {
    plan.per_second = arguments.number("per-second", 1000, 100'000);
  } else {
    plan.nqn = arguments.text("nqn");
    plan.per_host = arguments.number("per-host", 5, 65);
    if (plan.per_host < 2) Arguments::fail("--per-host", "must be at least 2: an admin queue and one for I/O");
    plan.queue_depth = static_cast<uint16_t>(arguments.number("queue-depth", 127, 1023));
  }
  arguments.end();
  return plan;
}

}  // namespace
}  // namespace basalt::bench

int main(int argc, char** argv) {
  const basalt::bench::Plan plan = basalt::bench::read_plan(argc, argv);
  if (plan.mode == "half-open") return basalt::bench::hold_half_open(plan);
  const auto env = basalt::env::make_linux_env();
  return basalt::bench::run_hosts(*env, plan);
}
