// SPDX-License-Identifier: Apache-2.0
// Goal: the search and the rules are right. Method: random histories of a simulated block (with a cache, flushes, power
// cuts, zeroing, writes of unknown outcome) are never flagged; damaged copies of them are flagged exactly when trying
// every order finds none that explains them. The brute force knows nothing of how the checker works.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "check/checker.h"

namespace basalt::check {
namespace {

constexpr uint64_t volume = 7;

BlockValue stamp(uint64_t sequence) {
  return {BlockKind::stamp, {volume, 0, 1, sequence}};
}

// ---- brute force ---------------------------------------------------------------------------------------------------

class BruteForce {
 public:
  explicit BruteForce(const History& history) : history_(history) {}

  bool explained() { return epoch(0, {}, {}); }

 private:
  static bool change(const Op& op) { return op.type == OpType::write || op.type == OpType::zero; }
  static int64_t end_of(const Op& op) { return op.status == OpStatus::ok ? op.completed_ns : never_ns; }
  static BlockValue value_of(const Op& op) { return op.type == OpType::write ? stamp(op.sequence) : BlockValue{}; }
  int64_t from(size_t epoch) const { return epoch == 0 ? always_ns : history_.power_cuts[epoch - 1].at_ns; }
  int64_t to(size_t epoch) const {
    return epoch == history_.power_cuts.size() ? never_ns : history_.power_cuts[epoch].at_ns;
  }

  struct Step {
    const Op* op;
    size_t position;  // of the value that it left or saw
  };

  // `start`: what the block holds; `spent`: the write in flight whose effect that is.
  bool epoch(size_t number, BlockValue start, const Op* spent) {
    std::vector<const Op*> ops;
    for (const Op& op : history_.ops) {
      if (op.status == OpStatus::fail || op.type == OpType::flush || &op == spent) continue;
      if (op.invoked_ns > to(number) || end_of(op) < from(number)) continue;
      const bool spans =
          op.invoked_ns < from(number) || (number < history_.power_cuts.size() && end_of(op) > to(number));
      if (op.type == OpType::read && (op.status != OpStatus::ok || spans)) continue;
      ops.push_back(&op);
    }
    std::vector<Step> order;
    std::vector<BlockValue> values = {start};
    return place(number, ops, order, values);
  }

  bool place(size_t number, std::vector<const Op*>& left, std::vector<Step>& order, std::vector<BlockValue>& values) {
    const bool all = std::none_of(left.begin(), left.end(), [&](const Op* op) { return end_of(*op) < to(number); });
    if (all && finish(number, order, values)) return true;
    for (size_t i = 0; i < left.size(); i++) {
      const Op* op = left[i];
      const bool first = std::none_of(left.begin(), left.end(),
                                      [&](const Op* other) { return other != op && before(*other, *op, number); });
      if (!first || (!change(*op) && op->values[0] != values.back())) continue;
      left.erase(left.begin() + static_cast<ptrdiff_t>(i));
      if (change(*op)) values.push_back(value_of(*op));
      order.push_back({op, values.size() - 1});
      if (place(number, left, order, values)) return true;
      order.pop_back();
      if (change(*op)) values.pop_back();
      left.insert(left.begin() + static_cast<ptrdiff_t>(i), op);
    }
    return false;
  }
  bool before(const Op& one, const Op& other, size_t number) const {
    return end_of(one) < std::max(other.invoked_ns, from(number)) && end_of(one) < to(number);
  }

  bool finish(size_t number, const std::vector<Step>& order, const std::vector<BlockValue>& values) {
    if (number == history_.power_cuts.size()) return true;
    size_t floor = 0;
    for (const Op& flush : history_.ops) {
      if (flush.type != OpType::flush || flush.status != OpStatus::ok || flush.completed_ns > to(number)) continue;
      for (const Step& step : order) {
        if (end_of(*step.op) < flush.invoked_ns) floor = std::max(floor, step.position);
      }
    }
    for (const Step& step : order) {
      if (!change(*step.op) || end_of(*step.op) > to(number)) continue;
      if (step.op->fua || !history_.write_cache) floor = std::max(floor, step.position);
    }
    for (size_t i = floor; i < values.size(); i++) {
      const Op* spent = nullptr;
      for (const Op& op : history_.ops) {
        const bool in_flight = op.invoked_ns < to(number) && end_of(op) > to(number) && op.status != OpStatus::fail;
        if (op.type == OpType::write && in_flight && value_of(op) == values[i]) spent = &op;
      }
      if (epoch(number + 1, values[i], spent)) return true;
    }
    return false;
  }

  const History& history_;
};

// ---- a simulated block ---------------------------------------------------------------------------------------------

// Operations begin and end at even times, power cuts come at odd ones.
class Oracle {
 public:
  Oracle(std::mt19937_64& random, size_t op_count, bool cuts) : random_(random), span_(8 + below(40)) {
    history_.volume = volume;
    history_.write_cache = below(4) != 0;
    if (cuts) {
      for (size_t i = below(3); i > 0; i--)
        history_.power_cuts.push_back({static_cast<int64_t>(2 * below(span_) + 1)});
      std::sort(history_.power_cuts.begin(), history_.power_cuts.end(),
                [](const PowerCut& one, const PowerCut& other) { return one.at_ns < other.at_ns; });
    }
    for (size_t i = 0; i < op_count; i++)
      draw(i);
    carry_out();
  }
  History history_;

 private:
  uint64_t below(uint64_t bound) { return random_() % bound; }

  void draw(size_t index) {
    Op op;
    op.id = index;
    op.client = static_cast<uint32_t>(index);
    const uint64_t kind = below(10);
    op.type = kind < 4 ? OpType::read : kind < 8 ? OpType::write : kind < 9 ? OpType::zero : OpType::flush;
    op.count_blocks = op.type == OpType::flush ? 0 : 1;
    op.invoked_ns = static_cast<int64_t>(2 * below(span_));
    op.completed_ns = op.invoked_ns + static_cast<int64_t>(2 * (1 + below(8)));
    op.status = OpStatus::ok;
    if (op.type == OpType::write || op.type == OpType::zero) {
      op.fua = below(6) == 0;
      if (below(6) == 0) op.status = below(4) == 0 ? OpStatus::fail : OpStatus::info;
      if (op.status == OpStatus::info && below(2) == 0) op.completed_ns = never_ns;
    }
    if (op.type == OpType::write) {
      op.writer = 1;
      op.sequence = index + 1;
    }
    history_.ops.push_back(op);
  }

  // Each operation takes effect at one moment; after a power cut, those in flight do so (again) in what follows.
  void carry_out() {
    struct Effect {
      double at;
      Op* op;
    };
    std::vector<Effect> effects;
    for (Op& op : history_.ops) {
      if (op.status == OpStatus::fail) continue;
      double from = static_cast<double>(op.invoked_ns);
      const double to = op.status == OpStatus::ok ? static_cast<double>(op.completed_ns) : from + 60;
      for (const PowerCut& cut : history_.power_cuts) {
        const auto at = static_cast<double>(cut.at_ns);
        if (from < at && at < to) {
          if (op.type != OpType::flush && below(2) == 0) effects.push_back({between(from, at), &op});
          from = at;
        }
      }
      if (op.status == OpStatus::ok || below(2) == 0) effects.push_back({between(from, to), &op});
    }
    std::stable_sort(effects.begin(), effects.end(),
                     [](const Effect& one, const Effect& other) { return one.at < other.at; });
    std::vector<BlockValue> values = {BlockValue{}};
    BlockValue survivor;
    size_t durable = 0;
    size_t cut = 0;
    for (const Effect& effect : effects) {
      for (; cut < history_.power_cuts.size() && static_cast<double>(history_.power_cuts[cut].at_ns) < effect.at;
           cut++) {
        values = {values[durable + below(values.size() - durable)]};
        survivor = values[0];
        durable = 0;
      }
      Op& op = *effect.op;
      if (op.type == OpType::read) {
        op.values = {values.back()};
      } else if (op.type == OpType::flush) {
        durable = values.size() - 1;
      } else {
        const BlockValue value = op.type == OpType::write ? stamp(op.sequence) : BlockValue{};
        // One that survived a cut in flight has had its effect.
        if (op.type == OpType::write && survivor == value) continue;
        values.push_back(value);
        if (op.fua || !history_.write_cache) durable = values.size() - 1;
      }
    }
    for (Op& op : history_.ops) {
      if (op.type == OpType::read && op.values.empty()) op.values = {BlockValue{}};
    }
  }
  double between(double from, double to) {
    return from + (to - from) * (static_cast<double>(below(1000)) + 0.5) / 1001.0;
  }

  std::mt19937_64& random_;
  const uint64_t span_;
};

void damage(History& history, std::mt19937_64& random) {
  for (uint64_t i = 1 + random() % 2; i > 0; i--) {
    Op& op = history.ops[random() % history.ops.size()];
    switch (random() % 4) {
      case 0:
      case 1:
        if (op.type != OpType::read) break;
        op.values = {random() % 4 == 0 ? BlockValue{} : stamp(1 + random() % history.ops.size())};
        break;
      case 2: {
        const auto by = static_cast<int64_t>(2 * (random() % 10)) - 10;
        op.invoked_ns += by;
        if (op.completed_ns != never_ns) op.completed_ns += by;
        break;
      }
      default:
        if (op.type == OpType::write && op.status == OpStatus::info && op.completed_ns != never_ns) {
          op.status = OpStatus::ok;
        }
    }
  }
}

std::string text(const History& history) {
  std::string out = history.write_cache ? "" : "no cache\n";
  for (const PowerCut& cut : history.power_cuts)
    out += "power cut at " + std::to_string(cut.at_ns) + "\n";
  for (const Op& op : history.ops) {
    out += std::to_string(op.invoked_ns) + ".." + std::to_string(op.completed_ns) + describe(history, op) + "\n";
  }
  return out;
}

bool has_wrong_provenance(const History& history) {
  for (const Op& read : history.ops) {
    if (read.type != OpType::read || read.values[0].kind != BlockKind::stamp) continue;
    const auto write = std::find_if(history.ops.begin(), history.ops.end(), [&](const Op& op) {
      return op.type == OpType::write && stamp(op.sequence) == read.values[0];
    });
    if (write == history.ops.end() || write->status == OpStatus::fail || write->invoked_ns >= read.completed_ns) {
      return true;
    }
  }
  return false;
}

class RandomHistories : public ::testing::TestWithParam<bool> {};

TEST_P(RandomHistories, AreFlaggedExactlyWhenNoOrderExplainsThem) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  size_t flagged_count = 0;
  for (int round = 0; round < 6000; round++) {
    History history = Oracle(random, 3 + random() % 6, GetParam()).history_;
    const auto violation = check_history(history);
    ASSERT_FALSE(violation) << violation->explanation << "\n" << text(history);
    damage(history, random);
    const bool wrong = has_wrong_provenance(history) || !BruteForce(history).explained();
    const auto found = check_history(history);
    ASSERT_EQ(found.has_value(), wrong) << (found ? found->explanation : "") << "\n" << text(history);
    // The rules alone accuse nothing that is right.
    const auto by_rules = check(history, {.search_steps_max = 0}).violation;
    ASSERT_TRUE(wrong || !by_rules) << by_rules->explanation << "\n" << text(history);
    flagged_count += wrong;
  }
  EXPECT_GT(flagged_count, 500u);
}

TEST_P(RandomHistories, OfManyOperationsAreNeverFlagged) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 1500; round++) {
    const History history = Oracle(random, 5 + random() % 40, GetParam()).history_;
    const Verdict verdict = check(history);
    ASSERT_FALSE(verdict.violation) << verdict.violation->explanation << "\n" << text(history);
    ASSERT_EQ(verdict.undecided_count, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(All, RandomHistories, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "WithPowerCuts" : "WithoutPowerCuts"; });

}  // namespace
}  // namespace basalt::check
