// SPDX-License-Identifier: Apache-2.0
// Handle: one user's access to a bdev from the user's reactor. On the bdev's home reactor it submits directly; from
// another one the Io travels as a message, and so does its completion: done always runs on the user's reactor.
// The bdev outlives its handles. In-flight Ios are the user's to count.
#pragma once

#include "bdev/bdev.h"

namespace basalt::bdev {

class Handle {
 public:
  Handle() = default;
  Handle(Bdev& bdev, Reactor& user) : bdev_(&bdev), user_(&user), forwards_(&bdev.home() != &user) {}

  explicit operator bool() const { return bdev_ != nullptr; }
  Bdev& bdev() const { return *bdev_; }
  const BdevInfo& info() const { return bdev_->info(); }

  void submit(Io* io) const {
    if (!forwards_) [[likely]] {
      bdev_->submit(io);
    } else {
      forward(io);
    }
  }

 private:
  void forward(Io* io) const;
  Bdev* bdev_ = nullptr;
  Reactor* user_ = nullptr;
  bool forwards_ = false;
};

// co_await io_wait(handle, io): submits and resumes with the status, on the user's reactor. Control path only.
class IoWait {
 public:
  IoWait(const Handle& handle, Io& io) : handle_(handle), io_(io) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    io_.context = this;
    io_.done = [](Io* io) { static_cast<IoWait*>(io->context)->waiter_.resume(); };
    handle_.submit(&io_);
  }
  nvme::Status await_resume() const noexcept { return io_.status; }

 private:
  const Handle& handle_;
  Io& io_;
  std::coroutine_handle<> waiter_;
};
inline IoWait io_wait(const Handle& handle, Io& io) {
  return IoWait(handle, io);
}

}  // namespace basalt::bdev
