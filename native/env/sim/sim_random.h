// SPDX-License-Identifier: Apache-2.0
// SimRandom: xoshiro256** seeded by splitmix64: small, fast, the same on every machine.
#pragma once

#include <cstdint>

namespace basalt::env {

class SimRandom {
 public:
  explicit SimRandom(uint64_t seed);
  uint64_t next();
  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  bool chance(double probability) { return static_cast<double>(next() >> 11) * 0x1p-53 < probability; }
  // A fault that is switched off draws nothing, so that histories of runs without it stay as they are.
  bool strikes(double probability) { return probability > 0 && chance(probability); }

 private:
  uint64_t state_[4];
};

}  // namespace basalt::env
