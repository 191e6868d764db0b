// SPDX-License-Identifier: Apache-2.0
#include "napi/inbox.h"

#include "base/assert.h"

namespace basalt::addon {

// Not a Napi::ThreadSafeFunction: that never frees a call which the environment's end finds in its queue.
void Inbox::open(Napi::Env env) {
  auto* kept = new std::shared_ptr<Inbox>(shared_from_this());
  const auto let_go = [](napi_env, void* kept, void*) { delete static_cast<std::shared_ptr<Inbox>*>(kept); };
  const napi_status made = napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "basalt"), 0,
                                                           1, kept, let_go, this, woken, &wake_);
  BASALT_ASSERT(made == napi_ok);
  napi_unref_threadsafe_function(env, wake_);
  open_ = true;
}

void Inbox::woken(napi_env env, napi_value, void* inbox, void*) {
  if (env != nullptr) static_cast<Inbox*>(inbox)->run_batch(env);
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
  if (!stepped_) napi_release_threadsafe_function(wake_, napi_tsfn_abort);
}

void Inbox::deliver(Delivery delivery) {
  const std::lock_guard lock(mutex_);
  if (!open_) return;
  queue_.push_back(std::move(delivery));
  if (stepped_ || woken_) return;
  woken_ = true;
  // Within the lock: shut() on the JavaScript thread must not release the function meanwhile. It never blocks.
  napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
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
  if (held_count_++ == 0 && !stepped_) napi_ref_threadsafe_function(env, wake_);
}

void Inbox::let_go(Napi::Env env) {
  if (--held_count_ == 0 && !stepped_) napi_unref_threadsafe_function(env, wake_);
}

}  // namespace basalt::addon
