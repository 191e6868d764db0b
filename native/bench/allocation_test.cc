// SPDX-License-Identifier: Apache-2.0
// Goal: a 4 KiB read or write over NVMe/TCP touches the heap nowhere once warm, neither in the target nor in the
// initiator; nor does a write to a part of a stripe of raid5, with the checkpoints of the log that it causes, or a
// checksummed overwrite of an lvol with the trims. Method: this program counts every allocation of all threads; a
// target and an initiator on reactors of their own exchange some thousand I/Os over a real socket, then the count must
// stand still for some thousand more.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>

#include "bdev/lvol/lvstore.h"
#include "bdev/malloc/malloc.h"
#include "bdev/null/null.h"
#include "bdev/nvmf/multipath.h"
#include "bdev/raid/raid_parity.h"
#include "env/linux/linux_env.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace {
std::atomic<uint64_t> allocation_count{0};
}  // namespace

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// The sanitizer owns the allocator; it tells of every allocation.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void*, size_t),
                                                         void (*freed)(const volatile void*));
namespace {
void allocated(const volatile void*, size_t) {
  allocation_count.fetch_add(1, std::memory_order_relaxed);
}
void freed(const volatile void*) {}
const int hooked = __sanitizer_install_malloc_and_free_hooks(allocated, freed);
}  // namespace
#else
extern "C" void* __libc_malloc(size_t);
extern "C" void* __libc_calloc(size_t, size_t);
extern "C" void* __libc_realloc(void*, size_t);
extern "C" void* __libc_memalign(size_t, size_t);
extern "C" void* malloc(size_t size) {
  allocation_count.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
extern "C" void* calloc(size_t count, size_t size) {
  allocation_count.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, size);
}
extern "C" void* realloc(void* memory, size_t size) {
  allocation_count.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(memory, size);
}
extern "C" void* aligned_alloc(size_t alignment, size_t size) {
  allocation_count.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
#endif

namespace basalt::bench {
namespace {

constexpr char subnqn[] = "nqn.2024-01.io.basalt:allocations";
constexpr unsigned depth = 32;
constexpr uint64_t warm_io_count = 4000;
constexpr uint64_t counted_io_count = 8000;

// A closed loop that reads the count of allocations on its way.
class Loop {
 public:
  Loop(bdev::Bdev& bdev, bool writes) : bdev_(bdev), slots_(depth) {
    for (Slot& slot : slots_) {
      slot.loop = this;
      slot.iov = {slot.bytes, sizeof(slot.bytes)};
      slot.io.type = writes ? bdev::IoType::write : bdev::IoType::read;
      slot.io.iov = &slot.iov;
      slot.io.iov_count = 1;
      slot.io.count_blocks = 1;
      slot.io.context = &slot;
      slot.io.done = [](bdev::Io* io) {
        Slot* done = static_cast<Slot*>(io->context);
        done->loop->completed(done);
      };
    }
  }
  Task<void> run() {
    running_count_ = depth;
    for (Slot& slot : slots_)
      submit(&slot);
    co_await ended_;
  }
  uint64_t allocations() const { return after_ - before_; }
  bool failed() const { return failed_; }

 private:
  struct Slot {
    bdev::Io io;
    Iovec iov;
    Loop* loop = nullptr;
    alignas(4096) char bytes[4096] = {};
  };
  void submit(Slot* slot) {
    slot->io.offset_blocks = submitted_count_++ * 7 % bdev_.info().count_blocks;
    bdev_.submit(&slot->io);
  }
  void completed(Slot* slot) {
    if (!slot->io.status.ok()) failed_ = true;
    completed_count_++;
    if (completed_count_ == warm_io_count) before_ = allocation_count.load();
    if (completed_count_ == warm_io_count + counted_io_count) after_ = allocation_count.load();
    if (completed_count_ < warm_io_count + counted_io_count) return submit(slot);
    if (--running_count_ == 0) ended_.set(true);
  }
  bdev::Bdev& bdev_;
  std::vector<Slot> slots_;
  uint64_t submitted_count_ = 0;
  uint64_t completed_count_ = 0;
  unsigned running_count_ = 0;
  uint64_t before_ = 0;
  uint64_t after_ = 0;
  bool failed_ = false;
  Signal<bool> ended_;
};

// Two reactors on threads of their own; run() gives a task to one of them and waits.
class World {
 public:
  World() : env_(env::make_linux_env()), arena_(size_t{1} << 30), target(*env_, arena_, {}), host(*env_, arena_, {}) {
    EXPECT_TRUE(target.init().ok());
    EXPECT_TRUE(host.init().ok());
    loops_.push_back(env_->start(target, {"target", -1}));
    loops_.push_back(env_->start(host, {"host", -1}));
  }
  ~World() {
    target.stop();
    host.stop();
  }
  void run(Reactor& reactor, Task<void> task) {
    Waiting waiting(std::move(task));
    waiting.run = [](Work* work) { spawn(finish(static_cast<Waiting*>(work))); };
    reactor.post(&waiting);
    std::unique_lock lock(waiting.mutex);
    waiting.changed.wait(lock, [&] { return waiting.ended; });
  }

 private:
  struct Waiting : Work {
    explicit Waiting(Task<void> what) : task(std::move(what)) {}
    Task<void> task;
    std::mutex mutex;
    std::condition_variable changed;
    bool ended = false;
  };
  static Task<void> finish(Waiting* waiting) {
    co_await waiting->task;
    const std::lock_guard lock(waiting->mutex);
    waiting->ended = true;
    waiting->changed.notify_one();
  }
  std::unique_ptr<env::Env> env_;
  Arena arena_;

 public:
  Reactor target;
  Reactor host;

 private:
  std::vector<std::unique_ptr<env::LoopHandle>> loops_;
};

struct Served {
  std::unique_ptr<bdev::Bdev> bdev;
  std::unique_ptr<nvmf::Target> target;
  std::string port;
};

Task<void> serve(Reactor& reactor, bool in_memory, Served* served) {
  if (in_memory) {
    bdev::MallocOptions options;
    options.name = "disk";
    options.count_blocks = 4096;
    auto made = bdev::MallocBdev::create(reactor, options);
    served->bdev = std::move(*made);
  } else {
    bdev::NullOptions options;
    options.name = "disk";
    options.count_blocks = 4096;
    auto made = bdev::NullBdev::create(reactor, options);
    served->bdev = std::move(*made);
  }
  served->target = std::make_unique<nvmf::Target>(std::vector<Reactor*>{&reactor});
  served->target->add_transport(std::make_unique<nvmf::TcpTargetTransport>(*served->target));
  nvmf::SubsystemOptions options;
  options.nqn = subnqn;
  options.serial_number = "1";
  options.allow_any_host = true;
  auto made = served->target->create_subsystem(options);
  EXPECT_TRUE(made.ok());
  ns::NamespaceOptions ns_options;
  ns_options.nsid = 1;
  auto adding = (*made)->add_namespace(ns_options, served->bdev.get());
  auto added = co_await adding;
  EXPECT_TRUE(added.ok());
  nvmf::ListenAddress address{"TCP", "127.0.0.1", "0"};
  auto listening = (*made)->add_listener(address);
  auto listened = co_await listening;
  EXPECT_TRUE(listened.ok());
  served->port = listened->trsvcid;
}

Task<void> end_serving(Served* served) {
  auto closing = served->target->close();
  co_await closing;
  served->target.reset();
  auto ending = served->bdev->close();
  co_await ending;
  served->bdev.reset();
}

Task<void> exchange(Reactor& reactor, std::string port, bool writes, uint64_t* allocations) {
  nvmf::TcpHostTransport transport;
  bdev::MultipathOptions options;
  options.name = "remote";
  options.subnqn = subnqn;
  options.hostnqn = "nqn.2024-01.io.basalt:host";
  options.keep_alive_ms = 0;  // the admin queue is no part of this
  bdev::NvmfController controller(reactor, options);
  nvmf::HostAddress address{"127.0.0.1", port};
  auto adding = controller.add_path(transport, address);
  auto added = co_await adding;
  EXPECT_TRUE(added.ok());
  if (added.ok()) {
    auto loop = std::make_unique<Loop>(*controller.bdevs().front(), writes);
    co_await loop->run();
    EXPECT_FALSE(loop->failed());
    *allocations = loop->allocations();
  }
  auto closing = controller.close();
  co_await closing;
}

class Allocations : public ::testing::TestWithParam<std::tuple<bool, bool>> {};

TEST_P(Allocations, none_per_io_once_warm) {
  const auto [in_memory, writes] = GetParam();
  World world;
  Served served;
  world.run(world.target, serve(world.target, in_memory, &served));
  uint64_t allocations = ~uint64_t{0};
  world.run(world.host, exchange(world.host, served.port, writes, &allocations));
  world.run(world.target, end_serving(&served));
  EXPECT_EQ(allocations, 0u) << "in " << counted_io_count << " I/Os";
}

INSTANTIATE_TEST_SUITE_P(All, Allocations, ::testing::Combine(::testing::Bool(), ::testing::Bool()),
                         [](const ::testing::TestParamInfo<std::tuple<bool, bool>>& info) {
                           const std::string bdev = std::get<0>(info.param) ? "malloc" : "null";
                           return bdev + (std::get<1>(info.param) ? "_write" : "_read");
                         });

// Each has a record in the log, which is emptied beside them, time after time.
Task<void> write_parts_of_stripes(Reactor& reactor, uint64_t* allocations) {
  std::vector<std::unique_ptr<bdev::Bdev>> disks;
  std::vector<bdev::Handle> members;
  for (const char* name : {"a", "b", "c", "d"}) {
    bdev::MallocOptions options;
    options.name = name;
    options.count_blocks = 4096;
    auto made = bdev::MallocBdev::create(reactor, options);
    disks.push_back(std::move(*made));
    members.emplace_back(*disks.back(), reactor);
  }
  bdev::RaidParityOptions options;
  options.name = "raid";
  auto creating = bdev::RaidParityBdev::create(reactor, options, members, {});
  auto made = co_await creating;
  EXPECT_TRUE(made.ok());
  auto raid = std::move(*made);
  while (raid->resyncing())
    co_await sleep_for(reactor, milliseconds(1));
  const uint64_t checkpoints = raid->parity_stats().checkpoint_count;
  auto loop = std::make_unique<Loop>(*raid, true);
  co_await loop->run();
  EXPECT_FALSE(loop->failed());
  EXPECT_GT(raid->parity_stats().checkpoint_count, checkpoints + 100);
  *allocations = loop->allocations();
  auto closing = raid->close();
  co_await closing;
  for (auto& disk : disks) {
    auto ending = disk->close();
    co_await ending;
  }
}

TEST(ParityAllocations, none_per_partial_write_and_checkpoint_once_warm) {
  World world;
  uint64_t allocations = ~uint64_t{0};
  world.run(world.host, write_parts_of_stripes(world.host, &allocations));
  EXPECT_EQ(allocations, 0u) << "in " << counted_io_count << " I/Os";
}

// Data and checksums go to a log first, which is trimmed beside the writes, time after time.
Task<void> overwrite_with_checksums(Reactor& reactor, uint64_t* allocations) {
  bdev::MallocOptions options;
  options.name = "disk";
  options.count_blocks = 16384;
  auto disk = bdev::MallocBdev::create(reactor, options);
  bdev::LvStoreOptions store_options;
  store_options.name = "pool";
  store_options.cluster_bytes = 64 << 10;
  auto creating = bdev::LvStore::create(reactor, bdev::Handle(**disk, reactor), store_options);
  auto made = co_await creating;
  EXPECT_TRUE(made.ok());
  auto store = std::move(*made);
  bdev::LvolOptions lvol_options;
  lvol_options.name = "volume";
  lvol_options.size_bytes = 2048 * 4096;
  lvol_options.checksums = true;
  auto creating_lvol = store->create_lvol(lvol_options);
  auto lvol = co_await creating_lvol;
  EXPECT_TRUE(lvol.ok());
  const uint64_t flushes = (*disk)->stats().count[static_cast<size_t>(bdev::IoType::flush)];
  auto loop = std::make_unique<Loop>(**lvol, true);
  co_await loop->run();
  EXPECT_FALSE(loop->failed());
  EXPECT_GT((*disk)->stats().count[static_cast<size_t>(bdev::IoType::flush)], flushes + 20) << "it was trimmed";
  *allocations = loop->allocations();
  auto closing_lvol = (*lvol)->close();
  co_await closing_lvol;
  auto closing = store->close();
  co_await closing;
  store.reset();
  auto ending = (*disk)->close();
  co_await ending;
}

TEST(ChecksumAllocations, none_per_overwrite_and_trim_once_warm) {
  World world;
  uint64_t allocations = ~uint64_t{0};
  world.run(world.host, overwrite_with_checksums(world.host, &allocations));
  EXPECT_EQ(allocations, 0u) << "in " << counted_io_count << " I/Os";
}

TEST(AllocationCount, sees_new_and_malloc) {
  const uint64_t before = allocation_count.load();
  auto one = std::make_unique<int[]>(10);
  void* volatile other = std::malloc(100);
  std::free(other);
  EXPECT_GE(allocation_count.load(), before + 2);
}

}  // namespace
}  // namespace basalt::bench
