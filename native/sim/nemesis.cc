// SPDX-License-Identifier: Apache-2.0
#include "sim/nemesis.h"

#include <algorithm>

#include "sim/intruder.h"
#include "sim/trace.h"

namespace basalt::sim {
namespace {
enum Kind : uint32_t { disk, controller, network, store, all, surprise, kind_count };
enum Intense : uint32_t { division, old_controller, one_power_cut, intense_count };
constexpr double strikes_intense_chance = 0.6;
constexpr Duration pause_max = milliseconds(900);
constexpr uint64_t step_mix = 0x9e3779b97f4a7c15;
}  // namespace

Nemesis::Plan Nemesis::random_plan(env::SimRandom& random, bool steady) {
  Plan plan;
  // Some kinds off altogether: what is rare together then happens often alone.
  do {
    plan.kinds = static_cast<uint32_t>(random.below(1u << kind_count));
    if (steady) plan.kinds &= ~(1u << controller | 1u << network | 1u << all | 1u << surprise);
  } while (plan.kinds == 0);
  plan.step_count = static_cast<uint32_t>(6 + random.below(20));
  return plan;
}

uint32_t Nemesis::random_intense(env::SimRandom& random, const PlantedBugs& bugs) {
  if (bugs.forget_epoch) return 1u << old_controller;
  if (bugs.ignore_read_lease || bugs.ignore_own_marks) return 1u << division;
  return static_cast<uint32_t>(1 + random.below((1u << intense_count) - 1));
}

void Nemesis::note(const std::string& what) {
  strike_count_++;
  if (verbose_) trace_line(cluster_.world(), "nemesis", what);
}

void Nemesis::pass(Duration max) {
  cluster_.run_for(nanoseconds(static_cast<int64_t>(random_.below(static_cast<uint64_t>(max.ns)))));
}

std::string Nemesis::summary() const {
  static constexpr const char* names[] = {"disk", "controller", "network", "store", "all", "ambush"};
  std::string text = std::to_string(strike_count_) + " strikes:";
  for (uint32_t kind = 0; kind < kind_count; kind++) {
    if (on(kind)) text += std::string(" ") + names[kind];
  }
  static constexpr const char* intense[] = {"division", "old-controller", "one-power-cut"};
  for (uint32_t kind = 0; kind < intense_count; kind++) {
    if ((plan_.intense >> kind & 1) != 0) text += std::string(" ") + intense[kind];
  }
  return text;
}

void Nemesis::step(uint32_t index) {
  random_ = env::SimRandom(seed_ ^ (index + 1) * step_mix);
  if (plan_.intense != 0 && random_.chance(strikes_intense_chance)) {
    intense_strike();
    return pass(pause_max);
  }
  uint32_t kind = 0;
  do {
    kind = static_cast<uint32_t>(random_.below(kind_count));
  } while (!on(kind));
  if (kind == disk) disk_fault();
  if (kind == controller) controller_fault();
  if (kind == network) network_fault();
  if (kind == store) store_fault();
  if (kind == all) everything();
  if (kind == surprise) ambush();
  pass(pause_max);
}

void Nemesis::disk_fault() {
  if (hurt_disk_ >= 0) return end_disk_fault();
  if (cluster_.shape().copies < 2 || !cluster_.redundant()) return;
  hurt_disk_ = static_cast<int>(random_.below(cluster_.disk_count()));
  DiskNode& node = cluster_.disk(static_cast<size_t>(hurt_disk_));
  env::SimDisk& faults = node.disk();
  switch (random_.below(7)) {
    case 0:
      note("kill " + node.name());
      return node.kill();
    case 1:
      note("power cut " + node.name());
      return node.power_cut();
    case 2:
      note("pause " + node.name());
      return node.node().pause();
    case 3:
      note("hang the disk of " + node.name());
      faults.hang = true;
      return;
    case 4:
      note("slow the disk of " + node.name());
      faults.extra_delay = milliseconds(static_cast<int64_t>(1 + random_.below(200)));
      return;
    case 5:
      note("fail writes of " + node.name());
      faults.fail_writes = true;
      return;
    default:
      note("fail flushes of " + node.name());
      faults.fail_flushes = true;
  }
}

void Nemesis::end_disk_fault() {
  DiskNode& node = cluster_.disk(static_cast<size_t>(hurt_disk_));
  note("heal " + node.name());
  env::SimDisk& faults = node.disk();
  faults.fail_writes = faults.fail_flushes = faults.hang = false;
  faults.extra_delay = {};
  node.node().resume();
  if (node.failed()) node.kill();
  if (!node.up()) node.start();
  hurt_disk_ = -1;
}

// The one that serves, more often than not.
ControllerNode& Nemesis::a_controller() {
  const int active = cluster_.active();
  const uint64_t other = random_.below(cluster_.controller_count());
  return cluster_.controller(active >= 0 && random_.chance(0.6) ? static_cast<size_t>(active) : other);
}

void Nemesis::controller_fault() {
  ControllerNode& node = a_controller();
  if (!node.up()) {
    note("start " + node.name());
    return node.start();
  }
  if (node.node().paused()) {
    note("resume " + node.name());
    return node.node().resume();
  }
  if (random_.chance(0.5)) {
    note("kill " + node.name());
    node.kill();
  } else {
    note("pause " + node.name());
    node.node().pause();
  }
}

std::string Nemesis::node_at_random() {
  const uint64_t which = random_.below(3);
  if (which == 0) return cluster_.host(random_.below(cluster_.host_count())).name();
  return cluster_.controller(random_.below(cluster_.controller_count())).name();
}

void Nemesis::network_fault() {
  const std::string one = node_at_random();
  // Controllers talk to everybody; a partition from a disk counts as that disk's fault, so it waits its turn.
  std::string other = node_at_random();
  switch (random_.below(4)) {
    case 0:
      note("heal the network");
      return cluster_.world().heal_all();
    case 1:
      if (hurt_disk_ < 0 && cluster_.redundant()) {
        other = cluster_.disk(random_.below(cluster_.disk_count())).name();
      }
      break;
    default:
      break;
  }
  if (one == other) return;
  if (random_.chance(0.4)) {
    note("cut " + one + " from " + other);
    return cluster_.world().cut_connections(one, other);
  }
  const bool both = random_.chance(0.5);
  note("partition " + one + (both ? " and " : " to ") + other);
  cluster_.world().partition(one, other, both);
}

void Nemesis::store_fault() {
  switch (random_.below(4)) {
    case 0:
      note("store away");
      return cluster_.store().set_away(true);
    case 1:
      note("store answers lost");
      return cluster_.store().set_answers_lost(true);
    case 2: {
      const std::string name = cluster_.controller(random_.below(cluster_.controller_count())).name();
      note("store cut from " + name);
      return cluster_.store().set_cut(name, true);
    }
    default:
      note("store heals");
      cluster_.store().heal();
  }
}

// All down, then all up, in any order.
void Nemesis::everything() {
  // Not on top of a member that has lost its cache, noticed or not: with all processes new, nobody could tell which.
  if (hurt_disk_ >= 0 || !cluster_.redundant() || random_.chance(0.5)) return;
  const bool power = random_.chance(0.5);
  note(power ? "power cut of everything" : "kill everything");
  if (power) {
    cluster_.power_cut_everything();
  } else {
    for (size_t i = 0; i < cluster_.disk_count(); i++)
      cluster_.disk(i).kill();
    for (size_t i = 0; i < cluster_.controller_count(); i++)
      cluster_.controller(i).kill();
  }
  cluster_.world().heal_all();
  cluster_.store().heal();
  const size_t total = cluster_.disk_count() + cluster_.controller_count();
  for (size_t up = 0; up < total;) {
    const size_t which = random_.below(total);
    if (which < cluster_.disk_count()) {
      if (cluster_.disk(which).up()) continue;
      cluster_.disk(which).start();
    } else {
      ControllerNode& node = cluster_.controller(which - cluster_.disk_count());
      if (node.up()) continue;
      node.node().resume();
      node.start();
    }
    up++;
    pass(milliseconds(200));
  }
  cluster_.run_until([this] { return cluster_.redundant(); }, seconds(60));
}

void Nemesis::set_apart(const std::string& victim) {
  for (size_t i = 0; i < cluster_.disk_count(); i++) {
    if (random_.chance(0.5)) cluster_.world().partition(victim, cluster_.disk(i).name(), random_.chance(0.5));
  }
  for (size_t i = 0; i < cluster_.host_count(); i++) {
    if (random_.chance(0.3)) cluster_.world().partition(cluster_.host(i).name(), victim, random_.chance(0.7));
  }
  const bool peers = random_.chance(0.6);
  for (size_t i = 0; i < cluster_.controller_count() && peers; i++) {
    const std::string& peer = cluster_.controller(i).name();
    if (peer == victim) continue;
    cluster_.world().partition(victim, peer);
    if (random_.chance(0.7)) cluster_.world().cut_connections(victim, peer);
  }
  if (random_.chance(0.6)) cluster_.store().set_cut(victim, true);
}

// A killed process loses nothing that it had acknowledged; it is up again at once.
void Nemesis::restart_a_disk() {
  DiskNode& node = cluster_.disk(random_.below(cluster_.disk_count()));
  if (hurt_disk_ >= 0 || !node.ready()) return;
  note("restart " + node.name());
  node.kill();
  pass(milliseconds(50));
  node.start();
}

void Nemesis::ambush() {
  const int active = cluster_.active();
  if (active < 0) return;
  ControllerNode& victim = cluster_.controller(static_cast<size_t>(active));
  note("ambush on " + victim.name());
  set_apart(victim.name());
  pass(random_.chance(0.6) ? milliseconds(30) : milliseconds(1200));
  SimHost& host = cluster_.host(random_.below(cluster_.host_count()));
  const bool host_too = cluster_.host_count() > 1 && random_.chance(0.4);
  if (host_too) host.node().pause();
  // A member that whoever follows cannot take over: then the old leases have to run out.
  const bool disk_too = hurt_disk_ < 0 && cluster_.redundant() && random_.chance(0.25);
  DiskNode& silent = cluster_.disk(random_.below(cluster_.disk_count()));
  if (disk_too) {
    note("pause " + silent.name());
    silent.node().pause();
  }
  const uint64_t end = random_.below(3);
  if (end == 0) victim.node().pause();
  if (end == 1) victim.kill();
  if (!disk_too && random_.chance(0.3)) restart_a_disk();
  const auto followed = [&] {
    const int now = cluster_.active();
    return now >= 0 && now != active;
  };
  cluster_.run_until(followed, seconds(3));
  pass(milliseconds(400));
  if (disk_too) silent.node().resume();
  if (random_.chance(0.3)) restart_a_disk();
  pass(milliseconds(100));
  if (host_too) host.node().resume();
  // What it had in hand comes through; perhaps it hears of the store and its peers only later.
  note("release " + victim.name());
  cluster_.world().heal_all();
  if (end == 0) victim.node().resume();
  if (end == 1) victim.start();
  pass(milliseconds(random_.chance(0.5) ? 20 : 800));
  if (random_.chance(0.7)) cluster_.store().heal();
}

// ---- intense strikes -----------------------------------------------------------------------------------------------

void Nemesis::intense_strike() {
  if (hurt_disk_ >= 0) return end_disk_fault();
  // Each of them takes one member of a leg away, at most.
  if (!cluster_.run_until([this] { return cluster_.redundant(); }, seconds(2))) return;
  uint32_t kind = 0;
  do {
    kind = static_cast<uint32_t>(random_.below(intense_count));
  } while ((plan_.intense >> kind & 1) == 0);
  if (kind == division) divide();
  if (kind == old_controller) wake_old_controller();
  if (kind == one_power_cut) cut_power_of_one();
}

// Two halves that do not see each other: the active controller with one disk node, the others with the rest and the
// store; hosts here and there. Both are asked to read and to write.
void Nemesis::divide() {
  const int active = cluster_.active();
  if (active < 0 || cluster_.controller_count() < 2) return;
  ControllerNode& victim = cluster_.controller(static_cast<size_t>(active));
  DiskNode& near = cluster_.disk(random_.below(cluster_.disk_count()));
  note("divide " + victim.name() + " with " + near.name() + " from the others");
  env::SimWorld& world = cluster_.world();
  const uint64_t first_host = random_.below(2);
  std::vector<SimHost*> near_hosts;
  for (size_t i = 0; i < cluster_.host_count(); i++) {
    const std::string& host = cluster_.host(i).name();
    const bool here = (i + first_host) % 2 == 0;
    if (here) near_hosts.push_back(&cluster_.host(i));
    for (size_t c = 0; c < cluster_.controller_count(); c++) {
      const ControllerNode& node = cluster_.controller(c);
      if ((&node == &victim) != here) world.partition(host, node.name());
    }
  }
  for (size_t i = 0; i < cluster_.disk_count(); i++) {
    if (&cluster_.disk(i) != &near) world.partition(victim.name(), cluster_.disk(i).name());
  }
  for (size_t c = 0; c < cluster_.controller_count(); c++) {
    const ControllerNode& node = cluster_.controller(c);
    if (&node == &victim) continue;
    world.partition(victim.name(), node.name());
    world.partition(near.name(), node.name());
  }
  cluster_.store().set_cut(victim.name(), true);
  cluster_.run_until(
      [&] {
        const int now = cluster_.active();
        return now >= 0 && now != active;
      },
      seconds(8));
  pass(milliseconds(400));
  const bool dies = random_.chance(0.4);
  if (dies) victim.kill();
  // What they had asked for on this side they ask again only after everybody else has gone on.
  const bool asleep = random_.chance(0.6);
  for (SimHost* host : near_hosts) {
    if (asleep) host->node().pause();
  }
  note("heal the network");
  world.heal_all();
  if (dies) victim.start();
  pass(milliseconds(100));
  cluster_.store().heal();
  if (!asleep) return;
  cluster_.run_until([this] { return cluster_.redundant(); }, seconds(10));
  pass(milliseconds(1500));
  for (SimHost* host : near_hosts)
    host->node().resume();
}

// A disk node restarts; before anybody else, a controller of an epoch long past asks it, and would write.
void Nemesis::wake_old_controller() {
  DiskNode& node = cluster_.disk(random_.below(cluster_.disk_count()));
  if (cluster_.store().present().value.epoch < 2) {
    ControllerNode& first = cluster_.controller(static_cast<size_t>(std::max(0, cluster_.active())));
    first.kill();
    first.start();
    if (!cluster_.run_until([this] { return cluster_.redundant(); }, seconds(10))) return;
  }
  const uint64_t epoch = cluster_.store().present().value.epoch;
  if (!node.ready() || epoch < 2) return;
  note("restart " + node.name() + " and wake an old controller");
  node.kill();
  node.start();
  if (!cluster_.run_until([&] { return node.ready(); }, seconds(10))) return;
  const auto& replicas = node.options().replicas;
  if (replicas.empty()) return;
  auto old = std::make_unique<Intruder>(cluster_, "old" + std::to_string(strike_count_));
  if (old->take(node, replicas[random_.below(replicas.size())], 1 + random_.below(epoch - 1)).ok())
    old->io(bdev::IoType::write, random_.below(cluster_.shape().leg_blocks));
  Intruder::kill(std::move(old));
}

// While the others go on, and with it what no flush had covered; it is back soon.
void Nemesis::cut_power_of_one() {
  // An only copy may lose what was not flushed; a run that is made small would fail by that.
  if (cluster_.shape().copies < 2) return;
  DiskNode& node = cluster_.disk(random_.below(cluster_.disk_count()));
  pass(milliseconds(300));  // marks are cleared meanwhile
  if (!node.ready() || !cluster_.redundant()) return;
  note("power cut " + node.name());
  node.power_cut();
  pass(milliseconds(100));
  node.start();
}

}  // namespace basalt::sim
