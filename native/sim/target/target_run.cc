// SPDX-License-Identifier: Apache-2.0
#include "sim/target/target_run.h"

#include <utility>

#include "sim/process.h"
#include "sim/target/good_host.h"
#include "sim/target/rude_host.h"
#include "sim/target/target_node.h"

namespace basalt::sim {
namespace {

constexpr Duration settle_limit = seconds(120);
constexpr Duration end_limit = seconds(60);

env::SimKnobs random_knobs(env::SimRandom& random) {
  env::SimKnobs knobs;
  knobs.network_delay_max = microseconds(static_cast<int64_t>(20 + random.below(1000)));
  knobs.disk_delay_max = microseconds(static_cast<int64_t>(50 + random.below(2000)));
  knobs.short_transfer_chance = random.chance(0.5) ? 0.02 : 0.3;
  knobs.socket_buffer_bytes = random.chance(0.3) ? 4096 : 256 * 1024;
  knobs.backlog_max = random.chance(0.3) ? 2 : 128;
  return knobs;
}

TargetNodeOptions random_target(env::SimRandom& random) {
  TargetNodeOptions options;
  options.reactor_count = 1 + random.below(2);
  options.port_count = 1 + random.below(2);
  options.disk = static_cast<TargetDisk>(random.below(3));
  options.good_host_count = 1 + random.below(2);
  // One slab of each size, and hosts that ask for more at once than one holds: commands wait for buffers.
  if (random.chance(0.4)) options.buffer_bytes_max = 1;
  return options;
}

class TargetRun {
 public:
  explicit TargetRun(const RunOptions& options)
      : random_(options.seed ^ 0x7a26e7),
        world_(options.seed, random_knobs(random_)),
        target_options_(random_target(random_)),
        resend_at_once_(options.bugs.resend_at_once),
        target_(world_, target_options_, arena_) {}

  RunResult run() {
    target_.open();
    for (size_t i = 0; i < target_options_.good_host_count; i++)
      good_.push_back(std::make_unique<GoodHost>(world_, i, random_host(), arena_));
    // Most commands of some hosts are as long as they may be.
    const double long_chance = random_.chance(0.5) ? 0.3 : 0.02;
    for (size_t i = 0; i < 1 + random_.below(3); i++)
      rude_.push_back(std::make_unique<RudeHost>(world_, i, target_.addresses(), long_chance));
    summarize();
    for (const auto& host : good_)
      host->connect();
    for (const auto& host : rude_)
      host->start();
    const uint64_t steps = 60 + random_.below(200);
    for (uint64_t step = 0; step < steps && !failed(); step++) {
      work();
      if (random_.below(10) == 0) trouble();
      // Now and then long enough for keep-alives and time-outs.
      world_.run_for(random_.below(60) == 0 ? milliseconds(static_cast<int64_t>(random_.below(4000)))
                                            : microseconds(static_cast<int64_t>(random_.below(10'000))));
      judge();
    }
    finish();
    result_.trace_hash = world_.trace_hash();
    for (const auto& host : good_) {
      result_.op_count += host->op_count();
      result_.trace_hash = (result_.trace_hash ^ host->digest()) * 0x100000001b3;
    }
    return result_;
  }

 private:
  GoodHost::Options random_host() {
    static constexpr bdev::PathSelector selectors[] = {bdev::PathSelector::round_robin, bdev::PathSelector::queue_depth,
                                                       bdev::PathSelector::latency, bdev::PathSelector::stay};
    GoodHost::Options host;
    host.paths = target_.addresses();
    if (random_.chance(0.4)) host.paths = {host.paths[random_.below(host.paths.size())]};
    host.policy.selector = selectors[random_.below(std::size(selectors))];
    host.digests = random_.chance(0.3);
    host.resend_at_once = resend_at_once_;
    return host;
  }

  bool failed() const { return result_.failure != Failure::none; }
  void fail(Failure failure, const std::string& what) {
    if (failed()) return;
    result_.failure = failure;
    result_.explanation = what;
  }

  void summarize() {
    static constexpr const char* disks[] = {"malloc", "file", "lvol"};
    result_.summary = std::string(disks[static_cast<size_t>(target_options_.disk)]) + ", " +
                      std::to_string(target_options_.reactor_count) + " reactors, " +
                      std::to_string(target_options_.port_count) + " ports, " + std::to_string(good_.size()) +
                      " good and " + std::to_string(rude_.size()) + " rude hosts";
  }

  void work() {
    for (const auto& host : good_) {
      if (!host->connected()) continue;
      for (uint64_t burst = random_.below(4); burst > 0; burst--)
        host->step(random_);
    }
  }

  void trouble() {
    GoodHost& host = *good_[random_.below(good_.size())];
    RudeHost& rude = *rude_[random_.below(rude_.size())];
    const std::string name = host.node().name();
    switch (random_.below(9)) {
      case 0:
        return world_.cut_connections(name, "t");
      case 1:
        return world_.stall(name, "t", milliseconds(static_cast<int64_t>(random_.below(1500))));
      case 2:
        return world_.stall("t", name, milliseconds(static_cast<int64_t>(random_.below(1500))));
      case 3:
        return world_.set_link(name, "t", {.loss_chance = random_.chance(0.5) ? 0.02 : 0});
      case 4:
        target_.disk().slow_chance = random_.chance(0.5) ? 0.02 : 0;
        return;
      case 5:
        return hold_a_path(name);
      case 6:
        return leave_copies_behind(name);
      default:
        if (rude.up()) {
          rude.kill(random_.chance(0.5));
        } else {
          rude.start();
        }
    }
  }

  // One path is late, with all that lies on it; the host gives it up or not, and goes on by another.
  void hold_a_path(const std::string& name) {
    const std::vector<env::Address> addresses = target_.addresses();
    const env::Address& path = addresses[random_.below(addresses.size())];
    world_.hold_connections(name, path.port,
                            milliseconds(static_cast<int64_t>(400 + random_.below(random_.chance(0.8) ? 1400 : 6000))));
  }

  // Some commands stay in the device for a while, and their connections end meanwhile.
  void leave_copies_behind(const std::string& name) {
    env::SimDisk& disk = target_.disk();
    const double slow_chance = std::exchange(disk.slow_chance, 0.5);
    const Duration slow_delay =
        std::exchange(disk.slow_delay, milliseconds(static_cast<int64_t>(100 + random_.below(2000))));
    for (int round = 0; round < 4; round++) {
      work();
      world_.run_for(milliseconds(1));
    }
    disk.slow_chance = slow_chance;
    disk.slow_delay = slow_delay;
    world_.cut_connections(name, "t");
  }

  void judge() {
    for (const auto& host : good_) {
      if (!host->violation().empty()) fail(Failure::correctness, host->violation());
    }
  }

  bool all_good(bool (GoodHost::*is)() const) const {
    for (const auto& host : good_) {
      if (!((*host).*is)()) return false;
    }
    return true;
  }

  // Faults end, rude hosts go; then everything comes to rest in time, and nothing was kept.
  void finish() {
    world_.heal_all();
    for (const auto& host : good_)
      world_.set_link(host->node().name(), "t", {});
    target_.disk().slow_chance = 0;
    for (const auto& host : rude_)
      host->stop();
    if (!world_.run_until([this] { return all_good(&GoodHost::connected) && all_good(&GoodHost::idle); },
                          settle_limit)) {
      return fail(Failure::liveness, "requests of good hosts do not end");
    }
    for (const auto& host : good_)
      host->read_everything();
    if (!world_.run_until([this] { return all_good(&GoodHost::idle); }, settle_limit)) {
      return fail(Failure::liveness, "the last reads do not end");
    }
    judge();
    for (const auto& host : good_)
      host->start_closing();
    if (!world_.run_until([this] { return all_good(&GoodHost::closed); }, end_limit)) {
      return fail(Failure::liveness, "a good host does not come to its end");
    }
    if (!world_.run_until([this] { return target_.connection_count() == 0; }, end_limit)) {
      return fail(Failure::liveness, std::to_string(target_.connection_count()) + " connections are kept for ever");
    }
    if (target_.buffers_in_use() != 0) {
      fail(Failure::correctness, std::to_string(target_.buffers_in_use()) + " buffers are kept");
    }
    target_.close();
    uint64_t commands = 0;
    uint64_t answers = 0;
    for (const auto& host : rude_) {
      commands += host->command_count();
      answers += host->answer_count();
    }
    result_.summary += "; " + std::to_string(commands) + " rude commands, " + std::to_string(answers) + " answers";
  }

  env::SimRandom random_;
  Arena arena_{size_t{512} << 20};
  env::SimWorld world_;
  const TargetNodeOptions target_options_;
  const bool resend_at_once_;
  TargetNode target_;
  std::vector<std::unique_ptr<GoodHost>> good_;
  std::vector<std::unique_ptr<RudeHost>> rude_;
  RunResult result_;
};

}  // namespace

RunResult run_target(const RunOptions& options) {
  auto run = std::make_unique<TargetRun>(options);
  RunResult result = run->run();
  // What hangs cannot be taken down.
  if (result.failure == Failure::liveness) keep_for_ever(run.release());
  return result;
}

}  // namespace basalt::sim
