// SPDX-License-Identifier: Apache-2.0
#include "bdev/range_lock.h"

#include <benchmark/benchmark.h>

#include <vector>

namespace {

using basalt::bdev::RangeEntry;
using basalt::bdev::RangeLock;

// One acquire and release while so many others, which do not overlap, are in flight.
void acquire_release(benchmark::State& state) {
  RangeLock lock;
  std::vector<RangeEntry> others(static_cast<size_t>(state.range(0)));
  for (size_t i = 0; i < others.size(); i++) {
    others[i].first_block = i * 8;
    others[i].end_block = i * 8 + 1;
    others[i].exclusive = true;
    lock.acquire(&others[i]);
  }
  RangeEntry entry;
  entry.first_block = 1 << 20;
  entry.end_block = entry.first_block + 1;
  entry.exclusive = true;
  for (auto _ : state) {
    benchmark::DoNotOptimize(lock.acquire(&entry));
    lock.release(&entry);
  }
  for (RangeEntry& other : others)
    lock.release(&other);
}
BENCHMARK(acquire_release)->Name("range_lock")->Arg(0)->Arg(32)->Arg(128);

}  // namespace
