// SPDX-License-Identifier: Apache-2.0
#include "napi/engine_config.h"

#include "napi/arguments.h"

namespace basalt::addon {
namespace {

std::optional<EngineConfig> wrong(Napi::Env env, const char* path, const char* right) {
  throw_type_error(env, path, right);
  return std::nullopt;
}

bool read_poll(const std::string& name, EngineConfig* config) {
  if (name == "adaptive") return config->poll_mode = PollMode::adaptive, true;
  if (name == "busy") return config->poll_mode = PollMode::busy, true;
  if (name == "interrupt") return config->poll_mode = PollMode::interrupt, true;
  return false;
}

bool read_poller(const std::string& name, EngineConfig* config) {
  if (name == "automatic") return config->poller = env::PollerKind::automatic, true;
  if (name == "io_uring") return config->poller = env::PollerKind::io_uring, true;
  if (name == "epoll") return config->poller = env::PollerKind::epoll, true;
  return false;
}

bool read_cores(Napi::Env env, Napi::Value value, EngineConfig* config) {
  if (!value.IsArray()) return throw_type_error(env, "config.cores", "an array of core numbers"), false;
  const auto cores = value.As<Napi::Array>();
  for (uint32_t i = 0; i < cores.Length(); i++) {
    const auto core = natural_argument(env, cores.Get(i), "config.cores[" + std::to_string(i) + "]");
    if (!core) return false;
    if (*core >= 4096) return throw_type_error(env, "config.cores", "core numbers below 4096"), false;
    config->cores.push_back(static_cast<int>(*core));
  }
  return true;
}

}  // namespace

std::optional<EngineConfig> read_engine_config(Napi::Env env, Napi::Value value) {
  if (!value.IsObject()) return wrong(env, "config", "an object");
  const auto object = value.As<Napi::Object>();
  EngineConfig config;
  const auto reactors = natural_argument(env, object.Get("reactors"), "config.reactors");
  if (!reactors) return std::nullopt;
  if (*reactors < 1 || *reactors > reactor_count_max) return wrong(env, "config.reactors", "from 1 to 64");
  config.reactor_count = static_cast<unsigned>(*reactors);
  if (!read_cores(env, object.Get("cores"), &config)) return std::nullopt;
  const auto poll = string_argument(env, object.Get("poll"), "config.poll");
  if (!poll) return std::nullopt;
  if (!read_poll(*poll, &config)) return wrong(env, "config.poll", "adaptive, busy or interrupt");
  const auto poller = string_argument(env, object.Get("poller"), "config.poller");
  if (!poller) return std::nullopt;
  if (!read_poller(*poller, &config)) return wrong(env, "config.poller", "automatic, io_uring or epoll");
  const auto memory = natural_argument(env, object.Get("memoryBytes"), "config.memoryBytes");
  if (!memory) return std::nullopt;
  if (*memory < (size_t{64} << 20)) return wrong(env, "config.memoryBytes", "at least 64 MiB");
  config.memory_bytes_max = *memory;
  const Napi::Value rpc_path = object.Get("rpcPath");
  if (!rpc_path.IsNull()) {
    const auto path = string_argument(env, rpc_path, "config.rpcPath");
    if (!path) return std::nullopt;
    config.rpc_path = *path;
  }
  return config;
}

}  // namespace basalt::addon
