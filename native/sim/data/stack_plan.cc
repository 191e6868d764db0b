// SPDX-License-Identifier: Apache-2.0
#include "sim/data/stack_plan.h"

#include "bdev/leg/leg_tail.h"

namespace basalt::sim {
namespace {

constexpr uint64_t top_bytes = uint64_t{4} << 20;

class Draw {
 public:
  Draw(env::SimRandom& random, StackPlan& plan) : random_(random), plan_(plan) {}

  LayerPlan layer(uint64_t size_bytes, uint32_t depth, bool lvol_allowed) {
    LayerPlan made;
    made.size_bytes = size_bytes;
    made.id = next_id_++;
    const uint64_t pick = depth == 0 ? 0 : random_.below(10);
    if (pick >= 7 && plan_.disk_count < disk_count_max - 1) {
      made.kind = LayerKind::leg;
      made.tails = random_.chance(0.7);
      const uint64_t member_bytes = size_bytes + (made.tails ? bdev::leg_tail::tail_bytes : 0);
      below(made, 2 + (random_.chance(0.3) ? 1 : 0), member_bytes, depth, lvol_allowed);
    } else if (pick == 6 && plan_.disk_count < disk_count_max - 1) {
      made.kind = LayerKind::raid0;
      below(made, 2, size_bytes / 2, depth, lvol_allowed);
    } else if (pick >= 4 && lvol_allowed) {
      made.kind = LayerKind::lvol;
      // Room for its store's metadata, and to be copied to in full.
      below(made, 1, 2 * size_bytes, depth, false);
    } else if (pick == 3) {
      made.kind = LayerKind::fault;
      below(made, 1, size_bytes, depth, lvol_allowed);
    } else {
      made.kind = LayerKind::file;
      made.disk = plan_.disk_count++;
    }
    return made;
  }

 private:
  static constexpr uint32_t disk_count_max = 6;
  void below(LayerPlan& made, uint64_t count, uint64_t size_bytes, uint32_t depth, bool lvol_allowed) {
    for (uint64_t i = 0; i < count; i++)
      made.below.push_back(layer(size_bytes, depth - 1, lvol_allowed));
  }
  env::SimRandom& random_;
  StackPlan& plan_;
  uint32_t next_id_ = 0;
};

const char* kind_name(LayerKind kind) {
  static constexpr const char* names[] = {"file", "fault", "raid0", "leg", "lvol"};
  return names[static_cast<size_t>(kind)];
}

std::string text_of(const LayerPlan& plan) {
  std::string text = kind_name(plan.kind);
  if (plan.tails) text += "+marks";
  if (plan.below.empty()) return text;
  text += "(";
  for (const LayerPlan& below : plan.below)
    text += (&below == &plan.below.front() ? "" : ", ") + text_of(below);
  return text + ")";
}

void collect_legs(const LayerPlan& plan, std::vector<const LayerPlan*>& legs) {
  if (plan.kind == LayerKind::leg) legs.push_back(&plan);
  for (const LayerPlan& below : plan.below)
    collect_legs(below, legs);
}

void collect_disks(const LayerPlan& plan, std::vector<const LayerPlan*>& disks) {
  if (plan.kind == LayerKind::file) disks.push_back(&plan);
  for (const LayerPlan& below : plan.below)
    collect_disks(below, disks);
}

}  // namespace

std::string LayerPlan::name() const {
  return kind_name(kind) + std::to_string(id);
}

std::string StackPlan::to_string() const {
  return pool ? "pool(" + text_of(top) + ")" : text_of(top);
}

StackPlan random_plan(env::SimRandom& random) {
  StackPlan plan;
  plan.pool = random.chance(0.6);
  plan.top = Draw(random, plan).layer(top_bytes, static_cast<uint32_t>(random.below(4)), !plan.pool);
  return plan;
}

InSyncSets all_in_sync(const StackPlan& plan) {
  InSyncSets sets;
  for (const LayerPlan* leg : legs_of(plan.top))
    sets[leg->id] = std::vector<bool>(leg->below.size(), true);
  return sets;
}

std::vector<const LayerPlan*> legs_of(const LayerPlan& plan) {
  std::vector<const LayerPlan*> legs;
  collect_legs(plan, legs);
  return legs;
}

std::vector<const LayerPlan*> files_of(const LayerPlan& plan) {
  std::vector<const LayerPlan*> disks;
  collect_disks(plan, disks);
  return disks;
}

}  // namespace basalt::sim
