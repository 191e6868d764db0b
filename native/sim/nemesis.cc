// SPDX-License-Identifier: Apache-2.0
#include "sim/nemesis.h"

#include <cstdio>

namespace basalt::sim {
namespace {
enum Kind : uint32_t { disk, controller, network, store, all, kind_count };
constexpr Duration pause_max = milliseconds(900);
}  // namespace

Nemesis::Nemesis(Cluster& cluster, env::SimRandom& random, Suite suite, bool verbose)
    : cluster_(cluster), random_(random), suite_(suite), verbose_(verbose) {
  // Some kinds off altogether: what is rare together then happens often alone.
  do {
    kinds_ = static_cast<uint32_t>(random_.below(1u << kind_count));
    if (suite == Suite::data) kinds_ &= ~(1u << controller | 1u << network | 1u << all);
  } while (kinds_ == 0);
}

void Nemesis::note(const std::string& what) {
  strike_count_++;
  if (verbose_) {
    std::fprintf(stderr, "%.6f %s\n", static_cast<double>(cluster_.world().now().ns) / 1e9, what.c_str());
  }
}

std::string Nemesis::summary() const {
  static constexpr const char* names[] = {"disk", "controller", "network", "store", "all"};
  std::string text = std::to_string(strike_count_) + " strikes:";
  for (uint32_t kind = 0; kind < kind_count; kind++) {
    if (on(kind)) text += std::string(" ") + names[kind];
  }
  return text;
}

void Nemesis::step() {
  uint32_t kind = 0;
  do {
    kind = static_cast<uint32_t>(random_.below(kind_count));
  } while (!on(kind));
  if (kind == disk) disk_fault();
  if (kind == controller) controller_fault();
  if (kind == network) network_fault();
  if (kind == store) store_fault();
  if (kind == all) everything();
  cluster_.run_for(nanoseconds(static_cast<int64_t>(random_.below(static_cast<uint64_t>(pause_max.ns)))));
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

void Nemesis::controller_fault() {
  ControllerNode& node = cluster_.controller(random_.below(cluster_.controller_count()));
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
  if (!cluster_.redundant() || random_.chance(0.5)) return;
  if (hurt_disk_ >= 0) end_disk_fault();
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
    cluster_.run_for(nanoseconds(static_cast<int64_t>(random_.below(static_cast<uint64_t>(milliseconds(200).ns)))));
  }
  cluster_.run_until([this] { return cluster_.redundant(); }, seconds(60));
}

}  // namespace basalt::sim
