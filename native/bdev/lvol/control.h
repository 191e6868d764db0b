// SPDX-License-Identifier: Apache-2.0
// For the store's control path: coroutines that wait for each other. One thread.
#pragma once

#include <coroutine>
#include <deque>

#include "base/task.h"

namespace basalt::bdev::lvs {

// co_await list.wait(): until the next wake_all().
class WaitList {
 public:
  struct Awaiter {
    WaitList& list;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) { list.waiting_.push_back(waiter); }
    void await_resume() const noexcept {}
  };
  Awaiter wait() { return {*this}; }
  bool empty() const { return waiting_.empty(); }
  void wake_one() {
    if (waiting_.empty()) return;
    const std::coroutine_handle<> waiter = waiting_.front();
    waiting_.pop_front();
    waiter.resume();
  }
  void wake_all() {
    std::deque<std::coroutine_handle<>> woken;
    woken.swap(waiting_);
    for (const std::coroutine_handle<> waiter : woken)
      waiter.resume();
  }

 private:
  std::deque<std::coroutine_handle<>> waiting_;
};

// One at a time, first come first served.
class ControlLock {
 public:
  Task<void> take() {
    while (held_)
      co_await waiting_.wait();
    held_ = true;
  }
  void give() {
    held_ = false;
    waiting_.wake_one();
  }

 private:
  bool held_ = false;
  WaitList waiting_;
};

}  // namespace basalt::bdev::lvs
