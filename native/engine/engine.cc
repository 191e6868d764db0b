// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>
#include <cstdio>

#include "base/assert.h"
#include "engine/fabric.h"

namespace basalt {
namespace {

struct Posted : Work {
  std::function<void()> function;
};

std::string answer_text(const rpc::RpcResult& result) {
  auto answer = rpc::JsonValue::object();
  if (result.ok()) {
    answer.set("result", result.value());
  } else {
    auto error = rpc::JsonValue::object();
    error.set("code", result.error().code).set("message", result.error().message);
    if (!result.error().data.is(rpc::JsonValue::Kind::null)) error.set("data", result.error().data);
    answer.set("error", std::move(error));
  }
  return answer.to_text();
}

}  // namespace

Engine::Engine(env::Env& env, EngineConfig config)
    : env_(env),
      config_(std::move(config)),
      arena_(std::make_shared<Arena>(config_.memory_bytes_max)),
      user_memory_(std::make_shared<UserMemory>(arena_)) {
  BASALT_ASSERT(config_.reactor_count >= 1 && config_.reactor_count <= reactor_count_max);
}

Engine::~Engine() {
  BASALT_ASSERT(!started_ || joined_);
}

Outcome Engine::start() {
  BASALT_ASSERT(!started_);
  for (unsigned i = 0; i < config_.reactor_count; i++) {
    ReactorOptions options;
    options.index = i;
    options.mode = config_.poll_mode;
    options.buffer_bytes_max = config_.buffer_bytes_max;
    options.poller.kind = config_.poller;
    reactors_.push_back(std::make_unique<Reactor>(env_, *arena_, options));
    auto made = reactors_.back()->init();
    if (!made) return made;
  }
  fabric_ = std::make_unique<Fabric>(*this);
  modules_ = make_modules(*this);
  for (const auto& module : modules_)
    module->register_methods(dispatcher_);
  for (const auto& module : modules_) {
    auto ready = module->start();
    if (!ready) return ready;
  }
  started_ = true;
  for (unsigned i = 0; i < config_.reactor_count; i++) {
    env::LoopOptions options;
    options.name = "basalt-" + std::to_string(i);
    if (i < config_.cores.size()) options.core = config_.cores[i];
    loops_.push_back(env_.start(*reactors_[i], options));
  }
  return success();
}

void Engine::on_management(std::function<void()> function) {
  auto* posted = new Posted;
  posted->function = std::move(function);
  posted->run = [](Work* work) {
    const std::unique_ptr<Posted> self(static_cast<Posted*>(work));
    self->function();
  };
  management().post(posted);
}

void Engine::call(std::string method, std::string params_json, Answer answer) {
  on_management([this, method = std::move(method), params_json = std::move(params_json), answer = std::move(answer)] {
    spawn(answer_call(method, params_json, answer));
  });
}

Task<void> Engine::answer_call(std::string method, std::string params_json, Answer answer) {
  auto params = rpc::parse_json(params_json);
  if (!params) {
    const rpc::RpcResult refused(rpc::RpcError{rpc::code::parse_error, params.error().message, {}});
    answer(answer_text(refused));
    co_return;
  }
  auto running = run_method(std::move(method), std::move(*params));
  const auto result = co_await running;
  answer(answer_text(result));
}

Task<rpc::RpcResult> Engine::run_method(std::string method, rpc::JsonValue params) {
  if (!methods_running_.enter()) {
    Error closed{Errc::closed, "the engine is stopping"};
    co_return closed;
  }
  auto running = dispatcher_.call(std::move(method), std::move(params));
  auto result = co_await running;
  methods_running_.leave();
  co_return result;
}

void Engine::subscribe(std::function<void(std::string)> sink) {
  on_management([this, sink = std::move(sink)] {
    events_.subscribe([sink](const rpc::JsonValue& event) { sink(event.to_text()); });
  });
}

void Engine::open_bdev(std::string name, Opened opened) {
  on_management([this, name = std::move(name), opened = std::move(opened)] {
    if (stopping_) return opened(Error{Errc::closed, "the engine is stopping"});
    auto bdev = bdevs_.open(name, access_user);
    if (!bdev) return opened(std::move(bdev).error());
    accesses_.push_back(std::make_unique<BdevAccess>(name, **bdev));
    opened(accesses_.back().get());
  });
}

void Engine::close_bdev(BdevAccess* access, std::function<void()> closed) {
  on_management([this, access, closed = std::move(closed)] { spawn(close_access(access, closed)); });
}

Task<void> Engine::close_access(BdevAccess* access, std::function<void()> closed) {
  const auto is_it = [access](const std::unique_ptr<BdevAccess>& each) { return each.get() == access; };
  const auto found = std::find_if(accesses_.begin(), accesses_.end(), is_it);
  if (found != accesses_.end()) {  // else stop() has closed it
    auto held = std::move(*found);
    accesses_.erase(found);
    auto draining = held->drain();
    co_await draining;
    bdevs_.release(held->name(), access_user);
  }
  closed();
}

void Engine::stop(std::function<void()> stopped) {
  on_management([this, stopped = std::move(stopped)] { spawn(shut_down(stopped)); });
}

Task<void> Engine::shut_down(std::function<void()> stopped) {
  BASALT_ASSERT(!stopping_);
  stopping_ = true;
  for (const auto& access : accesses_)
    access->refuse();
  for (const auto& module : modules_)
    module->abort();
  auto ending = methods_running_.close();
  co_await ending;
  for (bool progress = true; progress;) {
    auto stopping_accesses = stop_accesses();
    progress = co_await stopping_accesses;
    for (const auto& module : modules_) {
      auto stopping_module = module->stop_some();
      const bool stopped_some = co_await stopping_module;
      progress |= stopped_some;
    }
    auto destroying = bdevs_.destroy_unused();
    const bool destroyed = co_await destroying;
    progress |= destroyed;
  }
  if (!bdevs_.empty()) std::fprintf(stderr, "basalt: still there after stop:%s\n", bdevs_.describe().c_str());
  BASALT_ASSERT(bdevs_.empty());
  // Out of this coroutine first: what it still holds must not outlive join().
  on_management(std::move(stopped));
}

Task<bool> Engine::stop_accesses() {
  const bool some = !accesses_.empty();
  while (!accesses_.empty()) {
    auto held = std::move(accesses_.back());
    accesses_.pop_back();
    auto draining = held->drain();
    co_await draining;
    bdevs_.release(held->name(), access_user);
  }
  co_return some;
}

void Engine::join() {
  for (const auto& reactor : reactors_)
    reactor->stop();
  loops_.clear();
  modules_.clear();
  fabric_.reset();
  joined_ = true;
}

void Engine::forget_memory() {
  user_memory_->forget();
  arena_->clear();
}

Uuid Engine::make_uuid() {
  Uuid uuid;
  env_.random(uuid.bytes.data(), uuid.bytes.size());
  uuid.bytes[6] = static_cast<uint8_t>((uuid.bytes[6] & 0x0f) | 0x40);  // version 4
  uuid.bytes[8] = static_cast<uint8_t>((uuid.bytes[8] & 0x3f) | 0x80);  // RFC 4122
  return uuid;
}

}  // namespace basalt
