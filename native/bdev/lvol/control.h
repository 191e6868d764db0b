// SPDX-License-Identifier: Apache-2.0
// For the store's control path: coroutines that wait for each other. One thread.
#pragma once

#include <coroutine>

#include "base/list.h"
#include "base/task.h"

namespace basalt::bdev::lvs {

// co_await list.wait(): until the next wake_all(). Takes nothing from the heap.
class WaitList {
 public:
  struct Awaiter {
    explicit Awaiter(WaitList& waits_in) : list(waits_in) {}
    WaitList& list;
    std::coroutine_handle<> waiter;
    ListNode node;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> coroutine) {
      waiter = coroutine;
      list.waiting_.push_back(this);
    }
    void await_resume() const noexcept {}
  };
  Awaiter wait() { return Awaiter(*this); }
  bool empty() const { return waiting_.empty(); }
  void wake_one() {
    if (Awaiter* awaiter = waiting_.pop_front()) awaiter->waiter.resume();
  }
  void wake_all() {
    List<Awaiter, &Awaiter::node> woken;
    woken.splice_back(waiting_);
    while (Awaiter* awaiter = woken.pop_front())
      awaiter->waiter.resume();
  }

 private:
  List<Awaiter, &Awaiter::node> waiting_;
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
