// SPDX-License-Identifier: Apache-2.0
// What an lvol costs over the bdev below, and how long a store takes to load. The base forgets everything (null), but
// for the import: a sparse file (BASALT_BENCH_FILE, default /tmp/basalt_lvol_bench.img), made, filled, left as a crash
// leaves it, and removed. Arguments of I/O benchmarks: how many are in flight.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <optional>

#include "bdev/file/file.h"
#include "bdev/lvol/lvstore.h"
#include "bdev/null/null.h"
#include "env/linux/linux_env.h"
#include "memory/arena.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t tib_blocks = (uint64_t{1} << 40) / 4096;

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

struct Stack {
  Stack() {
    base = std::move(NullBdev::create(world.reactor, {"null", {}, 4096, 2 * tib_blocks})).value();
    LvStoreOptions options{.name = "pool", .uuid = {}};
    store = world.run(LvStore::create(world.reactor, Handle(*base, world.reactor), options)).value();
    lvol = world.run(store->create_lvol({.name = "a", .uuid = {}, .size_bytes = uint64_t{1} << 40})).value();
  }
  ~Stack() {
    if (!world.run(store->close()).ok()) std::abort();
    store.reset();
    if (!world.run(base->close()).ok()) std::abort();
  }
  void snapshot() {
    const std::string name = "s" + std::to_string(++snapshots);
    if (!world.run(store->snapshot_lvol("a", {.name = name, .uuid = {}})).ok()) std::abort();
  }
  World world;
  std::unique_ptr<NullBdev> base;
  std::unique_ptr<LvStore> store;
  Lvol* lvol;
  unsigned snapshots = 0;
};

void base_write(benchmark::State& state) {
  Stack stack;
  Load load(stack.world, *stack.base, static_cast<size_t>(state.range(0)));
  uint64_t block = 0;
  for (auto _ : state)
    load.round(IoType::write, block++ % 65536, 1);
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(base_write)->Arg(1)->Arg(32);

void lvol_overwrite(benchmark::State& state) {
  Stack stack;
  Load load(stack.world, *stack.lvol, static_cast<size_t>(state.range(0)));
  for (uint64_t block = 0; block < 8192; block += 32)
    load.round(IoType::write, block, 1);
  for (uint64_t block = 0; block < 8192 + 64; block++)
    load.round(IoType::write, block, 1);
  uint64_t block = 0;
  for (auto _ : state)
    load.round(IoType::write, block++ % 8192, 1);
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(lvol_overwrite)->Arg(1)->Arg(32);

void lvol_first_write(benchmark::State& state) {
  Stack stack;
  const auto depth = static_cast<size_t>(state.range(0));
  Load load(stack.world, *stack.lvol, depth);
  uint64_t block = 0;
  for (auto _ : state) {
    load.round(IoType::write, block, 1);
    block += depth;
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(lvol_first_write)->Arg(1)->Arg(32);

// Every block of the parent is data: nothing is copied, and a flush goes before the journal's write.
void lvol_first_write_over_snapshot(benchmark::State& state) {
  constexpr uint64_t blocks = 65536;
  Stack stack;
  const auto depth = static_cast<size_t>(state.range(0));
  Load load(stack.world, *stack.lvol, depth);
  Load fill(stack.world, *stack.lvol, 256);
  for (uint64_t block = 0; block < blocks; block += 256)
    fill.round(IoType::write, block, 1);
  stack.snapshot();
  uint64_t block = 0;
  const uint64_t written = stack.base->stats().blocks[static_cast<size_t>(IoType::write)];
  for (auto _ : state) {
    load.round(IoType::write, block, 1);
    block += depth;
    if (block + depth <= blocks) continue;
    state.PauseTiming();
    if (stack.lvol->depth() == lvs::layer_depth_max) {
      state.SkipWithError("too many iterations");
      break;
    }
    stack.snapshot();
    block = 0;
    state.ResumeTiming();
  }
  const uint64_t blocks_written = stack.base->stats().blocks[static_cast<size_t>(IoType::write)] - written;
  state.counters["base_blocks_per_write"] =
      static_cast<double>(blocks_written) / static_cast<double>(state.iterations() * state.range(0));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(lvol_first_write_over_snapshot)->Arg(1)->Arg(32);

// Second argument: how many snapshots lie between the lvol and the data.
void lvol_read(benchmark::State& state) {
  Stack stack;
  Load load(stack.world, *stack.lvol, static_cast<size_t>(state.range(0)));
  Load fill(stack.world, *stack.lvol, 256);
  for (uint64_t block = 0; block < 8192; block += 256)
    fill.round(IoType::write, block, 1);
  for (int64_t depth = 0; depth < state.range(1); depth++) {
    stack.snapshot();
    // Each layer has clusters of its own, elsewhere in the same windows.
    fill.round(IoType::write, 8192 + static_cast<uint64_t>(depth) * 256, 1);
  }
  uint64_t block = 0;
  for (auto _ : state)
    load.round(IoType::read, block++ % 4096, 1);
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(lvol_read)->ArgsProduct({{1, 32}, {0, 1, 64}});

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
