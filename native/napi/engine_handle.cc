// SPDX-License-Identifier: Apache-2.0
#include "napi/engine_handle.h"

#include <cstdio>
#include <cstdlib>

#include "engine/local_engine.h"
#include "napi/arguments.h"
#include "napi/bdev_handle.h"
#include "napi/engine_config.h"
#include "napi/sim_world_handle.h"

namespace basalt::addon {
namespace {

constexpr napi_type_tag engine_tag = {0x6c1d0f6be2a14d0c, 0x9b0e5d7733a9c411};

Napi::Value error_value(Napi::Env env, const Error& error) {
  auto value = Napi::Error::New(env, error.message).Value();
  value.Set("code", errc_name(error.code));
  return value;
}

// Memory given to JavaScript as an ArrayBuffer goes back when that is collected, whatever became of the engine.
struct Block {
  Block(std::shared_ptr<UserMemory> from, size_t size) : owner(std::move(from)), bytes(size) {}
  std::shared_ptr<UserMemory> owner;
  size_t bytes;
};

void give_back(Napi::BasicEnv, void* memory, Block* block) {
  block->owner->give(memory, block->bytes);
  delete block;
}

}  // namespace

void EngineHandle::define(Napi::Env env, Environment& environment, Napi::Object exports) {
  const auto constructor = DefineClass(env, "Engine",
                                       {
                                           InstanceMethod<&EngineHandle::rpc>("rpc"),
                                           InstanceMethod<&EngineHandle::on_event>("onEvent"),
                                           InstanceMethod<&EngineHandle::allocate>("allocate"),
                                           InstanceMethod<&EngineHandle::open_bdev>("openBdev"),
                                           InstanceMethod<&EngineHandle::close>("close"),
                                       });
  exports.Set("Engine", constructor);
  environment.engine_constructor = Napi::Persistent(constructor);
}

EngineHandle::EngineHandle(const Napi::CallbackInfo& info)
    : ObjectWrap(info), environment_(Environment::of(info.Env())), inbox_(environment_.inbox()) {
  const auto config = read_engine_config(info.Env(), info[0]);
  if (!config) return;
  info.This().As<Napi::Object>().TypeTag(&engine_tag);
  const SimSeat* seat = SimSeat::from(info[1]);
  std::unique_ptr<EngineHost> host;
  if (seat == nullptr) {
    host = std::make_unique<LocalEngine>(*config);
  } else {
    seat_ = std::make_unique<SimSeat>(*seat);
    host = seat_->world->simulation.make_engine(seat_->node, seat_->planted(*config));
    inbox_ = std::make_shared<Inbox>();
    inbox_->open_stepped();
  }
  if (auto started = host->start(); !started) {
    Napi::Error(info.Env(), error_value(info.Env(), started.error())).ThrowAsJavaScriptException();
    return;
  }
  host_ = std::move(host);
  *open_ = true;
  environment_.add(this);
  if (seat_) seat_->world->engines.push_back(this);
  Ref();
}

EngineHandle::~EngineHandle() {
  // Referenced while it has an engine.
  if (host_) end_now();
}

bool EngineHandle::refuse_closed(Napi::Env env) {
  if (*open_) return false;
  Napi::Error(env, illegal_state(env, "the engine is closed")).ThrowAsJavaScriptException();
  return true;
}

Napi::Value EngineHandle::rpc(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (refuse_closed(env)) return {};
  const auto method = string_argument(env, info[0], "method");
  if (!method) return {};
  const auto params = string_argument(env, info[1], "paramsJson");
  if (!params) return {};
  auto inbox = inbox_;
  auto pending = std::make_shared<Pending>(env, inbox);
  if (!pending->made()) return {};
  host_->engine().call(*method, *params, [inbox, pending](std::string answer) {
    inbox->deliver([pending, answer = std::move(answer)](Napi::Env env) {
      pending->resolve(env, Napi::String::New(env, answer));
    });
  });
  return pending->promise(env);
}

Napi::Value EngineHandle::on_event(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (refuse_closed(env)) return {};
  if (!info[0].IsFunction()) return throw_type_error(env, "callback", "a function"), env.Undefined();
  const bool first = listener_ == nullptr;
  if (first) listener_ = std::make_shared<Napi::FunctionReference>();
  *listener_ = Napi::Persistent(info[0].As<Napi::Function>());
  if (!first) return env.Undefined();
  host_->engine().subscribe([inbox = inbox_, listener = listener_](std::string event) {
    inbox->deliver([listener, event = std::move(event)](Napi::Env env) {
      if (listener->IsEmpty()) return;
      listener->Value().Call({Napi::String::New(env, event)});
      // A listener that throws is the program's error, as in any event emitter; later deliveries go on.
      if (env.IsExceptionPending()) napi_fatal_exception(env, env.GetAndClearPendingException().Value());
    });
  });
  return env.Undefined();
}

Napi::Value EngineHandle::allocate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (refuse_closed(env)) return {};
  const auto bytes = natural_argument(env, info[0], "bytes");
  if (!bytes) return {};
  if (*bytes == 0) return throw_type_error(env, "bytes", "at least 1"), env.Undefined();
  const auto& memory = host_->engine().user_memory();
  void* block = memory->take(*bytes);
  if (block == nullptr) {
    Napi::RangeError::New(env, "bytes: more than the engine's memory has left").ThrowAsJavaScriptException();
    return {};
  }
  auto owned = std::make_unique<Block>(memory, static_cast<size_t>(*bytes));
  const auto buffer = Napi::ArrayBuffer::New(env, block, *bytes, give_back, owned.get());
  if (buffer.IsEmpty()) return give_back(env, block, owned.release()), env.Undefined();
  owned.release();  // give_back's
  return buffer;
}

Napi::Value EngineHandle::open_bdev(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (refuse_closed(env)) return {};
  const auto name = string_argument(env, info[0], "name");
  if (!name) return {};
  auto inbox = inbox_;
  auto pending = std::make_shared<Pending>(env, inbox);
  if (!pending->made()) return {};
  Engine* engine = &host_->engine();
  host_->engine().open_bdev(*name, [inbox, pending, engine, open = open_](Result<BdevAccess*> access) {
    inbox->deliver([pending, engine, open, inbox, access = std::move(access)](Napi::Env env) {
      if (!access.ok()) return pending->reject(env, error_value(env, access.error()));
      if (!*open) return pending->reject(env, illegal_state(env, "the engine was closed meanwhile"));
      pending->resolve(env, BdevHandle::make(env, {engine, open, access.value(), inbox}));
    });
  });
  return pending->promise(env);
}

Napi::Value EngineHandle::close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!closing_.IsEmpty()) return closing_.Value();
  if (!*open_) return env.Undefined();  // its constructor threw
  auto inbox = inbox_;
  auto pending = std::make_shared<Pending>(env, inbox);
  if (!pending->made()) return {};
  *open_ = false;
  closing_ = Napi::Reference<Napi::Promise>::New(pending->promise(env), 1);
  host_->begin_stop([this, inbox, pending] {
    inbox->deliver([this, pending](Napi::Env env) {
      closed();
      pending->resolve(env, env.Undefined());
    });
  });
  return pending->promise(env);
}

// The engine has stopped: its threads end at once.
void EngineHandle::closed() {
  const bool joined = host_->finish_stop(seconds(10));
  BASALT_ASSERT(joined);
  forget();
  Unref();
}

void EngineHandle::forget() {
  host_.reset();
  if (listener_) listener_->Reset();
  environment_.remove(this);
  if (seat_) std::erase(seat_->world->engines, this);
}

const std::string& EngineHandle::node() const {
  return seat_->node;
}

void EngineHandle::kill(bool power) {
  *open_ = false;
  inbox_->shut();
  static_cast<SimulatedEngine*>(host_.get())->kill(power);
  forget();
  Unref();
}

void EngineHandle::end_now() {
  if (seat_) {
    *open_ = false;
    inbox_->shut();
    static_cast<SimulatedEngine*>(host_.get())->kill(false);
    return forget();
  }
  if (*open_) {
    *open_ = false;
    host_->begin_stop({});
  }
  if (!host_->finish_stop(seconds(10))) {
    std::fprintf(stderr, "basalt: the engine did not stop within 10 s of its environment's end\n");
    std::abort();
  }
  forget();
}

}  // namespace basalt::addon
