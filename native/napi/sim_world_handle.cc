// SPDX-License-Identifier: Apache-2.0
#include "napi/sim_world_handle.h"

#include <algorithm>

#include "napi/arguments.h"
#include "napi/engine_handle.h"

namespace basalt::addon {
namespace {

constexpr napi_type_tag seat_tag = {0x2b7d90c4515e4f6a, 0xa94c6e0d18f7b233};

bool read_duration(Napi::Object object, const char* name, Duration* out) {
  const auto value = natural_argument(object.Env(), object.Get(name), std::string("world.") + name);
  if (!value) return false;
  *out = nanoseconds(static_cast<int64_t>(*value));
  return true;
}

bool read_flag(Napi::Object object, const char* name, bool* out) {
  const Napi::Value value = object.Get(name);
  if (!value.IsBoolean()) return throw_type_error(object.Env(), name, "true or false"), false;
  *out = value.As<Napi::Boolean>().Value();
  return true;
}

bool read_chance(Napi::Object object, const std::string& of, const char* name, double* out) {
  const Napi::Value value = object.Get(name);
  const double chance = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(chance >= 0 && chance <= 1))
    return throw_type_error(object.Env(), of + "." + name, "a number from 0 to 1"), false;
  *out = chance;
  return true;
}

bool read_knobs(Napi::Object object, env::SimKnobs* knobs) {
  if (!read_duration(object, "networkDelayMinNs", &knobs->network_delay_min) ||
      !read_duration(object, "networkDelayMaxNs", &knobs->network_delay_max) ||
      !read_duration(object, "diskDelayMinNs", &knobs->disk_delay_min) ||
      !read_duration(object, "diskDelayMaxNs", &knobs->disk_delay_max)) {
    return false;
  }
  const auto atomic_bytes = natural_argument(object.Env(), object.Get("diskAtomicBytes"), "world.diskAtomicBytes");
  if (!atomic_bytes) return false;
  if (*atomic_bytes == 0 || *atomic_bytes % env::SimDisk::sector_bytes != 0)
    return throw_type_error(object.Env(), "world.diskAtomicBytes", "a number of sectors"), false;
  knobs->disk_atomic_bytes = *atomic_bytes;
  return read_chance(object, "world", "shortTransferChance", &knobs->short_transfer_chance);
}

Napi::Value time_value(Napi::Env env, Instant instant) {
  return Napi::Number::New(env, static_cast<double>(instant.ns));
}

}  // namespace

EngineConfig SimSeat::planted(EngineConfig config) const {
  config.planted = bugs;
  return config;
}

const SimSeat* SimSeat::from(Napi::Value value) {
  if (!value.IsExternal() || !value.As<Napi::External<SimSeat>>().CheckTypeTag(&seat_tag)) return nullptr;
  return value.As<Napi::External<SimSeat>>().Data();
}

void SimWorldHandle::define(Napi::Env env, Napi::Object exports) {
  exports.Set("SimWorld", DefineClass(env, "SimWorld",
                                      {
                                          InstanceMethod<&SimWorldHandle::create_engine>("createEngine"),
                                          InstanceMethod<&SimWorldHandle::step>("step"),
                                          InstanceMethod<&SimWorldHandle::deliver>("deliver"),
                                          InstanceMethod<&SimWorldHandle::now>("now"),
                                          InstanceMethod<&SimWorldHandle::trace_hash>("traceHash"),
                                          InstanceMethod<&SimWorldHandle::kill>("kill"),
                                          InstanceMethod<&SimWorldHandle::power_cut>("powerCut"),
                                          InstanceMethod<&SimWorldHandle::pause>("pause"),
                                          InstanceMethod<&SimWorldHandle::resume>("resume"),
                                          InstanceMethod<&SimWorldHandle::partition>("partition"),
                                          InstanceMethod<&SimWorldHandle::heal>("heal"),
                                          InstanceMethod<&SimWorldHandle::heal_all>("healAll"),
                                          InstanceMethod<&SimWorldHandle::cut>("cut"),
                                          InstanceMethod<&SimWorldHandle::set_link>("setLink"),
                                          InstanceMethod<&SimWorldHandle::clear_links>("clearLinks"),
                                          InstanceMethod<&SimWorldHandle::link_counts>("linkCounts"),
                                          InstanceMethod<&SimWorldHandle::jump_clock>("jumpClock"),
                                          InstanceMethod<&SimWorldHandle::set_clock_rate>("setClockRate"),
                                          InstanceMethod<&SimWorldHandle::set_disk>("setDisk"),
                                          InstanceMethod<&SimWorldHandle::read_disk>("readDisk"),
                                          InstanceMethod<&SimWorldHandle::damage_disk>("damageDisk"),
                                      }));
}

SimWorldHandle::SimWorldHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject()) {
    throw_type_error(env, "world", "an object");
    return;
  }
  const auto object = info[0].As<Napi::Object>();
  const Napi::Value seed = object.Get("seed");
  if (!seed.IsBigInt()) {
    throw_type_error(env, "world.seed", "a bigint");
    return;
  }
  bool lossless = false;
  const uint64_t value = seed.As<Napi::BigInt>().Uint64Value(&lossless);
  env::SimKnobs knobs;
  if (read_knobs(object, &knobs)) state_ = std::make_shared<SimWorldState>(value, knobs);
}

Napi::Value SimWorldHandle::create_engine(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto node = string_argument(env, info[0], "node");
  if (!node) return {};
  const env::SimNode* found = state_->simulation.find_node(*node);
  const auto& engines = state_->engines;
  const auto lives = [&](EngineHandle* engine) { return engine->node() == *node; };
  if (found != nullptr && std::any_of(engines.begin(), engines.end(), lives)) {
    return throw_type_error(env, "node", "one without an engine that lives"), env.Undefined();
  }
  if (!info[2].IsObject()) return throw_type_error(env, "planted", "an object"), env.Undefined();
  const auto bugs = info[2].As<Napi::Object>();
  auto seat = std::make_unique<SimSeat>(SimSeat{state_, *node, {}});
  if (!read_flag(bugs, "noGate", &seat->bugs.no_gate) || !read_flag(bugs, "noExportGate", &seat->bugs.no_export_gate) ||
      !read_flag(bugs, "forgetEpoch", &seat->bugs.forget_epoch) ||
      !read_flag(bugs, "ignoreLease", &seat->bugs.ignore_lease) ||
      !read_flag(bugs, "cutUnheld", &seat->bugs.cut_unheld) ||
      !read_flag(bugs, "cutJoining", &seat->bugs.cut_joining) ||
      !read_flag(bugs, "awayUnmarked", &seat->bugs.away_unmarked)) {
    return {};
  }
  const auto external = Napi::External<SimSeat>::New(env, seat.get());
  external.TypeTag(&seat_tag);
  return Environment::of(env).engine_constructor.New({info[1], external});
}

Napi::Value SimWorldHandle::step(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto limit = natural_argument(env, info[0], "limitNs");
  if (!limit) return {};
  const auto& engines = state_->engines;
  state_->simulation.step(Instant{static_cast<int64_t>(*limit)}, [&engines] {
    return std::any_of(engines.begin(), engines.end(), [](EngineHandle* each) { return !each->inbox()->empty(); });
  });
  return time_value(env, state_->simulation.world().now());
}

Napi::Value SimWorldHandle::deliver(const Napi::CallbackInfo& info) {
  // An engine that has ended leaves the list while its last answer is delivered.
  std::vector<std::shared_ptr<Inbox>> inboxes;
  for (const EngineHandle* engine : state_->engines)
    inboxes.push_back(engine->inbox());
  for (const auto& inbox : inboxes)
    inbox->run_batch(info.Env());
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::now(const Napi::CallbackInfo& info) {
  return time_value(info.Env(), state_->simulation.world().now());
}

Napi::Value SimWorldHandle::trace_hash(const Napi::CallbackInfo& info) {
  return Napi::BigInt::New(info.Env(), state_->simulation.world().trace_hash());
}

env::SimNode* SimWorldHandle::node_argument(const Napi::CallbackInfo& info, size_t index) {
  const auto name = string_argument(info.Env(), info[index], "node");
  if (!name) return nullptr;
  env::SimNode* node = state_->simulation.find_node(*name);
  if (node == nullptr) throw_type_error(info.Env(), "node", "a node of this world");
  return node;
}

Napi::Value SimWorldHandle::end_process(const Napi::CallbackInfo& info, bool power) {
  const env::SimNode* node = node_argument(info, 0);
  if (node == nullptr) return {};
  const auto& engines = state_->engines;
  const auto is_it = [&](EngineHandle* engine) { return engine->node() == node->name(); };
  const auto found = std::find_if(engines.begin(), engines.end(), is_it);
  if (found == engines.end())
    return throw_type_error(info.Env(), "node", "one with an engine that lives"), Napi::Value();
  (*found)->kill(power);
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::kill(const Napi::CallbackInfo& info) {
  return end_process(info, false);
}

Napi::Value SimWorldHandle::power_cut(const Napi::CallbackInfo& info) {
  return end_process(info, true);
}

Napi::Value SimWorldHandle::pause(const Napi::CallbackInfo& info) {
  if (env::SimNode* node = node_argument(info, 0)) node->pause();
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::resume(const Napi::CallbackInfo& info) {
  if (env::SimNode* node = node_argument(info, 0)) node->resume();
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::partition(const Napi::CallbackInfo& info) {
  const env::SimNode* from = node_argument(info, 0);
  const env::SimNode* to = from == nullptr ? nullptr : node_argument(info, 1);
  if (to != nullptr) state_->simulation.world().partition(from->name(), to->name(), false);
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::heal(const Napi::CallbackInfo& info) {
  const env::SimNode* one = node_argument(info, 0);
  const env::SimNode* other = one == nullptr ? nullptr : node_argument(info, 1);
  if (other != nullptr) state_->simulation.world().heal(one->name(), other->name());
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::heal_all(const Napi::CallbackInfo& info) {
  state_->simulation.world().heal_all();
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::cut(const Napi::CallbackInfo& info) {
  const env::SimNode* one = node_argument(info, 0);
  const env::SimNode* other = one == nullptr ? nullptr : node_argument(info, 1);
  if (other != nullptr) state_->simulation.world().cut_connections(one->name(), other->name());
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::set_link(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const env::SimNode* from = node_argument(info, 0);
  const env::SimNode* to = from == nullptr ? nullptr : node_argument(info, 1);
  if (to == nullptr) return env.Undefined();
  if (!info[2].IsObject()) return throw_type_error(env, "link", "an object"), env.Undefined();
  const auto object = info[2].As<Napi::Object>();
  env::SimLink link;
  if (!read_chance(object, "link", "lossChance", &link.loss_chance) ||
      !read_duration(object, "retransmitNs", &link.retransmit) ||
      !read_duration(object, "extraDelayNs", &link.extra_delay)) {
    return env.Undefined();
  }
  if (link.retransmit == Duration{}) return throw_type_error(env, "link.retransmitNs", "above 0"), env.Undefined();
  state_->simulation.world().set_link(from->name(), to->name(), link);
  return env.Undefined();
}

Napi::Value SimWorldHandle::clear_links(const Napi::CallbackInfo& info) {
  state_->simulation.world().clear_links();
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::link_counts(const Napi::CallbackInfo& info) {
  const env::SimWorld::LinkCounts& counts = state_->simulation.world().link_counts();
  auto object = Napi::Object::New(info.Env());
  object.Set("lost", Napi::Number::New(info.Env(), static_cast<double>(counts.lost)));
  object.Set("slowed", Napi::Number::New(info.Env(), static_cast<double>(counts.slowed)));
  return object;
}

Napi::Value SimWorldHandle::jump_clock(const Napi::CallbackInfo& info) {
  env::SimNode* node = node_argument(info, 0);
  const auto ahead = node == nullptr ? std::nullopt : natural_argument(info.Env(), info[1], "aheadNs");
  if (ahead) node->jump_clock(nanoseconds(static_cast<int64_t>(*ahead)));
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::set_clock_rate(const Napi::CallbackInfo& info) {
  env::SimNode* node = node_argument(info, 0);
  if (node == nullptr) return {};
  if (!info[1].IsNumber()) {
    throw_type_error(info.Env(), "partsPerMillion", "a number");
    return {};
  }
  node->set_clock_rate(info[1].As<Napi::Number>().Int32Value());
  return info.Env().Undefined();
}

Napi::Value SimWorldHandle::set_disk(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const env::SimNode* node = node_argument(info, 0);
  const auto path = node == nullptr ? std::nullopt : string_argument(env, info[1], "path");
  if (!path) return {};
  if (!info[2].IsObject()) return throw_type_error(env, "faults", "an object"), env.Undefined();
  const auto faults = info[2].As<Napi::Object>();
  env::SimDisk& disk = state_->simulation.world().disk(node->name(), *path);
  if (!read_flag(faults, "failReads", &disk.fail_reads) || !read_flag(faults, "failWrites", &disk.fail_writes) ||
      !read_flag(faults, "failFlushes", &disk.fail_flushes) || !read_flag(faults, "hang", &disk.hang) ||
      !read_duration(faults, "extraDelayNs", &disk.extra_delay)) {
    return {};
  }
  return env.Undefined();
}

// (node, path, offsetBytes, ...): so many bytes of a disk, all of them within it.
std::optional<SimWorldHandle::DiskRange> SimWorldHandle::range_arguments(const Napi::CallbackInfo& info,
                                                                         uint64_t length_bytes) {
  const env::SimNode* node = node_argument(info, 0);
  const auto path = node == nullptr ? std::nullopt : string_argument(info.Env(), info[1], "path");
  const auto offset_bytes = path ? natural_argument(info.Env(), info[2], "offsetBytes") : std::nullopt;
  if (!offset_bytes) return std::nullopt;
  env::SimDisk& disk = state_->simulation.world().disk(node->name(), *path);
  if (*offset_bytes > disk.size_bytes() || disk.size_bytes() - *offset_bytes < length_bytes) {
    throw_type_error(info.Env(), "offsetBytes", "within the disk");
    return std::nullopt;
  }
  return DiskRange{&disk, *offset_bytes};
}

Napi::Value SimWorldHandle::read_disk(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[3].IsTypedArray() || info[3].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    return throw_type_error(env, "bytes", "a Uint8Array"), env.Undefined();
  auto bytes = info[3].As<Napi::Uint8Array>();
  const auto range = range_arguments(info, bytes.ByteLength());
  if (range) range->disk->contents().read(range->offset_bytes, bytes.Data(), bytes.ByteLength());
  return env.Undefined();
}

Napi::Value SimWorldHandle::damage_disk(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto range = range_arguments(info, env::SimImage::page_bytes);
  const auto how = range ? string_argument(env, info[3], "how") : std::nullopt;
  if (!how) return env.Undefined();
  if (*how == "unreadable") {
    range->disk->make_unreadable(range->offset_bytes, env::SimImage::page_bytes);
  } else if (*how == "changed") {
    range->disk->flip_bit(range->offset_bytes, 0);
  } else {
    throw_type_error(env, "how", "'unreadable' or 'changed'");
  }
  return env.Undefined();
}

}  // namespace basalt::addon
