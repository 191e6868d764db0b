// SPDX-License-Identifier: Apache-2.0
#include "sim/run.h"

#include <algorithm>

#include "sim/nemesis.h"
#include "sim/workload.h"

namespace basalt::sim {
namespace {

ClusterShape random_shape(env::SimRandom& random, Suite suite) {
  ClusterShape shape;
  shape.copies = 2 + random.below(2);
  shape.legs = 1 + random.below(2);
  shape.disk_nodes = shape.copies + random.below(2);
  shape.controllers = suite == Suite::data ? 1 : 2 + random.below(2);
  shape.hosts = 1 + random.below(2);
  shape.leg_blocks = 32 * (1 + random.below(3));
  shape.lease = milliseconds(static_cast<int64_t>(50 + random.below(600)));
  shape.timing.grace = seconds(2);
  shape.world.network_delay_max = microseconds(static_cast<int64_t>(50 + random.below(2000)));
  shape.world.disk_delay_max = microseconds(static_cast<int64_t>(100 + random.below(3000)));
  shape.world.short_transfer_chance = random.chance(0.5) ? 0.02 : 0.2;
  shape.store.late_chance = random.chance(0.3) ? 0.1 : 0.01;
  shape.store.answer_lost_chance = random.chance(0.3) ? 0.1 : 0.01;
  return shape;
}

// Every block, some times, so that every member is asked.
bool read_everything(Cluster& cluster) {
  constexpr uint64_t step_blocks = 32;
  for (int pass = 0; pass < 3; pass++) {
    for (uint64_t lba = 0; lba < cluster.count_blocks(); lba += step_blocks) {
      const uint64_t count = std::min(step_blocks, cluster.count_blocks() - lba);
      if (!cluster.wait(cluster.host().read(0, lba, static_cast<uint32_t>(count)))) return false;
    }
  }
  return true;
}

std::string shape_text(const ClusterShape& shape, const WorkloadMix& mix) {
  return std::to_string(shape.copies) + " copies, " + std::to_string(shape.legs) + " legs, " +
         std::to_string(shape.disk_nodes) + " disk nodes, " + std::to_string(shape.controllers) + " controllers, " +
         std::to_string(shape.hosts) + " hosts, " + std::to_string(mix.client_count) + " clients" +
         (mix.shared_blocks ? " on shared blocks" : "");
}

}  // namespace

std::optional<Suite> suite_from(const std::string& name) {
  if (name == "data") return Suite::data;
  if (name == "cluster") return Suite::cluster;
  return std::nullopt;
}
const char* suite_name(Suite suite) {
  return suite == Suite::data ? "data" : "cluster";
}

RunResult run_once(const RunOptions& options) {
  // The run's own choices must not shift with what the world draws.
  env::SimRandom random(options.seed ^ 0x5eed);
  ClusterShape shape = random_shape(random, options.suite);
  shape.bugs = options.bugs;
  WorkloadMix mix = random_mix(random);
  mix.shared_blocks = options.suite == Suite::data && random.chance(0.5);
  Cluster cluster(options.seed, shape);
  RunResult result;
  const auto finish = [&](Failure failure, const std::string& explanation) {
    result.failure = failure;
    result.explanation = explanation;
    result.trace_hash = cluster.world().trace_hash();
    result.op_count = cluster.log().ops.size();
    for (size_t i = 0; i < cluster.controller_count(); i++)
      result.takeover_count += cluster.controller(i).promotion_count();
    return result;
  };
  if (!cluster.start()) return finish(Failure::liveness, "the cluster did not start");

  Nemesis nemesis(cluster, random, options.suite, options.verbose);
  Workload workload(cluster, random, mix);
  workload.start();
  cluster.run_for(milliseconds(200));
  const uint64_t steps = 6 + random.below(20);
  for (uint64_t step = 0; step < steps; step++)
    nemesis.step();
  workload.stop();
  const bool rested = cluster.converge();
  result.summary = shape_text(shape, mix) + "; " + nemesis.summary();
  // What hosts saw until here is judged also when the cluster does not come to rest.
  const std::string seen = cluster.verdict(false);
  if (!seen.empty()) {
    return finish(seen.starts_with("R11") ? Failure::liveness : Failure::correctness, seen);
  }
  if (!rested) return finish(Failure::liveness, "the cluster did not come to rest");
  if (!read_everything(cluster)) return finish(Failure::liveness, "reads do not end after everything was healed");
  const std::string verdict = cluster.verdict();
  if (verdict.empty()) return finish(Failure::none, "");
  return finish(verdict.starts_with("R11") ? Failure::liveness : Failure::correctness, verdict);
}

}  // namespace basalt::sim
