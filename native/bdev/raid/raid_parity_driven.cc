// SPDX-License-Identifier: Apache-2.0
// A raid whose set an orchestrator keeps on record (parity_leg.h): opened on the members that the record names, left by
// those that it let go.
//
// The superblocks' set always contains the recorded one: a member leaves the record first, and joins it last. So of a
// member of the record its own superblock tells its place, and no quorum is needed.
//
// Formatting. Superblocks of a new raid are `clean`, and no member's record or strip is written before all members of
// the set are durably `not clean`, which they stay for good. So a member of the record that is blank or clean proves
// that nothing was ever written, wherever formatting, or the first write, was cut short: it is formatted (again), and
// what it holds, zeroes, is right.
//
// Beginning as copies of another leg (`origin`), which were cut at one instant while nothing was being written: their
// strips fit each other, and of their superblocks only the places count. Before the first write all members of the set
// have superblocks of this raid in both slots, durably, and whoever joins it later has so before it is on record. So a
// member of the record that names the origin in one slot, whatever is in the other one, or members that tell of
// different beginnings, prove that nothing was ever written here: they begin (again). What is in the log belongs to the
// origin, and was carried out before the cut.
#include <algorithm>
#include <bit>
#include <cstring>

#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {
namespace {

Error mixed_up(const std::string& name) {
  return {Errc::corrupt, name + ": one of its members was written to, and another one is blank"};
}

// What the members of a leg that began as copies say.
struct Copied {
  bool untouched = false;  // nothing was ever written to it under its own name
  bool used = false;       // something was
};

Copied judge_copied(const RaidParityOptions& options, const std::vector<raid_open::FoundSuperblock>& found) {
  Copied copied;
  if (options.origin.empty()) return copied;
  const parity::Superblock* own = nullptr;
  for (const raid_open::FoundSuperblock& s : found) {
    // One slot that says so is enough, also where the other one cannot be read: it may be this leg's, but not both are.
    if (raid_open::name_of(s) == options.origin) {
      copied.untouched = true;
      continue;
    }
    if (raid_open::name_of(s) != options.name) continue;
    copied.used |= s.log_tail > 1;
    copied.untouched |= own != nullptr && std::memcmp(own->uuid, s.uuid, sizeof(s.uuid)) != 0;
    own = &s;
  }
  return copied;
}

}  // namespace

Task<Result<std::unique_ptr<RaidParityBdev>>> RaidParityBdev::open_driven(Reactor& home, RaidParityOptions options,
                                                                          std::vector<Handle> members,
                                                                          RaidParityEvents events) {
  options.driven = true;
  const uint32_t count = options.data_count + options.parity_count;
  if (options.data_count < 2 || members.size() < options.data_count || members.size() > count) {
    co_return Error{Errc::invalid_argument, options.name + ": " + std::to_string(options.data_count) + " to " +
                                                std::to_string(count) + " members are needed, got " +
                                                std::to_string(members.size())};
  }
  auto checked = raid_open::check_members(home, members);
  if (!checked) co_return std::move(checked).error();
  Assembled from{options.name, std::move(members), {}, options.bugs, true};
  size_t blank_count = 0;
  size_t virgin_count = 0;
  bool used = false;
  std::vector<size_t> doubtful;   // of `found`: the one that can be read says that nothing was written
  std::vector<Error> unreadable;  // members of which nothing can be read
  const bool begins_copied = !options.origin.empty();
  for (const Handle& member : from.members) {
    auto superblock = co_await raid_open::read_superblock(member);
    if (superblock) {
      if ((superblock->incompatible & parity::incompatible_marks) != 0) {
        co_return Error{Errc::corrupt, options.name + ": " + member.info().name + " is of a raid that is no leg"};
      }
      const bool virgin = superblock->clean != 0;
      // What the origin was is no matter here.
      const bool doubted = virgin && superblock->unsure && !begins_copied;
      if (doubted) doubtful.push_back(from.found.size());
      virgin_count += virgin && !doubted ? 1 : 0;
      used |= !virgin && superblock->log_tail > 1;
      from.found.push_back(*superblock);
      continue;
    }
    if (superblock.error().code == Errc::io && !begins_copied) {
      unreadable.push_back(std::move(superblock).error());
      continue;
    }
    // Damaged ones are never taken for blank.
    if (superblock.error().code != Errc::not_found) co_return std::move(superblock).error();
    blank_count++;
  }
  // Members of the set say so only where nothing was written at all: one that surely does tells of the others.
  const bool surely_fresh = blank_count + virgin_count > 0;
  if (!surely_fresh && !unreadable.empty()) co_return std::move(unreadable.front());
  if (!doubtful.empty() && !surely_fresh && doubtful.size() == from.found.size()) {
    co_return Error{Errc::io, options.name + ": a superblock of " + from.members[doubtful.front()].info().name +
                                  " cannot be read, and the other one says that nothing was written"};
  }
  for (const size_t index : doubtful)
    from.found[index].clean = surely_fresh ? 1 : 0;
  if (surely_fresh) virgin_count += doubtful.size();
  if (begins_copied && blank_count > 0) {
    co_return Error{Errc::corrupt, options.name + ": one of its members is blank, and no copy of " + options.origin};
  }
  const bool all_fresh = blank_count + virgin_count + unreadable.size() == from.members.size();
  if (blank_count > 0 && !all_fresh) co_return mixed_up(options.name);
  if (virgin_count > 0 && used && !begins_copied) co_return mixed_up(options.name);
  if (blank_count + virgin_count > 0 && !begins_copied) {
    auto formatting = format_driven(home, std::move(options), std::move(from), std::move(events));
    auto formatted = co_await formatting;
    co_return formatted;
  }
  auto fitted = raid_open::fit_size(options, from.found);
  if (!fitted) co_return std::move(fitted).error();
  const Copied copied = judge_copied(options, from.found);
  if (copied.untouched && copied.used) {
    co_return Error{Errc::corrupt, options.name + ": one of its members was written to, and another one is a copy of " +
                                       options.origin};
  }
  if (copied.untouched) {
    auto beginning = begin_copied(home, std::move(options), std::move(from), std::move(events));
    auto begun = co_await beginning;
    co_return begun;
  }
  auto assembling = assemble(home, std::move(from), std::move(events));
  auto assembled = co_await assembling;
  if (options.origin.empty() || !assembled) co_return assembled;
  // One slot was written; the other one may be of the origin.
  auto sealing = sealed(std::move(assembled), 1);
  auto both = co_await sealing;
  co_return both;
}

// Superblocks in so many slots, or nothing.
Task<Result<std::unique_ptr<RaidParityBdev>>> RaidParityBdev::sealed(Result<std::unique_ptr<RaidParityBdev>> opened,
                                                                     uint32_t rounds) {
  std::unique_ptr<RaidParityBdev> raid = std::move(*opened);
  const uint32_t set = raid->in_sync_;
  for (uint32_t round = 0; round < rounds; round++) {
    const uint32_t having = co_await raid->write_superblocks(set);
    if (having == set) continue;
    raid->events_ = {};
    raid->fence();
    (void)co_await raid->close();
    co_return Error{Errc::io, raid->info_.name + ": writing the superblocks failed"};
  }
  co_return raid;
}

// The copies keep their places, and get numbers above any that a copy which is not here may have.
Task<Result<std::unique_ptr<RaidParityBdev>>> RaidParityBdev::begin_copied(Reactor& home, RaidParityOptions options,
                                                                           Assembled from, RaidParityEvents events) {
  constexpr uint64_t generation_margin = 1 << 16;
  const parity::Superblock* origin = nullptr;
  std::vector<Handle> places(options.data_count + options.parity_count);
  parity::Superblock geometry = from.found.front();
  geometry.in_sync = 0;
  for (size_t i = 0; i < from.found.size(); i++) {
    const raid_open::FoundSuperblock& s = from.found[i];
    const std::string& device = from.members[i].info().name;
    const bool is_copy = raid_open::name_of(s) == options.origin;
    if (!is_copy && raid_open::name_of(s) != options.name) {
      co_return Error{Errc::not_found,
                      options.name + ": " + device + " carries raid '" + std::string(raid_open::name_of(s)) + "'"};
    }
    if (!raid_open::same_geometry(s, geometry, true)) {
      co_return Error{Errc::corrupt, options.name + ": " + device + " tells another geometry"};
    }
    if (is_copy && origin != nullptr && std::memcmp(origin->uuid, s.uuid, sizeof(s.uuid)) != 0) {
      co_return Error{Errc::corrupt, options.name + ": " + device + " is a copy of another raid"};
    }
    if (is_copy) origin = &s;
    if (places[s.member]) {
      co_return Error{Errc::corrupt, options.name + ": " + device + " and " + places[s.member].info().name +
                                         " are both member " + std::to_string(s.member)};
    }
    places[s.member] = from.members[i];
    geometry.in_sync |= 1u << s.member;
    geometry.epoch = std::max(geometry.epoch, s.epoch);
    geometry.generation = std::max(geometry.generation, s.generation);
  }
  geometry.epoch++;
  geometry.generation += generation_margin;
  geometry.log_tail = 1;
  geometry.clean = 0;
  geometry.incompatible |= parity::incompatible_zeroes;
  // Nobody has left this leg yet.
  std::memset(geometry.joined_epoch, 0, sizeof(geometry.joined_epoch));
  for_each_bit(geometry.in_sync, [&](uint32_t place) { geometry.joined_epoch[place] = geometry.epoch; });
  std::memset(geometry.name, 0, sizeof(geometry.name));
  std::memcpy(geometry.name, options.name.data(), options.name.size());
  geometry.name_length_bytes = static_cast<uint16_t>(options.name.size());
  home.env().random(geometry.uuid, sizeof(geometry.uuid));
  std::unique_ptr<RaidParityBdev> raid(new RaidParityBdev(home, geometry, std::move(events)));
  raid->driven_ = true;
  raid->bugs_ = options.bugs;
  raid->shape_marks();
  raid->may_write_ = true;
  raid->resync_stripe_ = raid->layout_.strip_count;
  raid->adopt(std::move(places));
  auto sealing = sealed(std::move(raid), options.bugs.begin_unsaid ? 0 : 2);
  auto begun = co_await sealing;
  co_return begun;
}

// Both superblocks, in turn, with numbers above all that are there.
Task<Result<std::unique_ptr<RaidParityBdev>>> RaidParityBdev::format_driven(Reactor& home, RaidParityOptions options,
                                                                            Assembled from, RaidParityEvents events) {
  auto geometry = raid_open::geometry_of(options, from.members);
  if (!geometry) co_return std::move(geometry).error();
  for (const auto& s : from.found) {
    geometry->epoch = std::max(geometry->epoch, s.epoch + 1);
    geometry->generation = std::max(geometry->generation, s.generation);
  }
  home.env().random(geometry->uuid, sizeof(geometry->uuid));
  geometry->in_sync = (1u << from.members.size()) - 1;
  geometry->clean = 1;
  geometry->incompatible |= parity::incompatible_zeroes;
  for_each_bit(geometry->in_sync, [&](uint32_t place) { geometry->joined_epoch[place] = geometry->epoch; });
  std::unique_ptr<RaidParityBdev> raid(new RaidParityBdev(home, *geometry, std::move(events)));
  raid->driven_ = true;
  raid->bugs_ = options.bugs;
  raid->shape_marks();
  from.members.resize(raid->member_count());
  raid->adopt(std::move(from.members));
  auto sealing = sealed(std::move(raid), 2);
  auto formatted = co_await sealing;
  co_return formatted;
}

uint32_t RaidParityBdev::free_place() const {
  uint32_t place = 0;
  while (place < member_count() && ((in_sync_ | joining_ | failed_) >> seats_.seat_of(place) & 1) != 0)
    place++;
  return place;
}

Outcome RaidParityBdev::add_twin(const Bdev& of, Handle device) {
  const uint32_t spare = seats_.spare();
  if (seats_.has_twin() || ((joining_ | failed_) >> spare & 1) != 0) {
    return Error{Errc::busy, info_.name + ": a member is being exchanged already"};
  }
  uint32_t member = 0;
  while (member < seat_count() && !(usable(member) && &members_[member].bdev() == &of))
    member++;
  if (member == seat_count()) return Error{Errc::not_found, info_.name + ": " + of.info().name + " is not of its set"};
  auto checked = check_device(device);
  if (!checked) return checked;
  if (!gate_.enter()) return Error{Errc::closed, info_.name + " is closing"};
  seats_.begin_twin(seats_.place_of(member));
  begin_rebuild(spare, device);
  return success();
}

bool RaidParityBdev::uses(const Bdev& device) const {
  return std::any_of(members_.begin(), members_.end(),
                     [&](const Handle& member) { return member && &member.bdev() == &device; }) ||
         std::find(arriving_from_.begin(), arriving_from_.end(), &device) != arriving_from_.end();
}

void RaidParityBdev::release_member(const Bdev& device) {
  for (uint32_t member = 0; member < seat_count(); member++) {
    const uint32_t bit = 1u << member;
    if (!members_[member] || &members_[member].bdev() != &device || ((in_sync_ | joining_) & bit) == 0) continue;
    // As one that failed, but for the report.
    failed_ |= bit;
    released_ |= bit;
    kick_keeper();
  }
}

void RaidParityBdev::fence() {
  if (offline_) return;
  offline_ = true;
  // Whoever frees a workspace wakes one that waits for it, and that one would not take it any more.
  List<Band, &Band::node> bands;
  bands.splice_back(lists_->workspace_waits);
  while (Band* band = bands.pop_front())
    fail_band(band, nvme::status::internal_path_error);
  wake_all();
  wake_background();
}

}  // namespace basalt::bdev
