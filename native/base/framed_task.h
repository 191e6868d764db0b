// SPDX-License-Identifier: Apache-2.0
// FramedTask<T>: a Task whose frame lies in memory that the object keeps whose member function it is (`frames()`), so
// that what runs beside requests again and again - checkpoints of a log, say - takes nothing from the heap once it is
// warm. FramedSpawn: one that starts at once, and that nobody awaits. For member functions alone.
//
// Thread: the object's reactor. Frames may outlive the object: the memory goes with the last of them.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "base/task.h"

namespace basalt {

// Blocks of memory that were frames, until somebody needs them again.
class FrameMemory {
 public:
  FrameMemory() : state_(new State) {}
  FrameMemory(const FrameMemory&) = delete;
  FrameMemory& operator=(const FrameMemory&) = delete;
  ~FrameMemory() {
    state_->orphaned = true;
    end_if_last(state_);
  }

  void* take(size_t size_bytes) {
    State& state = *state_;
    state.in_use++;
    for (Block*& free : state.free) {
      if (free->size_bytes < size_bytes) continue;
      Block* block = free;
      free = state.free.back();
      state.free.pop_back();
      return block + 1;
    }
    auto bytes = std::make_unique<std::byte[]>(sizeof(Block) + size_bytes);
    Block* block = new (bytes.get()) Block{&state, size_bytes};
    state.memory.push_back(std::move(bytes));
    state.free.reserve(state.memory.size());
    return block + 1;
  }
  static void give(void* frame) {
    Block* block = static_cast<Block*>(frame) - 1;
    State* state = block->state;
    state->in_use--;
    state->free.push_back(block);
    end_if_last(state);
  }

 private:
  struct State;
  struct alignas(std::max_align_t) Block {
    State* state;
    size_t size_bytes;
  };
  struct State {
    std::vector<std::unique_ptr<std::byte[]>> memory;
    std::vector<Block*> free;
    size_t in_use = 0;
    bool orphaned = false;
  };
  static void end_if_last(State* state) {
    if (state->orphaned && state->in_use == 0) delete state;
  }
  State* const state_;
};

namespace detail {

// The first parameter of a member function is its object.
struct FramedNew {
  template <class Owner, class... Parameters>
  static void* operator new(size_t size_bytes, Owner& owner, Parameters&...) {
    return owner.frames().take(size_bytes);
  }
  static void operator delete(void* frame) { FrameMemory::give(frame); }
};

}  // namespace detail

template <class T>
class [[nodiscard]] FramedTask {
 public:
  struct promise_type : detail::Promise<T>, detail::FramedNew {
    FramedTask get_return_object() noexcept {
      return FramedTask(std::coroutine_handle<promise_type>::from_promise(*this));
    }
  };

  explicit FramedTask(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  FramedTask(FramedTask&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  FramedTask& operator=(FramedTask&&) = delete;
  ~FramedTask() {
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

struct FramedSpawn {
  struct promise_type : detail::FramedNew {
    FramedSpawn get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { BASALT_ASSERT(false); }
  };
};

}  // namespace basalt
