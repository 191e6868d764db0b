// SPDX-License-Identifier: Apache-2.0
#include "napi/mark_counter.h"

namespace basalt::addon {

void MarkCounter::define(Napi::Env env, Napi::Object exports) {
  exports.Set("MarkCounter", DefineClass(env, "MarkCounter", {InstanceMethod<&MarkCounter::counts>("counts")}));
}

MarkCounter::MarkCounter(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  if (CountMarks::any()) {
    Napi::Error::New(info.Env(), "another MarkCounter counts").ThrowAsJavaScriptException();
    return;
  }
  counting_ = std::make_unique<CountMarks>(table_);
}

Napi::Value MarkCounter::counts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto list = Napi::Array::New(env, mark_count);
  for (size_t i = 0; i < mark_count; i++) {
    const auto mark = static_cast<Mark>(i);
    auto one = Napi::Object::New(env);
    one.Set("name", mark_name(mark));
    one.Set("text", mark_text(mark));
    one.Set("count", Napi::Number::New(env, static_cast<double>(table_.count(mark))));
    list.Set(static_cast<uint32_t>(i), one);
  }
  return list;
}

}  // namespace basalt::addon
