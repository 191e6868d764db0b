// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <vector>

#include "base/crc32c.h"

namespace {

void crc32c_of(benchmark::State& state) {
  const std::vector<char> bytes(static_cast<size_t>(state.range(0)), 'x');
  uint32_t crc = 0;
  for (auto _ : state) {
    crc = basalt::crc32c(crc, bytes.data(), bytes.size());
    benchmark::DoNotOptimize(crc);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(crc32c_of)->Name("crc32c")->Arg(72)->Arg(512)->Arg(4096)->Arg(131072);

}  // namespace
