// SPDX-License-Identifier: Apache-2.0
// SimWorldHandle: the JavaScript class `SimWorld`: a simulation of engines that JavaScript steps. For tests; a daemon
// never makes one.
//
//   new SimWorld({seed, networkDelayMinNs, networkDelayMaxNs, diskDelayMinNs, diskDelayMaxNs, shortTransferChance})
//   createEngine(node, config, planted) → Engine   planted: {noGate, noExportGate, forgetEpoch, ignoreLease, cutUnheld,
//                                                           cutJoining, awayUnmarked}
//   step(limitNs) → nowNs   runs until an engine has something for JavaScript, which is delivered before step()
//   returns,
//                           or the time is `limitNs`
//   now() → nowNs           traceHash() → bigint
//   kill(node)  powerCut(node)  pause(node)  resume(node)
//   partition(from, to)  one way: what `from` sends to `to` is held back    heal(a, b)    healAll()    cut(a, b)
//   setLink(from, to, {lossChance, retransmitNs, extraDelayNs})   one way: what is lost comes later
//   clearLinks()    linkCounts() → {lost, slowed}
//   jumpClock(node, aheadNs)   as after a suspended machine wakes up    setClockRate(node, partsPerMillion)
//   setDisk(node, path, {failReads, failWrites, failFlushes, hang, extraDelayNs})
//   readDisk(node, path, offsetBytes, bytes)   what it holds, into a Uint8Array, behind its user's back
//   damageDisk(node, path, offsetBytes, how)   a block of 4 KiB: 'unreadable' until it is rewritten, or 'changed'
//
// Thread: JavaScript. Names that nobody has are a TypeError.
#pragma once

#include "napi/node_api.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/simulation.h"

namespace basalt::addon {

class EngineHandle;

struct SimWorldState {
  SimWorldState(uint64_t seed, const env::SimKnobs& knobs) : simulation(seed, knobs) {}
  Simulation simulation;
  std::vector<EngineHandle*> engines;  // that live, in the order in which they were made
};

// Where a simulated engine belongs; it goes to the Engine's constructor in an External.
struct SimSeat {
  std::shared_ptr<SimWorldState> world;
  std::string node;
  PlantedBugs bugs;
  EngineConfig planted(EngineConfig config) const;
  static const SimSeat* from(Napi::Value value);  // nullptr: it is none
};

class SimWorldHandle final : public Napi::ObjectWrap<SimWorldHandle> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  explicit SimWorldHandle(const Napi::CallbackInfo& info);

 private:
  Napi::Value create_engine(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
  Napi::Value deliver(const Napi::CallbackInfo& info);
  Napi::Value now(const Napi::CallbackInfo& info);
  Napi::Value trace_hash(const Napi::CallbackInfo& info);
  Napi::Value kill(const Napi::CallbackInfo& info);
  Napi::Value power_cut(const Napi::CallbackInfo& info);
  Napi::Value pause(const Napi::CallbackInfo& info);
  Napi::Value resume(const Napi::CallbackInfo& info);
  Napi::Value partition(const Napi::CallbackInfo& info);
  Napi::Value heal(const Napi::CallbackInfo& info);
  Napi::Value heal_all(const Napi::CallbackInfo& info);
  Napi::Value cut(const Napi::CallbackInfo& info);
  Napi::Value set_link(const Napi::CallbackInfo& info);
  Napi::Value clear_links(const Napi::CallbackInfo& info);
  Napi::Value link_counts(const Napi::CallbackInfo& info);
  Napi::Value jump_clock(const Napi::CallbackInfo& info);
  Napi::Value set_clock_rate(const Napi::CallbackInfo& info);
  Napi::Value set_disk(const Napi::CallbackInfo& info);
  Napi::Value read_disk(const Napi::CallbackInfo& info);
  Napi::Value damage_disk(const Napi::CallbackInfo& info);
  struct DiskRange {
    env::SimDisk* disk;
    uint64_t offset_bytes;
  };
  std::optional<DiskRange> range_arguments(const Napi::CallbackInfo& info, uint64_t length_bytes);
  env::SimNode* node_argument(const Napi::CallbackInfo& info, size_t index);
  Napi::Value end_process(const Napi::CallbackInfo& info, bool power);

  std::shared_ptr<SimWorldState> state_;
};

}  // namespace basalt::addon
