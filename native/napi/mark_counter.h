// SPDX-License-Identifier: Apache-2.0
// MarkCounter: the JavaScript class that counts the rare events of native code (base/probe.h) in this process, from
// when it is made until it is collected. For the simulator's runs; a daemon never makes one.
//
//   new MarkCounter()   throws when another one counts      counts() → [{name, text, count}], all that there are
//
// Thread: JavaScript; the events may happen on any.
#pragma once

#include "napi/node_api.h"

#include <memory>

#include "base/probe.h"

namespace basalt::addon {

class MarkCounter final : public Napi::ObjectWrap<MarkCounter> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  explicit MarkCounter(const Napi::CallbackInfo& info);

 private:
  Napi::Value counts(const Napi::CallbackInfo& info);

  MarkTable table_;
  std::unique_ptr<CountMarks> counting_;
};

}  // namespace basalt::addon
