// SPDX-License-Identifier: Apache-2.0
// The orchestrator's part: members of legs and raids are lost, leave the recorded set, and come back.
#include <algorithm>

#include "sim/data/block_oracle.h"
#include "sim/data/stack.h"

namespace basalt::sim {
namespace {

constexpr Duration swap_min = microseconds(50);
constexpr Duration swap_max = milliseconds(2);
constexpr uint64_t block_bytes = bdev::lvs::block_bytes;

size_t index_of(const LayerPlan& leg, const std::string& member) {
  for (size_t i = 0; i < leg.below.size(); i++) {
    if (leg.below[i].name() == member) return i;
  }
  BASALT_ASSERT(false);
}

}  // namespace

bdev::RaidParityBdev* Stack::raid(const LayerPlan& plan) const {
  const auto found = bdevs_.find(plan.id);
  return found == bdevs_.end() ? nullptr : static_cast<bdev::RaidParityBdev*>(found->second.get());
}
bool Stack::raids_degraded() const {
  const auto raids = raids_of(plan_.top);
  return std::any_of(raids.begin(), raids.end(), [this](const auto* plan) {
    const bdev::RaidParityBdev* found = raid(*plan);
    return found != nullptr && found->degraded();
  });
}
bool Stack::may_lack(uint64_t block) const {
  if (found_missing_.empty() || !plan_.whole_stripes()) return false;
  if (plan_.pool || plan_.top.kind != LayerKind::raid) return true;
  const bdev::ParityLayout& layout = raid(plan_.top)->layout();
  const uint64_t at = block * oracle_block_bytes / layout.block_bytes;
  const auto role = static_cast<uint32_t>(at % layout.stripe_blocks() / layout.strip_blocks);
  const uint32_t place = layout.member_of(at / layout.stripe_blocks(), role);
  return (found_missing_.at(plan_.top.id) >> place & 1) != 0;
}
bool Stack::raids_resyncing() const {
  const auto raids = raids_of(plan_.top);
  return std::any_of(raids.begin(), raids.end(), [this](const auto* plan) {
    const bdev::RaidParityBdev* found = raid(*plan);
    return found != nullptr && found->resyncing();
  });
}
bool Stack::legs_equal() {
  const auto legs = legs_of(plan_.top);
  return std::all_of(legs.begin(), legs.end(), [this](const auto* plan) { return leg(*plan).equal(); });
}
bool Stack::absent(const LayerPlan& member) const {
  return std::find(options_.absent.begin(), options_.absent.end(), member.id) != options_.absent.end();
}
bool Stack::is_lost(const LayerPlan* parent, size_t member) const {
  return std::any_of(lost_.begin(), lost_.end(),
                     [&](const Lost& lost) { return lost.parent == parent && lost.member == member; });
}

bool Stack::raids_exchanging() const {
  const auto raids = raids_of(plan_.top);
  return std::any_of(raids.begin(), raids.end(), [this](const auto* plan) {
    const bdev::RaidParityBdev* found = raid(*plan);
    return found != nullptr && found->has_twin();
  });
}

bdev::RaidMemberState Stack::state_of(const LayerPlan& plan, size_t device) const {
  const bdev::RaidParityBdev* found = raid(plan);
  for (uint32_t seat = 0; found != nullptr && seat < found->seat_count(); seat++) {
    const bdev::RaidMemberInfo info = found->member(seat);
    if (info.name == plan.device(device).name()) return info.state;
  }
  return bdev::RaidMemberState::missing;
}

// Whose places nobody has: any device that is of none may have them.
void Stack::find_lost(const LayerPlan* plan) {
  const bdev::RaidParityBdev& found = *raid(*plan);
  size_t missing = 0;
  for (uint32_t place = 0; place < found.member_count(); place++)
    missing += found.member_at(place).state == bdev::RaidMemberState::missing ? 1 : 0;
  for (size_t i = 0; i < plan->device_count() && missing > 0; i++) {
    if (state_of(*plan, i) != bdev::RaidMemberState::missing) continue;
    lost_.push_back({plan, i});
    missing--;
  }
}

// Who serves is copied to a device that is of no place.
bool Stack::exchange_member(env::SimRandom& random) {
  if (returning_ || !lost_.empty() || spoiled() || raids_degraded() || raids_exchanging()) return false;
  for (const LayerPlan* plan : raids_of(plan_.top)) {
    for (size_t i = 0; i < plan->device_count() && raid(*plan) != nullptr; i++) {
      if (state_of(*plan, i) != bdev::RaidMemberState::missing || !bdevs_.contains(plan->device(i).id)) continue;
      if (raid(*plan)->uses(*bdevs_.at(plan->device(i).id))) continue;
      std::vector<size_t> members;
      for (size_t j = 0; j < plan->device_count(); j++)
        if (state_of(*plan, j) == bdev::RaidMemberState::in_sync) members.push_back(j);
      const LayerPlan& of = plan->device(members[random.below(members.size())]);
      const bdev::Handle handle(*bdevs_.at(plan->device(i).id), reactor_);
      return raid(*plan)->add_twin(*bdevs_.at(of.id), handle).ok();
    }
  }
  return false;
}

bool Stack::grow_raid() {
  if (!plan_.top.grows || raid(plan_.top) == nullptr || raids_degraded() || raids_exchanging()) return false;
  const auto growing = [](bdev::RaidParityBdev& raid) -> Task<void> {
    auto grow = raid.grow(raid.count_blocks_max());
    (void)(co_await grow).ok();  // a member that fails meanwhile stops it
  };
  spawn(growing(*raid(plan_.top)));
  return true;
}

// How many more it can lose.
size_t Stack::spare_count(const LayerPlan& plan) const {
  const bdev::RaidParityBdev* found = raid(plan);
  if (found == nullptr) return 0;
  const size_t data_count = plan.below.size() - plan.parity_count;
  size_t usable = 0;
  for (size_t i = 0; i < plan.device_count(); i++)
    usable += state_of(plan, i) == bdev::RaidMemberState::in_sync && !is_lost(&plan, i) ? 1 : 0;
  return usable > data_count ? usable - data_count : 0;
}

std::vector<uint32_t> Stack::absent_members(env::SimRandom& random) const {
  std::vector<uint32_t> absent = options_.absent;
  const auto raids = raids_of(plan_.top);
  if (raids.empty()) return absent;
  const LayerPlan& plan = *raids[random.below(raids.size())];
  // Those that are gone at once could be a newer set, unless they are too few for one.
  const auto gone = static_cast<size_t>(std::count_if(plan.below.begin(), plan.below.end(),
                                                      [&](const LayerPlan& member) { return this->absent(member); }));
  const size_t data_count = plan.below.size() - plan.parity_count;
  const size_t unheard_max = data_count - 1 > gone ? data_count - 1 - gone : 0;
  for (size_t left = random.below(std::min(spare_count(plan), unheard_max) + 1); left > 0;) {
    const size_t member = random.below(plan.device_count());
    const uint32_t id = plan.device(member).id;
    const bool there = state_of(plan, member) == bdev::RaidMemberState::in_sync;
    if (!there || is_lost(&plan, member) || std::find(absent.begin(), absent.end(), id) != absent.end()) continue;
    absent.push_back(id);
    left--;
  }
  return absent;
}

void Stack::hurt(const LayerPlan& plan, bool hurt) {
  for (const LayerPlan* file : files_of(plan)) {
    env::SimDisk& broken = disk(file->disk);
    broken.fail_reads = broken.fail_writes = broken.fail_flushes = hurt;
  }
}

bool Stack::spoiled() {
  for (uint32_t i = 0; i < disk_count(); i++) {
    if (disk(i).unreadable_count() > 0) return true;
  }
  return false;
}

// A leg uses of its members what the smallest one has.
bool Stack::data_readable() {
  for (const LayerPlan* plan : legs_of(plan_.top)) {
    const bdev::BdevInfo& info = leg(*plan).info();
    for (const LayerPlan& member : plan->below) {
      if (member.kind != LayerKind::file) continue;
      if (!disk(member.disk).readable(0, info.count_blocks * info.block_size_bytes)) return false;
    }
  }
  for (const LayerPlan* plan : raids_of(plan_.top)) {
    const bdev::ParityLayout& layout = raid(*plan)->layout();
    for (const LayerPlan& member : plan->below) {
      if (member.kind != LayerKind::file) continue;
      if (!disk(member.disk).readable(layout.first_block * layout.block_bytes, layout.strip_count * plan->strip_bytes))
        return false;
    }
  }
  return true;
}

// One disk at a time, and in its data alone: what is unreadable of a store's metadata or a superblock takes the member.
bool Stack::spoil_sectors(env::SimRandom& random) {
  if (!lost_.empty() || spoiled() || raids_resyncing() || raids_degraded() || raids_exchanging()) return false;
  struct Choice {
    const LayerPlan* file;
    uint64_t first_byte;
    uint64_t end_byte;
  };
  std::vector<Choice> choices;
  for (const LayerPlan* parent : legs_of(plan_.top)) {
    for (const LayerPlan& member : parent->below)
      if (member.kind == LayerKind::file) choices.push_back({&member, 0, parent->size_bytes});
  }
  for (const LayerPlan* parent : raids_of(plan_.top)) {
    if (raid(*parent) == nullptr) continue;
    const bdev::ParityLayout& layout = raid(*parent)->layout();
    const uint64_t first_byte = layout.first_block * layout.block_bytes;
    for (const LayerPlan& member : parent->below) {
      if (member.kind == LayerKind::file)
        choices.push_back({&member, first_byte, first_byte + layout.strip_count * parent->strip_bytes});
    }
  }
  if (choices.empty()) return false;
  const Choice& choice = choices[random.below(choices.size())];
  constexpr uint64_t length_max_bytes = 32 << 10;
  const uint64_t sectors = (choice.end_byte - choice.first_byte - length_max_bytes) / env::SimDisk::sector_bytes;
  const uint64_t at = choice.first_byte + random.below(sectors) * env::SimDisk::sector_bytes;
  disk(choice.file->disk).make_unreadable(at, env::SimDisk::sector_bytes << random.below(7));
  return true;
}

void Stack::misdirect_writes(const VerifiedMember& member) {
  env::SimDisk& liar = disk(member.file->disk);
  const auto layout = bdev::lvs::Layout::make(liar.size_bytes() / block_bytes, cluster_bytes);
  BASALT_ASSERT(layout.ok());
  liar.misdirect_first_byte = layout->data_first_block * block_bytes;
  liar.misdirect_end_byte = layout->cluster_block(layout->cluster_count) * block_bytes;
  liar.misdirect_count_max = 6;
  liar.misdirect_write_chance = 0.03;
  liar_ = member.file;
  liar.misdirect_nowhere_chance = 0.3;
}

// Those below first: what they read of their members is right then. Their sum.
Task<Result<bdev::ScrubInfo>> Stack::scrub_all(bool repair) {
  bdev::ScrubInfo sum;
  const auto add = [&sum](const bdev::ScrubInfo& one) {
    sum.different_blocks += one.different_blocks;
    sum.unreadable_blocks += one.unreadable_blocks;
    sum.repaired_blocks += one.repaired_blocks;
  };
  const auto raids = raids_of(plan_.top);
  for (auto plan = raids.rbegin(); plan != raids.rend(); ++plan) {
    auto scrubbed = co_await raid(**plan)->scrub({.repair = repair});
    if (!scrubbed) co_return std::move(scrubbed).error();
    add(*scrubbed);
  }
  const auto legs = legs_of(plan_.top);
  for (auto plan = legs.rbegin(); plan != legs.rend(); ++plan) {
    bdev::LegBdev& mirror = leg(**plan);
    auto begun = mirror.start_scrub({.repair = repair});
    if (!begun) co_return std::move(begun).error();
    while (mirror.scrub().state == bdev::ScrubState::running)
      co_await sleep_for(reactor_, milliseconds(1));
    if (mirror.scrub().state != bdev::ScrubState::finished) co_return Error{Errc::busy, "the scrub was stopped"};
    add(mirror.scrub());
  }
  co_return sum;
}

Stack::Scrubbed Stack::scrub(bool mends) {
  const auto text = [](const bdev::ScrubInfo& info) {
    return std::to_string(info.different_blocks) + " blocks that differ and " + std::to_string(info.unreadable_blocks) +
           " that cannot be read";
  };
  Scrubbed out;
  auto first = run(scrub_all(mends));
  if (!first->ok()) return {first->error().message, 0};
  out.found_blocks = (*first)->different_blocks + (*first)->unreadable_blocks;
  if (out.found_blocks > 0 && (*first)->repaired_blocks == 0)
    out.wrong = "a scrub found " + text(**first) + ", and rewrote none";
  auto second = run(scrub_all(false));
  if (!second->ok()) return {second->error().message, out.found_blocks};
  if ((*second)->different_blocks + (*second)->unreadable_blocks > 0) out.wrong = "a scrub left " + text(**second);
  if (out.wrong.empty() && !data_readable()) out.wrong = "a scrub left sectors that cannot be read";
  return out;
}

uint64_t Stack::mismatch_count(const VerifiedMember& member) const {
  const auto found = stores_.find(member.lvol->id);
  return found == stores_.end() ? 0 : found->second->stats().checksum_mismatch_count;
}

// A member of a leg with legs of its own stays: their last members would never be given up.
bool Stack::lose_member(env::SimRandom& random) {
  if (returning_ || spoiled()) return false;
  std::vector<Lost> choices;
  for (const LayerPlan* plan : legs_of(plan_.top)) {
    for (size_t i = 0; i < plan->below.size() && lost_.empty(); i++) {
      if (legs_of(plan->below[i]).empty()) choices.push_back({plan, i});
    }
  }
  for (const LayerPlan* plan : raids_of(plan_.top)) {
    const bool alone = std::all_of(lost_.begin(), lost_.end(), [&](const Lost& lost) { return lost.parent == plan; });
    if (!alone || spare_count(*plan) == 0) continue;
    for (size_t i = 0; i < plan->device_count(); i++) {
      if (state_of(*plan, i) == bdev::RaidMemberState::missing) continue;
      if (legs_of(plan->device(i)).empty() && !is_lost(plan, i)) choices.push_back({plan, i});
    }
  }
  if (choices.empty()) return false;
  lost_.push_back(choices[random.below(choices.size())]);
  hurt(lost_.back().parent->device(lost_.back().member), true);
  return true;
}

// Recorded first, then said: as the committed swap that the leg waits for.
void Stack::member_failed(const LayerPlan* plan, const std::string& member) {
  const size_t index = index_of(*plan, member);
  if (!is_lost(plan, index)) {
    // What was rewritten there could not be read again.
    const auto files = files_of(plan->below[index]);
    BASALT_ASSERT(std::find(files.begin(), files.end(), liar_) != files.end());
    lost_.push_back({plan, index});
  }
  const auto delay = static_cast<int64_t>(world_.random().below(static_cast<uint64_t>(swap_max.ns)));
  world_.at(world_.now() + swap_min + nanoseconds(delay), [this, plan, member, index] {
    in_sync_.at(plan->id)[index] = false;
    world_.at(world_.now() + swap_min, [this, plan, member] { BASALT_ASSERT(leg(*plan).remove_member(member).ok()); });
  });
}

bool Stack::return_member() {
  if (lost_.empty() || returning_) return false;
  returning_ = true;
  const auto [parent, member] = lost_.back();
  const std::string name = parent->device(member).name();
  // Its failures may have gone unnoticed; what it missed is not known.
  if (parent->kind == LayerKind::raid) {
    raid(*parent)->member_lost(name);
  } else if (in_sync_.at(parent->id)[member]) {
    leg(*parent).member_lost(name);
  }
  spawn(bring_back(parent, member));
  return true;
}

Task<void> Stack::bring_back(const LayerPlan* parent, size_t member) {
  const LayerPlan* plan = &parent->device(member);
  const bool of_raid = parent->kind == LayerKind::raid;
  const auto in_use = [&] {
    const auto found = bdevs_.find(plan->id);
    if (of_raid) return found != bdevs_.end() && raid(*parent)->uses(*found->second);
    return in_sync_.at(parent->id)[member] || (found != bdevs_.end() && leg(*parent).uses(*found->second));
  };
  while (in_use())
    co_await sleep_for(reactor_, milliseconds(1));
  if (of_raid) co_await raid(*parent)->drained();
  auto closing = close_layer(plan);
  (void)(co_await closing).ok();  // its stores may have failed
  hurt(*plan, false);
  auto opening = open_layer(plan, false);
  const Outcome opened = co_await opening;
  BASALT_ASSERT(opened.ok());
  const bdev::Handle handle(*bdevs_.at(plan->id), reactor_);
  if (!of_raid) {
    BASALT_ASSERT(leg(*parent).add_member(handle).ok());
    co_return;
  }
  bdev::RaidParityBdev& owner = *raid(*parent);
  // Another one has its place.
  if (owner.free_place() == owner.member_count()) co_return member_back(parent, member);
  auto adding = owner.add_member(handle);
  const Outcome added = co_await adding;
  BASALT_ASSERT(added.ok());
}

void Stack::member_copied(const LayerPlan* plan, const std::string& member) {
  world_.at(world_.now() + swap_min, [this, plan, member] {
    in_sync_.at(plan->id)[index_of(*plan, member)] = true;
    world_.at(world_.now() + swap_min, [this, plan, member] {
      BASALT_ASSERT(leg(*plan).commit_member(member).ok());
      member_back(plan, index_of(*plan, member));
    });
  });
}

void Stack::member_back(const LayerPlan* parent, size_t member) {
  std::erase_if(lost_, [&](const Lost& lost) { return lost.parent == parent && lost.member == member; });
  returning_ = false;
}

}  // namespace basalt::sim
