// SPDX-License-Identifier: Apache-2.0
// Gate: counts work that must end before its owner may go. enter() fails once close() was called; `co_await close()`
// resumes when the last holder left. The destructor asserts that nobody is inside. One thread.
#pragma once

#include <coroutine>
#include <cstddef>
#include <utility>

#include "base/assert.h"

namespace basalt {

class Gate {
 public:
  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() { BASALT_ASSERT(count_ == 0); }

  bool enter() {
    if (closed_) return false;
    count_++;
    return true;
  }
  void leave() {
    BASALT_ASSERT(count_ > 0);
    count_--;
    if (count_ == 0 && waiter_) std::exchange(waiter_, {}).resume();
  }
  bool closed() const { return closed_; }
  size_t count() const { return count_; }

  struct CloseAwaiter {
    Gate& gate;
    bool await_ready() const noexcept { return gate.count_ == 0; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
      BASALT_ASSERT(!gate.waiter_);
      gate.waiter_ = waiter;
    }
    void await_resume() const noexcept {}
  };
  CloseAwaiter close() {
    closed_ = true;
    return {*this};
  }

  // Leaves at the end of a scope that has entered.
  class Leaver {
   public:
    explicit Leaver(Gate& gate) : gate_(&gate) {}
    Leaver(const Leaver&) = delete;
    Leaver& operator=(const Leaver&) = delete;
    ~Leaver() { gate_->leave(); }

   private:
    Gate* gate_;
  };

 private:
  size_t count_ = 0;
  bool closed_ = false;
  std::coroutine_handle<> waiter_;
};

}  // namespace basalt
