// SPDX-License-Identifier: Apache-2.0
#include "check/block_search.h"

#include <algorithm>
#include <map>
#include <set>

namespace basalt::check {
namespace {

using Value = int32_t;
constexpr Value other_value = -1;  // any that no later epoch reads
constexpr Value torn_value = -2;

struct Item {
  const Op* op = nullptr;
  Value value = 0;
  int64_t invoked_ns = 0;
  int64_t end_ns = never_ns;
  bool change = false;  // a write or a zeroing; otherwise a read, or a flush
  bool flush = false;
  bool forced = false;  // durable when it ends
  bool unread = false;  // a change whose value no read returns
};
using Index = uint32_t;

// What the block may be in at one moment.
struct State {
  Value value = 0;
  std::vector<Index> done;                        // of the pending operations, those that are in order already; sorted
  std::vector<Value> kept;                        // what a power cut may leave, oldest first
  std::vector<std::pair<Index, uint32_t>> marks;  // pending flushes and forced changes: where in `kept` they hold
  auto operator<=>(const State&) const = default;

  bool has(Index item) const { return std::binary_search(done.begin(), done.end(), item); }
  void put(Index item) { done.insert(std::lower_bound(done.begin(), done.end(), item), item); }
  void take(Index item) { done.erase(std::lower_bound(done.begin(), done.end(), item)); }
};

struct Point {
  int64_t at_ns = 0;
  int rank = 0;
  enum Kind : uint8_t { begin, end, cut } kind = begin;
  Index item = 0;
};

class Search {
 public:
  Search(const Block& block, uint64_t steps_max, const std::function<bool(const Op&)>& without)
      : block_(block), cuts_(block.history().power_cuts), steps_max_(steps_max), without_(without) {}

  BlockJudgement run() {
    collect();
    make_points();
    State first;
    first.value = initial_;
    if (tracking()) first.kept = {as_kept(first.value)};
    states_ = {first};
    for (const Point& point : points_) {
      if (point.kind == Point::cut) {
        power_cut();
      } else if (point.kind == Point::begin) {
        begin(point.item);
      } else {
        end(point.item);
      }
      if (steps_ > steps_max_) return {Judgement::undecided, nullptr};
      if (states_.empty()) return {Judgement::wrong, items_[point.item].op};
    }
    return {};
  }

 private:
  bool tracking() const { return epoch_ < cuts_.size(); }
  bool left_out(const Op& op) const { return without_ && without_(op); }

  Value intern(const BlockValue& value) {
    if (value.kind == BlockKind::zero) return 0;
    if (value.kind != BlockKind::stamp) return torn_value;
    return values_.try_emplace({value.stamp.writer, value.stamp.sequence}, static_cast<Value>(values_.size() + 1))
        .first->second;
  }

  size_t epoch_of(int64_t invoked_ns) const {
    size_t epoch = 0;
    while (epoch < cuts_.size() && invoked_ns >= cuts_[epoch].at_ns)
      epoch++;
    return epoch;
  }

  void collect() {
    initial_ = intern(block_.initial);
    for (const Event& event : block_.events()) {
      const Op& op = *event.op;
      if (op.status == OpStatus::fail || left_out(op)) continue;
      Item item;
      item.op = &op;
      item.invoked_ns = event.invoked_ns;
      item.end_ns = event.completed_ns;
      if (event.is_read()) {
        const size_t epoch = epoch_of(event.invoked_ns);
        // One that spans a power cut tells nothing.
        if (epoch < cuts_.size() && event.completed_ns > cuts_[epoch].at_ns) continue;
        item.value = intern(event.value);
        auto& [count, last] = reads_[item.value];
        count++;
        last = std::max(last, epoch);
        reads_by_epoch_[{epoch, item.value}]++;
      } else {
        BlockValue value;
        if (op.type == OpType::write) value = {BlockKind::stamp, {0, 0, op.writer, op.sequence}};
        item.change = true;
        item.value = intern(value);
        item.forced = op.status == OpStatus::ok && (op.fua || !block_.history().write_cache);
      }
      items_.push_back(item);
    }
    for (Item& item : items_)
      item.unread = item.change && !reads_.contains(item.value);
    // It may as well not have happened.
    std::erase_if(items_, [](const Item& item) { return item.unread && item.end_ns == never_ns; });
    torn_possible_ = reads_.contains(torn_value);
    if (cuts_.empty()) return;
    for (const Op* flush : block_.facts().flushes) {
      if (left_out(*flush)) continue;
      Item item;
      item.op = flush;
      item.invoked_ns = flush->invoked_ns;
      item.end_ns = flush->completed_ns;
      item.flush = true;
      items_.push_back(item);
    }
  }

  // At one instant, whatever begins is concurrent with whatever ends; but a power cut lies between.
  void make_points() {
    const auto is_cut = [this](int64_t at_ns) {
      return std::any_of(cuts_.begin(), cuts_.end(), [&](const PowerCut& cut) { return cut.at_ns == at_ns; });
    };
    for (Index i = 0; i < items_.size(); i++) {
      const Item& item = items_[i];
      const bool begins_at_cut = !cuts_.empty() && is_cut(item.invoked_ns);
      if (begins_at_cut && item.end_ns == item.invoked_ns) continue;
      points_.push_back({item.invoked_ns, begins_at_cut ? 3 : 0, Point::begin, i});
      if (item.end_ns != never_ns) points_.push_back({item.end_ns, 1, Point::end, i});
    }
    for (const PowerCut& cut : cuts_)
      points_.push_back({cut.at_ns, 2, Point::cut, 0});
    std::stable_sort(points_.begin(), points_.end(), [](const Point& one, const Point& other) {
      return std::pair(one.at_ns, one.rank) < std::pair(other.at_ns, other.rank);
    });
  }

  Value as_kept(Value value) const {
    if (torn_possible_) return value;
    const auto found = reads_.find(value);
    return found != reads_.end() && found->second.second > epoch_ ? value : other_value;
  }

  void begin(Index index) {
    const Item& item = items_[index];
    pending_.push_back(index);
    if (!item.flush && !item.change) reads_by_epoch_[{epoch_, item.value}]--;
    for (State& state : states_) {
      if (item.flush) {
        if (tracking()) state.marks.emplace_back(index, static_cast<uint32_t>(state.kept.size() - 1));
      } else if (!item.change && state.value == item.value) {
        state.put(index);
      }
    }
  }

  void end(Index index) {
    const Item& item = items_[index];
    std::vector<State> next;
    for (State& state : states_) {
      steps_++;
      if (item.flush || state.has(index)) {
        next.push_back(std::move(state));
      } else {
        tried_.clear();
        extend(state, index, &next);
        if (steps_ > steps_max_) return;
      }
    }
    for (State& state : next) {
      if (!item.flush) state.take(index);
      settle(state, index);
    }
    std::erase(pending_, index);
    put_states(std::move(next));
  }

  void put_states(std::vector<State> next) {
    if (next.size() > 1) {
      std::sort(next.begin(), next.end());
      next.erase(std::unique(next.begin(), next.end()), next.end());
    }
    states_ = std::move(next);
  }

  // What it made durable is durable from now on.
  static void settle(State& state, Index index) {
    const auto mark = std::find_if(state.marks.begin(), state.marks.end(),
                                   [index](const auto& entry) { return entry.first == index; });
    if (mark == state.marks.end()) return;
    const uint32_t from = mark->second;
    state.marks.erase(mark);
    state.kept.erase(state.kept.begin(), state.kept.begin() + from);
    for (auto& [item, at] : state.marks)
      at = at > from ? at - from : 0;
  }

  // Every way in which `target` comes into order now, with others before it.
  void extend(const State& state, Index target, std::vector<State>* out) {
    if (++steps_ > steps_max_ || !tried_.insert(state).second) return;
    if (state.has(target)) {
      out->push_back(state);
      return;
    }
    const Item& wanted = items_[target];
    if (wanted.change) out->push_back(apply(state, target));
    for (const Index index : pending_) {
      if (index != target && useful_before(state, index, wanted)) extend(apply(state, index), target, out);
    }
  }

  bool useful_before(const State& state, Index index, const Item& wanted) const {
    const Item& item = items_[index];
    if (!item.change || item.unread || state.has(index)) return false;  // unread ones go along in apply()
    if (item.value == 0) {
      // Zeroings that are alike: the one that has to end first goes first.
      return std::none_of(pending_.begin(), pending_.end(), [&](Index other) {
        return items_[other].change && items_[other].value == 0 && !state.has(other) &&
               items_[other].forced == item.forced &&
               std::pair(items_[other].end_ns, other) < std::pair(item.end_ns, index);
      });
    }
    if (!wanted.change && wanted.value == item.value) return true;
    // It would be overwritten at once: then nobody may yet want to read it in this epoch.
    const auto coming = reads_by_epoch_.find({epoch_, item.value});
    return coming == reads_by_epoch_.end() || coming->second == 0;
  }

  State apply(const State& before, Index index) {
    State state = before;
    // Changes that nobody reads fit in just before another one, where they hide nothing.
    for (const Index other : pending_) {
      if (other != index && items_[other].unread && !state.has(other)) change(state, other);
    }
    change(state, index);
    for (const Index other : pending_) {
      const Item& item = items_[other];
      if (!item.change && !item.flush && item.value == state.value && !state.has(other)) state.put(other);
    }
    return state;
  }

  void change(State& state, Index index) {
    const Item& item = items_[index];
    state.value = item.value;
    state.put(index);
    if (!tracking()) return;
    const Value kept = as_kept(item.value);
    if (kept != other_value || state.kept.back() != other_value) state.kept.push_back(kept);
    if (item.forced) state.marks.emplace_back(index, static_cast<uint32_t>(state.kept.size() - 1));
  }

  void power_cut() {
    const int64_t at_ns = cuts_[epoch_].at_ns;
    epoch_++;
    std::erase_if(pending_, [&](Index index) { return !items_[index].change || items_[index].end_ns <= at_ns; });
    std::vector<State> next;
    for (const State& state : states_) {
      steps_++;
      std::set<Value> survivors(state.kept.begin(), state.kept.end());
      size_t may_mix = state.kept.size();
      for (const Index index : pending_) {
        if (state.has(index)) continue;
        // In flight, and not needed to explain anything yet: it may have been the last.
        survivors.insert(items_[index].value);
        may_mix++;
      }
      if (torn_possible_ && may_mix > 1) survivors.insert(torn_value);
      for (const Value survivor : survivors) {
        State after;
        after.value = survivor;
        if (tracking()) after.kept = {as_kept(survivor)};
        // One that was in flight is sent again; when it is what survived, that was its effect.
        for (const Index index : pending_) {
          if (items_[index].value == survivor && survivor > 0) after.put(index);
        }
        next.push_back(std::move(after));
      }
    }
    put_states(std::move(next));
  }

  const Block& block_;
  const std::vector<PowerCut>& cuts_;
  const uint64_t steps_max_;
  const std::function<bool(const Op&)>& without_;
  std::vector<Item> items_;
  std::vector<Point> points_;
  std::map<std::pair<uint64_t, uint64_t>, Value> values_;
  std::map<Value, std::pair<size_t, size_t>> reads_;           // count, last epoch
  std::map<std::pair<size_t, Value>, size_t> reads_by_epoch_;  // that are still to begin
  Value initial_ = 0;
  bool torn_possible_ = false;
  size_t epoch_ = 0;
  uint64_t steps_ = 0;
  std::vector<Index> pending_;
  std::vector<State> states_;
  std::set<State> tried_;
};

}  // namespace

BlockJudgement search_order(const Block& block, uint64_t steps_max, const std::function<bool(const Op&)>& without) {
  return Search(block, steps_max, without).run();
}

}  // namespace basalt::check
