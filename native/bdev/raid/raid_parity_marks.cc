// SPDX-License-Identifier: Apache-2.0
// Marks of a driven raid: what members that are away lack, so that one that comes back is given no more than that.
//
// There are none while the set is whole. When a member leaves, the stripes of all records in the log are marked: they
// were flushed by nobody yet, so that whatever its caches have lost is among them. From then on a write waits until its
// region is marked on all of the set, durably, before it is planned. One bitmap serves all who are away; it is
// forgotten when nobody is.
//
// Who may come back by them. Superblocks say of each place since which epoch its member has had it (`joined_epoch`). A
// device that was in the set at its place in that epoch or later lacks what is marked since then, and what the log that
// it has itself names: of a write that a controller began as its last one, the only records may be there. That is
// marked on the others before its log is erased, since the next controller cannot read it any more. All others get
// everything, and lose their superblocks before the first byte: half copied they would say of an old place that they
// know it.
//
// Bands that were planned without the member end before their regions are rebuilt: both lock them, and what was planned
// while a member of the set is away is marked before. So the regions of the marks are taken once, when the member gets
// all writes and all records.
//
// Pages are written to all members of the set; each by itself is enough. `marks_stay` is drawn when somebody leaves a
// whole set: pages of another one are damaged ones. Where no member has a page that is whole, everybody who is away
// gets everything. Marks of older code, which knows none, would be out of date: `kept_epoch` tells.
#include <algorithm>
#include <cstring>

#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {
void RaidParityBdev::shape_marks() {
  // Of 16 strips where there are many: a writer seldom waits for a mark then.
  constexpr uint64_t stripes_usual = 16;
  constexpr uint64_t regions_usual = 4096;
  uint64_t stripes = 1;
  while (stripes < stripes_usual && layout_.strip_count / stripes > regions_usual)
    stripes *= 2;
  while ((layout_.strip_count + stripes - 1) / stripes > mark_pages::region_count_max)
    stripes *= 2;
  superblock_.mark_region_stripes = stripes;
  marks_ = RegionMap(layout_.strip_count, RegionMap::RegionSize{stripes});
}

// After every change of the set.
void RaidParityBdev::look_who_is_away() {
  tracked_ = false;
  for (uint32_t place = 0; place < member_count() && driven_; place++)
    tracked_ |= is_away(place) && superblock_.joined_epoch[place] != 0;
  if (!tracked_) marks_.clear_all();
}

bool RaidParityBdev::are_marked(StripeRange stripes) const {
  const uint64_t end = bugs_.zeroes_of_one_stripe ? stripes.first + 1 : stripes.end();
  for (uint64_t region = marks_.region_of(stripes.first); region <= marks_.region_of(end - 1); region++)
    if (!marks_.has(region)) return false;
  return true;
}

bool RaidParityBdev::is_marked(const Band& band) const {
  return !tracked_ || bugs_.away_unmarked || are_marked({band.shape.stripe, band.shape.stripe_count});
}

// It is planned anew then.
void RaidParityBdev::wait_for_mark(Band* band) {
  if (offline_) return fail_band(band, nvme::status::internal_path_error);
  lists_->mark_waits.push_back(band);
  kick_keeper();
}

bool RaidParityBdev::marks_are_waited_for() const {
  return tracked_ && (!lists_->mark_waits.empty() || !stripes_to_mark_.empty());
}

// Pages that differ from those that are there, or all. Gives the members that have them; the others have failed.
Task<uint32_t> RaidParityBdev::put_marks(const RegionMap& marks, uint32_t members, bool all_pages) {
  if (bugs_.marks_not_durable && !all_pages) co_return members;
  uint64_t first = all_pages ? 0 : mark_pages::mark_page_count(marks);
  uint64_t end = all_pages ? mark_pages::mark_page_count(marks) : 0;
  for (uint64_t region = marks.next(0); region < marks.region_count() && !all_pages; region = marks.next(region + 1)) {
    if (marks_.has(region)) continue;
    first = std::min(first, mark_pages::mark_page_of(region));
    end = std::max(end, mark_pages::mark_page_of(region) + 1);
  }
  if (first >= end) co_return members;
  const PageMemory memory(end - first);
  for (uint64_t page = first; page < end; page++) {
    mark_pages::encode_marks(marks, nullptr, page, superblock_.marks_stay, memory.page(page - first));
  }
  Fan writes(seat_count());
  for_each_bit(members, [&](uint32_t member) {
    writes.add(members_[member], IoType::write, (parity::mark_first_page + first) * page_factor(),
               (end - first) * page_factor(), memory.page(0), true);
  });
  co_await writes;
  co_return succeeded(writes, members);
}

// By the keeper: what is waited for.
Task<void> RaidParityBdev::write_marks() {
  RegionMap wanted = marks_;
  lists_->mark_waits.for_each([&](Band* band) {
    const uint64_t count = bugs_.zeroes_of_one_stripe ? 1 : band->shape.stripe_count;
    wanted.set_range(band->shape.stripe, band->shape.stripe + count);
  });
  const std::vector<StripeRange> stripes = std::exchange(stripes_to_mark_, {});
  for (const StripeRange& range : stripes)
    wanted.set_range(range.first, range.end());
  const uint32_t told = set();
  const uint32_t having = co_await put_marks(wanted, told, false);
  if (having == told) {
    marks_ = std::move(wanted);
  } else {
    // After the next shrink.
    stripes_to_mark_.insert(stripes_to_mark_.end(), stripes.begin(), stripes.end());
  }
}

// Members leave: they may lack what nobody has flushed yet. Nothing new comes into the log until they have left.
Task<void> RaidParityBdev::begin_marks(uint32_t members) {
  RegionMap marks = marks_;
  if (!tracked_) home().env().random(&superblock_.marks_stay, sizeof(superblock_.marks_stay));
  for (uint64_t sequence = durable_tail_; sequence < next_sequence_ && !bugs_.marks_without_log; sequence++) {
    const StripeRange& stripes = slots_[sequence % slots_.size()].stripes;
    marks.set_range(stripes.first, stripes.end());
  }
  (void)co_await put_marks(marks, members, true);
  marks_ = std::move(marks);
}

// When it is opened: what members of the set know of those that were away before. Who may come back is known then, as
// far as superblocks tell.
Task<void> RaidParityBdev::find_marks() {
  if (superblock_.kept_epoch != superblock_.epoch)
    std::memset(superblock_.joined_epoch, 0, sizeof(superblock_.joined_epoch));
  const uint64_t region_stripes = superblock_.mark_region_stripes;
  shape_marks();
  bool known = false;
  const auto was_away = [&](uint32_t place) { return (superblock_.in_sync >> place & 1) == 0; };
  for (uint32_t place = 0; place < member_count(); place++)
    known |= was_away(place) && superblock_.joined_epoch[place] != 0;
  if (!known) {
    home().env().random(&superblock_.marks_stay, sizeof(superblock_.marks_stay));
  } else {
    const uint64_t page_count = mark_pages::mark_page_count(marks_);
    std::vector<bool> found(page_count);
    const PageMemory memory(page_count * member_count());
    Fan reads(page_count * member_count());
    for_each_bit(in_sync_, [&](uint32_t member) {
      for (uint64_t page = 0; page < page_count; page++) {
        reads.add(members_[member], IoType::read, (parity::mark_first_page + page) * page_factor(), page_factor(),
                  memory.page(reads.count()));
      }
    });
    co_await reads;
    for (size_t i = 0; i < reads.count(); i++) {
      const uint64_t page = i % page_count;
      const bool good =
          reads.status(i).ok() && mark_pages::decode_marks(memory.page(i), page, superblock_.marks_stay, marks_);
      if (good) found[page] = true;
    }
    const bool whole = region_stripes == marks_.region_blocks() &&
                       std::all_of(found.begin(), found.end(), [](bool page) { return page; });
    if (!whole) marks_.clear_all();
    for (uint32_t place = 0; place < member_count() && !whole; place++) {
      if (was_away(place)) superblock_.joined_epoch[place] = 0;
    }
  }
  look_who_is_away();
}

// Before what the log says, or who has left, can be forgotten.
Task<Outcome> RaidParityBdev::keep_marks_at_open() {
  const std::vector<StripeRange> stripes = std::exchange(stripes_to_mark_, {});
  if (!tracked_) co_return success();
  for (const StripeRange& range : stripes)
    marks_.set_range(range.first, range.end());
  const uint32_t having = co_await put_marks(marks_, in_sync_, true);
  if (having != in_sync_) co_return Error{Errc::io, info_.name + ": writing the marks failed"};
  co_return success();
}

// Finds out what the device lacks, and which place it has. False: it is gone.
Task<bool> RaidParityBdev::arrive(Rebuild& rebuild) {
  const uint32_t member = rebuild.member;
  const Handle device = members_[member];
  const bool is_twin = member == seats_.spare();
  std::vector<StripeRange> own;
  if (!is_twin) {
    auto superblock = co_await raid_open::read_superblock(device);
    if (!rebuild_goes_on(rebuild)) co_return false;
    if (superblock) good_slots_[member] = superblock->slot;
    if (superblock && !superblock->unsure && may_return(*superblock)) {
      auto reading = stripes_in_log(device, superblock->log_tail);
      auto stripes = co_await reading;
      if (!rebuild_goes_on(rebuild)) co_return false;
      // What is so now: others have come and gone meanwhile.
      if (stripes && may_return(*superblock) && give_place(member, superblock->member)) {
        own = std::move(*stripes);
        rebuild.left = marks_;
        delta_ |= 1u << member;
      }
    }
  }
  if (!rebuild.left) {
    if (!is_twin) give_unmarked_place(member);
    const bool erased = bugs_.no_erasing || co_await erase_superblocks(rebuild, device);
    if (!erased || !rebuild_goes_on(rebuild)) co_return false;
  }
  arriving_ &= ~(1u << member);
  if (rebuild.left && !bugs_.marks_without_own) co_await mark_own(rebuild, std::move(own));
  co_return rebuild_goes_on(rebuild);
}

bool RaidParityBdev::may_return(const parity::Superblock& superblock) const {
  const uint32_t place = superblock.member;
  if (std::memcmp(superblock.uuid, superblock_.uuid, sizeof(superblock.uuid)) != 0) return false;
  if (!raid_open::same_geometry(superblock, superblock_, true) || (superblock.in_sync >> place & 1) == 0) return false;
  const uint64_t joined = superblock_.joined_epoch[place];
  if (joined == 0 || !is_away(place)) return false;
  return superblock.epoch >= joined || bugs_.any_may_return;
}

// False: another one that is known by it has it.
bool RaidParityBdev::give_place(uint32_t member, uint32_t place) {
  const uint32_t other = seats_.seat_of(place);
  if (other == member) return true;
  if (((in_sync_ | failed_ | (joining_ & ~arriving_)) >> other & 1) != 0) return false;
  seats_.exchange(member, other);
  return true;
}

// For one that gets everything: whose place it takes gets everything as well, when it comes back.
void RaidParityBdev::give_unmarked_place(uint32_t member) {
  if (superblock_.joined_epoch[seats_.place_of(member)] == 0) return;
  for (uint32_t place = 0; place < member_count(); place++) {
    if (is_away(place) && superblock_.joined_epoch[place] == 0 && give_place(member, place)) return;
  }
}

// Those that records name which a flush may not have covered.
Task<Result<std::vector<StripeRange>>> RaidParityBdev::stripes_in_log(Handle device, uint64_t log_tail) {
  constexpr uint32_t at_once_max = 16;
  std::vector<StripeRange> stripes;
  const PageMemory memory(at_once_max);
  for (uint32_t first = 0; first < superblock_.log_slot_count; first += at_once_max) {
    const uint32_t end = std::min(first + at_once_max, superblock_.log_slot_count);
    Fan reads(end - first);
    for (uint32_t index = first; index < end; index++) {
      const uint64_t page = parity::log_first_page + uint64_t{index} * superblock_.log_slot_pages;
      reads.add(device, IoType::read, page * page_factor(), page_factor(), memory.page(index - first));
    }
    co_await reads;
    for (size_t i = 0; i < reads.count(); i++) {
      if (!reads.status(i).ok()) co_return Error{Errc::io, nvme::to_string(reads.status(i))};
      parity::RecordHeader header;
      std::memcpy(&header, memory.page(i), sizeof(header));
      if (parity::valid_record(header, superblock_) && header.sequence >= log_tail)
        stripes.push_back(parity::stripes_of(header));
    }
  }
  co_return stripes;
}

Task<bool> RaidParityBdev::erase_superblocks(Rebuild& rebuild, Handle device) {
  Fan writes(std::size(parity::superblock_pages));
  for (const uint32_t page : parity::superblock_pages)
    writes.add(device, IoType::write, page * page_factor(), page_factor(), lists_->zeroes.get(), true);
  co_await writes;
  if (!rebuild_goes_on(rebuild)) co_return false;
  for (size_t i = 0; i < writes.count(); i++) {
    if (writes.status(i).ok()) continue;
    member_failed(rebuild.member, writes.status(i));
    co_return false;
  }
  co_return true;
}

// Ends when it is durable.
Task<void> RaidParityBdev::mark_own(const Rebuild& rebuild, std::vector<StripeRange> stripes) {
  for (;;) {
    std::erase_if(stripes, [this](const StripeRange& range) { return are_marked(range); });
    if (stripes.empty() || !rebuild_goes_on(rebuild)) co_return;
    stripes_to_mark_.insert(stripes_to_mark_.end(), stripes.begin(), stripes.end());
    kick_keeper();
    co_await Woken{*this};
  }
}

}  // namespace basalt::bdev
