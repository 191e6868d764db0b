// SPDX-License-Identifier: Apache-2.0
#include "bench/meter.h"

#include <dirent.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace basalt::bench {
namespace {

double own_cpu_us() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto us = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec);
  };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

// The time on the processor of all threads, in nanoseconds, is the first field of their schedstat.
double cpu_us_of(int pid) {
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

}  // namespace

double Histogram::percentile_us(double fraction) const {
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

void Meter::start(Instant now, Duration length) {
  begin_ = now;
  end_ = now + length;
  windows_.assign(static_cast<size_t>(length.ns / window_ns), 0);
  own_cpu_us_ = own_cpu_us();
  server_cpu_us_ = cpu_us_of(server_pid_);
}

void Meter::finish(Instant now) {
  finished_ = now;
  own_cpu_us_ = own_cpu_us() - own_cpu_us_;
  server_cpu_us_ = cpu_us_of(server_pid_) - server_cpu_us_;
}

double Meter::speed() const {
  if (windows_.empty()) return 0;
  std::vector<uint32_t> sorted = windows_;
  std::sort(sorted.begin(), sorted.end());
  return sorted[(sorted.size() - 1) * 95 / 100] * 1000.0;
}

std::string Meter::report() const {
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
