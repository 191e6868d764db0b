// SPDX-License-Identifier: Apache-2.0
// ParitySeats: which member has which place of a raid5 or raid6. Pure.
//
// Places are the layout's. A member is known by its seat for as long as it is here, since requests that are under way
// name it by that. There is one seat more than there are places: for the twin of a member, that is made equal to it and
// then has its place.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <utility>

#include "base/assert.h"
#include "bdev/raid/codec.h"

namespace basalt::bdev {

class ParitySeats {
 public:
  static constexpr uint32_t seat_count_max = ParityCodec::strip_count_max + 1;
  static constexpr uint32_t nobody = seat_count_max;
  static_assert(nobody < 32);

  explicit ParitySeats(uint32_t place_count) : spare_(place_count) {
    for (uint32_t i = 0; i < place_count; i++)
      seats_[i] = places_[i] = static_cast<uint8_t>(i);
  }

  uint32_t seat_of(uint32_t place) const { return seats_[place]; }
  // Of the spare seat: that of its twin.
  uint32_t place_of(uint32_t seat) const { return places_[seat]; }
  uint32_t places_of(uint32_t seats) const {
    uint32_t places = 0;
    for (; seats != 0; seats &= seats - 1)
      places |= 1u << places_[static_cast<uint32_t>(std::countr_zero(seats))];
    return places;
  }

  uint32_t spare() const { return spare_; }
  bool has_twin() const { return has_twin_; }
  bool has_twin_at(uint32_t place) const { return has_twin_ && places_[spare_] == place; }
  // The seat that the twin's place is still another one's at.
  uint32_t twinned() const { return seats_[places_[spare_]]; }

  void begin_twin(uint32_t place) {
    BASALT_ASSERT(!has_twin_);
    has_twin_ = true;
    places_[spare_] = static_cast<uint8_t>(place);
  }
  void end_twin() { has_twin_ = false; }
  // Nothing is known by these seats yet: they exchange their places.
  void exchange(uint32_t seat, uint32_t other) {
    BASALT_ASSERT(seat != spare_ && other != spare_);
    std::swap(places_[seat], places_[other]);
    seats_[places_[seat]] = static_cast<uint8_t>(seat);
    seats_[places_[other]] = static_cast<uint8_t>(other);
  }
  // The place is the twin's; whose it was leaves the spare seat.
  void promote_twin() {
    BASALT_ASSERT(has_twin_);
    has_twin_ = false;
    const uint32_t left = twinned();
    seats_[places_[spare_]] = static_cast<uint8_t>(spare_);
    spare_ = left;
  }

 private:
  std::array<uint8_t, seat_count_max> seats_{};   // by place
  std::array<uint8_t, seat_count_max> places_{};  // by seat
  uint32_t spare_;
  bool has_twin_ = false;
};

}  // namespace basalt::bdev
