// SPDX-License-Identifier: Apache-2.0
// The cipher alone, by bytes of a data unit. What encryption costs over the bdev below: `npm run bench -- layers`.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <vector>

#include "crypto/xts.h"

namespace basalt::crypto {
namespace {

XtsCipher make_cipher() {
  SecretBytes keys[2] = {SecretBytes(32), SecretBytes(32)};
  keys[0].data()[0] = 1;
  auto cipher = XtsCipher::create(keys[0], keys[1]);
  if (!cipher.ok()) std::abort();
  return std::move(cipher).value();
}

void xts_unit(benchmark::State& state) {
  XtsCipher cipher = make_cipher();
  std::vector<uint8_t> memory(static_cast<size_t>(state.range(0)), 7);
  uint64_t unit = 0;
  for (auto _ : state) {
    if (!cipher.encrypt(unit++, memory.data(), memory.data(), memory.size())) std::abort();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(xts_unit)->Arg(512)->Arg(4096);

}  // namespace
}  // namespace basalt::crypto
