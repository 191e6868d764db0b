// SPDX-License-Identifier: Apache-2.0
#include "sim/link_plan.h"

#include <cstdio>

namespace basalt::sim {
namespace {

constexpr uint64_t stream_mix = 0x1055;
constexpr double bad_chance = 0.25;
constexpr double loss_chances[] = {0, 0.002, 0.02, 0.1};
// As Linux does it: no less than 200 ms, but for a loss that the receiver sees by what came behind it.
constexpr Duration retransmits[] = {milliseconds(10), milliseconds(200)};
constexpr double shares[] = {0.2, 0.5, 1};

template <class T, size_t count>
T pick(env::SimRandom& random, const T (&from)[count]) {
  return from[random.below(count)];
}

}  // namespace

LinkPlan LinkPlan::random(uint64_t seed, Duration lease) {
  env::SimRandom random(seed ^ stream_mix);
  LinkPlan plan;
  if (!random.chance(bad_chance)) return plan;
  const int64_t delays_ns[] = {0, 1'000'000, lease.ns / 8, lease.ns / 2};
  plan.share = pick(random, shares);
  plan.worst.retransmit = pick(random, retransmits);
  do {
    plan.worst.loss_chance = pick(random, loss_chances);
    plan.worst.extra_delay = nanoseconds(pick(random, delays_ns));
  } while (plan.worst.loss_chance == 0 && plan.worst.extra_delay == Duration{});
  return plan;
}

void LinkPlan::begin(Cluster& cluster, uint64_t seed) const {
  if (!bad()) return;
  env::SimRandom random(~seed ^ stream_mix);
  std::vector<std::string> names;
  for (size_t i = 0; i < cluster.host_count(); i++)
    names.push_back(cluster.host(i).name());
  for (size_t i = 0; i < cluster.controller_count(); i++)
    names.push_back(cluster.controller(i).name());
  for (size_t i = 0; i < cluster.disk_count(); i++)
    names.push_back(cluster.disk(i).name());
  for (const std::string& from : names) {
    for (const std::string& to : names) {
      if (from == to || !random.chance(share)) continue;
      const double degree = static_cast<double>(1 + random.below(4)) / 4;
      env::SimLink link = worst;
      link.loss_chance = worst.loss_chance * degree;
      link.extra_delay = nanoseconds(static_cast<int64_t>(static_cast<double>(worst.extra_delay.ns) * degree));
      cluster.world().set_link(from, to, link);
    }
  }
}

std::string LinkPlan::summary() const {
  if (!bad()) return "";
  char text[120];
  std::snprintf(text, sizeof(text), "; %.0f %% of the ways lose up to %.1f %% and take up to %lld ms more", share * 100,
                worst.loss_chance * 100, static_cast<long long>(worst.extra_delay.to_ms()));
  return text;
}

}  // namespace basalt::sim
