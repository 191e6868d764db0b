// SPDX-License-Identifier: Apache-2.0
// The arithmetic of raid5 and raid6: bytes of data per second.
#include <benchmark/benchmark.h>

#include <vector>

#include "bdev/raid/codec.h"

namespace basalt::bdev {
namespace {

void encode(benchmark::State& state) {
  const auto k = static_cast<uint32_t>(state.range(0));
  const auto m = static_cast<uint32_t>(state.range(1));
  const auto length_bytes = static_cast<size_t>(state.range(2));
  const ParityCodec codec(k, m);
  std::vector<std::vector<uint8_t>> strips(k + m, std::vector<uint8_t>(length_bytes, 1));
  std::vector<uint8_t*> pointers;
  for (auto& strip : strips)
    pointers.push_back(strip.data());
  for (auto _ : state)
    codec.encode(length_bytes, pointers.data(), &pointers[k]);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(length_bytes * k));
}
BENCHMARK(encode)
    ->Name("parity_encode")
    ->Args({3, 1, 4096})
    ->Args({4, 2, 4096})
    ->Args({4, 2, 65536})
    ->Args({16, 4, 65536});

}  // namespace
}  // namespace basalt::bdev
