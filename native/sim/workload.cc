// SPDX-License-Identifier: Apache-2.0
#include "sim/workload.h"

#include <algorithm>

namespace basalt::sim {
namespace {
constexpr uint32_t op_blocks_max = 8;
}

WorkloadMix random_mix(env::SimRandom& random) {
  WorkloadMix mix;
  mix.client_count = static_cast<uint32_t>(1 + random.below(6));
  mix.hot_blocks = static_cast<uint32_t>(4 + random.below(40));
  mix.reads = static_cast<uint32_t>(1 + random.below(6));
  mix.writes = static_cast<uint32_t>(1 + random.below(6));
  mix.zeroes = static_cast<uint32_t>(random.below(2));
  mix.flushes = static_cast<uint32_t>(random.below(3));
  mix.fua_chance = random.chance(0.5) ? 0.0 : 0.2;
  mix.think_max = milliseconds(static_cast<int64_t>(1 + random.below(20)));
  return mix;
}

Workload::Workload(Cluster& cluster, env::SimRandom& random, const WorkloadMix& mix)
    : cluster_(cluster), random_(random), mix_(mix) {}

Workload::~Workload() {
  *alive_ = false;
  for (size_t i = 0; i < cluster_.host_count(); i++)
    cluster_.host(i).on_done = {};
}

void Workload::start() {
  for (size_t i = 0; i < cluster_.host_count(); i++)
    cluster_.host(i).on_done = [this](OpIndex index) { ended(index); };
  for (uint32_t client = 1; client <= mix_.client_count; client++)
    ask(client);
}

void Workload::ended(OpIndex index) {
  const uint32_t client = cluster_.op(index).client;
  const Duration think = nanoseconds(static_cast<int64_t>(random_.below(static_cast<uint64_t>(mix_.think_max.ns))));
  cluster_.world().at(cluster_.world().now() + think, [this, client, alive = alive_] {
    if (*alive && !stopped_) ask(client);
  });
}

void Workload::ask(uint32_t client) {
  const uint64_t total = std::min<uint64_t>(cluster_.count_blocks(), mix_.hot_blocks);
  const uint32_t weights = mix_.reads + mix_.writes + mix_.zeroes + mix_.flushes;
  auto choice = static_cast<uint32_t>(random_.below(weights));
  if (choice < mix_.reads) {
    const uint64_t lba = random_.below(total);
    const uint64_t count = 1 + random_.below(std::min<uint64_t>(op_blocks_max, total - lba));
    host_of(client).read(client, lba, static_cast<uint32_t>(count));
    return;
  }
  choice -= mix_.reads;
  // Blocks are dealt out in runs of consecutive ones, so that changes of several blocks have room.
  const uint64_t share = mix_.shared_blocks ? total : std::max<uint64_t>(1, total / mix_.client_count);
  const uint64_t first = mix_.shared_blocks ? 0 : (client - 1) * share;
  if (first >= total) return (void)host_of(client).flush(client);
  const uint64_t room = std::min(share, total - first);
  const uint64_t lba = first + random_.below(room);
  const auto count = static_cast<uint32_t>(1 + random_.below(std::min<uint64_t>(op_blocks_max, first + room - lba)));
  if (choice < mix_.writes) {
    host_of(client).write(client, lba, count, random_.chance(mix_.fua_chance));
  } else if (choice < mix_.writes + mix_.zeroes) {
    host_of(client).zero(client, lba, count, random_.chance(0.5));
  } else {
    host_of(client).flush(client);
  }
}

}  // namespace basalt::sim
