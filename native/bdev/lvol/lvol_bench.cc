// SPDX-License-Identifier: Apache-2.0
// How long a store takes to load from a sparse file (BASALT_BENCH_FILE, default /tmp/basalt_lvol_bench.img), made,
// filled, left as a crash leaves it, and removed. What an lvol costs over the bdev below: `npm run bench -- layers`.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <optional>

#include "bdev/file/file.h"
#include "bdev/lvol/lvstore.h"
#include "env/linux/linux_env.h"
#include "memory/arena.h"

namespace basalt::bdev {
namespace {

struct World {
  World() {
    if (!reactor.init().ok()) std::abort();
  }
  template <class T>
  static Task<void> keep(Task<T> task, std::optional<T>* out) {
    T value = co_await std::move(task);
    out->emplace(std::move(value));
  }
  template <class T>
  T run(Task<T> task) {
    std::optional<T> value;
    spawn(keep(std::move(task), &value));
    while (!value.has_value())
      reactor.turn();
    return std::move(*value);
  }
  std::unique_ptr<env::Env> env = env::make_linux_env();
  Arena arena{size_t{64} << 20};
  Reactor reactor{*env, arena, {}};
};

// Keeps `depth` requests of 4 KiB in flight.
struct Load {
  Load(World& world, Bdev& bdev, size_t depth) : world(world), bdev(bdev), ios(depth), memory(depth * 4096) {
    for (size_t i = 0; i < depth; i++) {
      iovs.push_back({memory.data() + i * 4096, 4096});
      ios[i].context = this;
      ios[i].count_blocks = 1;
      ios[i].iov_count = 1;
      ios[i].done = [](Io* io) {
        auto& load = *static_cast<Load*>(io->context);
        load.in_flight--;
        if (!io->status.ok()) std::abort();
      };
    }
  }
  void round(IoType type, uint64_t first_block, uint64_t stride) {
    for (size_t i = 0; i < ios.size(); i++) {
      ios[i].type = type;
      ios[i].iov = &iovs[i];
      ios[i].offset_blocks = (first_block + i * stride) % bdev.info().count_blocks;
      in_flight++;
      bdev.submit(&ios[i]);
    }
    while (in_flight > 0)
      world.reactor.turn();
  }
  World& world;
  Bdev& bdev;
  std::vector<Io> ios;
  std::vector<Iovec> iovs;
  std::vector<uint8_t> memory;
  size_t in_flight = 0;
};

// A store of 1 TiB after a crash. Arguments: lvols, and clusters that each of them has.
void import_after_crash(benchmark::State& state) {
  World world;
  const char* given = std::getenv("BASALT_BENCH_FILE");
  const std::string path = given != nullptr ? given : "/tmp/basalt_lvol_bench.img";
  std::remove(path.c_str());
  FileBdevOptions options{.name = "file", .uuid = {}, .path = path, .create_bytes = uint64_t{1} << 40};
  auto opened = FileBdev::open(world.reactor, options);
  if (!opened.ok()) {
    state.SkipWithError(opened.error().message.c_str());
    return;
  }
  std::unique_ptr<FileBdev> file = std::move(opened).value();
  const Handle handle(*file, world.reactor);
  auto store = world.run(LvStore::create(world.reactor, handle, {.name = "pool", .uuid = {}})).value();
  for (int64_t i = 0; i < state.range(0); i++) {
    const std::string name = "v" + std::to_string(i);
    Lvol* lvol = world.run(store->create_lvol({.name = name, .uuid = {}, .size_bytes = uint64_t{1} << 30})).value();
    Load load(world, *lvol, static_cast<size_t>(state.range(1)));
    load.round(IoType::write, 0, 256);
  }
  // Long enough for what runs in the background: the store cannot go before it has ended.
  const auto settled = [&] {
    const Instant until = world.reactor.env().now() + seconds(3);
    while (world.reactor.env().now() < until)
      world.reactor.turn();
  };
  settled();
  store.reset();  // without close(): as after the end of the process
  for (auto _ : state) {
    auto loaded = world.run(LvStore::load(world.reactor, handle));
    if (!loaded.ok()) std::abort();
    store = std::move(loaded).value();
    state.PauseTiming();
    const LvStoreStats stats = store->stats();
    state.counters["memory_MiB"] = static_cast<double>(stats.memory_bytes) / (1 << 20);
    state.counters["mapped_clusters"] = static_cast<double>(stats.total_clusters - stats.free_clusters);
    settled();
    store.reset();
    state.ResumeTiming();
  }
  if (!world.run(file->close()).ok()) std::abort();
  file.reset();
  std::remove(path.c_str());
}
BENCHMARK(import_after_crash)->Args({10'000, 10})->Unit(benchmark::kMillisecond)->Iterations(3);

}  // namespace
}  // namespace basalt::bdev
