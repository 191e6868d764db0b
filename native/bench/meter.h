// SPDX-License-Identifier: Apache-2.0
// Meter: what a closed loop achieved, in figures that hold on a shared machine (docs/performance.md): completions per
// 1 ms window, of which a high percentile is the speed while on the processor; latency percentiles; and CPU time from
// the kernel's accounting, of this process and of one that serves it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "base/time.h"

namespace basalt::bench {

// Latency in buckets of at most 1.6 % width.
class Histogram {
 public:
  void add(uint64_t ns) {
    counts_[bucket_of(ns)]++;
    count_++;
  }
  double percentile_us(double fraction) const;

 private:
  static constexpr unsigned sub_bits = 6;
  static size_t bucket_of(uint64_t ns) {
    if (ns < (1u << sub_bits)) return ns;
    const unsigned shift = static_cast<unsigned>(std::bit_width(ns)) - sub_bits - 1;
    return (size_t{shift} + 1) << sub_bits | ((ns >> shift) & ((1u << sub_bits) - 1));
  }
  std::array<uint64_t, 64 << sub_bits> counts_{};
  uint64_t count_ = 0;
};

class Meter {
 public:
  // `server_pid`: whose CPU time is read as well; 0: nobody's.
  explicit Meter(int server_pid) : server_pid_(server_pid) {}

  void start(Instant now, Duration length);
  bool over(Instant now) const { return now >= end_; }
  void complete(Instant now, Duration latency) {
    const auto window = static_cast<size_t>((now - begin_).ns / window_ns);
    if (window < windows_.size()) windows_[window]++;
    latencies_.add(static_cast<uint64_t>(latency.ns));
    ios_++;
  }
  void finish(Instant now);
  // One line of JSON.
  std::string report() const;

 private:
  static constexpr int64_t window_ns = 1'000'000;
  double speed() const;

  const int server_pid_;
  Instant begin_;
  Instant end_;
  Instant finished_;
  std::vector<uint32_t> windows_;
  Histogram latencies_;
  uint64_t ios_ = 0;
  double own_cpu_us_ = 0;
  double server_cpu_us_ = 0;
};

}  // namespace basalt::bench
