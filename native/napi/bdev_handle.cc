// SPDX-License-Identifier: Apache-2.0
#include "napi/bdev_handle.h"

#include "napi/arguments.h"

namespace basalt::addon {
namespace {

constexpr napi_type_tag bdev_tag = {0x1f8a7a5c3b9e4e27, 0x8d3b1c64a2f05e90};

const char* verb(Transfer::Type type) {
  switch (type) {
    case Transfer::Type::read:
      return "read";
    case Transfer::Type::write:
      return "write";
    case Transfer::Type::flush:
      return "flush";
  }
  return "unknown";
}

}  // namespace

// One transfer under way. Made and freed on the JavaScript thread; in between it is the engine's.
struct BdevHandle::Op : Transfer {
  Op(Napi::Env env, std::shared_ptr<Inbox> to) : inbox(std::move(to)), pending(env, inbox) {}
  std::shared_ptr<Inbox> inbox;
  Pending pending;
  Napi::ObjectReference memory_object;  // keeps the memory

  // None where no promise can be made.
  static Op* make(Napi::Env env, std::shared_ptr<Inbox> to) {
    auto op = std::make_unique<Op>(env, std::move(to));
    return op->pending.made() ? op.release() : nullptr;
  }
  static void transferred(Transfer* transfer) {
    const std::shared_ptr<Op> self(static_cast<Op*>(transfer));
    self->inbox->deliver([self](Napi::Env env) { self->settle(env); });
  }
  void settle(Napi::Env env) {
    memory_object.Reset();
    if (status.ok()) return pending.resolve(env, env.Undefined());
    auto error = Napi::Error::New(env, std::string(verb(type)) + ": " + nvme::to_string(status)).Value();
    error.Set("status", Napi::Number::New(env, status.value));
    pending.reject(env, error);
  }
};

void BdevHandle::define(Napi::Env env, Environment& environment) {
  const auto constructor = DefineClass(env, "BdevHandle",
                                       {
                                           InstanceMethod<&BdevHandle::info>("info"),
                                           InstanceMethod<&BdevHandle::read>("read"),
                                           InstanceMethod<&BdevHandle::write>("write"),
                                           InstanceMethod<&BdevHandle::flush>("flush"),
                                           InstanceMethod<&BdevHandle::close>("close"),
                                       });
  environment.bdev_handle_constructor = Napi::Persistent(constructor);
}

Napi::Value BdevHandle::make(Napi::Env env, Opening opening) {
  const auto external = Napi::External<Opening>::New(env, &opening);
  external.TypeTag(&bdev_tag);
  return Environment::of(env).bdev_handle_constructor.New({external});
}

BdevHandle::BdevHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  if (!info[0].IsExternal() || !info[0].As<Napi::External<Opening>>().CheckTypeTag(&bdev_tag)) {
    Napi::TypeError::New(info.Env(), "bdev handles are made by Engine.openBdev()").ThrowAsJavaScriptException();
    return;
  }
  info.This().As<Napi::Object>().TypeTag(&bdev_tag);
  opening_ = std::move(*info[0].As<Napi::External<Opening>>().Data());
  open_ = true;
}

BdevHandle::~BdevHandle() {
  // Forgotten without close(): nothing is in flight, since transfers hold the handle through their promise chain only;
  // the access drains what there is.
  if (opening_.engine_open && usable()) opening_.engine->close_bdev(opening_.access, [] {});
}

bool BdevHandle::refuse_closed(Napi::Env env) {
  if (opening_.engine_open && usable()) return false;
  Napi::Error(env, illegal_state(env, "the bdev handle is closed")).ThrowAsJavaScriptException();
  return true;
}

Napi::Value BdevHandle::info(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  if (refuse_closed(env)) return {};
  const bdev::BdevInfo& info = opening_.access->info();
  auto result = Napi::Object::New(env);
  result.Set("name", opening_.access->name());
  result.Set("productName", info.product);
  result.Set("uuid", info.uuid.to_string());
  result.Set("blockSizeBytes", Napi::Number::New(env, info.block_size_bytes));
  const uint64_t count_blocks = opening_.access->count_blocks();
  result.Set("countBlocks", Napi::Number::New(env, static_cast<double>(count_blocks)));
  result.Set("sizeBytes", Napi::Number::New(env, static_cast<double>(count_blocks * info.block_size_bytes)));
  result.Set("volatileCache", Napi::Boolean::New(env, info.volatile_cache));
  return result;
}

std::optional<BdevHandle::View> BdevHandle::view_argument(Napi::Env env, Napi::Value value) {
  // Memory that threads share has no ArrayBuffer; asked for its address, it gives none.
  const auto view_of = [&](const auto& view) -> std::optional<View> {
    Napi::ArrayBuffer memory = view.ArrayBuffer();
    if (!memory.IsArrayBuffer()) return std::nullopt;
    return View{static_cast<char*>(memory.Data()) + view.ByteOffset(), view.ByteLength(), value.As<Napi::Object>()};
  };
  std::optional<View> view;
  if (value.IsTypedArray()) view = view_of(value.As<Napi::TypedArray>());
  if (value.IsDataView()) view = view_of(value.As<Napi::DataView>());
  if (!view) throw_type_error(env, "view", "a typed array or DataView of an ArrayBuffer");
  return view;
}

Napi::Value BdevHandle::move(const Napi::CallbackInfo& call, Transfer::Type type) {
  const Napi::Env env = call.Env();
  if (refuse_closed(env)) return {};
  const auto offset_bytes = natural_argument(env, call[0], "offsetBytes");
  if (!offset_bytes) return {};
  const auto view = view_argument(env, call[1]);
  if (!view) return {};
  const bdev::BdevInfo& info = opening_.access->info();
  const uint64_t size_bytes = opening_.access->count_blocks() * info.block_size_bytes;
  if (view->bytes == 0 || view->bytes % info.block_size_bytes != 0 || *offset_bytes % info.block_size_bytes != 0 ||
      *offset_bytes > size_bytes || view->bytes > size_bytes - *offset_bytes) {
    const std::string text = std::string(verb(type)) + " of " + std::to_string(view->bytes) + " bytes at " +
                             std::to_string(*offset_bytes) + ": must be whole blocks of " +
                             std::to_string(info.block_size_bytes) + " bytes within " + std::to_string(size_bytes);
    Napi::RangeError::New(env, text).ThrowAsJavaScriptException();
    return {};
  }
  auto* op = Op::make(env, opening_.inbox);
  if (op == nullptr) return {};
  op->type = type;
  op->offset_bytes = *offset_bytes;
  op->length_bytes = view->bytes;
  op->memory = view->memory;
  op->memory_object = Napi::Persistent(view->object);
  op->done = Op::transferred;
  const Napi::Promise promise = op->pending.promise(env);
  opening_.access->submit(op);
  return promise;
}

Napi::Value BdevHandle::read(const Napi::CallbackInfo& call) {
  return move(call, Transfer::Type::read);
}

Napi::Value BdevHandle::write(const Napi::CallbackInfo& call) {
  return move(call, Transfer::Type::write);
}

Napi::Value BdevHandle::flush(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  if (refuse_closed(env)) return {};
  auto* op = Op::make(env, opening_.inbox);
  if (op == nullptr) return {};
  op->type = Transfer::Type::flush;
  op->done = Op::transferred;
  const Napi::Promise promise = op->pending.promise(env);
  opening_.access->submit(op);
  return promise;
}

Napi::Value BdevHandle::close(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  if (!closing_.IsEmpty()) return closing_.Value();
  auto inbox = opening_.inbox;
  auto pending = std::make_shared<Pending>(env, inbox);
  if (!pending->made()) return {};
  closing_ = Napi::Reference<Napi::Promise>::New(pending->promise(env), 1);
  const bool was_usable = opening_.engine_open && usable();
  open_ = false;
  if (!was_usable) {
    pending->resolve(env, env.Undefined());  // the engine closed it
    return closing_.Value();
  }
  opening_.engine->close_bdev(opening_.access, [inbox, pending] {
    inbox->deliver([pending](Napi::Env env) { pending->resolve(env, env.Undefined()); });
  });
  return closing_.Value();
}

}  // namespace basalt::addon
