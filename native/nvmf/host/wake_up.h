// SPDX-License-Identifier: Apache-2.0
// WakeUp: lets one coroutine sleep for a time that somebody else can cut short. One thread.
//
//   co_await wake.wait_for(reactor, seconds(1));    ...    wake.set();
//
// A set() that nobody waits for is remembered for the next wait.
#pragma once

#include <coroutine>
#include <utility>

#include "runtime/reactor.h"

namespace basalt::nvmf {

class WakeUp {
 public:
  class Waiter : Timer {
   public:
    Waiter(WakeUp& wake, Reactor& reactor, Duration duration) : wake_(wake), reactor_(reactor), duration_(duration) {}
    bool await_ready() const noexcept { return std::exchange(wake_.set_, false); }
    void await_suspend(std::coroutine_handle<> handle) {
      BASALT_ASSERT(wake_.waiter_ == nullptr);
      handle_ = handle;
      wake_.waiter_ = this;
      run = [](Work* work) { static_cast<Waiter*>(work)->resume(); };
      if (duration_.ns != INT64_MAX) reactor_.arm_after(this, duration_);
    }
    void await_resume() const noexcept {}

   private:
    friend class WakeUp;
    void resume() {
      reactor_.cancel(this);
      wake_.waiter_ = nullptr;
      handle_.resume();
    }
    WakeUp& wake_;
    Reactor& reactor_;
    const Duration duration_;
    std::coroutine_handle<> handle_;
  };

  Waiter wait_for(Reactor& reactor, Duration duration) { return Waiter(*this, reactor, duration); }
  Waiter wait(Reactor& reactor) { return Waiter(*this, reactor, {INT64_MAX}); }
  // The sleeper goes on inside this call.
  void set() {
    if (waiter_ != nullptr) {
      waiter_->resume();
    } else {
      set_ = true;
    }
  }
  void clear() { set_ = false; }

 private:
  bool set_ = false;
  Waiter* waiter_ = nullptr;
};

}  // namespace basalt::nvmf
