// SPDX-License-Identifier: Apache-2.0
// basalt_stack --stack NAME --paths DEVICE[,DEVICE...] [--mib N] [--bytes N] [--depth N] [--again 1] [--seed N]: one
// stack of bdevs on block devices or files, and one load on it: each block once, in scattered order. One line of JSON
// with what a request cost, after everything was read back and found to be what was written.
//
// Stacks: device (nothing: whatever block device is named), lvol (thin), lvol-snapshot (written, then a snapshot),
// raid1, raid5. What is on the devices is lost, and other stacks that are on them are not looked for.
//
// --again 1: blocks were written before, off the clock. --bytes: of a request, a multiple of 4096.
//
// The reactor sleeps while it has nothing to do, so processor time is work. `machine_us_per_io` counts all processors,
// since the kernel's layers work in threads of their own; the machine must have nothing else to do.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "bdev/file/file.h"
#include "bdev/leg/leg.h"
#include "bdev/raid/raid_parity.h"
#include "bench/arguments.h"
#include "bench/stack_world.h"

namespace basalt::bench {
namespace {

constexpr uint64_t mib_blocks = (uint64_t{1} << 20) / block_bytes;

// What a block holds: who it is, and of which pass.
struct Stamp {
  uint64_t block;
  uint64_t pass;
};

struct Shape {
  uint64_t span_blocks;
  uint32_t request_blocks;
  uint32_t depth;
};

// Each block of the span once: so many requests in flight, the next one as one ends.
class Pass {
 public:
  Pass(World& world, Bdev& bdev, const Shape& shape, IoType type, uint64_t pass)
      : world_(world), bdev_(bdev), shape_(shape), type_(type), pass_(pass), requests_(shape.depth) {
    count_ = shape.span_blocks / shape.request_blocks;
    while (std::gcd(stride_, count_) != 1)
      stride_++;
    const size_t length_bytes = size_t{shape.request_blocks} * block_bytes;
    memory_ = static_cast<uint8_t*>(std::aligned_alloc(block_bytes, length_bytes * shape.depth));
    BASALT_ASSERT(memory_ != nullptr);
    std::memset(memory_, 0x5a, length_bytes * shape.depth);
    for (uint32_t i = 0; i < shape.depth; i++) {
      Request& request = requests_[i];
      request.pass = this;
      request.iov = {memory_ + i * length_bytes, length_bytes};
      request.io.type = type;
      request.io.iov = &request.iov;
      request.io.iov_count = 1;
      request.io.count_blocks = shape.request_blocks;
      request.io.context = &request;
      request.io.done = [](Io* io) { static_cast<Request*>(io->context)->pass->ended(io); };
    }
  }
  ~Pass() { std::free(memory_); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  void run() {
    for (Request& request : requests_)
      next(request);
    while (in_flight_ > 0) {
      if (!world_.reactor.turn()) world_.reactor.poller().wait(world_.reactor.deadline());
    }
  }
  uint64_t count() const { return count_; }

 private:
  struct Request {
    Io io;
    Iovec iov{};
    Pass* pass = nullptr;
  };

  void next(Request& request) {
    if (begun_ == count_) return;
    request.io.offset_blocks = begun_++ * stride_ % count_ * shape_.request_blocks;
    if (type_ == IoType::write) stamp(request);
    in_flight_++;
    bdev_.submit(&request.io);
  }
  void ended(Io* io) {
    Request& request = *static_cast<Request*>(io->context);
    if (!io->status.ok()) Arguments::fail("a request", "failed at block " + std::to_string(io->offset_blocks));
    if (type_ == IoType::read) check(request);
    in_flight_--;
    next(request);
  }
  void stamp(Request& request) const {
    for (uint32_t i = 0; i < shape_.request_blocks; i++) {
      const Stamp of{request.io.offset_blocks + i, pass_};
      std::memcpy(static_cast<uint8_t*>(request.iov.base) + size_t{i} * block_bytes, &of, sizeof of);
    }
  }
  void check(const Request& request) const {
    for (uint32_t i = 0; i < shape_.request_blocks; i++) {
      const uint8_t* block = static_cast<const uint8_t*>(request.iov.base) + size_t{i} * block_bytes;
      const Stamp of{request.io.offset_blocks + i, pass_};
      const uint8_t* rest = block + sizeof of;
      const bool right = std::memcmp(block, &of, sizeof of) == 0 && *rest == 0x5a &&
                         std::memcmp(rest, rest + 1, block_bytes - sizeof of - 1) == 0;
      if (!right) Arguments::fail("block " + std::to_string(of.block), "holds something else than was written to it");
    }
  }

  World& world_;
  Bdev& bdev_;
  const Shape shape_;
  const IoType type_;
  const uint64_t pass_;
  std::vector<Request> requests_;
  uint8_t* memory_ = nullptr;
  uint64_t stride_ = 7919;
  uint64_t count_ = 0;
  uint64_t begun_ = 0;
  uint64_t in_flight_ = 0;
};

// Of all processors since the machine was started.
double machine_busy_seconds() {
  std::FILE* file = std::fopen("/proc/stat", "r");
  BASALT_ASSERT(file != nullptr);
  unsigned long long user, nice, system, idle, iowait, irq, softirq;
  const int fields = std::fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait,
                                 &irq, &softirq);
  std::fclose(file);
  BASALT_ASSERT(fields == 7);
  constexpr double ticks_per_s = 100;  // USER_HZ, which is part of the kernel's interface
  return static_cast<double>(user + nice + system + irq + softirq) / ticks_per_s;
}

template <class T>
T& made(World& world, Result<std::unique_ptr<T>> result, const std::string& what) {
  if (!result.ok()) Arguments::fail(what, result.error().message);
  return world.own(std::move(result));
}

std::vector<Bdev*> opened(World& world, const std::string& paths) {
  std::vector<Bdev*> files;
  for (size_t begin = 0; begin <= paths.size();) {
    const size_t end = std::min(paths.find(',', begin), paths.size());
    FileBdevOptions options{.name = world.name(), .uuid = {}, .path = paths.substr(begin, end - begin)};
    files.push_back(&made(world, FileBdev::open(world.reactor, options), options.path));
    begin = end + 1;
  }
  return files;
}

Bdev& lvol_on(World& world, Bdev& disk, uint64_t span_blocks) {
  const Outcome stored = world.make_store(disk);
  if (!stored.ok()) Arguments::fail("lvstore", stored.error().message);
  auto lvol = world.run(world.store().create_lvol({.name = "a", .uuid = {}, .size_bytes = span_blocks * block_bytes}));
  if (!lvol.ok()) Arguments::fail("lvol", lvol.error().message);
  return **lvol;
}

Bdev& raid1_on(World& world, const std::vector<Bdev*>& disks, uint64_t span_blocks) {
  LegOptions options;
  options.name = options.identity = "leg";
  options.epoch = 1;
  options.count_blocks = span_blocks;
  std::vector<LegMember> members;
  for (Bdev* disk : disks)
    members.emplace_back(world.handle(*disk));
  return made(world, LegBdev::create(world.reactor, options, std::move(members), {}), "raid1");
}

Bdev& raid5_on(World& world, const std::vector<Bdev*>& disks) {
  RaidParityOptions options;
  options.name = "r";
  options.force = true;
  std::vector<Handle> members;
  for (Bdev* disk : disks)
    members.push_back(world.handle(*disk));
  auto raid = world.run(RaidParityBdev::create(world.reactor, options, std::move(members), {}));
  auto& bdev = made(world, std::move(raid), "raid5");
  while (bdev.resyncing())
    world.reactor.turn();
  return bdev;
}

Bdev& build(World& world, const std::string& stack, const std::string& paths, uint64_t span_blocks) {
  const std::vector<Bdev*> disks = opened(world, paths);
  if (stack == "device") return *disks[0];
  if (stack == "lvol" || stack == "lvol-snapshot") return lvol_on(world, *disks[0], span_blocks);
  if (stack == "raid1") return raid1_on(world, disks, span_blocks);
  if (stack == "raid5") return raid5_on(world, disks);
  Arguments::fail("--stack", "must be device, lvol, lvol-snapshot, raid1 or raid5");
}

int run(Arguments& arguments) {
  const std::string stack = arguments.text("stack");
  const std::string paths = arguments.text("paths");
  Shape shape{};
  shape.span_blocks = arguments.number("mib", 64, 1 << 20) * mib_blocks;
  shape.request_blocks = static_cast<uint32_t>(arguments.number("bytes", block_bytes, 1 << 20) / block_bytes);
  shape.depth = static_cast<uint32_t>(arguments.number("depth", 32, 1024));
  const bool again = arguments.number("again", 0, 1) == 1 || stack == "lvol-snapshot";
  const uint64_t seed = arguments.number("seed", 1, 1 << 30);
  arguments.end();
  if (shape.request_blocks == 0 || shape.depth == 0 || shape.span_blocks < shape.request_blocks)
    Arguments::fail("--mib, --bytes, --depth", "there is nothing to do");

  World world;
  Bdev& bdev = build(world, stack, paths, shape.span_blocks);
  if (bdev.info().count_blocks < shape.span_blocks) Arguments::fail("--mib", "the stack is smaller");
  if (again) Pass(world, bdev, shape, IoType::write, 2 * seed).run();
  if (stack == "lvol-snapshot" && !world.run(world.store().snapshot_lvol("a", {.name = "s", .uuid = {}})).ok())
    Arguments::fail("snapshot", "could not be made");

  Pass pass(world, bdev, shape, IoType::write, 2 * seed + 1);
  const Instant begin = world.env->now();
  const double busy = machine_busy_seconds();
  const uint64_t own = cpu_ns();
  pass.run();
  const double own_us = static_cast<double>(cpu_ns() - own) / 1e3;
  const double machine_us = (machine_busy_seconds() - busy) * 1e6;
  const double seconds = static_cast<double>((world.env->now() - begin).ns) / 1e9;
  Pass(world, bdev, shape, IoType::read, 2 * seed + 1).run();

  const auto count = static_cast<double>(pass.count());
  std::printf(
      "{\"stack\":\"%s\",\"requests\":%.0f,\"seconds\":%.3f,\"iops\":%.0f,\"machine_us_per_io\":%.2f,"
      "\"own_us_per_io\":%.2f,\"verified_blocks\":%llu}\n",
      stack.c_str(), count, seconds, count / seconds, machine_us / count, own_us / count,
      static_cast<unsigned long long>(pass.count() * shape.request_blocks));
  return 0;
}

}  // namespace
}  // namespace basalt::bench

int main(int argc, char** argv) {
  basalt::bench::Arguments arguments(argc, argv, 1);
  return basalt::bench::run(arguments);
}
