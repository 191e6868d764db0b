// SPDX-License-Identifier: Apache-2.0
#include "sim/run.h"

#include <algorithm>
#include <cstdio>

#include "sim/data/data_run.h"
#include "sim/link_plan.h"
#include "sim/nemesis.h"
#include "sim/target/target_run.h"
#include "sim/trace.h"
#include "sim/worker.h"
#include "sim/workload.h"

namespace basalt::sim {
namespace {

// A world without controllers that fail: several clients may then write the same blocks.
constexpr double steady_chance = 0.25;
// Drawn apart, and so that the plans in test/sim remain what they were when they were found.
constexpr uint64_t intense_mix = 0x1e7;
constexpr double run_intense_chance = 0.4;
constexpr uint64_t links_mix = 0x11f5;
constexpr double some_without_link_chance = 0.3;

ClusterShape random_shape(env::SimRandom& random, bool steady) {
  ClusterShape shape;
  shape.copies = 2 + random.below(2);
  shape.legs = 1 + random.below(2);
  shape.disk_nodes = shape.copies + random.below(2);
  shape.controllers = steady ? 1 : 2 + random.below(2);
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

// In some runs every strike is a story of its own, and there is time between requests, so that marks come and go.
void make_intense(const RunOptions& options, bool steady, ClusterShape* shape, WorkloadMix* mix, Nemesis::Plan* plan) {
  env::SimRandom random(options.seed ^ intense_mix);
  const bool chosen = random.chance(run_intense_chance) || Nemesis::needs_intense(options.bugs);
  if (steady || !chosen) return;
  plan->intense = Nemesis::random_intense(random, options.bugs);
  plan->step_count = std::min<uint32_t>(plan->step_count, 12);
  shape->hosts = 2;
  shape->brief_marks = random.chance(0.8);
  mix->hot_blocks = static_cast<uint32_t>(shape->leg_blocks);
  mix->client_count = static_cast<uint32_t>(2 + random.below(4));
  if (random.chance(0.5)) mix->flushes = 0;
  if (random.chance(0.5)) mix->fua_chance = 0;
  mix->think_max = milliseconds(static_cast<int64_t>(10 + random.below(120)));
}

// As in the middle of an upgrade.
uint64_t random_disks_without_link(uint64_t seed) {
  env::SimRandom random(seed ^ links_mix);
  return random.chance(some_without_link_chance) ? 1 + random.below(15) : 0;
}

void reduce(ClusterShape& shape, const Reduction& reduction) {
  const auto set = [](auto& field, const std::optional<uint64_t>& wanted) {
    if (wanted) field = std::clamp<uint64_t>(*wanted, 1, field);
  };
  set(shape.hosts, reduction.hosts);
  set(shape.legs, reduction.legs);
  set(shape.copies, reduction.copies);
  set(shape.controllers, reduction.controllers);
  set(shape.leg_blocks, reduction.leg_blocks);
  shape.disk_nodes = std::max(shape.copies, std::min(shape.disk_nodes, shape.copies + 1));
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

class ClusterRun {
 public:
  ClusterRun(const RunOptions& options, const ClusterShape& shape)
      : options_(options), cluster_(options.seed, shape), begin_(cluster_.world().now()) {
    if (options.verbose) trace_.emplace(cluster_);
  }
  Cluster& cluster() { return cluster_; }
  RunResult& result() { return result_; }

  RunResult finish(Failure failure, const std::string& explanation) {
    result_.failure = failure;
    result_.explanation = explanation;
    result_.trace_hash = cluster_.world().trace_hash();
    result_.op_count = cluster_.log().ops.size();
    result_.virtual_ns = (cluster_.world().now() - begin_).ns;
    // Marks count them for all suites together; between the nodes of clusters they must happen as well.
    const env::SimWorld::LinkCounts& links = cluster_.world().link_counts();
    result_.rare_events = {
        {"fault_node_link_slow", "bytes from one node of a cluster to another took longer than usual", links.slowed},
        {"fault_node_packet_lost", "a packet from one node of a cluster to another was lost", links.lost}};
    for (size_t i = 0; i < cluster_.controller_count(); i++)
      result_.takeover_count += cluster_.controller(i).promotion_count();
    return result_;
  }

  RunResult judge(bool rested) {
    // What hosts saw until here is judged also when the cluster does not come to rest.
    const std::string seen = cluster_.verdict(false);
    if (!seen.empty()) return finish(failure_of(seen), seen);
    if (!rested) return finish(Failure::liveness, "the cluster did not come to rest\n" + cluster_.unrest());
    if (!read_everything(cluster_)) return finish(Failure::liveness, "reads do not end after everything was healed");
    const std::string verdict = cluster_.verdict();
    return finish(verdict.empty() ? Failure::none : failure_of(verdict), verdict);
  }

 private:
  static Failure failure_of(const std::string& verdict) {
    return verdict.starts_with("R11") ? Failure::liveness : Failure::correctness;
  }
  const RunOptions& options_;
  Cluster cluster_;
  const Instant begin_;
  std::optional<Trace> trace_;
  RunResult result_;
};

}  // namespace

std::optional<Suite> suite_from(const std::string& name) {
  for (const Suite suite : all_suites) {
    if (name == suite_name(suite)) return suite;
  }
  return std::nullopt;
}
const char* suite_name(Suite suite) {
  static constexpr const char* names[] = {"data", "target", "cluster", "cluster-ts"};
  return names[static_cast<size_t>(suite)];
}

bool Reduction::has_step(uint32_t index) const {
  return !steps || std::find(steps->begin(), steps->end(), index) != steps->end();
}
bool Reduction::has_client(uint32_t client) const {
  return !clients || std::find(clients->begin(), clients->end(), client) != clients->end();
}

RunResult run_once(const RunOptions& options) {
  switch (options.suite) {
    case Suite::data:
      return run_data_stack(options);
    case Suite::target:
      return run_target(options);
    case Suite::cluster:
      return run_cluster(options);
    case Suite::cluster_ts:
      return run_worker(options);
  }
  return {};
}

RunResult run_cluster(const RunOptions& options) {
  // The run's own choices must not shift with what the world draws.
  env::SimRandom random(options.seed ^ 0x5eed);
  const bool steady = random.chance(steady_chance) && !Nemesis::needs_intense(options.bugs);
  ClusterShape shape = random_shape(random, steady);
  WorkloadMix mix = random_mix(random);
  mix.shared_blocks = steady && random.chance(0.7);
  Nemesis::Plan plan = Nemesis::random_plan(random, steady);
  make_intense(options, steady, &shape, &mix, &plan);
  reduce(shape, options.reduction);
  shape.disks_without_link = random_disks_without_link(options.seed);
  shape.bugs = options.bugs;
  ClusterRun run(options, shape);
  Cluster& cluster = run.cluster();
  run.result().step_count = plan.step_count;
  run.result().client_count = mix.client_count;
  // A planted bug shows in the runs in which it was found to.
  const LinkPlan links = options.bugs == PlantedBugs{} ? LinkPlan::random(options.seed, shape.lease) : LinkPlan{};
  if (!cluster.start()) return run.finish(Failure::liveness, "the cluster did not start\n" + cluster.unrest());

  links.begin(cluster, options.seed);
  Nemesis nemesis(cluster, options.seed, plan, options.verbose);
  Workload workload(cluster, options.seed, mix, options.reduction);
  workload.start();
  cluster.run_for(milliseconds(200));
  for (uint32_t step = 0; step < plan.step_count; step++) {
    if (options.reduction.has_step(step)) nemesis.step(step);
  }
  workload.stop();
  const bool rested = cluster.converge();
  run.result().summary = shape_text(shape, mix) + links.summary() + "; " + nemesis.summary();
  return run.judge(rested);
}

RunResult run_speed(Duration virtual_time) {
  RunOptions options;
  ClusterShape shape;
  shape.disk_nodes = 3;
  shape.copies = 3;
  WorkloadMix mix;
  mix.client_count = 8;
  mix.think_max = microseconds(15'000);
  ClusterRun run(options, shape);
  if (!run.cluster().start()) return run.finish(Failure::liveness, "the cluster did not start");
  Workload workload(run.cluster(), options.seed, mix, {});
  workload.start();
  run.cluster().run_for(virtual_time);
  workload.stop();
  run.cluster().run_for(seconds(1));
  const std::string verdict = run.cluster().verdict(false);
  return run.finish(verdict.empty() ? Failure::none : Failure::correctness, verdict);
}

}  // namespace basalt::sim
