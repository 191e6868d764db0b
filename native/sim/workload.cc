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

Workload::Workload(Cluster& cluster, uint64_t seed, const WorkloadMix& mix, const Reduction& reduction)
    : cluster_(cluster), mix_(mix), reduction_(reduction) {
  for (uint32_t client = 0; client <= mix.client_count; client++)
    clients_.push_back({env::SimRandom(seed * 1'000'003 + client)});
}

Workload::~Workload() {
  *alive_ = false;
  for (size_t i = 0; i < cluster_.host_count(); i++)
    cluster_.host(i).on_done = {};
}

void Workload::start() {
  for (size_t i = 0; i < cluster_.host_count(); i++)
    cluster_.host(i).on_done = [this](OpIndex index) { ended(index); };
  for (uint32_t client = 1; client <= mix_.client_count; client++) {
    if (reduction_.has_client(client)) ask(client);
  }
}

void Workload::ended(OpIndex index) {
  const uint32_t client = cluster_.op(index).client;
  if (client == 0) return;  // not ours
  env::SimRandom& random = clients_[client].random;
  const Duration think = nanoseconds(static_cast<int64_t>(random.below(static_cast<uint64_t>(mix_.think_max.ns))));
  cluster_.world().at(cluster_.world().now() + think, [this, client, alive = alive_] {
    if (*alive && !stopped_) ask(client);
  });
}

void Workload::ask(uint32_t client) {
  if (reduction_.ops_max && clients_[client].asked_count >= *reduction_.ops_max) return;
  clients_[client].asked_count++;
  env::SimRandom& random = clients_[client].random;
  const uint64_t total = std::min<uint64_t>(cluster_.count_blocks(), mix_.hot_blocks);
  const uint32_t weights = mix_.reads + mix_.writes + mix_.zeroes + mix_.flushes;
  auto choice = static_cast<uint32_t>(random.below(weights));
  if (choice < mix_.reads) {
    const uint64_t lba = random.below(total);
    const uint64_t count = 1 + random.below(std::min<uint64_t>(op_blocks_max, total - lba));
    host_of(client).read(client, lba, static_cast<uint32_t>(count));
    return;
  }
  choice -= mix_.reads;
  // Blocks are dealt out in runs of consecutive ones, so that changes of several blocks have room.
  const uint64_t share = mix_.shared_blocks ? total : std::max<uint64_t>(1, total / mix_.client_count);
  const uint64_t first = mix_.shared_blocks ? 0 : (client - 1) * share;
  if (first >= total) return (void)host_of(client).flush(client);
  const uint64_t room = std::min(share, total - first);
  const uint64_t lba = first + random.below(room);
  const auto count = static_cast<uint32_t>(1 + random.below(std::min<uint64_t>(op_blocks_max, first + room - lba)));
  if (choice < mix_.writes) {
    host_of(client).write(client, lba, count, random.chance(mix_.fua_chance));
  } else if (choice < mix_.writes + mix_.zeroes) {
    host_of(client).zero(client, lba, count, random.chance(0.5));
  } else {
    host_of(client).flush(client);
  }
}

}  // namespace basalt::sim
