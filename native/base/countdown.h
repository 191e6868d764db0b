// SPDX-License-Identifier: Apache-2.0
// Counts tasks that run beside each other; `co_await countdown` resumes when the last one is done. One thread.
#pragma once

#include <coroutine>
#include <cstddef>

namespace basalt {

struct Countdown {
  size_t pending_count = 1;
  std::coroutine_handle<> waiter;
  void add() { pending_count++; }
  void done() {
    if (--pending_count == 0 && waiter) waiter.resume();
  }
  bool await_ready() noexcept { return --pending_count == 0; }
  void await_suspend(std::coroutine_handle<> coroutine) noexcept { waiter = coroutine; }
  void await_resume() const noexcept {}
};

}  // namespace basalt
