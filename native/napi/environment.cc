// SPDX-License-Identifier: Apache-2.0
#include "napi/environment.h"

#include "napi/engine_handle.h"

namespace basalt::addon {

Environment::Environment(Napi::Env env) {
  inbox_->open(env);
}

Environment& Environment::attach(Napi::Env env) {
  auto* environment = new Environment(env);
  env.SetInstanceData(environment);  // deleted with the environment
  env.AddCleanupHook([](Environment* self) { self->tear_down(); }, environment);
  return *environment;
}

Environment& Environment::of(Napi::Env env) {
  return *env.GetInstanceData<Environment>();
}

void Environment::tear_down() {
  // end() takes each one out of the set.
  while (!engines_.empty())
    (*engines_.begin())->end_now();
  inbox_->shut();
}

Pending::Pending(Napi::Env env, std::shared_ptr<Inbox> inbox) : inbox_(std::move(inbox)) {
  if (napi_create_promise(env, &deferred_, &promise_) != napi_ok) {
    deferred_ = nullptr;
    return;
  }
  inbox_->hold(env);
}

// Settling fails only in an environment that is ending, where nobody waits.
void Pending::resolve(Napi::Env env, Napi::Value value) {
  inbox_->let_go(env);
  napi_resolve_deferred(env, deferred_, value);
}

void Pending::reject(Napi::Env env, Napi::Value error) {
  inbox_->let_go(env);
  napi_reject_deferred(env, deferred_, error);
}

Napi::Value illegal_state(Napi::Env env, const char* message) {
  auto error = Napi::Error::New(env, message).Value();
  error.Set("name", "IllegalState");
  error.Set("code", "ILLEGAL_STATE");
  return error;
}

}  // namespace basalt::addon
