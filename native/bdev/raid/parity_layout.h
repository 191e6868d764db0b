// SPDX-License-Identifier: Apache-2.0
// ParityLayout: where things lie on the members of a raid5 or raid6 bdev. Pure arithmetic, in blocks of the members.
//
//   member: | superblocks, log (parity_format.h) | strip 0 | strip 1 | ...
//
// Stripe s is strip s of every member. Within a stripe strips have roles: 0..k-1 data, k..k+m-1 parity; the roles move
// by one member from stripe to stripe, so that no member has more parity than another. A column is a block's offset
// within its strip: the blocks of one column on all members are one codeword.
#pragma once

#include <bit>
#include <cstdint>

namespace basalt::bdev {

struct ParityLayout {
  uint32_t data_count = 0;    // k
  uint32_t parity_count = 0;  // m
  uint32_t block_bytes = 4096;
  uint32_t strip_blocks = 0;
  uint64_t strip_count = 0;  // on each member, and so the number of stripes
  uint64_t first_block = 0;  // where strip 0 begins on a member

  uint32_t member_count() const { return data_count + parity_count; }
  uint64_t stripe_blocks() const { return uint64_t{strip_blocks} * data_count; }  // of data
  uint64_t count_blocks() const { return strip_count * stripe_blocks(); }

  uint32_t member_of(uint64_t stripe, uint32_t role) const {
    return (role + member_count() - static_cast<uint32_t>(stripe % member_count())) % member_count();
  }
  uint32_t role_of(uint64_t stripe, uint32_t member) const {
    return (member + static_cast<uint32_t>(stripe % member_count())) % member_count();
  }
  // A set of members as a set of roles.
  uint32_t roles_of(uint64_t stripe, uint32_t members) const {
    uint32_t roles = 0;
    for (; members != 0; members &= members - 1)
      roles |= 1u << role_of(stripe, static_cast<uint32_t>(std::countr_zero(members)));
    return roles;
  }
  uint64_t member_block(uint64_t stripe, uint32_t column) const { return first_block + stripe * strip_blocks + column; }
  uint32_t data_roles() const { return (1u << data_count) - 1; }
  uint32_t parity_roles() const { return ((1u << parity_count) - 1) << data_count; }
};

struct StripeRange {
  uint64_t first = 0;
  uint64_t count = 1;
  uint64_t end() const { return first + count; }
  bool has(uint64_t stripe) const { return stripe >= first && stripe < end(); }
};

// Part of a request within one stripe: the same data roles over the same columns.
struct ParityBand {
  uint64_t stripe = 0;
  uint64_t stripe_count = 1;  // more than one only for whole stripes of zeroes
  uint32_t column = 0;
  uint32_t column_count = 0;
  uint32_t first_role = 0;
  uint32_t role_count = 0;
  uint32_t roles() const { return ((1u << role_count) - 1) << first_role; }
};

// Cuts [block, end) into bands. Within a stripe a range touches the end of its first strip, all of those between and
// the beginning of its last: at most three bands, each a rectangle of roles and columns.
class ParityBands {
 public:
  ParityBands() = default;
  // `merge_stripes`: neighbouring whole stripes are one band.
  ParityBands(uint64_t block, uint64_t end_block, bool merge_stripes)
      : block_(block), end_block_(end_block), merge_stripes_(merge_stripes) {}
  // False: there is none left. `columns_max` bounds bands of some roles, `full_columns_max` those of all data roles.
  bool next(const ParityLayout& layout, uint32_t columns_max, uint32_t full_columns_max, ParityBand* out);

 private:
  uint64_t block_ = 0;  // where the current stripe's part begins
  uint64_t end_block_ = 0;
  uint32_t column_ = 0;  // within the current stripe: columns before it are done
  bool merge_stripes_ = false;
};

}  // namespace basalt::bdev
