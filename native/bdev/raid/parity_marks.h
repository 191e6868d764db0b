// SPDX-License-Identifier: Apache-2.0
// ParityMarks: where members of a raid that are away, or are being rebuilt, may differ from what its set says; and what
// would have to be marked if a member left now. Pure: the raid writes superblocks and flushes (raid_parity_away.cc).
//
// In regions of some stripes. Members are known by their seats (parity_seats.h).
//
// Invariants:
//  - a region that is not marked durably on the set is equal, and flushed, on all members that are away and counted on
//  - wanted() contains durable(); what a member lacks is in wanted() as long as that member is counted on
//  - a mark is cleared when no such member lacks its region, and all members were flushed after the last write there
#pragma once

#include <algorithm>
#include <bit>
#include <bitset>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "bdev/raid/parity_format.h"

namespace basalt::bdev {

class ParityMarks {
 public:
  using Regions = std::bitset<parity::mark_count_max>;

  // `strips` of a region: at least; as many more as it takes.
  ParityMarks(uint64_t strip_count, uint64_t strips, uint32_t seat_count) : lacks_(seat_count) {
    region_strips_ = std::bit_ceil(std::max<uint64_t>(strips, 1));
    while ((strip_count + region_strips_ - 1) / region_strips_ > parity::mark_count_max)
      region_strips_ *= 2;
    strip_count_ = strip_count;
    region_count_ = static_cast<uint32_t>((strip_count + region_strips_ - 1) / region_strips_);
    under_way_.resize(region_count_);
  }

  // More stripes; nobody is away. Regions become larger when they would be too many.
  void grow(uint64_t strip_count) {
    strip_count_ = strip_count;
    while ((strip_count + region_strips_ - 1) / region_strips_ > parity::mark_count_max) {
      region_strips_ *= 2;
      Regions* const all[] = {&wanted_, &durable_, &written_, &since_, &before_};
      for (uint32_t region = 0; region < region_count_; region++) {
        const uint32_t into = region / 2;
        if (region % 2 == 0) {
          under_way_[into] = under_way_[region];
          for (Regions* regions : all)
            regions->set(into, regions->test(region));
        } else {
          under_way_[into] += under_way_[region];
          for (Regions* regions : all)
            if (regions->test(region)) regions->set(into);
        }
      }
      const uint32_t left = (region_count_ + 1) / 2;
      for (uint32_t region = left; region < region_count_; region++)
        for (Regions* regions : all)
          regions->reset(region);
      region_count_ = left;
      under_way_.resize(region_count_);
    }
    region_count_ = static_cast<uint32_t>((strip_count + region_strips_ - 1) / region_strips_);
    under_way_.resize(region_count_);
  }

  uint64_t region_strips() const { return region_strips_; }
  uint32_t region_count() const { return region_count_; }
  uint32_t region_of(uint64_t stripe) const { return static_cast<uint32_t>(stripe / region_strips_); }
  uint64_t first_stripe(uint32_t region) const { return region * region_strips_; }
  uint64_t stripes_of(uint32_t region) const {
    return std::min(region_strips_, strip_count_ - region * region_strips_);
  }
  Regions all() const {
    Regions regions;
    for (uint32_t region = 0; region < region_count_; region++)
      regions.set(region);
    return regions;
  }
  Regions regions_of(uint64_t stripe, uint64_t stripe_count) const {
    Regions regions;
    for (uint32_t region = region_of(stripe); region <= region_of(stripe + stripe_count - 1); region++)
      regions.set(region);
    return regions;
  }

  // ---- writes
  // --------------------------------------------------------------------------------------------------------

  // `absent`: members that are away and do not get it.
  void write_begins(uint64_t stripe, uint64_t stripe_count, uint32_t absent) {
    for (uint32_t region = region_of(stripe); region <= region_of(stripe + stripe_count - 1); region++) {
      under_way_[region]++;
      written_.set(region);
      for (uint32_t left = absent; left != 0; left &= left - 1)
        lacks_[static_cast<size_t>(std::countr_zero(left))].set(region);
    }
  }
  void write_ends(uint64_t stripe, uint64_t stripe_count) {
    for (uint32_t region = region_of(stripe); region <= region_of(stripe + stripe_count - 1); region++) {
      BASALT_ASSERT(under_way_[region] > 0);
      under_way_[region]--;
      since_.set(region);
    }
  }
  // As UnflushedMap: of all members of the set, one flush at a time.
  void flush_begins() {
    before_ = since_;
    since_.reset();
  }
  void flush_ended(bool all) {
    if (!all) since_ |= before_;
    before_.reset();
  }
  // What somebody who leaves now may not have on its media.
  Regions unsettled() const {
    Regions regions = since_ | before_;
    for (uint32_t region = 0; region < region_count_; region++)
      if (under_way_[region] > 0) regions.set(region);
    return regions;
  }

  // ---- marks
  // ---------------------------------------------------------------------------------------------------------

  bool durable(uint64_t stripe, uint64_t stripe_count) const {
    for (uint32_t region = region_of(stripe); region <= region_of(stripe + stripe_count - 1); region++)
      if (!durable_.test(region)) return false;
    return true;
  }
  void want(uint64_t stripe, uint64_t stripe_count) { wanted_ |= regions_of(stripe, stripe_count); }
  void want(const Regions& regions) { wanted_ |= regions; }
  const Regions& wanted() const { return wanted_; }
  const Regions& durable() const { return durable_; }
  // All of the set have a superblock with these.
  void said(const Regions& regions) { durable_ |= regions & wanted_; }
  void found(const Regions& regions) { wanted_ = durable_ = regions; }
  void forget() {
    wanted_.reset();
    durable_.reset();
  }

  const Regions& lacked_by(uint32_t seat) const { return lacks_[seat]; }
  bool lacks(uint32_t seat, uint64_t stripe) const { return lacks_[seat].test(region_of(stripe)); }
  void set_lacks(uint32_t seat, const Regions& regions) { lacks_[seat] = regions; }
  void has_now(uint32_t seat, uint32_t region) { lacks_[seat].reset(region); }

  // ---- clearing
  // ------------------------------------------------------------------------------------------------------

  // Those that may be cleared if nothing is written there until all members were flushed.
  Regions sweep_begins(uint32_t counted_on) {
    written_.reset();
    return quiet(durable_, counted_on);
  }
  // They were flushed. What was cleared is to be marked again before it is written.
  Regions sweep_ended(const Regions& swept, uint32_t counted_on) {
    const Regions cleared = quiet(swept & ~written_, counted_on);
    wanted_ &= ~cleared;
    durable_ &= ~cleared;
    return cleared;
  }

  // ---- on disk
  // -------------------------------------------------------------------------------------------------------

  static void write(const Regions& regions, uint8_t* bytes) {
    std::memset(bytes, 0, parity::mark_count_max / 8);
    // libstdc++'s own way to the bits that are set: there are few.
    for (size_t i = regions._Find_first(); i < regions.size(); i = regions._Find_next(i))
      bytes[i / 8] |= static_cast<uint8_t>(1u << i % 8);
  }
  static Regions read(const uint8_t* bytes) {
    Regions regions;
    for (uint32_t byte = 0; byte < parity::mark_count_max / 8; byte++)
      for (uint32_t left = bytes[byte]; left != 0; left &= left - 1)
        regions.set(byte * 8 + static_cast<uint32_t>(std::countr_zero(left)));
    return regions;
  }

 private:
  // Of these: nobody lacks them, and nothing is being written there.
  Regions quiet(Regions regions, uint32_t counted_on) const {
    for (; counted_on != 0; counted_on &= counted_on - 1)
      regions &= ~lacks_[static_cast<size_t>(std::countr_zero(counted_on))];
    for (uint32_t region = 0; region < region_count_; region++)
      if (under_way_[region] > 0) regions.reset(region);
    return regions;
  }

  uint64_t strip_count_ = 0;
  uint64_t region_strips_ = 1;
  uint32_t region_count_ = 0;
  Regions wanted_;                   // in the superblocks that are written next
  Regions durable_;                  // on the disks of all of the set
  std::vector<Regions> lacks_;       // by seat
  std::vector<uint32_t> under_way_;  // writes, by region
  Regions written_;                  // since a sweep began
  Regions since_;                    // written, and ended after the last flush began
  Regions before_;                   // and before the one that is followed now
};

}  // namespace basalt::bdev
