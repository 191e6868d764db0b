// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/path_policy.h"

#include <gtest/gtest.h>

#include <queue>

#include "bdev/nvmf/nvmf_world_testing.h"

namespace basalt::bdev {
namespace {

using basalt::testing::TestIo;
using nvme::AnaState;
using testing::NvmfWorld;

// Paths that answer after a fixed time and serve one command at a time, under a closed loop of commands.
class Paths {
 public:
  explicit Paths(std::vector<Duration> service) : service_(std::move(service)), loads_(service_.size()) {
    free_at_.resize(service_.size());
  }
  // How many of `count` commands each path got.
  std::vector<size_t> run(PathChooser& chooser, size_t count, size_t depth) {
    std::vector<size_t> shares(loads_.size());
    for (size_t sent = 0, ended = 0; ended < count; ended++) {
      for (; sent < count && sent - ended < depth; sent++)
        shares[send(chooser)]++;
      end_one();
    }
    return shares;
  }
  std::vector<Duration> service_;

 private:
  struct Command {
    Instant ends_at;
    Instant sent_at;
    size_t path;
    bool operator<(const Command& other) const { return ends_at > other.ends_at; }
  };
  size_t send(PathChooser& chooser) {
    std::vector<PathChooser::Candidate> candidates;
    for (size_t i = 0; i < loads_.size(); i++)
      candidates.push_back({i, &loads_[i]});
    const size_t path = chooser.choose(candidates, now_);
    loads_[path].sent();
    free_at_[path] = std::max(free_at_[path], now_) + service_[path];
    flying_.push({free_at_[path], now_, path});
    return path;
  }
  void end_one() {
    const Command command = flying_.top();
    flying_.pop();
    now_ = command.ends_at;
    loads_[command.path].ended();
    loads_[command.path].measured(now_ - command.sent_at, now_);
  }
  std::vector<PathLoad> loads_;
  std::vector<Instant> free_at_;
  std::priority_queue<Command> flying_;
  Instant now_{seconds(1).ns};
};

PathChooser chooser_of(PathPolicy policy) {
  PathChooser chooser;
  chooser.set_policy(policy);
  return chooser;
}

TEST(PathPolicy, RoundRobinGivesEachPathAsMany) {
  PathChooser chooser = chooser_of({PathSelector::round_robin});
  Paths paths({microseconds(100), microseconds(1000), microseconds(300)});
  for (const size_t share : paths.run(chooser, 3000, 8))
    EXPECT_EQ(share, 1000u);
}

TEST(PathPolicy, RoundRobinStaysForAsManyAsItWasTold) {
  PathChooser chooser = chooser_of({PathSelector::round_robin, 4});
  PathLoad loads[2];
  std::string order;
  for (int i = 0; i < 16; i++)
    order += std::to_string(chooser.choose({{0, &loads[0]}, {1, &loads[1]}}, Instant{}));
  EXPECT_TRUE(order == "0000111100001111" || order == "1111000011110000") << order;
  // A path that goes takes nobody's turn.
  EXPECT_EQ(chooser.choose({{0, &loads[0]}}, Instant{}), 0u);
}

TEST(PathPolicy, QueueDepthFillsPathsByTheirSpeed) {
  PathChooser chooser = chooser_of({PathSelector::queue_depth});
  Paths paths({microseconds(100), microseconds(1000)});
  const auto shares = paths.run(chooser, 11'000, 16);
  EXPECT_NEAR(static_cast<double>(shares[0]), 10'000, 300);
  // Alone, commands take turns.
  Paths equal({microseconds(100), microseconds(100)});
  const auto turns = equal.run(chooser, 1000, 1);
  EXPECT_EQ(turns[0], 500u);
}

TEST(PathPolicy, LatencyTakesTheFastPathAndStillLooksAtTheSlowOne) {
  PathChooser chooser = chooser_of({PathSelector::latency});
  Paths paths({microseconds(1000), microseconds(100)});
  auto shares = paths.run(chooser, 50'000, 1);  // five seconds
  EXPECT_GE(shares[0], 3u);
  EXPECT_LE(shares[0], 10u);
  // It notices when that changes.
  paths.service_ = {microseconds(50), microseconds(2000)};
  shares = paths.run(chooser, 50'000, 1);
  EXPECT_GE(shares[0], 49'000u);
  // Under load the slow one helps, with what it can do.
  paths.service_ = {microseconds(100), microseconds(400)};
  paths.run(chooser, 5000, 32);
  shares = paths.run(chooser, 5000, 32);
  EXPECT_GE(shares[1], 300u);
  EXPECT_LE(shares[1], 1500u);
}

TEST(PathPolicy, ActivePassiveStaysWhileItCan) {
  PathChooser chooser = chooser_of({PathSelector::stay});
  PathLoad loads[3];
  const std::vector<PathChooser::Candidate> all = {{0, &loads[0]}, {1, &loads[1]}, {2, &loads[2]}};
  for (int i = 0; i < 10; i++)
    EXPECT_EQ(chooser.choose(all, Instant{}), 0u);
  EXPECT_EQ(chooser.choose({all[1], all[2]}, Instant{}), 1u);
  EXPECT_EQ(chooser.choose(all, Instant{}), 1u);
}

// Over the real target: what each policy does with ANA states, and switching under load.
class PolicyWorld {
 public:
  PolicyWorld() : w("TCP", 12) { EXPECT_TRUE(w.attach(true).ok()); }
  std::pair<uint64_t, uint64_t> shares(size_t count) {
    const uint64_t a = sent(0), b = sent(1);
    for (size_t i = 0; i < count; i++)
      EXPECT_TRUE(w.world.write(w.bdev(), i, 1, 1).ok());
    return {sent(0) - a, sent(1) - b};
  }
  uint64_t sent(size_t path) { return w.set->paths()[path]->load().sent_count(); }
  NvmfWorld w;
};

TEST(PathPolicy, EachHonoursAnaStates) {
  using Shares = std::pair<uint64_t, uint64_t>;
  for (const PathSelector selector :
       {PathSelector::stay, PathSelector::round_robin, PathSelector::queue_depth, PathSelector::latency}) {
    SCOPED_TRACE(path_selector_name(selector));
    PolicyWorld p;
    p.w.bdev().set_policy({selector});
    p.w.set_ana(p.w.a, AnaState::non_optimized);
    p.w.world.net.run_for(milliseconds(20));
    EXPECT_EQ(p.shares(10), Shares(0, 10));
    p.w.set_ana(p.w.b, AnaState::inaccessible);
    p.w.world.net.run_for(milliseconds(20));
    EXPECT_EQ(p.shares(10), Shares(10, 0));
    p.w.set_ana(p.w.b, AnaState::optimized);
    p.w.world.net.run_for(milliseconds(20));
    EXPECT_EQ(p.shares(10), Shares(0, 10));
  }
}

TEST(PathPolicy, IsSwitchedWhileRequestsAreInFlight) {
  PolicyWorld p;
  p.w.disk.hold = true;
  std::vector<std::unique_ptr<TestIo>> requests;
  constexpr PathSelector selectors[] = {PathSelector::round_robin, PathSelector::queue_depth, PathSelector::stay,
                                        PathSelector::latency};
  for (uint64_t i = 0; i < 40; i++) {
    p.w.bdev().set_policy({selectors[i % 4]});
    requests.push_back(std::make_unique<TestIo>(IoType::write, i, 1));
    p.w.bdev().submit(requests.back().get());
    p.w.world.net.run_for(microseconds(50));
  }
  p.w.disk.release();
  ASSERT_TRUE(p.w.world.net.run_until(
      [&] { return std::all_of(requests.begin(), requests.end(), [](const auto& io) { return io->ended; }); }));
  for (const auto& io : requests)
    EXPECT_TRUE(io->status.ok());
  EXPECT_EQ(p.w.set->paths()[0]->load().in_flight_count(), 0u);
  EXPECT_EQ(p.w.set->paths()[1]->load().in_flight_count(), 0u);
}

}  // namespace
}  // namespace basalt::bdev
