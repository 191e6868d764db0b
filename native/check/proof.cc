// SPDX-License-Identifier: Apache-2.0
#include "check/proof.h"

#include <algorithm>
#include <set>

#include "check/block_search.h"

namespace basalt::check {
namespace {

constexpr size_t tries_max = 4000;

// Whatever must be taken away together: a write goes with the reads that saw it.
using Group = std::vector<const Op*>;

std::vector<Group> groups_of(const Block& block, const Op& stuck) {
  const int64_t until_ns = stuck.completed_ns;
  std::map<const Op*, Group> writes;
  std::vector<Group> groups;
  for (const Event& event : block.events()) {
    if (event.invoked_ns > until_ns || event.op->status == OpStatus::fail) continue;
    const Event* write = event.is_read() ? block.write_of(event.value) : nullptr;
    if (event.op->type == OpType::write) write = &event;
    if (write != nullptr) {
      writes[write->op].push_back(event.op);
      if (event.is_read()) groups.push_back({event.op});
    } else {
      groups.push_back({event.op});
    }
  }
  for (auto& [write, group] : writes)
    groups.push_back(std::move(group));
  for (const Op* flush : block.facts().flushes) {
    if (!block.history().power_cuts.empty() && flush->invoked_ns <= until_ns) groups.push_back({flush});
  }
  return groups;
}

}  // namespace

Violation prove(const Block& block, const Op& stuck, uint64_t steps_max) {
  std::set<const Op*> gone;
  for (const Event& event : block.events()) {
    if (event.invoked_ns > stuck.completed_ns) gone.insert(event.op);
  }
  const auto still_wrong = [&](const std::set<const Op*>& without) {
    return search_order(block, steps_max, [&](const Op& op) { return without.contains(&op); }).judgement ==
           Judgement::wrong;
  };
  std::vector<Group> groups = groups_of(block, stuck);
  size_t tries = 0;
  for (size_t chunk = std::max<size_t>(1, groups.size() / 2); chunk > 0; chunk /= 2) {
    for (size_t at = 0; at < groups.size() && tries < tries_max;) {
      std::set<const Op*> without = gone;
      const size_t end = std::min(groups.size(), at + chunk);
      for (size_t i = at; i < end; i++)
        without.insert(groups[i].begin(), groups[i].end());
      tries++;
      if (still_wrong(without)) {
        gone = std::move(without);
        groups.erase(groups.begin() + static_cast<ptrdiff_t>(at), groups.begin() + static_cast<ptrdiff_t>(end));
      } else {
        at = end;
      }
    }
  }
  // What is left, and which rule it breaks.
  std::vector<const Op*> proof;
  const Op* last = nullptr;
  bool zero = false;
  for (const Event& event : block.events()) {
    if (gone.contains(event.op) || event.op->status == OpStatus::fail) continue;
    proof.push_back(event.op);
    if (!event.is_read()) continue;
    zero |= event.value.kind == BlockKind::zero;
    if (last == nullptr || event.op->completed_ns > last->completed_ns) last = event.op;
  }
  int64_t cut_ns = always_ns;
  for (const PowerCut& cut : block.history().power_cuts) {
    if (last != nullptr && cut.at_ns <= last->invoked_ns) cut_ns = cut.at_ns;
  }
  const bool over_a_cut = cut_ns != always_ns && std::any_of(proof.begin(), proof.end(),
                                                             [&](const Op* op) { return op->completed_ns <= cut_ns; });
  bool flushed = false;
  for (const Op* flush : block.facts().flushes) {
    if (gone.contains(flush) || flush->completed_ns > cut_ns) continue;
    flushed = true;
    proof.push_back(flush);
  }
  if (over_a_cut && flushed) return block.violation("R6", "a power cut took what a flush had covered", proof);
  if (over_a_cut) return block.violation("R5", "what was read after a power cut fits no value that it left", proof);
  if (zero) return block.violation("R8", "no zeroing explains the zeroes that were read", proof);
  return block.violation("R3", "no order of these operations explains what was read", proof);
}

}  // namespace basalt::check
