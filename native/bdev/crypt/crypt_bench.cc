// SPDX-License-Identifier: Apache-2.0
// What encryption costs over the bdev below (malloc, which copies), and the cipher alone. Arguments: bytes per request.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <vector>

#include "bdev/crypt/crypt.h"
#include "bdev/malloc/malloc.h"
#include "env/linux/linux_env.h"
#include "memory/arena.h"

namespace basalt::bdev {
namespace {

constexpr uint32_t block = 4096;
constexpr uint64_t blocks = 1024;

crypto::XtsCipher make_cipher() {
  crypto::SecretBytes keys[2] = {crypto::SecretBytes(32), crypto::SecretBytes(32)};
  keys[0].data()[0] = 1;
  auto cipher = crypto::XtsCipher::create(keys[0], keys[1]);
  if (!cipher.ok()) std::abort();
  return std::move(cipher).value();
}

struct Stack {
  Stack() {
    if (!reactor.init().ok()) std::abort();
    base = std::move(MallocBdev::create(reactor, {"m", {}, block, blocks})).value();
    crypt = std::move(CryptBdev::create(reactor, {"c", {}}, Handle(*base, reactor), make_cipher())).value();
  }
  // One request after another.
  void run(benchmark::State& state, Bdev& bdev, IoType type) {
    std::vector<uint8_t> memory(static_cast<size_t>(state.range(0)), 7);
    Iovec iov{memory.data(), memory.size()};
    bool done = false;
    Io io;
    io.iov = &iov;
    io.iov_count = 1;
    io.count_blocks = static_cast<uint32_t>(memory.size() / block);
    io.context = &done;
    io.done = [](Io* ended) {
      if (!ended->status.ok()) std::abort();
      *static_cast<bool*>(ended->context) = true;
    };
    const auto once = [&](IoType what, uint64_t at) {
      done = false;
      io.type = what;
      io.offset_blocks = at;
      bdev.submit(&io);
      while (!done)
        reactor.turn();
    };
    for (uint64_t at = 0; at < blocks; at += io.count_blocks)
      once(IoType::write, at);
    uint64_t at = 0;
    for (auto _ : state) {
      once(type, at);
      at = (at + io.count_blocks) % blocks;
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
  }
  std::unique_ptr<env::Env> env = env::make_linux_env();
  Arena arena{size_t{64} << 20};
  Reactor reactor{*env, arena, {}};
  std::unique_ptr<MallocBdev> base;
  std::unique_ptr<CryptBdev> crypt;
};

void below_crypt(benchmark::State& state) {
  Stack stack;
  stack.run(state, *stack.base, state.range(1) == 0 ? IoType::read : IoType::write);
}
BENCHMARK(below_crypt)->ArgsProduct({{4096, 131072}, {0, 1}})->ArgNames({"bytes", "write"});

void crypt(benchmark::State& state) {
  Stack stack;
  stack.run(state, *stack.crypt, state.range(1) == 0 ? IoType::read : IoType::write);
}
BENCHMARK(crypt)->ArgsProduct({{4096, 131072}, {0, 1}})->ArgNames({"bytes", "write"});

void xts_unit(benchmark::State& state) {
  crypto::XtsCipher cipher = make_cipher();
  std::vector<uint8_t> memory(static_cast<size_t>(state.range(0)), 7);
  uint64_t unit = 0;
  for (auto _ : state) {
    if (!cipher.encrypt(unit++, memory.data(), memory.data(), memory.size())) std::abort();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(xts_unit)->Arg(512)->Arg(4096);

}  // namespace
}  // namespace basalt::bdev
