// SPDX-License-Identifier: Apache-2.0
#include "sim/data/stack_plan.h"

#include <algorithm>

#include "base/bytes.h"
#include "bdev/leg/leg_tail.h"
#include "bdev/lvol/format.h"
#include "bdev/raid/raid_parity.h"
#include "sim/data/stack.h"

namespace basalt::sim {
namespace {

constexpr uint64_t strip_bytes_max = 256 << 10;

struct RaidShape {
  uint32_t data_count;
  uint32_t parity_count;
};

// The log lies before the strips.
uint64_t raid_member_bytes(const LayerPlan& raid, uint32_t data_count) {
  using bdev::parity::page_bytes;
  const uint64_t members = data_count + raid.parity_count;
  const uint64_t columns_bytes =
      std::min(align_down(bdev::RaidParityBdev::band_memory_bytes / members, page_bytes), raid.strip_bytes);
  const uint64_t slot_pages = 1 + data_count * columns_bytes / page_bytes;
  const uint64_t log_end = (bdev::parity::log_first_page + raid.log_slot_count * slot_pages) * page_bytes;
  const uint64_t stripes = (raid.size_bytes + data_count * raid.strip_bytes - 1) / (data_count * raid.strip_bytes);
  return align_up(log_end, raid.strip_bytes) + stripes * raid.strip_bytes;
}

// What may still come below a layer.
struct Allowed {
  bool lvol = true;
  bool raid = true;
  bool whole_stripes = true;  // legs copy what nobody writes: their members must not lose it
};

class Draw {
 public:
  Draw(env::SimRandom& random, StackPlan& plan) : random_(random), plan_(plan) {}

  LayerPlan layer(uint64_t size_bytes, uint32_t depth, Allowed allowed) {
    LayerPlan made;
    made.size_bytes = size_bytes;
    made.id = next_id_++;
    const uint64_t pick = depth == 0 ? 0 : random_.below(13);
    if (pick >= 10 && allowed.raid && plan_.disk_count <= 2) {
      raid(made, depth, allowed);
    } else if (pick >= 7 && plan_.disk_count < disk_count_max - 1) {
      made.kind = LayerKind::leg;
      made.tails = random_.chance(0.7);
      const uint64_t member_bytes = size_bytes + (made.tails ? bdev::leg_tail::tail_bytes : 0);
      allowed.whole_stripes = false;
      below(made, 2 + (random_.chance(0.3) ? 1 : 0), member_bytes, depth, allowed);
    } else if (pick == 6 && plan_.disk_count < disk_count_max - 1) {
      made.kind = LayerKind::raid0;
      made.concat = made.id % 2 == 1;
      below(made, 2, size_bytes / 2, depth, allowed);
    } else if (pick >= 4 && allowed.lvol) {
      made.kind = LayerKind::lvol;
      // Room for its store's metadata, and to be copied to in full.
      allowed.lvol = false;
      below(made, 1, 2 * size_bytes, depth, allowed);
    } else if (pick == 3) {
      made.kind = LayerKind::fault;
      below(made, 1, size_bytes, depth, allowed);
    } else {
      made.kind = LayerKind::file;
      made.disk = plan_.disk_count++;
    }
    return made;
  }
  uint32_t next_id() const { return next_id_; }

 private:
  static constexpr uint32_t disk_count_max = 6;

  void raid(LayerPlan& made, uint32_t depth, Allowed allowed) {
    // Below a leg a raid may find all its members broken at once, and must be able to come up with any k of them.
    static constexpr RaidShape shapes[] = {{2, 1}, {3, 1}, {4, 2}, {2, 2}};
    const RaidShape shape = shapes[allowed.whole_stripes ? random_.below(4) : 0];
    made.kind = LayerKind::raid;
    made.parity_count = shape.parity_count;
    made.strip_bytes = allowed.whole_stripes && random_.chance(0.6) ? 4096 << random_.below(4) : strip_bytes_max;
    made.log_slot_count = static_cast<uint32_t>(2 + random_.below(6));
    allowed.raid = false;
    below(made, shape.data_count + shape.parity_count, raid_member_bytes(made, shape.data_count),
          random_.chance(0.7) ? 1 : std::min<uint32_t>(depth, 2), allowed);
  }

  void below(LayerPlan& made, uint64_t count, uint64_t size_bytes, uint32_t depth, const Allowed& allowed) {
    for (uint64_t i = 0; i < count; i++)
      made.below.push_back(layer(size_bytes, depth - 1, allowed));
  }
  env::SimRandom& random_;
  StackPlan& plan_;
  uint32_t next_id_ = 0;
};

// Over some of the layers, one that changes neither size nor content.
class Cover {
 public:
  Cover(const env::SimRandom& random, uint32_t first_id) : random_(random), next_id_(first_id) {}
  void some(LayerPlan& layer) {
    for (LayerPlan& below : layer.below)
      some(below);
    // Connections take most of a run's time.
    if (random_.chance(0.15) && remote_count_ < 2) {
      remote_count_++;
      cover(layer, LayerKind::remote);
    }
    if (random_.chance(0.12)) cover(layer, LayerKind::crypt);
  }

 private:
  void cover(LayerPlan& layer, LayerKind kind) {
    LayerPlan made;
    made.kind = kind;
    made.id = next_id_++;
    made.size_bytes = layer.size_bytes;
    made.below.push_back(std::move(layer));
    layer = std::move(made);
  }
  env::SimRandom random_;
  uint32_t next_id_;
  uint32_t remote_count_ = 0;
};

// Some lvols verify what they read. Where blocks may be garbage after a crash their tags may be, too.
void add_checksums(env::SimRandom random, StackPlan& plan) {
  if (plan.whole_stripes()) return;
  plan.pool_checksums = plan.pool && random.chance(0.5);
  const auto add = [&](const auto& self, LayerPlan& layer) -> void {
    layer.checksums = layer.kind == LayerKind::lvol && random.chance(0.5);
    for (LayerPlan& below : layer.below)
      self(self, below);
  };
  add(add, plan.top);
}

bool has_room_for_pool(const LayerPlan& device) {
  return bdev::lvs::Layout::make(device.bytes_at_first() / bdev::lvs::block_bytes, Stack::cluster_bytes).ok();
}

// Some raids have a disk more, which may take the place of a member; one on top may grow.
void add_spares(env::SimRandom random, StackPlan& plan, uint32_t first_id) {
  const auto add = [&](const auto& self, LayerPlan& layer) -> void {
    for (LayerPlan& below : layer.below)
      self(self, below);
    if (layer.kind != LayerKind::raid) return;
    if (random.chance(0.6)) {
      LayerPlan spare;
      spare.id = first_id++;
      spare.disk = plan.disk_count++;
      spare.size_bytes = layer.below.front().size_bytes;
      layer.spare.push_back(spare);
    }
    layer.grows = &layer == &plan.top && random.chance(0.5);
    if (plan.pool && !has_room_for_pool(layer)) layer.grows = false;
  };
  add(add, plan.top);
}

const char* kind_name(LayerKind kind) {
  static constexpr const char* names[] = {"file", "fault", "raid0", "leg", "lvol", "raid", "remote", "crypt"};
  return names[static_cast<size_t>(kind)];
}

std::string text_of(const LayerPlan& plan) {
  std::string text = kind_name(plan.kind);
  if (plan.tails) text += "+marks";
  if (plan.concat) text += "+concat";
  if (plan.checksums) text += "+checksums";
  if (plan.kind == LayerKind::raid) {
    text += std::to_string(plan.below.size() - plan.parity_count) + "+" + std::to_string(plan.parity_count) + "/" +
            std::to_string(plan.strip_bytes >> 10) + "k";
  }
  if (plan.below.empty()) return text;
  text += "(";
  for (const LayerPlan& below : plan.below)
    text += (&below == &plan.below.front() ? "" : ", ") + text_of(below);
  if (!plan.spare.empty()) text += "; spare";
  if (plan.grows) text += "; grows";
  return text + ")";
}

void collect(const LayerPlan& plan, LayerKind kind, std::vector<const LayerPlan*>& found) {
  if (plan.kind == kind) found.push_back(&plan);
  for (size_t i = 0; i < plan.device_count(); i++)
    collect(plan.device(i), kind, found);
}

std::vector<const LayerPlan*> all_of(const LayerPlan& plan, LayerKind kind) {
  std::vector<const LayerPlan*> found;
  collect(plan, kind, found);
  return found;
}

}  // namespace

std::string LayerPlan::name() const {
  return kind_name(kind) + std::to_string(id);
}

std::string StackPlan::to_string() const {
  return pool ? (pool_checksums ? "pool+checksums(" : "pool(") + text_of(top) + ")" : text_of(top);
}

bool StackPlan::whole_stripes() const {
  const auto raids = raids_of(top);
  return std::any_of(raids.begin(), raids.end(), [](const auto* raid) { return raid->strip_bytes < strip_bytes_max; });
}

bool StackPlan::encrypted() const {
  return !all_of(top, LayerKind::crypt).empty();
}

bool StackPlan::checksummed() const {
  const auto lvols = all_of(top, LayerKind::lvol);
  return pool_checksums || std::any_of(lvols.begin(), lvols.end(), [](const auto* lvol) { return lvol->checksums; });
}

StackPlan random_plan(env::SimRandom& random) {
  StackPlan plan;
  plan.pool = random.chance(0.6);
  // Small ones run out of space.
  const uint64_t top_bytes = plan.pool && random.chance(0.4) ? 2 << 20 : 4 << 20;
  Draw draw(random, plan);
  plan.top =
      draw.layer(top_bytes, static_cast<uint32_t>(random.chance(0.15) ? 0 : 1 + random.below(3)), {.lvol = !plan.pool});
  // Drawn apart, so that what is drawn after it does not change. Not tried yet where a parity raid is.
  if (raids_of(plan.top).empty()) Cover(random, draw.next_id()).some(plan.top);
  add_checksums(random, plan);
  add_spares(random, plan, draw.next_id());
  return plan;
}

InSyncSets all_in_sync(const StackPlan& plan) {
  InSyncSets sets;
  for (const LayerPlan* leg : legs_of(plan.top))
    sets[leg->id] = std::vector<bool>(leg->below.size(), true);
  return sets;
}

std::vector<VerifiedMember> verified_members_of(const LayerPlan& plan) {
  std::vector<VerifiedMember> found;
  const auto through = [](const LayerPlan* layer, std::initializer_list<LayerKind> kinds) {
    while (std::find(kinds.begin(), kinds.end(), layer->kind) != kinds.end())
      layer = &layer->below.front();
    return layer;
  };
  for (const LayerPlan* leg : legs_of(plan)) {
    for (const LayerPlan& member : leg->below) {
      const LayerPlan* lvol = through(&member, {LayerKind::remote, LayerKind::crypt, LayerKind::fault});
      if (lvol->kind != LayerKind::lvol || !lvol->checksums) continue;
      const LayerPlan* file = through(&lvol->below.front(), {LayerKind::fault});
      if (file->kind == LayerKind::file) found.push_back({lvol, file});
    }
  }
  return found;
}

std::vector<const LayerPlan*> legs_of(const LayerPlan& plan) {
  return all_of(plan, LayerKind::leg);
}
std::vector<const LayerPlan*> raids_of(const LayerPlan& plan) {
  return all_of(plan, LayerKind::raid);
}
std::vector<const LayerPlan*> files_of(const LayerPlan& plan) {
  return all_of(plan, LayerKind::file);
}

}  // namespace basalt::sim
