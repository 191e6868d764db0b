// SPDX-License-Identifier: Apache-2.0
#include "env/linux/linux_env.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

#include <thread>

#include "base/assert.h"
#include "env/linux/poller.h"

namespace basalt::env {
namespace {

int64_t read_clock_ns(clockid_t id) {
  timespec now;
  clock_gettime(id, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

class LoopThread final : public LoopHandle {
 public:
  LoopThread(Loop& loop, const LoopOptions& options) {
    // Signals belong to the process's main thread: block them while the new thread inherits the mask.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([&loop] { loop.run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(thread_.native_handle(), options.name.substr(0, 15).c_str());
    if (options.core >= 0) {
      cpu_set_t cores;
      CPU_ZERO(&cores);
      CPU_SET(static_cast<unsigned>(options.core), &cores);
      pthread_setaffinity_np(thread_.native_handle(), sizeof(cores), &cores);  // refused: run unpinned
    }
  }
  ~LoopThread() override { thread_.join(); }

 private:
  std::thread thread_;
};

class LinuxEnv final : public Env {
 public:
  LinuxEnv() {
    rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
      files.rlim_cur = files.rlim_max;
      setrlimit(RLIMIT_NOFILE, &files);
    }
  }

  Instant now() const override { return {read_clock_ns(CLOCK_BOOTTIME)}; }
  int64_t wall_ms() const override { return read_clock_ns(CLOCK_REALTIME) / 1'000'000; }

  void random(void* out, size_t length_bytes) override {
    char* at = static_cast<char*>(out);
    while (length_bytes > 0) {
      const ssize_t got = getrandom(at, length_bytes, 0);
      if (got < 0) continue;  // interrupted
      at += got;
      length_bytes -= static_cast<size_t>(got);
    }
  }

  Result<std::unique_ptr<Poller>> make_poller(const PollerOptions& options) override {
    return make_linux_poller(*this, options);
  }

  std::unique_ptr<LoopHandle> start(Loop& loop, const LoopOptions& options) override {
    return std::make_unique<LoopThread>(loop, options);
  }
};

}  // namespace

std::unique_ptr<Env> make_linux_env() {
  return std::make_unique<LinuxEnv>();
}

}  // namespace basalt::env
