// SPDX-License-Identifier: Apache-2.0
// SimStore: the control plane's store as the simulation sees it: one linearizable register with compare-and-swap, in
// virtual time. Requests travel, may be late (even after their sender gave up), and may be lost with their answers.
//
// LeadershipRegister: a would-be holder's view of it (src/agents/leadership-register.ts): swaps whose outcome is always
// known in the end; the store being away makes callers wait.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/task.h"
#include "env/sim/sim_world.h"
#include "runtime/reactor.h"
#include "sim/leadership.h"

namespace basalt::sim {

struct Versioned {
  Leadership value;
  uint64_t revision = 0;
};

enum class StoreStatus : uint8_t { ok, conflict, unknown };  // unknown: no answer in time; it may happen yet

struct StoreReply {
  StoreStatus status = StoreStatus::unknown;
  Versioned present;            // ok: after it
  std::set<std::string> alive;  // nodes that were heard of lately
};

struct StoreKnobs {
  Duration delay_min = microseconds(100);
  Duration delay_max = milliseconds(2);
  double late_chance = 0.01;  // a request that takes up to late_max
  double answer_lost_chance = 0.02;
  Duration late_max = milliseconds(800);
  Duration timeout = milliseconds(200);
  Duration session = seconds(1);
};

class SimStore {
 public:
  SimStore(env::SimWorld& world, const StoreKnobs& knobs) : world_(world), knobs_(knobs) {}

  const Versioned& present() const { return present_; }
  void put(const Leadership& value) { present_ = {value, present_.revision + 1}; }

  // Faults: nothing reaches the store, from anywhere or from one node; swaps happen but no answer arrives.
  void set_away(bool away) { away_ = away; }
  void set_cut(const std::string& node, bool cut);
  void set_answers_lost(bool lost) { answers_lost_ = lost; }
  void heal();

  // On the reactor of `node`. `next`: swap when the register is still at `revision`; nothing: read.
  Task<StoreReply> ask(env::SimNode& node, Reactor& reactor, std::optional<Leadership> next, uint64_t revision);

  // Every value that the register ever had, for tests.
  std::function<void(const Leadership&)> on_change;

 private:
  struct Call;
  Duration delay();
  void arrive(const std::shared_ptr<Call>& call);
  bool reachable(const std::string& node) const { return !away_ && !cut_.contains(node); }

  env::SimWorld& world_;
  const StoreKnobs knobs_;
  Versioned present_;
  bool away_ = false;
  bool answers_lost_ = false;
  std::set<std::string> cut_;
  std::map<std::string, Instant> heard_;
};

// What a process waits with: becomes true when it is to give up.
using StopFlag = std::shared_ptr<bool>;

class LeadershipRegister {
 public:
  LeadershipRegister(SimStore& store, env::SimNode& node, Reactor& reactor)
      : store_(store), node_(node), reactor_(reactor) {}

  const Leadership& known() const { return known_.value; }
  const std::set<std::string>& alive() const { return alive_; }
  // True when it was read: once, or again and again until `stop`.
  Task<bool> refresh_once();
  Task<bool> refresh(StopFlag stop);
  // Swaps in what `plan` makes of the present object; nothing from it means that nothing is to be done. True: the store
  // holds it. False: somebody else changed the object (`known` is theirs), or `stop`.
  using Plan = std::function<std::optional<Leadership>(const Leadership&)>;
  Task<bool> swap(Plan plan, StopFlag stop);

 private:
  enum class Settled : uint8_t { done, lost, again };
  Task<Settled> swap_once(Leadership next, StopFlag stop);

  SimStore& store_;
  env::SimNode& node_;
  Reactor& reactor_;
  Versioned known_;
  std::set<std::string> alive_;
};

}  // namespace basalt::sim
