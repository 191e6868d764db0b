// SPDX-License-Identifier: Apache-2.0
// How often a test of one thread repeats itself. Under a sanitizer a round takes some ten times as long; the
// simulator's runs (`npm run sim`) do many more without one. ThreadSanitizer is there for races, of which one thread
// has none: a few rounds, or a part of many cases, bring it by all the code.
#pragma once

#include <cstdint>

namespace basalt::testing {

struct Rounds {
  uint64_t plain;
  uint64_t asan;
  uint64_t tsan;
};

constexpr uint64_t rounds_here(Rounds rounds) {
#if defined(__SANITIZE_ADDRESS__)
  return rounds.asan;
#elif defined(__SANITIZE_THREAD__)
  return rounds.tsan;
#else
  return rounds.plain;
#endif
}

// Of many inputs of one kind, only the first of each so many is tried.
inline constexpr uint64_t case_stride = rounds_here({.plain = 1, .asan = 1, .tsan = 16});

// Of the moments at which a history may be cut short. All of them are tried without a sanitizer, by every run of the
// tests.
inline constexpr uint64_t cut_stride = rounds_here({.plain = 1, .asan = 5, .tsan = 23});

// How many of so many cuts are tried.
constexpr uint64_t cuts_here(uint64_t count) {
  return count / cut_stride;
}

}  // namespace basalt::testing
