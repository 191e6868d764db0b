// SPDX-License-Identifier: Apache-2.0
// Reactor: one thread's event loop, the owner of everything that was made on it (connections, bdevs, timers, buffers).
// Run to completion, share nothing; others reach it with post().
//
// One turn: mailbox -> poller (sockets, files) -> due timers -> deferred work -> turn-end work (connections send once).
// Polling is adaptive: spin while there is work and for as long as more is likely to come soon (spin_time.h), then
// sleep in the poller (`busy` never sleeps, `interrupt` never spins).
//
// Invariants: - work that is deferred, posted or armed runs later, never inside the call
//             - everything but post(), stop() and index() is for the reactor's own thread
#pragma once

#include <atomic>
#include <coroutine>
#include <memory>

#include "base/result.h"
#include "base/task.h"
#include "base/time.h"
#include "base/work.h"
#include "env/env.h"
#include "memory/arena.h"
#include "memory/buffer_pool.h"
#include "runtime/mailbox.h"
#include "runtime/spin_time.h"
#include "runtime/timer.h"

namespace basalt {

enum class PollMode : uint8_t { adaptive, busy, interrupt };

struct ReactorOptions {
  unsigned index = 0;
  PollMode mode = PollMode::adaptive;
  Duration spin = SpinTime::longest_default;  // at most
  size_t buffer_bytes_max = size_t{128} << 20;
  env::PollerOptions poller;
};

struct ReactorStats {
  uint64_t turn_count = 0;
  uint64_t busy_turn_count = 0;
  uint64_t sleep_count = 0;
};

class Reactor final : public env::Loop {
 public:
  Reactor(env::Env& env, Arena& arena, const ReactorOptions& options);
  ~Reactor() override;

  Outcome init();  // makes the poller; on any thread, before the loop is started

  unsigned index() const { return options_.index; }
  env::Env& env() { return env_; }
  env::Poller& poller() { return *poller_; }
  BufferPool& buffers() { return buffers_; }
  Instant now() const { return now_; }  // read once per turn
  const ReactorStats& stats() const { return stats_; }

  void defer(Work* work) { deferred_.push(work); }        // later in this turn
  void at_turn_end(Work* work) { turn_end_.push(work); }  // once, after all ready work of this turn
  void arm(Timer* timer, Instant due) { timers_.arm(timer, due); }
  void arm_after(Timer* timer, Duration after) { timers_.arm(timer, now_ + after); }
  void cancel(Timer* timer) { timers_.cancel(timer); }
  // From its next idle moment on.
  void set_mode(PollMode mode) { options_.mode = mode; }
  PollMode mode() const { return options_.mode; }

  void post(Work* work);  // any thread
  void stop();            // any thread; run() returns soon after

  void run() override;
  bool turn() override;
  Instant deadline() const override;

 private:
  bool run_deferred();
  void sleep();
  env::Env& env_;
  ReactorOptions options_;
  BufferPool buffers_;
  std::unique_ptr<env::Poller> poller_;
  Mailbox mailbox_;
  std::atomic<bool> asleep_{true};  // until run(): a simulator must be told of every post
  std::atomic<bool> stopping_{false};
  WorkQueue deferred_;
  WorkQueue turn_end_;
  TimerHeap timers_;
  Instant now_;
  ReactorStats stats_;
};

// co_await hop(reactor): goes on, on that reactor's thread.
class Hop : Work {
 public:
  explicit Hop(Reactor& to) : to_(to) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    run = [](Work* work) { static_cast<Hop*>(work)->waiter_.resume(); };
    to_.post(this);
  }
  void await_resume() const noexcept {}

 private:
  Reactor& to_;
  std::coroutine_handle<> waiter_;
};
inline Hop hop(Reactor& to) {
  return Hop(to);
}

// co_await sleep_for(reactor, d), on that reactor.
class Sleep : Timer {
 public:
  Sleep(Reactor& reactor, Duration duration) : reactor_(reactor), duration_(duration) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    run = [](Work* work) { static_cast<Sleep*>(work)->waiter_.resume(); };
    reactor_.arm_after(this, duration_);
  }
  void await_resume() const noexcept {}

 private:
  Reactor& reactor_;
  Duration duration_;
  std::coroutine_handle<> waiter_;
};
inline Sleep sleep_for(Reactor& reactor, Duration duration) {
  return Sleep(reactor, duration);
}

}  // namespace basalt
