// SPDX-License-Identifier: Apache-2.0
#include "check/checker.h"

#include <algorithm>

#include "check/atomic_units.h"
#include "check/block_rules.h"
#include "check/block_search.h"
#include "check/proof.h"
#include "check/snapshots.h"

namespace basalt::check {
namespace {

std::optional<Violation> check_block(const Block& block, const CheckOptions& options, uint64_t* undecided_count) {
  const BlockJudgement found = search_order(block, options.search_steps_max);
  if (found.judgement == Judgement::right) return std::nullopt;
  if (auto bad = check_rules(block)) return bad;
  if (found.judgement == Judgement::undecided) {
    ++*undecided_count;
    return std::nullopt;
  }
  return prove(block, *found.stuck, options.search_steps_max);
}

std::optional<Violation> check_replicas(const History& history) {
  std::map<std::pair<uint64_t, uint64_t>, std::pair<const ReplicaImage*, BlockValue>> first;
  for (const ReplicaImage& image : history.replicas) {
    for (size_t i = 0; i < image.values.size(); i++) {
      const uint64_t block = image.first_block + i;
      const auto& [other, value] =
          first.try_emplace({image.leg, block}, std::pair(&image, image.values[i])).first->second;
      if (value == image.values[i]) continue;
      return Violation{"R10",
                       "R10: leg " + std::to_string(image.leg) + " block " + std::to_string(block) + ": " +
                           other->name + " holds " + value.to_string() + ", " + image.name + " holds " +
                           image.values[i].to_string(),
                       block};
    }
  }
  return std::nullopt;
}

std::optional<Violation> check_liveness(const History& history) {
  if (history.healed_ns == never_ns) return std::nullopt;
  const std::string healed = " s after the last fault at " + seconds_text(history.healed_ns);
  for (const Op& op : history.ops) {
    const int64_t due = std::max(op.invoked_ns, history.healed_ns) + history.bound_ns;
    if (op.completed_ns <= due) continue;
    return Violation{"R11",
                     "R11: not completed " + seconds_text(history.bound_ns) + healed + "\n  " + describe(history, op),
                     op.lba};
  }
  if (history.clean_bound_ns != never_ns &&
      (history.clean_ns == never_ns || history.clean_ns - history.healed_ns > history.clean_bound_ns)) {
    return Violation{"R11", "R11: not redundant again " + seconds_text(history.clean_bound_ns) + healed, 0};
  }
  return std::nullopt;
}

std::optional<Violation> check_all(BlockSet& blocks, const CheckOptions& options, Verdict* verdict) {
  for (const auto& [place, block] : blocks.blocks) {
    if (auto bad = check_shape(block)) return bad;
  }
  if (auto bad = resolve_snapshots(blocks)) return bad;
  for (const auto& [place, block] : blocks.blocks) {
    if (blocks.history.devices[place.device].kind == DeviceKind::snapshot) continue;
    if (auto bad = check_provenance(block)) return bad;
    if (auto bad = check_block(block, options, &verdict->undecided_count)) return bad;
    verdict->block_count++;
  }
  if (auto bad = check_atomic_units(blocks)) return bad;
  if (auto bad = check_cuts(blocks)) return bad;
  if (auto bad = check_replicas(blocks.history)) return bad;
  return check_liveness(blocks.history);
}

}  // namespace

Verdict check(const History& history, const CheckOptions& options) {
  Verdict verdict;
  BlockSet blocks(history);
  verdict.violation = check_all(blocks, options, &verdict);
  return verdict;
}

std::optional<Violation> check_history(const History& history) {
  return check(history).violation;
}

}  // namespace basalt::check
