// SPDX-License-Identifier: Apache-2.0
// Host and target on two threads over real TCP sockets of this machine: the same bytes come back, a connection that the
// target ends is replaced, and once warm a request takes nothing from the heap on the host's thread.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "bdev/malloc/malloc.h"
#include "bdev/nvmf/multipath.h"
#include "env/linux/linux_env.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "nvmf/transport/tcp/tcp_target.h"
#include "testing/semaphore.h"

namespace {
thread_local uint64_t heap_use_count = 0;
}

void* operator new(size_t bytes) {
  heap_use_count++;
  void* memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace basalt::bdev {
namespace {

constexpr char subnqn[] = "nqn.2026-01.test:real";
constexpr uint64_t disk_blocks = 16384;

template <class T>
Task<void> carry(Reactor* reactor, Task<T> task, std::optional<T>* result, basalt::testing::Semaphore* ended) {
  co_await hop(*reactor);
  T value = co_await task;
  result->emplace(std::move(value));
  ended->release();
}

// Runs the task on the reactor's thread and waits for it on this one.
template <class T>
T on(Reactor& reactor, Task<T> task) {
  std::optional<T> result;
  basalt::testing::Semaphore ended;
  spawn(carry(&reactor, std::move(task), &result, &ended));
  EXPECT_TRUE(ended.try_acquire_for(std::chrono::seconds(60)));
  return std::move(*result);
}

Task<Outcome> serve(nvmf::Target* target, Bdev* disk, std::string* port) {
  nvmf::SubsystemOptions options;
  options.nqn = subnqn;
  options.serial_number = "real";
  options.allow_any_host = true;
  auto made = target->create_subsystem(options);
  if (!made) co_return made.error();
  ns::NamespaceOptions ns_options;
  auto nsid = co_await made.value()->add_namespace(ns_options, disk);
  if (!nsid) co_return nsid.error();
  nvmf::ListenAddress address;
  address.traddr = "127.0.0.1";
  address.trsvcid = "0";
  auto bound = co_await made.value()->add_listener(address);
  if (!bound) co_return bound.error();
  *port = bound->trsvcid;
  co_return success();
}

Task<Outcome> drop_connections(nvmf::Target* target) {
  nvmf::Subsystem* subsystem = target->find_subsystem(subnqn);
  Outcome outcome = co_await subsystem->set_allow_any_host(false);
  if (!outcome) co_return outcome;
  outcome = co_await subsystem->set_allow_any_host(true);
  co_return outcome;
}

Task<Outcome> stop_target(nvmf::Target* target) {
  co_await target->close();
  co_return success();
}
Task<Outcome> stop_host(NvmfController* set) {
  co_await set->close();
  co_return success();
}

// Requests of one size, `depth` in flight, each writing or reading its own blocks again and again.
class Runner {
 public:
  Runner(Bdev& bdev, uint32_t count_blocks, size_t depth) : bdev_(bdev), slots_(depth) {
    for (size_t i = 0; i < depth; i++) {
      Slot& slot = slots_[i];
      slot.runner = this;
      slot.data.resize(size_t{count_blocks} * 4096);
      slot.piece = {slot.data.data(), slot.data.size()};
      slot.offset_blocks = i * count_blocks;
      slot.count_blocks = count_blocks;
      slot.iov = &slot.piece;
      slot.iov_count = 1;
      slot.done = [](Io* io) { static_cast<Slot*>(io)->runner->ended(static_cast<Slot*>(io)); };
    }
  }
  Task<Outcome> run(size_t count) {
    left_ = count;
    failed_ = wrong_ = 0;
    Signal<bool> signal;
    signal_ = &signal;
    for (Slot& slot : slots_) {
      slot.generation = 0;
      next(&slot);
    }
    (void)co_await signal;
    if (failed_ > 0 || wrong_ > 0) {
      co_return Error{Errc::io, std::to_string(failed_) + " failed, " + std::to_string(wrong_) + " read wrong; " +
                                    nvme::to_string(last_status_)};
    }
    co_return success();
  }
  uint64_t heap_uses() const { return heap_uses_; }

 private:
  struct Slot : Io {
    Runner* runner = nullptr;
    std::vector<uint8_t> data;
    Iovec piece;
    uint8_t generation = 0;
  };
  void next(Slot* slot) {
    if (left_ == 0) return;
    left_--;
    in_flight_++;
    slot->type = slot->generation % 2 == 0 ? IoType::write : IoType::read;
    const auto fill = static_cast<uint8_t>(slot->generation / 2 + 1);
    // Not std::fill: unoptimized under a sanitizer, it goes byte by byte and takes longer than all the rest.
    std::memset(slot->data.data(), slot->type == IoType::write ? fill : 0, slot->data.size());
    bdev_.submit(slot);
  }
  void ended(Slot* slot) {
    in_flight_--;
    if (!slot->status.ok()) {
      failed_++;
      last_status_ = slot->status;
    }
    const auto fill = static_cast<uint8_t>(slot->generation / 2 + 1);
    if (slot->type == IoType::read && (slot->data.front() != fill || slot->data.back() != fill)) wrong_++;
    slot->generation++;
    if (left_ == warm_left_) heap_before_ = heap_use_count;
    if (left_ == 0 && in_flight_ == slots_.size() - 1) heap_uses_ = heap_use_count - heap_before_;
    next(slot);
    if (in_flight_ == 0) signal_->set(true);
  }

 public:
  size_t warm_left_ = SIZE_MAX;  // heap uses count from here on

 private:
  Bdev& bdev_;
  std::vector<Slot> slots_;
  size_t left_ = 0;
  size_t in_flight_ = 0;
  size_t failed_ = 0;
  size_t wrong_ = 0;
  nvme::Status last_status_;
  uint64_t heap_before_ = 0;
  uint64_t heap_uses_ = 0;
  Signal<bool>* signal_ = nullptr;
};

class RealSockets : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(target_reactor.init().ok());
    ASSERT_TRUE(host_reactor.init().ok());
    auto made = MallocBdev::create(target_reactor, {"disk", {}, 4096, disk_blocks});
    ASSERT_TRUE(made.ok());
    disk = std::move(made).value();
    target = std::make_unique<nvmf::Target>(std::vector<Reactor*>{&target_reactor});
    target->add_transport(std::make_unique<nvmf::TcpTargetTransport>(*target));
    MultipathOptions options;
    options.name = "real";
    options.subnqn = subnqn;
    options.hostnqn = "nqn.2026-01.test:host";
    set = std::make_unique<NvmfController>(host_reactor, options);
    target_thread = env->start(target_reactor, {.name = "target"});
    host_thread = env->start(host_reactor, {.name = "host"});
    std::string port;
    const Outcome served = on(target_reactor, serve(target.get(), disk.get(), &port));
    ASSERT_TRUE(served.ok()) << served.error().message;
    const Outcome attached = on(host_reactor, set->add_path(transport, {"127.0.0.1", port}));
    ASSERT_TRUE(attached.ok()) << attached.error().message;
  }
  void TearDown() override {
    EXPECT_TRUE(on(host_reactor, stop_host(set.get())).ok());
    EXPECT_TRUE(on(target_reactor, stop_target(target.get())).ok());
    host_reactor.stop();
    target_reactor.stop();
    host_thread.reset();
    target_thread.reset();
  }
  NvmfBdev& bdev() { return *set->bdevs().front(); }

  std::unique_ptr<env::Env> env = env::make_linux_env();
  Arena arena{size_t{512} << 20};
  Reactor target_reactor{*env, arena, {}};
  Reactor host_reactor{*env, arena, {.index = 1}};
  std::unique_ptr<MallocBdev> disk;
  std::unique_ptr<nvmf::Target> target;
  nvmf::TcpHostTransport transport;
  std::unique_ptr<NvmfController> set;
  std::unique_ptr<env::LoopHandle> target_thread;
  std::unique_ptr<env::LoopHandle> host_thread;
};

TEST_F(RealSockets, CarriesSmallAndLargeRequests) {
  for (const uint32_t count_blocks : {1u, 3u, 32u, 256u}) {
    SCOPED_TRACE(count_blocks);
    Runner runner(bdev(), count_blocks, 32);
    const Outcome outcome = on(host_reactor, runner.run(count_blocks > 16 ? 500 : 4000));
    EXPECT_TRUE(outcome.ok()) << outcome.error().message;
  }
}

TEST_F(RealSockets, TakesNothingFromTheHeapOncePerRequest) {
  Runner runner(bdev(), 1, 64);
  runner.warm_left_ = 10000;
  const Outcome outcome = on(host_reactor, runner.run(20000));
  EXPECT_TRUE(outcome.ok());
  // Timers and event lists may still grow a little; a request may not cost anything.
  EXPECT_LT(runner.heap_uses(), 20u);
}

TEST_F(RealSockets, GoesOnWhenTheTargetEndsTheConnection) {
  Runner runner(bdev(), 8, 16);
  std::optional<Outcome> result;
  basalt::testing::Semaphore ended;
  spawn(carry(&host_reactor, runner.run(20000), &result, &ended));
  for (int i = 0; i < 5; i++)
    EXPECT_TRUE(on(target_reactor, drop_connections(target.get())).ok());
  ASSERT_TRUE(ended.try_acquire_for(std::chrono::seconds(60)));
  EXPECT_TRUE(result->ok()) << result->error().message;
}

}  // namespace
}  // namespace basalt::bdev
