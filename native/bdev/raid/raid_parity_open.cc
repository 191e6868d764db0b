// SPDX-License-Identifier: Apache-2.0
// Making a raid5 or raid6 from blank members, and finding one again on members that carry it.
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {

using parity::Superblock;
using raid_open::FoundSuperblock;

namespace {

constexpr uint64_t load_epochs = 16;

}  // namespace

Task<Result<FoundSuperblock>> raid_open::read_superblock(Handle device) {
  PageMemory memory;
  Result<FoundSuperblock> newest = Error{Errc::not_found, device.info().name + ": no raid superblock"};
  nvme::Status unreadable;
  bool damaged = false;
  bool absent = false;
  const uint64_t factor = parity::page_bytes / device.info().block_size_bytes;
  if (device.info().count_blocks < (parity::superblock_pages[1] + 1) * factor) co_return newest;
  for (const uint32_t page : parity::superblock_pages) {
    Io io;
    Iovec iov{memory.page(0), parity::page_bytes};
    io.type = IoType::read;
    io.offset_blocks = page * factor;
    io.count_blocks = static_cast<uint32_t>(factor);
    io.iov = &iov;
    io.iov_count = 1;
    const nvme::Status status = co_await io_wait(device, io);
    if (!status.ok()) {
      unreadable = status;
      continue;
    }
    FoundSuperblock found;
    std::memcpy(static_cast<Superblock*>(&found), memory.page(0), sizeof(Superblock));
    const parity::PageState state = parity::check(found);
    damaged |= state == parity::PageState::damaged;
    absent |= state == parity::PageState::absent;
    found.slot = page == parity::superblock_pages[0] ? 0 : 1;
    if (state == parity::PageState::valid && (!newest || found.generation > newest->generation)) newest = found;
  }
  if (!newest) {
    if (!unreadable.ok())
      co_return Error{Errc::io, device.info().name + ": reading the raid superblock: " + nvme::to_string(unreadable)};
    // The first one that it was ever given was cut short: it has never been of a set.
    if (damaged && absent)
      co_return Error{Errc::io,
                      device.info().name + ": one raid superblock is damaged, and the other was never written"};
    if (damaged)
      co_return Error{Errc::corrupt, device.info().name +
                                         ": both raid superblocks are damaged or one is and "
                                         "the other is missing"};
    co_return newest;
  }
  auto judged = parity::judge(*newest, device.info().count_blocks, device.info().block_size_bytes);
  if (!judged) co_return Error{judged.error().code, device.info().name + ": " + judged.error().message};
  newest->unsure = !unreadable.ok();
  if ((newest->incompatible & parity::incompatible_marks) == 0) parity::forget_marks(&*newest);
  if (newest->mark_strips == 0) newest->mark_strips = parity::mark_strips_of(*newest, parity::mark_region_bytes);
  co_return newest;
}

std::string_view raid_open::name_of(const Superblock& superblock) {
  return {superblock.name, superblock.name_length_bytes};
}

bool raid_open::same_geometry(const Superblock& one, const Superblock& other, bool of_one_size) {
  if (of_one_size && one.strip_count != other.strip_count) return false;
  return one.data_count == other.data_count && one.parity_count == other.parity_count &&
         one.strip_blocks == other.strip_blocks && one.first_block == other.first_block &&
         one.block_bytes == other.block_bytes && one.log_slot_count == other.log_slot_count &&
         one.log_slot_pages == other.log_slot_pages;
}

Outcome raid_open::check_members(Reactor& home, const std::vector<Handle>& members) {
  for (size_t i = 0; i < members.size(); i++) {
    const BdevInfo& info = members[i].info();
    if (info.block_size_bytes != members[0].info().block_size_bytes) {
      return Error{Errc::invalid_argument,
                   "base_bdevs: " + info.name + " has another block size than " + members[0].info().name};
    }
    if (&members[i].bdev().home() != &home) {
      return Error{Errc::invalid_argument, "base_bdevs: " + info.name + " lives on another reactor"};
    }
    for (size_t j = 0; j < i; j++) {
      if (&members[j].bdev() == &members[i].bdev()) {
        return Error{Errc::invalid_argument, "base_bdevs: " + info.name + " is named twice"};
      }
    }
  }
  return success();
}

Result<Superblock> raid_open::geometry_of(const RaidParityOptions& options, const std::vector<Handle>& members) {
  const auto count = options.driven ? options.data_count + options.parity_count : static_cast<uint32_t>(members.size());
  if (options.parity_count < 1 || options.parity_count > ParityCodec::parity_count_max ||
      count < options.parity_count + 1 || count - options.parity_count > ParityCodec::data_count_max) {
    return Error{Errc::invalid_argument, "base_bdevs: " + std::to_string(options.parity_count) +
                                             " parity members and 1 to 16 others, got " + std::to_string(count)};
  }
  if (options.name.empty() || options.name.size() > parity::name_bytes_max) {
    return Error{Errc::invalid_argument, "name: 1 to 63 bytes"};
  }
  if (!is_power_of_two(options.strip_bytes) || options.strip_bytes < 4096 || options.strip_bytes > 256 * 1024) {
    return Error{Errc::invalid_argument, "strip_size_kb: a power of two from 4 to 256"};
  }
  if (options.log_slot_count < 2 || options.log_slot_count > parity::log_slot_count_max) {
    return Error{Errc::invalid_argument, "log_slots: 2 to 1024"};
  }
  Superblock s{};
  s.block_bytes = members[0].info().block_size_bytes;
  s.member_blocks = UINT64_MAX;
  for (const Handle& member : members)
    s.member_blocks = std::min(s.member_blocks, member.info().count_blocks);
  s.parity_count = static_cast<uint8_t>(options.parity_count);
  s.data_count = static_cast<uint8_t>(count - options.parity_count);
  s.strip_blocks = static_cast<uint32_t>(options.strip_bytes / s.block_bytes);
  s.log_slot_count = options.log_slot_count;
  // The largest band that is logged: all roles but one, and the parity.
  const uint64_t columns_bytes = std::min<uint64_t>(
      align_down(RaidParityBdev::band_memory_bytes / count, parity::page_bytes), options.strip_bytes);
  s.log_slot_pages = static_cast<uint32_t>(1 + s.data_count * columns_bytes / parity::page_bytes);
  const uint64_t factor = parity::page_bytes / s.block_bytes;
  const uint64_t log_end = (parity::log_first_page + uint64_t{s.log_slot_count} * s.log_slot_pages) * factor;
  s.first_block = align_up(log_end, s.strip_blocks);
  if (s.member_blocks < s.first_block + s.strip_blocks) {
    return Error{Errc::invalid_argument, "base_bdevs: too small: " + std::to_string(s.member_blocks) +
                                             " blocks; superblocks, log and one strip need " +
                                             std::to_string(s.first_block + s.strip_blocks)};
  }
  s.strip_count = (s.member_blocks - s.first_block) / s.strip_blocks;
  if (options.driven || options.count_blocks != 0) {
    const uint64_t stripe_blocks = uint64_t{s.strip_blocks} * s.data_count;
    const uint64_t needed = (options.count_blocks + stripe_blocks - 1) / stripe_blocks;
    if (needed == 0 || needed > s.strip_count) {
      return Error{Errc::invalid_argument, "num_blocks: members of " + std::to_string(s.member_blocks) +
                                               " blocks have no room for " + std::to_string(options.count_blocks)};
    }
    s.strip_count = needed;
  }
  s.mark_strips = parity::mark_strips_of(s, options.mark_region_bytes);
  s.in_sync = (1u << count) - 1;
  s.epoch = 1;
  s.log_tail = 1;
  s.name_length_bytes = static_cast<uint16_t>(options.name.size());
  std::memcpy(s.name, options.name.data(), options.name.size());
  return s;
}

Task<Result<std::unique_ptr<RaidParityBdev>>> RaidParityBdev::create(Reactor& home, RaidParityOptions options,
                                                                     std::vector<Handle> members,
                                                                     RaidParityEvents events) {
  if (members.empty()) co_return Error{Errc::invalid_argument, "base_bdevs: none given"};
  auto checked = raid_open::check_members(home, members);
  if (!checked) co_return std::move(checked).error();
  auto geometry = raid_open::geometry_of(options, members);
  if (!geometry) co_return std::move(geometry).error();
  for (const Handle& member : members) {
    if (options.force) break;
    auto found = co_await raid_open::read_superblock(member);
    if (!found && found.error().code == Errc::not_found) continue;
    if (!found && found.error().code == Errc::io) co_return std::move(found).error();
    co_return Error{Errc::exists, "base_bdevs: " + member.info().name + " belongs to a raid already"};
  }
  if (options.uuid.is_zero()) home.env().random(options.uuid.bytes.data(), options.uuid.bytes.size());
  std::memcpy(geometry->uuid, options.uuid.bytes.data(), sizeof(geometry->uuid));
  std::unique_ptr<RaidParityBdev> raid(new RaidParityBdev(home, *geometry, std::move(events)));
  raid->rest_ = options.rest;
  raid->bugs_ = options.bugs;
  raid->adopt(std::move(members));
  // A log of before, and contents that no parity fits: the set begins unclean, and is made right in the background. Log
  // records of another raid are told by its uuid; both superblocks, so that no old one is left.
  for (int slot = 0; slot < 2; slot++) {
    const uint32_t having = co_await raid->write_superblocks(raid->in_sync_);
    if (having != raid->in_sync_) {
      raid->events_ = {};
      (void)co_await raid->close();
      co_return Error{Errc::io, "base_bdevs: writing the superblocks failed"};
    }
  }
  raid->may_write_ = true;
  raid->suspect_from(0);
  co_return raid;
}

Task<Result<std::unique_ptr<RaidParityBdev>>> RaidParityBdev::load(Reactor& home, std::string name,
                                                                   std::vector<Handle> members, RaidParityEvents events,
                                                                   const RaidPlantedBugs& bugs, bool accept_missing) {
  if (members.empty()) co_return Error{Errc::invalid_argument, "base_bdevs: none given"};
  auto checked = raid_open::check_members(home, members);
  if (!checked) co_return std::move(checked).error();
  std::vector<FoundSuperblock> found;
  std::vector<Error> unreadable;
  for (size_t i = 0; i < members.size();) {
    auto superblock = co_await raid_open::read_superblock(members[i]);
    if (!superblock && superblock.error().code != Errc::io) co_return std::move(superblock).error();
    if (superblock) {
      found.push_back(*superblock);
      i++;
      continue;
    }
    // As if it were not here.
    unreadable.push_back(std::move(superblock).error());
    if (events.member_failed) events.member_failed(members[i].info().name, unreadable.back().message);
    members.erase(members.begin() + static_cast<std::ptrdiff_t>(i));
  }
  if (found.empty()) co_return std::move(unreadable.front());
  Assembled from{std::move(name), std::move(members), std::move(found), bugs, false, accept_missing};
  auto assembling = assemble(home, std::move(from), std::move(events));
  auto assembled = co_await assembling;
  co_return assembled;
}

// Of those that are surely of a set, the one that tells of the newest.
static const FoundSuperblock* newest_of(const std::vector<FoundSuperblock>& found, bool driven) {
  const FoundSuperblock* newest = nullptr;
  for (const FoundSuperblock& s : found) {
    if (s.unsure || (!driven && !parity::counts(s))) continue;
    if (newest == nullptr || s.epoch > newest->epoch ||
        (s.epoch == newest->epoch && s.generation > newest->generation)) {
      newest = &s;
    }
  }
  return newest;
}

Result<raid_open::Roles> raid_open::tell_roles(const std::string& name, const std::vector<Handle>& members,
                                               const std::vector<FoundSuperblock>& found, const TellOptions& options) {
  const bool driven = options.driven;
  Roles roles;
  roles.newest = newest_of(found, driven);
  if (roles.newest == nullptr) return Error{Errc::io, name + ": one raid superblock of each member cannot be read"};
  const FoundSuperblock& newest = *roles.newest;
  if (name_of(newest) != name) {
    return Error{Errc::not_found,
                 "base_bdevs: they carry raid '" + std::string(name_of(newest)) + "', not '" + name + "'"};
  }
  const uint32_t count = uint32_t{newest.data_count} + newest.parity_count;
  roles.places.resize(count);
  roles.returning.resize(count);
  for (size_t i = 0; i < members.size(); i++) {
    const FoundSuperblock& s = found[i];
    const std::string& device = members[i].info().name;
    const auto corrupt = [&](const std::string& what) { return Error{Errc::corrupt, "base_bdevs: " + device + what}; };
    if (std::memcmp(s.uuid, newest.uuid, sizeof(s.uuid)) != 0) return corrupt(" belongs to another raid");
    if (!same_geometry(s, newest, driven)) return corrupt(" tells another geometry");
    const bool of_set = (newest.in_sync >> s.member & 1) != 0;
    const bool holds = options.any_stay || s.stay == newest.stays[s.member];
    // One that left holds what was so then. Who was coming back when this ended goes on.
    const bool back = !of_set && ((newest.away & newest.rebuilding) >> s.member & 1) != 0 && holds && !s.unsure &&
                      (s.stay != 0 || s.epoch >= newest.left[s.member]);
    const bool is_twin = newest.twin_stay != 0 && s.stay == newest.twin_stay && s.member == newest.twin_place;
    // Both have gone on, each without the other: nobody but the operator knows whose writes count.
    const bool counts_itself = (s.in_sync >> s.member & 1) != 0;
    if (!driven && !options.accept_missing && !of_set && counts_itself && (s.in_sync & newest.in_sync) == 0 &&
        s.epoch > newest.left[s.member]) {
      return Error{Errc::busy, name + ": " + device +
                                   " went on without the others, and they without it: leave it out, " +
                                   "or accept_missing"};
    }
    if (driven && !of_set) return Error{Errc::corrupt, name + ": " + device + " is on record, and had left the set"};
    if (!is_twin && !back && !(of_set && holds)) continue;
    // One that was not told of the newest size has room for it, or had.
    if (members[i].info().count_blocks < newest.member_blocks) {
      return corrupt(": the device has shrunk from " + std::to_string(newest.member_blocks) + " to " +
                     std::to_string(members[i].info().count_blocks) + " blocks");
    }
    Handle& handle = is_twin ? roles.twin : back ? roles.returning[s.member] : roles.places[s.member];
    if (handle) return corrupt(" and " + handle.info().name + " are both member " + std::to_string(s.member));
    handle = members[i];
    if (is_twin || back) continue;
    roles.seen |= 1u << s.member;
    roles.slots[s.member] = s.slot;
    roles.sure_count += s.unsure ? 0 : 1;
    roles.log_tail = std::max(roles.log_tail, s.log_tail);
    roles.clean &= s.clean != 0;
    roles.set_members.push_back(&s);
  }
  return roles;
}

// From what the members' superblocks say.
Task<Result<std::unique_ptr<RaidParityBdev>>> RaidParityBdev::assemble(Reactor& home, Assembled from,
                                                                       RaidParityEvents events) {
  const auto& [name, members, found, bugs, driven, accept_missing] = from;
  auto told = raid_open::tell_roles(name, members, found, {driven, bugs.any_stay, accept_missing});
  if (!told) co_return std::move(told).error();
  raid_open::Roles& roles = *told;
  const uint32_t seen = roles.seen;
  // A newer set than this one began with at least k of its members, and each of those knows: fewer may be unheard.
  const auto set_count = static_cast<uint32_t>(std::popcount(roles.newest->in_sync));
  const uint32_t k = roles.newest->data_count;
  const uint32_t certain = driven || set_count < k ? k : std::max(k, set_count + 1 - k);
  const uint32_t needed = accept_missing ? k : certain;
  if (roles.sure_count < needed) {
    co_return Error{Errc::busy, name + ": " + std::to_string(roles.sure_count) + " members of its last set are here; " +
                                    std::to_string(needed) + " are needed" +
                                    (needed > k ? ", as others may have gone on without them (accept_missing)" : "")};
  }
  Superblock geometry = *roles.newest;
  geometry.log_tail = roles.log_tail;
  for (const Superblock& s : found)
    geometry.generation = std::max(geometry.generation, s.generation);
  geometry.clean = roles.clean ? 1 : 0;
  if (!driven && roles.sure_count < certain) {
    // What others wrote without these is given up, and so is what these know of who lacks what.
    geometry.away = 0;
    geometry.rebuilding = 0;
    geometry.twin_stay = 0;
    roles.returning.assign(roles.returning.size(), Handle());
    roles.twin = Handle();
  }
  std::unique_ptr<RaidParityBdev> raid(new RaidParityBdev(home, geometry, std::move(events)));
  raid->adopt(std::move(roles.places));
  raid->in_sync_ = seen;
  raid->good_slots_ = roles.slots;
  raid->driven_ = driven;
  raid->bugs_ = bugs;
  if (!driven)
    raid->adopt_away(roles.set_members, roles.newest->in_sync & ~seen, roles.clean && roles.sure_count >= certain);
  const bool has_twin = roles.twin && (seen >> roles.newest->twin_place & 1) != 0;
  if (has_twin) raid->adopt_twin(roles.newest->twin_place, roles.newest->twin_stay);
  if (roles.twin && !has_twin) {
    raid->inherit_place(roles.newest->twin_place, roles.newest->twin_stay);
    roles.returning[roles.newest->twin_place] = roles.twin;
  }
  auto opened = co_await raid->open(roles.clean, seen != roles.newest->in_sync);
  // The slot that could not be read as well, and the one that was, last.
  if (opened && roles.sure_count < static_cast<uint32_t>(std::popcount(seen))) {
    const uint32_t having = co_await raid->write_superblocks(raid->in_sync_);
    if (having != raid->in_sync_) opened = Error{Errc::io, name + ": writing the superblocks failed"};
  }
  if (!opened) {
    raid->events_ = {};
    raid->offline_ = true;
    (void)co_await raid->close();
    co_return std::move(opened).error();
  }
  if (!driven) raid->resume_rebuilds(roles.returning, has_twin ? roles.twin : Handle());
  co_return raid;
}

Task<bool> RaidParityBdev::carries(Handle device) {
  auto found = co_await raid_open::read_superblock(device);
  co_return found.ok();
}

void RaidParityBdev::adopt(std::vector<Handle> members) {
  members_ = std::move(members);
  members_.resize(seat_count());
  for (const Handle& member : members_) {
    if (!member) continue;
    info_.memory_alignment_bytes = std::max(info_.memory_alignment_bytes, member.info().memory_alignment_bytes);
  }
}

// Replays the log under the new epoch, then serves. `shrunk`: members of the last set are not here.
Task<Outcome> RaidParityBdev::open(bool clean, bool shrunk) {
  if (driven_) co_await find_marks();
  if (!clean && shrunk && !bugs_.leave_after_replay) {
    if (driven_) {
      auto kept = co_await keep_marks_at_open();
      if (!kept) co_return kept;
    }
    // They have left, before anything changes: with other members at the next try their records would be judged anew.
    superblock_.epoch += load_epochs;
    superblock_.in_sync = in_sync_;
    const uint32_t told = co_await write_superblocks(in_sync_);
    if (told != in_sync_) co_return Error{Errc::io, info_.name + ": writing the superblocks failed"};
  }
  if (!clean) {
    const nvme::Status replayed = co_await replay();
    if (!replayed.ok()) co_return Error{Errc::io, info_.name + ": replaying the log: " + nvme::to_string(replayed)};
    Fan flushes(member_count());
    for_each_bit(in_sync_, [&](uint32_t member) { flushes.add(members_[member], IoType::flush, 0, 0, nullptr); });
    co_await flushes;
    for (size_t i = 0; i < flushes.count(); i++) {
      if (!flushes.status(i).ok()) {
        co_return Error{Errc::io, info_.name + ": flushing: " + nvme::to_string(flushes.status(i))};
      }
    }
  }
  if (driven_) {
    // Before the log forgets it: what is in it may not have been flushed by a member that is away.
    auto kept = co_await keep_marks_at_open();
    if (!kept) co_return kept;
  }
  // Every load begins a new epoch: what a member that is away may still say is older, also of a change of the set that
  // was cut short and reached that one alone.
  superblock_.epoch += load_epochs;
  superblock_.in_sync = in_sync_;
  if (driven_) {
    superblock_.incompatible |= parity::incompatible_zeroes;
    for_each_bit(in_sync_, [&](uint32_t place) { superblock_.joined_epoch[place] = superblock_.epoch; });
  }
  superblock_.log_tail = durable_tail_ = next_sequence_;
  const uint32_t having = co_await write_superblocks(in_sync_);
  if (having != in_sync_) co_return Error{Errc::io, info_.name + ": writing the superblocks failed"};
  may_write_ = superblock_.clean == 0;
  missed_.said(missed_.wanted());
  resync_stripe_ = layout_.strip_count;
  // With m members missing, parity is all there is of their data.
  if (!clean && !driven_ && redundant(in_sync_) && !bugs_.trust_parity) {
    if (!bugs_.show_unsettled) settled_.assign(layout_.strip_count, false);
    suspect_from(0);
  }
  co_return success();
}

}  // namespace basalt::bdev
