// SPDX-License-Identifier: Apache-2.0
// A volume's route: address → leg, and leg → placement group, computed. The control plane computes the same
// (src/placement/route.ts); test/vectors/route.json holds both to it.
//
// Invariants:  - ranges follow one another without a gap, from address 0 to the volume's size
//              - what a rule gives depends on where its range begins, never on where it ends: growth remaps nothing
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"

namespace basalt::route {

inline constexpr uint32_t legs_max = 1024;
inline constexpr uint32_t pgs_max = 16384;

// What happens when the seed gives a leg the PG of an earlier leg of its range.
enum class Conflict : uint8_t {
  spread,  // the next PG that none of them has
  any,     // that PG again
};

struct Range {
  uint64_t start_bytes;
  uint64_t length_bytes;
  uint32_t stripe_size_bytes;
  uint32_t first_leg;
  uint32_t leg_count;
  // Where the range begins in each of its legs.
  uint64_t leg_offset_bytes;
  uint32_t seed;
  Conflict conflict;
};

struct LegAddress {
  uint32_t leg;
  uint64_t offset_bytes;
  // How many bytes from there lie one after the other, in the leg as in the volume.
  uint64_t run_bytes;
};

// Ranges from outside are checked once: what passes can be located without overflow or division by zero.
Outcome check(std::span<const Range> route);

// Nothing: beyond the end. `route` has passed check().
std::optional<LegAddress> locate(std::span<const Range> route, uint64_t address_bytes);

// The PGs of the legs of one range, in their order. `pg_count` is from 1 to pgs_max, `range` has passed check().
std::vector<uint32_t> leg_pgs(const Range& range, uint32_t pg_count);

// A permutation of 32 bits in which every bit of the input counts for every bit of the output.
uint32_t mix32(uint32_t value);

}  // namespace basalt::route
