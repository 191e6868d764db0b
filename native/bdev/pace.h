// SPDX-License-Identifier: Apache-2.0
// Pace: how fast background tasks of one kind (resync, scrub) may go, all of them together. Any number of them ask
// before each piece of their work.
//
// Owner: one reactor. Who waits here is woken by wake() when it is over for it; nobody waits when a Pace ends.
#pragma once

#include <algorithm>
#include <coroutine>
#include <utility>

#include "base/list.h"
#include "base/task.h"
#include "runtime/reactor.h"

namespace basalt::bdev {

class Pace {
 public:
  explicit Pace(Reactor& home) : home_(home) {}

  // 0: no limit. Who waits looks again.
  void set(uint64_t bytes_per_s, bool paused) {
    bytes_per_s_ = bytes_per_s;
    paused_ = paused;
    next_ = home_.now();
    wake();
  }

  // Whether their tasks go on may have changed.
  void wake() {
    List<Waiter, &Waiter::node> resumed;
    resumed.splice_back(waiters_);
    while (Waiter* waiter = resumed.pop_front()) {
      home_.cancel(waiter);
      waiter->coroutine.resume();
    }
  }

  // Returns when so much more may be done, or `goes_on()` says no.
  template <class GoesOn>
  Task<void> keep(uint64_t length_bytes, GoesOn goes_on) {
    while (goes_on() && (paused_ || (bytes_per_s_ != 0 && next_ > home_.now()))) {
      Wait wait{*this, paused_ ? Instant::never() : next_, {}};
      co_await wait;
    }
    if (bytes_per_s_ == 0) co_return;
    const double cost_s = static_cast<double>(length_bytes) / static_cast<double>(bytes_per_s_);
    next_ = std::max(next_, home_.now()) + nanoseconds(static_cast<int64_t>(cost_s * 1e9));
  }

 private:
  struct Waiter : Timer {
    std::coroutine_handle<> coroutine;
    ListNode node;
  };
  struct Wait {
    Pace& pace;
    Instant until;  // Instant::never(): until the pace changes
    Waiter waiter;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> coroutine) {
      waiter.coroutine = coroutine;
      waiter.run = [](Work* work) {
        auto* waiting = static_cast<Waiter*>(work);
        waiting->node.unlink();
        waiting->coroutine.resume();
      };
      pace.waiters_.push_back(&waiter);
      if (until != Instant::never()) pace.home_.arm(&waiter, until);
    }
    void await_resume() const noexcept {}
  };

  Reactor& home_;
  uint64_t bytes_per_s_ = 0;
  bool paused_ = false;
  Instant next_{0};
  List<Waiter, &Waiter::node> waiters_;
};

}  // namespace basalt::bdev
