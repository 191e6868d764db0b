// SPDX-License-Identifier: Apache-2.0
// Task<T>: a coroutine of the control path. It starts when awaited (or spawned), runs on the reactor it was started on,
// and hands its value to the one that awaits it. Never used per I/O: the hot path is intrusive completions.
//
// Rules (they avoid compiler 12 defects and dangling frames):
//  - no capturing lambda coroutines; parameters by value, or references to objects that outlive the task
//  - name temporaries: `auto request = make(); co_await send(std::move(request));`, no braced temporaries inside
//  co_await
//  - no co_await inside conditional expressions
#pragma once

#include <coroutine>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/assert.h"

namespace basalt {

template <class T>
class Task;

namespace detail {

struct FinalAwaiter {
  bool await_ready() const noexcept { return false; }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> done) const noexcept {
    auto continuation = done.promise().continuation;
    return continuation ? continuation : std::noop_coroutine();
  }
  void await_resume() const noexcept {}
};

struct PromiseBase {
  std::coroutine_handle<> continuation;
  std::suspend_always initial_suspend() noexcept { return {}; }
  FinalAwaiter final_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { BASALT_ASSERT(false); }
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Task<T> get_return_object() noexcept;
  template <class U>
  void return_value(U&& from) {
    value.emplace(std::forward<U>(from));
  }
};

template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() noexcept {}
};

}  // namespace detail

template <class T>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;

  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> caller) noexcept {
    handle_.promise().continuation = caller;
    return handle_;
  }
  T await_resume() {
    if constexpr (!std::is_void_v<T>) return std::move(*handle_.promise().value);
  }

 private:
  std::coroutine_handle<promise_type> handle_;
};

namespace detail {
template <class T>
Task<T> Promise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}

struct Detached {
  struct promise_type {
    Detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { BASALT_ASSERT(false); }
  };
};
inline Detached run_detached(Task<void> task) {
  co_await task;
}
}  // namespace detail

// Starts the task now, on this thread; nobody awaits it. The owner of what the task touches must outlive it: hold a
// Gate (base/gate.h) for its length.
inline void spawn(Task<void> task) {
  detail::run_detached(std::move(task));
}

// One value handed from a callback to one waiting coroutine: `Signal<int> s; start(&s); int v = co_await s;`.
// set() resumes the waiter inside the call, or is remembered until somebody waits. One thread.
template <class T>
class Signal {
 public:
  Signal() = default;
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  void set(T value) {
    BASALT_ASSERT(!value_.has_value());
    value_.emplace(std::move(value));
    if (waiter_) std::exchange(waiter_, {}).resume();
  }
  bool is_set() const { return value_.has_value(); }
  bool await_ready() const noexcept { return value_.has_value(); }
  void await_suspend(std::coroutine_handle<> waiter) noexcept { waiter_ = waiter; }
  T await_resume() { return std::move(*value_); }

 private:
  std::optional<T> value_;
  std::coroutine_handle<> waiter_;
};

}  // namespace basalt
