// SPDX-License-Identifier: Apache-2.0
// Members of a raid of its own (not driven) that are away, are on their way back, or take over from another one: what
// of them can be believed, durably.
//
// The superblocks of the set say whose each place is (`stays`), and mark the regions where who is away may differ from
// the set (parity_marks.h). A region is marked on all of the set before anything changes there. So a rebuild goes on
// after a restart, whatever its end was: what is not marked was flushed on the member, and has not changed since. And a
// member that left and comes back is given what it missed.
//
// Who is a member is decided by the set's superblocks alone. A device whose own superblock has another stay than its
// place has left, or never joined. That holds for a twin too: it has the place from the moment that all of the new set
// say so, and until the old one has left both get everything.
//
// After an unclean end members that are not here have missed what nobody can tell: they come back as blank ones.
#include <algorithm>
#include <cstring>
#include <utility>

#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {

// Everything that it may not have on its media, from now on. What begins later does not reach it.
void RaidParityBdev::note_failed(uint32_t seat) {
  if (driven_) return;
  ParityMarks::Regions lacks = missed_.lacked_by(seat) | missed_.unsettled();
  // What was rebuilt of it was flushed where the mark is cleared.
  if ((joining_ >> seat & 1) != 0) lacks |= missed_.wanted();
  // Its parity may be wrong there, and would not be made right.
  if (resyncing()) lacks |= missed_.regions_of(resync_stripe_, layout_.strip_count - resync_stripe_);
  missed_.set_lacks(seat, lacks);
}

// Those that leave may come back: it is marked what they miss. One that has a twin does not: its place is the twin's.
void RaidParityBdev::mark_leaving(uint32_t leaving) {
  if (driven_) return;
  const uint32_t spare = 1u << seats_.spare();
  const bool twin_stays = seats_.has_twin() && (leaving & spare) == 0;
  for_each_bit(leaving, [&](uint32_t seat) {
    const uint32_t bit = 1u << seat;
    if (bit == spare) {
      counted_ &= ~bit;
      exchanged_ = false;
      return;
    }
    if (twin_stays && seats_.twinned() == seat) {
      exchanged_ = true;
      return;
    }
    if ((joining_ & ~known_ & bit) != 0) missed_.set_lacks(seat, missed_.all());
    if ((counted_ & bit) == 0) superblock_.left[seats_.place_of(seat)] = superblock_.epoch;
    counted_ |= bit;
    missed_.want(missed_.lacked_by(seat));
  });
}

// Into the superblock that is written next.
void RaidParityBdev::describe_away() {
  if (driven_) return;
  uint32_t away = counted_;
  uint64_t any_stay = 0;
  superblock_.twin_stay = 0;
  for (uint32_t place = 0; place < member_count(); place++)
    any_stay |= superblock_.stays[place] = stays_[seats_.seat_of(place)];
  if (seats_.has_twin()) {
    const uint32_t spare = seats_.spare();
    superblock_.twin_place = static_cast<uint8_t>(seats_.place_of(spare));
    any_stay |= stays_[spare];
    if (exchanged_) {
      superblock_.stays[superblock_.twin_place] = stays_[spare];
    } else {
      superblock_.twin_stay = (counted_ >> spare & 1) != 0 ? stays_[spare] : 0;
      away &= ~(1u << spare);
    }
  }
  if (counted_ == 0 && any_stay == 0) return parity::forget_marks(&superblock_);
  superblock_.incompatible |= parity::incompatible_marks;
  superblock_.away = seats_.places_of(away);
  superblock_.rebuilding = seats_.places_of(away & joining_ & ~failed_);
  superblock_.mark_strips = static_cast<uint32_t>(missed_.region_strips());
  ParityMarks::write(counted_ != 0 ? missed_.wanted() : ParityMarks::Regions(), superblock_.marks);
}

// By the keeper. Waiting for them: writes that have not begun.
FramedTask<void> RaidParityBdev::write_missed() {
  if (broken()) co_return;
  const ParityMarks::Regions wanted = missed_.wanted();
  const uint32_t told = set();
  const uint32_t having = co_await write_superblocks(told);
  if (having == told) missed_.said(wanted);
}

// Members that are on their way now: the set says whose the places are, then they say so themselves, in both slots: who
// had belonged to another raid does no longer.
Task<void> RaidParityBdev::enrol() {
  uint32_t coming = std::exchange(want_enrol_, 0) & joining_ & ~failed_;
  if (coming == 0) co_return;
  const ParityMarks::Regions wanted = missed_.wanted();
  const uint32_t told = set();
  const uint32_t having = co_await write_superblocks(told);
  if (having != told) {
    want_enrol_ |= coming;  // after the next shrink
    co_return;
  }
  missed_.said(wanted);
  for (int slot = 0; slot < 2; slot++)
    coming = co_await write_superblocks(coming & joining_ & ~failed_);
}

// Marks of regions that nobody lacks any more are cleared, once all members were flushed.
Task<void> RaidParityBdev::sweep() {
  const ParityMarks::Regions swept = missed_.sweep_begins(counted_);
  if (counted_ == 0 || broken() || swept.none()) co_return;
  if (!bugs_.clear_before_flush) {
    const bool flushed = co_await checkpoint(Flush::always);
    if (!flushed) co_return;
  }
  if (missed_.sweep_ended(swept, counted_).none()) co_return;
  (void)co_await write_superblocks(set());
}

// Whether the device is who left that place, and has missed only what is marked.
bool RaidParityBdev::is_who_left(uint32_t seat, const parity::Superblock& found) const {
  const uint32_t place = seats_.place_of(seat);
  return std::memcmp(found.uuid, superblock_.uuid, sizeof(found.uuid)) == 0 && found.member == place &&
         (found.stay == stays_[seat] || bugs_.any_stay) && (found.stay != 0 || found.epoch >= superblock_.left[place]);
}

// Who joins either goes on from where it was, or is new and lacks everything.
Task<void> RaidParityBdev::recognize(const Rebuild& rebuild) {
  const uint32_t seat = rebuild.member;
  const uint32_t bit = 1u << seat;
  if (driven_) missed_.set_lacks(seat, missed_.all());
  if (driven_ || (known_ & bit) != 0) co_return;
  auto found = co_await raid_open::read_superblock(members_[seat]);
  if (!rebuild_goes_on(rebuild)) co_return;
  if (found) good_slots_[seat] = found->slot;
  const bool may_be = found && !found->unsure && (counted_ & bit) != 0 && seat != seats_.spare();
  const bool same = may_be && is_who_left(seat, *found);
  known_ |= bit;
  want_enrol_ |= bit;
  if (!same) {
    do {
      home().env().random(&stays_[seat], sizeof(stays_[seat]));
    } while (stays_[seat] == 0);
    missed_.set_lacks(seat, missed_.all());
    missed_.want(missed_.all());
    counted_ |= bit;
  }
  kick_keeper();
}

// A background task is about to write there: as writes from above, it is marked first, and counts as one of them until
// it says that it ended. False: the raid is going.
Task<bool> RaidParityBdev::begin_marked(uint64_t stripe) {
  while (counted_ != 0 && !closing_ && !offline_ && !missed_.durable(stripe, 1)) {
    missed_.want(stripe, 1);
    want_missed_ = true;
    kick_keeper();
    Woken woken{*this};
    co_await woken;
  }
  if (closing_ || offline_) co_return false;
  missed_.write_begins(stripe, 1, absent());
  co_return true;
}

// ---- found again ---------------------------------------------------------------------------------------------------

// What the members' superblocks say of those that are away. `missing`: of the set, and not here; `clean`: they have
// everything that was written, and so have those that are here.
void RaidParityBdev::adopt_away(const std::vector<const parity::Superblock*>& set_members, uint32_t missing,
                                bool clean) {
  ParityMarks::Regions regions;
  for (const parity::Superblock* s : set_members) {
    // One that was not told of the newest size.
    regions |= s->mark_strips == superblock_.mark_strips ? ParityMarks::read(s->marks) : missed_.all();
  }
  missed_.found(regions);
  for (uint32_t place = 0; place < member_count(); place++) {
    stays_[place] = superblock_.stays[place];
    const uint32_t bit = 1u << place;
    if ((superblock_.away & ~in_sync_ & bit) != 0) {
      counted_ |= bit;
      missed_.set_lacks(place, regions);
    } else if ((missing & bit) != 0 && clean) {
      counted_ |= bit;
      superblock_.left[place] = superblock_.epoch;
    } else if ((in_sync_ & bit) == 0) {
      stays_[place] = 0;
    }
  }
}

void RaidParityBdev::adopt_twin(uint32_t place, uint64_t stay) {
  const uint32_t spare = seats_.spare();
  seats_.begin_twin(place);
  stays_[spare] = stay;
  counted_ |= 1u << spare;
  missed_.set_lacks(spare, missed_.durable());
}

// A twin, and who was to be exchanged for it is not here.
void RaidParityBdev::inherit_place(uint32_t place, uint64_t stay) {
  stays_[place] = stay;
  counted_ |= 1u << place;
  missed_.set_lacks(place, missed_.durable());
}

// Goes on with members that are on their way. `twin`: of the place that its superblock says.
void RaidParityBdev::resume_rebuilds(const std::vector<Handle>& returning, Handle twin) {
  for (uint32_t place = 0; place < returning.size(); place++) {
    if (!returning[place] || !gate_.enter()) continue;
    known_ |= 1u << place;
    begin_rebuild(place, returning[place]);
  }
  if (!twin || !gate_.enter()) return;
  const uint32_t spare = seats_.spare();
  known_ |= 1u << spare;
  begin_rebuild(spare, twin);
}

}  // namespace basalt::bdev
