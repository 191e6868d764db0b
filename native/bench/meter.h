// SPDX-License-Identifier: Apache-2.0
// Meter: what a closed loop achieved, in figures that hold on a shared machine (docs/performance.md): completions per
// 1 ms window, of which a high percentile is the speed while on the processor; latency percentiles; and CPU time from
// the kernel's accounting, of this process and of those that serve it.
#pragma once

#include <dirent.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
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
  // `server_pids`: of the processes whose CPU time is read as well, separated by commas.
  explicit Meter(const std::string& server_pids);

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

  double servers_cpu_us() const;

  std::vector<int> server_pids_;
  Instant begin_;
  Instant end_;
  Instant finished_;
  std::vector<uint32_t> windows_;
  Histogram latencies_;
  uint64_t ios_ = 0;
  double own_cpu_us_ = 0;
  double server_cpu_us_ = 0;
};

namespace detail {

inline double own_cpu_us() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto us = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec);
  };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

// The time on the processor of all threads, in nanoseconds, is the first field of their schedstat.
inline double cpu_us_of(int pid) {
  if (pid == 0) return 0;
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  DIR* folder = opendir(tasks.c_str());
  if (folder == nullptr) return 0;
  double total_us = 0;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    FILE* file = std::fopen((tasks + "/" + entry->d_name + "/schedstat").c_str(), "re");
    if (file == nullptr) continue;
    unsigned long long ns = 0;
    if (std::fscanf(file, "%llu", &ns) == 1) total_us += static_cast<double>(ns) / 1000;
    std::fclose(file);
  }
  closedir(folder);
  return total_us;
}

}  // namespace detail

inline double Histogram::percentile_us(double fraction) const {
  const auto wanted = static_cast<uint64_t>(fraction * static_cast<double>(count_));
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket < counts_.size(); bucket++) {
    seen += counts_[bucket];
    if (seen <= wanted) continue;
    const size_t exponent = bucket >> sub_bits;
    const uint64_t low = bucket & ((1u << sub_bits) - 1);
    const uint64_t ns = exponent == 0 ? low : (low | 1u << sub_bits) << (exponent - 1);
    return static_cast<double>(ns) / 1000;
  }
  return 0;
}

inline Meter::Meter(const std::string& server_pids) {
  for (const char* at = server_pids.c_str(); *at != '\0';) {
    char* end = nullptr;
    server_pids_.push_back(static_cast<int>(std::strtol(at, &end, 10)));
    at = *end == ',' ? end + 1 : "";
  }
}

inline double Meter::servers_cpu_us() const {
  double total_us = 0;
  for (const int pid : server_pids_)
    total_us += detail::cpu_us_of(pid);
  return total_us;
}

inline void Meter::start(Instant now, Duration length) {
  begin_ = now;
  end_ = now + length;
  windows_.assign(static_cast<size_t>(length.ns / window_ns), 0);
  own_cpu_us_ = detail::own_cpu_us();
  server_cpu_us_ = servers_cpu_us();
}

inline void Meter::finish(Instant now) {
  finished_ = now;
  own_cpu_us_ = detail::own_cpu_us() - own_cpu_us_;
  server_cpu_us_ = servers_cpu_us() - server_cpu_us_;
}

inline double Meter::speed() const {
  if (windows_.empty()) return 0;
  std::vector<uint32_t> sorted = windows_;
  std::sort(sorted.begin(), sorted.end());
  return sorted[(sorted.size() - 1) * 95 / 100] * 1000.0;
}

inline std::string Meter::report() const {
  const double elapsed_s = static_cast<double>((finished_ - begin_).ns) / 1e9;
  const auto ios = static_cast<double>(std::max<uint64_t>(ios_, 1));
  char text[512];
  std::snprintf(text, sizeof(text),
                "{\"ios\":%llu,\"speed_iops\":%.0f,\"mean_iops\":%.0f,\"p50_us\":%.2f,\"p99_us\":%.2f,"
                "\"client_cpu_us_per_io\":%.3f,\"server_cpu_us_per_io\":%.3f}",
                static_cast<unsigned long long>(ios_), speed(), static_cast<double>(ios_) / elapsed_s,
                latencies_.percentile_us(0.5), latencies_.percentile_us(0.99), own_cpu_us_ / ios, server_cpu_us_ / ios);
  return text;
}

}  // namespace basalt::bench
