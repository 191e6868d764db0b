// SPDX-License-Identifier: Apache-2.0
#include "napi/inbox.h"

namespace basalt::addon {

void Inbox::open(Napi::Env env) {
  const auto nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  wake_ = Napi::ThreadSafeFunction::New(env, nothing, "basalt", 0, 1);
  wake_.Unref(env);
  open_ = true;
}

void Inbox::open_stepped() {
  stepped_ = true;
  open_ = true;
}

bool Inbox::empty() {
  const std::lock_guard lock(mutex_);
  return queue_.empty();
}

void Inbox::shut() {
  std::vector<Delivery> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (!open_) return;
    open_ = false;
    dropped.swap(queue_);
  }
  if (!stepped_) wake_.Abort();
}

void Inbox::deliver(Delivery delivery) {
  const std::lock_guard lock(mutex_);
  if (!open_) return;
  queue_.push_back(std::move(delivery));
  if (stepped_ || woken_) return;
  woken_ = true;
  // Within the lock: shut() on the JavaScript thread must not release the function meanwhile. It never blocks.
  auto self = shared_from_this();
  wake_.NonBlockingCall([self](Napi::Env env, Napi::Function) { self->run_batch(env); });
}

void Inbox::run_batch(Napi::Env env) {
  std::vector<Delivery> batch;
  {
    const std::lock_guard lock(mutex_);
    woken_ = false;
    batch.swap(queue_);
  }
  for (Delivery& delivery : batch) {
    const Napi::HandleScope scope(env);
    delivery(env);
  }
}

void Inbox::hold(Napi::Env env) {
  if (held_count_++ == 0 && !stepped_) wake_.Ref(env);
}

void Inbox::let_go(Napi::Env env) {
  if (--held_count_ == 0 && !stepped_) wake_.Unref(env);
}

}  // namespace basalt::addon
