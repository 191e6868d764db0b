// SPDX-License-Identifier: Apache-2.0
#include "sim/data/stack.h"

#include <cstdio>

#include "bdev/fault/fault.h"
#include "bdev/file/file.h"
#include "bdev/raid/raid0.h"

namespace basalt::sim {
namespace {

env::SimKnobs knobs() {
  env::SimKnobs knobs;
  knobs.disk_delay_max = microseconds(300);
  return knobs;
}
constexpr uint64_t strip_bytes = 16 << 10;
// Small and soon cleared, so that marks come and go within a run.
constexpr uint64_t mark_region_bytes = 64 << 10;
constexpr Duration mark_rest = microseconds(600);
constexpr char inner_lvol[] = "inner";
constexpr size_t atomic_bytes = 4096;

}  // namespace

Stack::Stack(const Options& options, const StackPlan& plan, const InSyncSets& in_sync, const DiskImages& images,
             Arena& arena)
    : options_(options),
      plan_(plan),
      fresh_(images.empty()),
      in_sync_(in_sync),
      world_(options.seed, knobs()),
      node_(world_.add_node("m")),
      reactor_(node_, arena, {}) {
  BASALT_ASSERT(reactor_.init().ok());
  loop_ = node_.start(reactor_, {});
  for (const LayerPlan* file : files_of(plan.top)) {
    // Encrypted, what is left of a torn first write is noise beside it, not zeroes (decision 009).
    if (plan.encrypted()) disk(file->disk).atomic_bytes = atomic_bytes;
    if (fresh_) {
      disk(file->disk).resize(file->size_bytes);
    } else {
      disk(file->disk).load(images[file->disk]);
    }
  }
  // One member at a time is out, so at most one set lacks one.
  for (const LayerPlan* leg : legs_of(plan.top)) {
    for (size_t i = 0; i < leg->below.size(); i++) {
      if (!in_sync_.at(leg->id)[i]) lost_.push_back({leg, i});
    }
  }
}

Stack::~Stack() = default;

void Stack::hangs() const {
  std::fprintf(stderr, "something does not end in %s\n", plan_.to_string().c_str());
  BASALT_ASSERT(false);
}

// ---- bringing up ---------------------------------------------------------------------------------------------------

Outcome Stack::open(bool all_dirty) {
  all_dirty_ = all_dirty;
  Outcome opened = *run(open_all());
  if (opened) return opened;
  // What was half made ends first, and is taken down again.
  world_.run_for(seconds(1));
  (void)run(close_all())->ok();
  return opened;
}

Task<Outcome> Stack::open_all() {
  auto opening = open_layer(&plan_.top, fresh_);
  Outcome opened = co_await opening;
  if (!opened || !plan_.pool) co_return opened;
  const bdev::Handle base(top(), reactor_);
  bdev::LvStoreOptions options;
  options.name = "pool";
  options.cluster_bytes = cluster_bytes;
  options.clear = world_.random().chance(0.5);
  auto loading = fresh_ ? bdev::LvStore::create(reactor_, base, options) : bdev::LvStore::load(reactor_, base);
  auto loaded = co_await loading;
  if (!loaded) co_return std::move(loaded).error();
  pool_ = std::move(loaded).value();
  pool_->plant(options_.lvol_bugs);
  co_return success();
}

Task<Outcome> Stack::open_layer(const LayerPlan* plan, bool made) {
  std::vector<bdev::Handle> below;
  for (size_t i = 0; i < plan->below.size(); i++) {
    if (plan->kind == LayerKind::leg && !in_sync_.at(plan->id)[i]) continue;
    if (plan->kind == LayerKind::raid && absent(plan->below[i])) continue;
    auto opening = open_layer(&plan->below[i], made);
    Outcome opened = co_await opening;
    if (!opened) co_return opened;
    below.emplace_back(*bdevs_.at(plan->below[i].id), reactor_);
  }
  for (const LayerPlan& spare : plan->spare) {
    if (absent(spare)) continue;
    auto opening = open_layer(&spare, made);
    Outcome opened = co_await opening;
    if (!opened) co_return opened;
    const bdev::Handle handle(*bdevs_.at(spare.id), reactor_);
    bool carries = false;
    if (!made) carries = co_await bdev::RaidParityBdev::carries(handle);
    if (carries) below.push_back(handle);
  }
  switch (plan->kind) {
    case LayerKind::file: {
      bdev::FileBdevOptions options;
      options.name = plan->name();
      options.path = disk_path(plan->disk);
      auto opened = bdev::FileBdev::open(reactor_, options);
      if (!opened) co_return std::move(opened).error();
      bdevs_[plan->id] = std::move(opened).value();
      co_return success();
    }
    case LayerKind::fault:
      bdevs_[plan->id] = std::make_unique<bdev::FaultBdev>(reactor_, plan->name(), Uuid{}, below.front());
      co_return success();
    case LayerKind::raid0: {
      auto opened = bdev::Raid0Bdev::create(reactor_, {plan->name(), {}, strip_bytes, plan->concat}, std::move(below));
      if (!opened) co_return std::move(opened).error();
      bdevs_[plan->id] = std::move(opened).value();
      co_return success();
    }
    case LayerKind::leg:
      co_return open_leg(plan, below);
    case LayerKind::raid: {
      auto opening = open_raid(plan, std::move(below), made);
      Outcome opened = co_await opening;
      co_return opened;
    }
    case LayerKind::lvol: {
      auto opening = open_lvol(plan, below.front(), made);
      Outcome opened = co_await opening;
      co_return opened;
    }
    case LayerKind::remote: {
      auto opening = open_remote(plan, bdevs_.at(plan->below.front().id).get());
      Outcome opened = co_await opening;
      co_return opened;
    }
    case LayerKind::crypt:
      co_return open_crypt(plan, below.front());
  }
  BASALT_ASSERT(false);
}

// An lvol has its store to itself. What others see is called after the layer, as a leg tells its members by name.
Task<Outcome> Stack::open_lvol(const LayerPlan* plan, bdev::Handle base, bool made) {
  bdev::LvStoreOptions options;
  options.name = plan->name();
  options.cluster_bytes = cluster_bytes;
  options.clear = world_.random().chance(0.5);
  auto loading = made ? bdev::LvStore::create(reactor_, base, options) : bdev::LvStore::load(reactor_, base);
  auto loaded = co_await loading;
  if (!loaded) co_return std::move(loaded).error();
  bdev::LvStore& store = *(stores_[plan->id] = std::move(loaded).value());
  store.plant(options_.lvol_bugs);
  if (made) {
    bdev::LvolOptions lvol_options;
    lvol_options.name = inner_lvol;
    lvol_options.size_bytes = plan->size_bytes;
    lvol_options.checksums = plan->checksums;
    auto creating = store.create_lvol(lvol_options);
    auto created = co_await creating;
    if (!created) co_return std::move(created).error();
  }
  bdev::Lvol* lvol = store.find(std::string(inner_lvol));
  if (lvol == nullptr) co_return Error{Errc::not_found, plan->name() + ": its lvol is gone"};
  bdevs_[plan->id] = std::make_unique<bdev::FaultBdev>(reactor_, plan->name(), Uuid{}, bdev::Handle(*lvol, reactor_));
  co_return success();
}

Outcome Stack::open_leg(const LayerPlan* plan, const std::vector<bdev::Handle>& below) {
  bdev::LegOptions options;
  options.name = plan->name();
  options.epoch = options_.epoch;
  options.all_dirty = all_dirty_;
  options.planted = options_.leg_bugs;
  if (plan->tails) {
    options.count_blocks = plan->size_bytes / below.front().info().block_size_bytes;
    options.identity = plan->name();
    for (const LayerPlan& member : plan->below)
      options.replicas.push_back(member.name());
    options.mark_region_bytes_min = mark_region_bytes;
    options.mark_rest = mark_rest;
  }
  bdev::LegEvents events;
  events.member_failed = [this, plan](const std::string& member, const std::string&) { member_failed(plan, member); };
  events.member_copied = [this, plan](const bdev::LegMemberInfo& member) { member_copied(plan, member.name); };
  std::vector<bdev::LegMember> members(below.begin(), below.end());
  auto opened = bdev::LegBdev::create(reactor_, options, std::move(members), std::move(events));
  if (!opened) return std::move(opened).error();
  bdevs_[plan->id] = std::move(opened).value();
  return success();
}

// Members are given in the plan's order when it is made, and find their places by themselves later.
Task<Outcome> Stack::open_raid(const LayerPlan* plan, std::vector<bdev::Handle> below, bool made) {
  bdev::RaidParityEvents events;
  events.member_rebuilt = [this, plan](const std::string& member) {
    for (size_t i = 0; i < plan->device_count(); i++) {
      // Others are rebuilt as well, while one is on its way back.
      if (plan->device(i).name() == member && returning_ && is_lost(plan, i)) member_back(plan, i);
    }
  };
  bdev::RaidParityOptions options;
  options.name = plan->name();
  options.parity_count = plan->parity_count;
  options.strip_bytes = plan->strip_bytes;
  options.log_slot_count = plan->log_slot_count;
  options.rest = milliseconds(2);
  options.bugs = options_.raid_bugs;
  options.mark_region_bytes = mark_region_bytes;
  if (plan->grows) options.count_blocks = plan->bytes_at_first() / below.front().info().block_size_bytes;
  auto opening = made ? bdev::RaidParityBdev::create(reactor_, options, std::move(below), std::move(events))
                      : bdev::RaidParityBdev::load(reactor_, plan->name(), std::move(below), std::move(events),
                                                   options_.raid_bugs);
  auto opened = co_await opening;
  if (!opened) co_return std::move(opened).error();
  for (uint32_t place = 0; place < (*opened)->member_count(); place++) {
    if ((*opened)->member_at(place).state != bdev::RaidMemberState::in_sync) found_missing_[plan->id] |= 1u << place;
  }
  bdevs_[plan->id] = std::move(opened).value();
  find_lost(plan);
  co_return success();
}

// ---- taking down ---------------------------------------------------------------------------------------------------

Outcome Stack::close() {
  // A member that was on its way back gets there first: its layers are half made.
  if (returning_) BASALT_ASSERT(world_.run_until([this] { return !returning_; }, seconds(600)));
  return *run(close_all());
}

Task<Outcome> Stack::close_all() {
  Outcome outcome = success();
  if (pool_ != nullptr) {
    auto closing = pool_->close();
    outcome = co_await closing;
    pool_.reset();
  }
  auto closing = close_layer(&plan_.top);
  Outcome below = co_await closing;
  if (outcome) outcome = std::move(below);
  co_return outcome;
}

Task<Outcome> Stack::close_layer(const LayerPlan* plan) {
  Outcome outcome = success();
  // What a raid lacks it tells again when it is loaded.
  if (plan->kind == LayerKind::raid) std::erase_if(lost_, [&](const Lost& lost) { return lost.parent == plan; });
  if (const auto found = bdevs_.find(plan->id); found != bdevs_.end()) {
    auto closing = found->second->close();
    outcome = co_await closing;
    bdevs_.erase(plan->id);
  }
  if (const auto store = stores_.find(plan->id); store != stores_.end()) {
    if (bdev::Lvol* lvol = store->second->find(std::string(inner_lvol)); lvol != nullptr) {
      auto lvol_closing = lvol->close();
      (void)(co_await lvol_closing).ok();
    }
    auto store_closing = store->second->close();
    Outcome closed = co_await store_closing;
    if (outcome) outcome = std::move(closed);
    stores_.erase(plan->id);
  }
  if (plan->kind == LayerKind::remote) {
    auto closing = close_remote(plan);
    co_await closing;
  }
  for (size_t i = 0; i < plan->device_count(); i++) {
    auto closing = close_layer(&plan->device(i));
    Outcome closed = co_await closing;
    if (outcome) outcome = std::move(closed);
  }
  co_return outcome;
}

}  // namespace basalt::sim
