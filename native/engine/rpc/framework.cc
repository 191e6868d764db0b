// SPDX-License-Identifier: Apache-2.0
// rpc_get_methods, spdk_get_version, framework_*, bdev_wait_for_examine.
#include <cstdio>

#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"
#include "engine/version.h"

namespace basalt::rpc {
namespace {

const char* mode_name(PollMode mode) {
  switch (mode) {
    case PollMode::adaptive:
      return "adaptive";
    case PollMode::busy:
      return "busy";
    case PollMode::interrupt:
      return "interrupt";
  }
  return "unknown";
}
constexpr PollMode modes[] = {PollMode::adaptive, PollMode::busy, PollMode::interrupt};

class Framework final : public Module {
 public:
  explicit Framework(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("rpc_get_methods", this, &Framework::get_methods);
    dispatcher.add("spdk_get_version", this, &Framework::get_version);
    dispatcher.add("framework_get_reactors", this, &Framework::get_reactors);
    dispatcher.add("basalt_reactor_set_mode", this, &Framework::set_reactor_mode);
    dispatcher.add("framework_get_subsystems", this, &Framework::get_subsystems);
    // An engine that answers has started, and examines what it is told to before it answers.
    for (const char* method : {"framework_start_init", "framework_wait_init", "bdev_wait_for_examine"})
      dispatcher.add(method, this, &Framework::nothing_to_do);
  }

 private:
  Task<RpcResult> get_methods(JsonValue params) {
    Fields in(params);
    // SPDK's parameters; every method here is current and available at any time.
    in.boolean_or("current", true);
    in.boolean_or("include_aliases", true);
    if (auto error = in.error()) co_return *error;
    auto names = JsonValue::array();
    for (const std::string& name : engine_.dispatcher().methods())
      names.push(name);
    co_return names;
  }

  Task<RpcResult> get_version(JsonValue params) {
    Fields in(params);
    if (auto error = in.error()) co_return *error;
    unsigned major = 0;
    unsigned minor = 0;
    unsigned patch = 0;
    std::sscanf(version, "%u.%u.%u", &major, &minor, &patch);
    auto fields = JsonValue::object();
    fields.set("major", major).set("minor", minor).set("patch", patch).set("suffix", "");
    auto result = JsonValue::object();
    result.set("version", std::string("Basalt v") + version).set("fields", std::move(fields));
    co_return result;
  }

  Task<RpcResult> nothing_to_do(JsonValue params) {
    Fields in(params);
    if (auto error = in.error()) co_return *error;
    co_return done();
  }

  Task<RpcResult> get_subsystems(JsonValue params) {
    Fields in(params);
    if (auto error = in.error()) co_return *error;
    const auto one = [](const char* name, JsonValue depends_on) {
      return JsonValue::object().set("subsystem", name).set("depends_on", std::move(depends_on));
    };
    co_return JsonValue::array()
        .push(one("keyring", JsonValue::array()))
        .push(one("accel", JsonValue::array()))
        .push(one("bdev", JsonValue::array().push("keyring").push("accel")))
        .push(one("nvmf", JsonValue::array().push("keyring").push("bdev")));
  }

  Task<RpcResult> get_reactors(JsonValue params) {
    Fields in(params);
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    for (const auto& reactor : engine_.reactors()) {
      auto hopping = hop(*reactor);
      co_await hopping;
      const ReactorStats stats = reactor->stats();
      const PollMode mode = reactor->mode();
      auto one = JsonValue::object();
      one.set("lcore", reactor->index())
          .set("busy", stats.busy_turn_count)
          .set("idle", stats.turn_count - stats.busy_turn_count)
          .set("sleeps", stats.sleep_count)
          .set("poller", reactor->poller().description())
          .set("mode", mode_name(mode));
      list.push(std::move(one));
    }
    auto home = hop(engine_.management());
    co_await home;
    auto result = JsonValue::object();
    result.set("tick_rate", uint64_t{1'000'000'000}).set("reactors", std::move(list));
    co_return result;
  }

  // While it runs: what a reactor serves stays as it is.
  Task<RpcResult> set_reactor_mode(JsonValue params) {
    Fields in(params);
    const size_t choice = in.choice("mode", {mode_name(modes[0]), mode_name(modes[1]), mode_name(modes[2])});
    const bool one = in.has("lcore");
    const uint64_t index = one ? in.natural("lcore", {.max = engine_.reactors().size() - 1}) : 0;
    if (auto error = in.error()) co_return *error;
    for (const auto& reactor : engine_.reactors()) {
      if (one && reactor->index() != index) continue;
      auto hopping = hop(*reactor);
      co_await hopping;
      reactor->set_mode(modes[choice]);
    }
    auto home = hop(engine_.management());
    co_await home;
    co_return true;
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_framework(Engine& engine) {
  return std::make_unique<Framework>(engine);
}

}  // namespace basalt::rpc
