// SPDX-License-Identifier: Apache-2.0
#include "sim/shrink.h"

#include <algorithm>
#include <numeric>

namespace basalt::sim {
namespace {

using List = std::optional<std::vector<uint32_t>> Reduction::*;
using Number = std::optional<uint64_t> Reduction::*;

class Shrinker {
 public:
  Shrinker(const RunOptions& options, const std::function<bool(const RunOptions&)>& fails, size_t tries_max)
      : best_(options), fails_(fails), tries_left_(tries_max) {}

  RunOptions run(const ShrinkSubject& subject) {
    begin(&Reduction::steps, 0, subject.step_count);
    begin(&Reduction::clients, 1, subject.client_count);
    // Until nothing more can be left out: one omission may allow another.
    for (bool smaller = true; smaller && tries_left_ > 0;) {
      const Reduction before = best_.reduction;
      thin_out(&Reduction::steps);
      thin_out(&Reduction::clients);
      for (const Number field : {&Reduction::hosts, &Reduction::legs, &Reduction::controllers, &Reduction::copies})
        lower(field, {1, 2});
      lower(&Reduction::leg_blocks, {32});
      lower(&Reduction::ops_max, {1, 3, 10, 30, 100, 300});
      if (subject.options.suite == Suite::cluster_ts) lower(&Reduction::pause_ms_max, {1, 10, 100, 500});
      smaller = best_.reduction != before;
    }
    return best_;
  }

 private:
  void begin(List field, uint32_t first, uint32_t count) {
    auto& list = best_.reduction.*field;
    if (list || count == 0) return;
    list.emplace(count);
    std::iota(list->begin(), list->end(), first);
  }

  bool try_it(const RunOptions& candidate) {
    if (tries_left_ == 0) return false;
    tries_left_--;
    if (!fails_(candidate)) return false;
    best_ = candidate;
    return true;
  }

  // Halves, quarters, and so on down to single ones; the last first, since nothing follows them.
  void thin_out(List field) {
    if (!(best_.reduction.*field)) return;
    for (size_t chunk = (best_.reduction.*field)->size(); chunk > 0; chunk /= 2) {
      size_t end = (best_.reduction.*field)->size();
      while (end > 0) {
        const size_t begin = end > chunk ? end - chunk : 0;
        RunOptions candidate = best_;
        auto& list = *(candidate.reduction.*field);
        list.erase(list.begin() + static_cast<ptrdiff_t>(begin), list.begin() + static_cast<ptrdiff_t>(end));
        try_it(candidate);
        end = begin;
      }
    }
  }

  void lower(Number field, std::initializer_list<uint64_t> values) {
    for (const uint64_t value : values) {
      const auto& now = best_.reduction.*field;
      if (now && *now <= value) return;
      RunOptions candidate = best_;
      candidate.reduction.*field = value;
      if (try_it(candidate)) return;
    }
  }

  RunOptions best_;
  const std::function<bool(const RunOptions&)>& fails_;
  size_t tries_left_;
};

}  // namespace

RunOptions shrink(const ShrinkSubject& subject, const std::function<bool(const RunOptions&)>& fails, size_t tries_max) {
  return Shrinker(subject.options, fails, tries_max).run(subject);
}

}  // namespace basalt::sim
