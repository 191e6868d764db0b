// SPDX-License-Identifier: Apache-2.0
#include "runtime/reactor.h"

namespace basalt {
namespace {
constexpr unsigned deferred_per_turn_max = 4096;
constexpr unsigned timers_per_turn_max = 256;
}  // namespace

Reactor::Reactor(env::Env& env, Arena& arena, const ReactorOptions& options)
    : env_(env), options_(options), buffers_(arena, options.buffer_bytes_max), now_(env.now()) {}

Reactor::~Reactor() = default;

Outcome Reactor::init() {
  auto poller = env_.make_poller(options_.poller);
  if (!poller) return std::move(poller).error();
  poller_ = std::move(poller).value();
  return success();
}

void Reactor::post(Work* work) {
  mailbox_.push(work);
  if (asleep_.load(std::memory_order_seq_cst)) poller_->wake();
}

void Reactor::stop() {
  stopping_.store(true, std::memory_order_seq_cst);
  poller_->wake();
}

bool Reactor::run_deferred() {
  unsigned count = 0;
  while (count < deferred_per_turn_max) {
    Work* work = deferred_.pop();
    if (work == nullptr) break;
    work->run(work);
    count++;
  }
  return count > 0;
}

bool Reactor::turn() {
  now_ = env_.now();
  bool worked = mailbox_.drain(deferred_);
  worked |= run_deferred();
  worked |= poller_->poll() > 0;
  for (unsigned i = 0; i < timers_per_turn_max; i++) {
    Timer* timer = timers_.pop_due(now_);
    if (timer == nullptr) break;
    timer->run(timer);
    worked = true;
  }
  worked |= run_deferred();
  // Turn-end work may defer completions; those run next turn, which follows at once.
  WorkQueue ending;
  std::swap(ending, turn_end_);
  while (Work* work = ending.pop()) {
    work->run(work);
    worked = true;
  }
  stats_.turn_count++;
  if (worked) stats_.busy_turn_count++;
  return worked;
}

Instant Reactor::deadline() const {
  if (!deferred_.empty() || !turn_end_.empty() || !mailbox_.empty()) return now_;
  return timers_.next_due();
}

void Reactor::sleep() {
  asleep_.store(true, std::memory_order_seq_cst);
  if (mailbox_.empty() && deferred_.empty() && turn_end_.empty() && !stopping_.load(std::memory_order_seq_cst)) {
    stats_.sleep_count++;
    poller_->wait(timers_.next_due());
  }
  asleep_.store(false, std::memory_order_seq_cst);
}

void Reactor::run() {
  asleep_.store(false, std::memory_order_seq_cst);
  Instant idle_since = env_.now();
  bool was_idle = false;
  SpinTime spin(options_.spin);
  while (!stopping_.load(std::memory_order_relaxed)) {
    if (turn()) {
      if (was_idle) spin.idle_lasted(now_ - idle_since);
      was_idle = false;
      continue;
    }
    if (options_.mode == PollMode::busy) continue;
    if (!was_idle) {
      was_idle = true;
      idle_since = now_;
    }
    if (options_.mode == PollMode::interrupt || now_ - idle_since >= spin.current()) {
      sleep();
    } else {
      poller_->give_way();
    }
  }
  asleep_.store(true, std::memory_order_seq_cst);
}

}  // namespace basalt
