// SPDX-License-Identifier: Apache-2.0
// basalt_layers [--only TEXT | --exactly NAME | --list 1] [--milliseconds N]: what each layer of the stack costs over
// the bdev below it, as one line of JSON per figure. Everything is one thread on memory or on a device that forgets, so
// the figures are the processor's work and no disk's: `value` is the nanoseconds of one request that the layer adds,
// `below_ns` those of the same request at the bdev below alone. Layer and bdev below take turns; the figure is the
// median of the differences.
//
// Time is the program's CPU time: what neighbours on the machine take does not count.
//
// layers/rebuild/...: how fast a blank member gets what it lacks, in MB/s of what is written to it, where every member
// is as a disk of `floor` MB/s that answers after 100 us. That is time by the clock.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/assert.h"
#include "bdev/crypt/crypt.h"
#include "bdev/leg/leg.h"
#include "bdev/raid/parity_leg.h"
#include "bdev/raid/raid0.h"
#include "bdev/raid/raid_parity.h"
#include "bench/arguments.h"
#include "bench/stack_world.h"

namespace {
uint64_t allocation_count = 0;  // this program has one thread
}  // namespace

[[gnu::noinline]] void* operator new(size_t size) {
  allocation_count++;
  void* memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace basalt::bench {
namespace {

constexpr uint64_t disk_blocks = 16384;  // of the disks that remember
constexpr int turns = 7;
constexpr int batches_at_once = 256;  // between two looks at the clock, which counts microseconds
constexpr uint64_t tib_blocks = (uint64_t{1} << 40) / block_bytes;
constexpr uint64_t snapshot_blocks = 262144;

struct Cost {
  double ns = 0;
  double allocations = 0;
};

// `again`: called, off the clock, whenever the load begins again at its first block.
// `passes_max`: where that takes much longer than what is measured.
Cost measure(Load& load, double seconds, const std::function<void()>& again, int passes_max) {
  const auto budget_ns = static_cast<uint64_t>(seconds * 1e9);
  uint64_t spent_ns = 0;
  uint64_t requests = 0;
  uint64_t allocations = 0;
  while (spent_ns < budget_ns) {
    const uint64_t allocated = allocation_count;
    const uint64_t begin_ns = cpu_ns();
    for (int i = 0; i < batches_at_once; i++) {
      load.batch();
      requests += load.batch_requests();
      if (again && load.at_start()) break;
    }
    spent_ns += cpu_ns() - begin_ns;
    allocations += allocation_count - allocated;
    if (!again || !load.at_start()) continue;
    again();
    if (--passes_max == 0) break;
  }
  return {static_cast<double>(spent_ns) / static_cast<double>(requests),
          static_cast<double>(allocations) / static_cast<double>(requests)};
}

struct Stack {
  Bdev* layer = nullptr;
  Bdev* below = nullptr;
  std::function<void()> again = {};
  bool filled = false;  // reads find data already
  bool once = false;    // a request is another thing when its blocks have been written before
  int passes_max = 0;   // not 0: a turn ends after so many
};

struct Figure {
  const char* name;
  Workload work;
  std::function<Stack(World&)> build;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void report(const Figure& figure, double seconds) {
  World world;
  const Stack stack = figure.build(world);
  if (figure.work.type == IoType::read && !stack.filled) fill(world, *stack.layer, figure.work.span_blocks);
  Load above(world, *stack.layer, figure.work);
  Load below(world, *stack.below, figure.work);
  // Warm: pools have grown, and what is written once has been.
  if (!stack.once) {
    for (uint64_t i = 0; i < 2 * figure.work.span_blocks / figure.work.count_blocks; i += figure.work.depth)
      above.batch();
  }
  std::vector<double> added, total, base, allocations;
  for (int turn = 0; turn < turns; turn++) {
    const Cost under = measure(below, seconds / (2 * turns), {}, 0);
    const Cost over = measure(above, seconds / (2 * turns), stack.again, stack.passes_max);
    added.push_back(over.ns - under.ns);
    total.push_back(over.ns);
    base.push_back(under.ns);
    allocations.push_back(over.allocations - under.allocations);
  }
  std::printf(
      "{\"name\":\"layers/%s\",\"value\":%.1f,\"unit\":\"ns\",\"total_ns\":%.1f,\"below_ns\":%.1f,"
      "\"iops_per_core\":%.0f,\"allocations_per_io\":%.3f}\n",
      figure.name, median(added), median(total), median(base), 1e9 / median(total), median(allocations));
  std::fflush(stdout);
}

// An lvol of 1 TiB on a device that forgets.
struct Pool {
  explicit Pool(World& w) : world(w), base(&w.null(2 * tib_blocks)), store(&w.lvstore(*base)) { lvol = make("a"); }
  Lvol* make(const std::string& name) {
    return world.run(store->create_lvol({.name = name, .uuid = {}, .size_bytes = uint64_t{1} << 40})).value();
  }
  void snapshot() {
    const std::string name = "s" + std::to_string(snapshots++);
    BASALT_ASSERT(world.run(store->snapshot_lvol("a", {.name = name, .uuid = {}})).ok());
  }
  World& world;
  Bdev* base;
  LvStore* store;
  Lvol* lvol = nullptr;
  int snapshots = 0;
};

Stack overwritten(World& world) {
  Pool pool(world);
  return {.layer = pool.lvol, .below = pool.base};
}

// It goes on through the lvol, and does not come to its end.
Stack first_written(World& world) {
  Pool pool(world);
  return {.layer = pool.lvol, .below = pool.base, .once = true};
}

// Every block is data of the snapshot before: nothing is copied, and each pass is over another snapshot.
Stack first_written_over_snapshot(World& world) {
  auto pool = std::make_shared<Pool>(world);
  fill(world, *pool->lvol, snapshot_blocks);
  pool->snapshot();
  return {.layer = pool->lvol, .below = pool->base, .again = [pool] { pool->snapshot(); }, .once = true};
}

// A copy of a cluster costs what it costs in memory. Each pass is over a new snapshot of an lvol whose blocks are all
// data.
Stack first_written_in_memory(World& world, uint64_t lvol_blocks) {
  struct State {
    World& world;
    LvStore* store;
    int snapshots;
  };
  Bdev& base = world.malloc(3 * lvol_blocks);
  Bdev& alike = world.malloc(lvol_blocks);  // the load on it must not write over the store
  // The system's work on memory that nobody touched yet is none of the layer's.
  fill(world, base, 3 * lvol_blocks, 0);
  fill(world, alike, lvol_blocks);
  auto state = std::make_shared<State>(State{world, &world.lvstore(base), 0});
  auto made = world.run(state->store->create_lvol({.name = "a", .uuid = {}, .size_bytes = lvol_blocks * block_bytes}));
  BASALT_ASSERT(made.ok());
  fill(world, **made, lvol_blocks);
  const auto again = [state] {
    const std::string name = "s" + std::to_string(state->snapshots++);
    BASALT_ASSERT(state->world.run(state->store->snapshot_lvol("a", {.name = name, .uuid = {}})).ok());
    if (state->snapshots == 1) return;
    // What the head has of its own goes to the new snapshot, and what that hides of the old one is free again.
    const std::string last = "s" + std::to_string(state->snapshots - 2);
    BASALT_ASSERT(state->world.run(state->store->delete_lvol(last)).ok());
    while (state->store->stats().to_zero_clusters > 0)
      state->world.reactor.turn();
  };
  again();
  return {.layer = *made, .below = &alike, .again = again, .once = true, .passes_max = 4};
}

Stack read_below(World& world, int depth) {
  Pool pool(world);
  fill(world, *pool.lvol, 8192);
  for (int i = 0; i < depth; i++) {
    pool.snapshot();
    // Each layer has clusters of its own, elsewhere in the same windows.
    Load one(world, *pool.lvol, {.type = IoType::write, .depth = 16, .span_blocks = 16});
    one.batch();
  }
  return {.layer = pool.lvol, .below = pool.base, .filled = true};
}

// In memory, so that what is read is what was written.
Stack checksummed(World& world) {
  Bdev& base = world.malloc(disk_blocks);
  auto made = world.run(
      world.lvstore(base).create_lvol({.name = "a", .uuid = {}, .size_bytes = 8192 * block_bytes, .checksums = true}));
  BASALT_ASSERT(made.ok());
  return {.layer = *made, .below = &base};
}

Stack mirrored(World& world, int copies) {
  LegOptions options;
  options.name = "leg";
  options.epoch = 1;
  options.count_blocks = disk_blocks / 2;
  options.identity = "leg";
  std::vector<LegMember> members;
  Bdev* first = nullptr;
  for (int i = 0; i < copies; i++) {
    Bdev& member = world.malloc(disk_blocks);
    first = first == nullptr ? &member : first;
    members.emplace_back(world.handle(member));
  }
  return {&world.own(LegBdev::create(world.reactor, options, std::move(members), {})), first};
}

Stack striped(World& world, uint32_t data_count, uint32_t parity_count) {
  std::vector<Handle> members;
  Bdev* first = nullptr;
  for (uint32_t i = 0; i < data_count + parity_count; i++) {
    Bdev& member = world.malloc(disk_blocks);
    first = first == nullptr ? &member : first;
    members.push_back(world.handle(member));
  }
  if (parity_count == 0)
    return {&world.own(Raid0Bdev::create(world.reactor, {.name = "r", .uuid = {}}, std::move(members))), first};
  RaidParityOptions options;
  options.name = "r";
  options.parity_count = parity_count;
  auto made = world.run(RaidParityBdev::create(world.reactor, options, std::move(members), {}));
  return {&world.own(std::move(made)), first};
}

Stack encrypted(World& world) {
  crypto::SecretBytes keys[2] = {crypto::SecretBytes(32), crypto::SecretBytes(32)};
  keys[0].data()[0] = 1;
  Bdev& base = world.malloc(disk_blocks);
  auto cipher = crypto::XtsCipher::create(keys[0], keys[1]);
  BASALT_ASSERT(cipher.ok());
  auto made = CryptBdev::create(world.reactor, {"c", {}}, world.handle(base), std::move(cipher).value());
  return {&world.own(std::move(made)), &base};
}

std::vector<Figure> figures() {
  constexpr IoType read = IoType::read;
  constexpr IoType write = IoType::write;
  const auto raid5 = [](World& world) { return striped(world, 3, 1); };
  const auto raid6 = [](World& world) { return striped(world, 4, 2); };
  const auto coded = [](uint32_t m) { return [m](World& world) { return striped(world, 4, m); }; };
  const auto mirror = [](int copies) { return [copies](World& world) { return mirrored(world, copies); }; };
  const auto in_memory = [](uint64_t blocks) {
    return [blocks](World& world) { return first_written_in_memory(world, blocks); };
  };
  const auto snapshots = [](int depth) { return [depth](World& world) { return read_below(world, depth); }; };
  constexpr uint32_t raid5_stripe = 3 * 16;
  constexpr uint32_t raid6_stripe = 4 * 16;
  return {
      {"lvol/overwrite/4k/qd1", {write, 1}, overwritten},
      {"lvol/overwrite/4k/qd32", {write, 32}, overwritten},
      {"lvol/first-write/4k/qd32", {write, 32, 1, tib_blocks}, first_written},
      {"lvol/first-write-over-snapshot/4k/qd32", {write, 32, 1, snapshot_blocks}, first_written_over_snapshot},
      {"lvol-in-memory/first-write-over-snapshot/4k/qd32", {write, 32, 1, 65536}, in_memory(65536)},
      {"lvol-in-memory/random-first-write-over-snapshot/4k/qd32",
       {.type = write, .depth = 32, .span_blocks = 65536, .random = true, .pass_blocks = 1024},
       in_memory(65536)},
      {"lvol/read/4k/qd32/snapshots0", {read, 32}, snapshots(0)},
      {"lvol/read/4k/qd32/snapshots1", {read, 32}, snapshots(1)},
      {"lvol/read/4k/qd32/snapshots64", {read, 32}, snapshots(64)},
      {"lvol-checksums/overwrite/4k/qd1", {write, 1}, checksummed},
      {"lvol-checksums/overwrite/4k/qd32", {write, 32}, checksummed},
      {"lvol-checksums/overwrite/128k/qd1", {write, 1, 32}, checksummed},
      {"lvol-checksums/read/4k/qd32", {read, 32}, checksummed},
      {"lvol-checksums/read/128k/qd1", {read, 1, 32}, checksummed},
      {"raid0/write/4k/qd32", {write, 32}, [](World& world) { return striped(world, 4, 0); }},
      {"raid1/2-copies/write/4k/qd32", {write, 32}, mirror(2)},
      {"raid1/3-copies/write/4k/qd32", {write, 32}, mirror(3)},
      {"raid1/2-copies/read/4k/qd32", {read, 32}, mirror(2)},
      {"raid5/3+1/full-stripe/192k/qd1", {write, 1, raid5_stripe, raid5_stripe * 128}, raid5},
      {"raid5/3+1/partial-stripe/4k/qd32", {write, 32}, raid5},
      {"raid5/3+1/read/4k/qd32", {read, 32}, raid5},
      {"raid6/4+2/full-stripe/256k/qd1", {write, 1, raid6_stripe, raid6_stripe * 128}, raid6},
      {"raid6/4+2/partial-stripe/4k/qd32", {write, 32}, raid6},
      {"raid6/4+2/read/4k/qd32", {read, 32}, raid6},
      {"parity/4+3/full-stripe/256k/qd1", {write, 1, raid6_stripe, raid6_stripe * 128}, coded(3)},
      {"parity/4+3/partial-stripe/4k/qd32", {write, 32}, coded(3)},
      {"parity/4+4/full-stripe/256k/qd1", {write, 1, raid6_stripe, raid6_stripe * 128}, coded(4)},
      {"parity/4+4/partial-stripe/4k/qd32", {write, 32}, coded(4)},
      {"crypt/write/4k/qd32", {write, 32}, encrypted},
      {"crypt/read/4k/qd32", {read, 32}, encrypted},
      {"crypt/write/128k/qd1", {write, 1, 32}, encrypted},
      {"crypt/read/128k/qd1", {read, 1, 32}, encrypted},
  };
}

// ---- Rebuild --------------------------------------------------------------------------------------------------------

// Answers when its bytes have passed, one request's after the other's, and the time of a way besides.
class PacedDisk final : public Bdev {
 public:
  static constexpr double bytes_per_s = 1e9;
  static constexpr Duration way = microseconds(100);

  PacedDisk(Reactor& home, Handle base) : Bdev(home), base_(base) { info_ = base.info(); }
  void submit(Io* io) override {
    auto* later = new Later;
    later->disk = this;
    later->io = io;
    later->run = [](Work* work) {
      const std::unique_ptr<Later> due(static_cast<Later*>(work));
      due->disk->base_.submit(due->io);
    };
    const double length_bytes = static_cast<double>(io->count_blocks) * block_bytes;
    free_ = std::max(free_, home().env().now()) + nanoseconds(static_cast<int64_t>(length_bytes / bytes_per_s * 1e9));
    home().arm(later, free_ + way);
  }
  Task<Outcome> close() override { co_return success(); }

 private:
  struct Later : Timer {
    PacedDisk* disk = nullptr;
    Io* io = nullptr;
  };
  Handle base_;
  Instant free_{0};
};

struct RebuildFigure {
  const char* name;
  // Bytes that are written to the new member, and the seconds that it took.
  std::function<std::pair<double, double>(World&)> run;
};

Bdev& paced(World& world) {
  Bdev& base = world.malloc(disk_blocks);
  return world.own(Result<std::unique_ptr<PacedDisk>>(std::make_unique<PacedDisk>(world.reactor, world.handle(base))));
}

template <class Done>
double seconds_until(World& world, Done&& done) {
  const Instant begin = world.env->now();
  while (!done())
    world.reactor.turn();
  return static_cast<double>((world.env->now() - begin).ns) / 1e9;
}

std::pair<double, double> rebuild_mirror(World& world) {
  LegOptions options;
  options.name = options.identity = "leg";
  options.epoch = 1;
  options.count_blocks = disk_blocks / 2;
  bool copied = false;
  LegEvents events;
  events.member_copied = [&](const LegMemberInfo&) { copied = true; };
  std::vector<LegMember> members = {LegMember(world.handle(paced(world)))};
  Bdev& added = paced(world);
  auto& leg = world.own(LegBdev::create(world.reactor, options, std::move(members), std::move(events)));
  fill(world, leg, options.count_blocks);
  BASALT_ASSERT(leg.add_member(LegMember(world.handle(added))).ok());
  const double seconds = seconds_until(world, [&] { return copied; });
  return {static_cast<double>(options.count_blocks) * block_bytes, seconds};
}

std::pair<double, double> rebuild_raid(World& world, uint32_t data_count, uint32_t parity_count) {
  std::vector<Handle> members;
  for (uint32_t i = 0; i < data_count + parity_count; i++)
    members.push_back(world.handle(paced(world)));
  const std::string lost = members[0].info().name;
  Bdev& added = paced(world);
  RaidParityOptions options;
  options.name = "r";
  options.parity_count = parity_count;
  auto made = world.run(RaidParityBdev::create(world.reactor, options, std::move(members), {}));
  auto& raid = world.own(std::move(made));
  (void)seconds_until(world, [&] { return !raid.resyncing(); });
  raid.member_lost(lost);
  (void)seconds_until(world, [&] { return raid.member(0).state == RaidMemberState::missing; });
  BASALT_ASSERT(raid.replace_member(0, world.handle(added)).ok());
  const double seconds = seconds_until(world, [&] { return !raid.degraded(); });
  const ParityLayout& layout = raid.layout();
  return {static_cast<double>(layout.strip_count * layout.strip_blocks) * block_bytes, seconds};
}

std::pair<double, double> rebuild_coded_leg(World& world, uint32_t data_count, uint32_t parity_count) {
  ParityLegOptions options;
  options.name = options.identity = "leg";
  options.epoch = 1;
  options.data_count = data_count;
  options.parity_count = parity_count;
  options.count_blocks = uint64_t{data_count} * disk_blocks / 2;
  std::vector<LegMember> members;
  for (uint32_t i = 0; i < data_count + parity_count; i++)
    members.emplace_back(world.handle(paced(world)));
  const std::string lost = members[0].handle.info().name;
  Bdev& added = paced(world);
  bool copied = false;
  LegEvents events;
  events.member_copied = [&](const LegMemberInfo&) { copied = true; };
  auto opened =
      world.run(ParityLegBdev::open(world.reactor, std::move(options), std::move(members), std::move(events)));
  auto& leg = world.own(std::move(opened));
  BASALT_ASSERT(leg.remove_member(lost).ok());
  (void)seconds_until(world, [&] { return leg.raid().member(0).state == RaidMemberState::missing; });
  BASALT_ASSERT(leg.add_member(LegMember(world.handle(added))).ok());
  const double seconds = seconds_until(world, [&] { return copied; });
  return {static_cast<double>(disk_blocks) / 2 * block_bytes, seconds};
}

std::vector<RebuildFigure> rebuild_figures() {
  return {
      {"rebuild/raid1", rebuild_mirror},
      {"rebuild/raid5/3+1", [](World& world) { return rebuild_raid(world, 3, 1); }},
      {"rebuild/raid6/4+2", [](World& world) { return rebuild_raid(world, 4, 2); }},
      {"rebuild/coded-leg/3+1", [](World& world) { return rebuild_coded_leg(world, 3, 1); }},
  };
}

void report(const RebuildFigure& figure) {
  constexpr int rebuilds = 3;
  std::vector<double> speeds;
  for (int i = 0; i < rebuilds; i++) {
    World world;
    const auto [bytes, seconds] = figure.run(world);
    speeds.push_back(bytes / seconds / 1e6);
  }
  constexpr double disk = PacedDisk::bytes_per_s / 1e6;
  std::printf("{\"name\":\"layers/%s\",\"value\":%.1f,\"unit\":\"MB/s\",\"floor\":%.1f,\"ratio\":%.2f}\n", figure.name,
              median(speeds), disk, median(speeds) / disk);
  std::fflush(stdout);
}

struct Wanted {
  std::string only, exactly;
  bool contains(const char* name) const {
    const std::string whole = std::string("layers/").append(name);
    return exactly.empty() ? whole.find(only) != std::string::npos : whole == exactly;
  }
};

void list() {
  for (const Figure& figure : figures())
    std::printf("{\"name\":\"layers/%s\"}\n", figure.name);
  for (const RebuildFigure& figure : rebuild_figures())
    std::printf("{\"name\":\"layers/%s\"}\n", figure.name);
}

int run(Arguments& arguments) {
  const Wanted wanted{arguments.text("only", ""), arguments.text("exactly", "")};
  const bool names_only = arguments.number("list", 0, 1) == 1;
  const double seconds = static_cast<double>(arguments.number("milliseconds", 4000, 3'600'000)) / 1000;
  arguments.end();
  if (names_only) {
    list();
    return 0;
  }
  for (const Figure& figure : figures()) {
    if (wanted.contains(figure.name)) report(figure, seconds);
  }
  for (const RebuildFigure& figure : rebuild_figures()) {
    if (wanted.contains(figure.name)) report(figure);
  }
  return 0;
}

}  // namespace
}  // namespace basalt::bench

int main(int argc, char** argv) {
  basalt::bench::Arguments arguments(argc, argv, 1);
  return basalt::bench::run(arguments);
}
