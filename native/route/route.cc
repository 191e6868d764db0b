// SPDX-License-Identifier: Apache-2.0
#include "route/route.h"

#include <algorithm>
#include <string>

#include "base/assert.h"

namespace basalt::route {

namespace {

Error invalid(size_t index, const char* problem) {
  return Error{Errc::invalid_argument, "route[" + std::to_string(index) + "]: " + problem};
}

uint32_t seeded_pg(uint32_t seed, uint32_t index, uint32_t pg_count) {
  const uint64_t mixed = mix32(seed ^ mix32(index + 1));
  return static_cast<uint32_t>((mixed * pg_count) >> 32);
}

}  // namespace

uint32_t mix32(uint32_t value) {
  uint32_t x = value;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

Outcome check(std::span<const Range> route) {
  uint64_t end_bytes = 0;
  for (size_t i = 0; i < route.size(); i++) {
    const Range& range = route[i];
    if (range.start_bytes != end_bytes) return invalid(i, "must begin where the one before it ends");
    if (range.length_bytes == 0) return invalid(i, "is empty");
    if (range.stripe_size_bytes == 0) return invalid(i, "has no stripe size");
    if (range.leg_count == 0 || range.leg_count > legs_max || range.first_leg > legs_max - range.leg_count)
      return invalid(i, "must have from 1 to 1024 legs");
    if (__builtin_add_overflow(range.start_bytes, range.length_bytes, &end_bytes)) return invalid(i, "is too long");
    uint64_t ignored = 0;
    if (__builtin_add_overflow(range.leg_offset_bytes, range.length_bytes, &ignored))
      return invalid(i, "begins too far inside its legs");
  }
  return success();
}

std::optional<LegAddress> locate(std::span<const Range> route, uint64_t address_bytes) {
  // The range that begins last at or before the address.
  const auto after = std::upper_bound(route.begin(), route.end(), address_bytes,
                                      [](uint64_t address, const Range& range) { return address < range.start_bytes; });
  if (after == route.begin()) return std::nullopt;
  const Range& range = *(after - 1);
  const uint64_t at = address_bytes - range.start_bytes;
  if (at >= range.length_bytes) return std::nullopt;
  const uint64_t stripe = at / range.stripe_size_bytes;
  const uint64_t inside = at % range.stripe_size_bytes;
  return LegAddress{
      .leg = range.first_leg + static_cast<uint32_t>(stripe % range.leg_count),
      .offset_bytes = range.leg_offset_bytes + stripe / range.leg_count * range.stripe_size_bytes + inside,
      .run_bytes = std::min(range.stripe_size_bytes - inside, range.length_bytes - at),
  };
}

std::vector<uint32_t> leg_pgs(const Range& range, uint32_t pg_count) {
  BASALT_ASSERT(pg_count >= 1 && pg_count <= pgs_max);
  BASALT_ASSERT(range.leg_count <= legs_max);
  std::vector<uint32_t> pgs;
  pgs.reserve(range.leg_count);
  std::vector<bool> taken(pg_count, false);
  uint32_t taken_count = 0;
  for (uint32_t index = 0; index < range.leg_count; index++) {
    uint32_t pg = seeded_pg(range.seed, index, pg_count);
    if (range.conflict == Conflict::spread) {
      if (taken_count == pg_count) {
        taken.assign(pg_count, false);
        taken_count = 0;
      }
      while (taken[pg])
        pg = pg + 1 == pg_count ? 0 : pg + 1;
      taken[pg] = true;
      taken_count += 1;
    }
    pgs.push_back(pg);
  }
  return pgs;
}

}  // namespace basalt::route
