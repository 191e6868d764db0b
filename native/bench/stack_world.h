// SPDX-License-Identifier: Apache-2.0
// What benchmarks of stacks of bdevs share: a reactor with the bdevs on it, and a load of one kind on one of them, all
// on the thread that asks.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "bdev/lvol/lvstore.h"
#include "bdev/malloc/malloc.h"
#include "bdev/null/null.h"
#include "env/linux/linux_env.h"
#include "memory/arena.h"

namespace basalt::bench {

using namespace bdev;

constexpr uint32_t block_bytes = 4096;

// A reactor and what stands on it, top first when it ends.
class World {
 public:
  World() { BASALT_ASSERT(reactor.init().ok()); }
  ~World() {
    end(owned_);
    if (store_) BASALT_ASSERT(run(store_->close()).ok());
    store_.reset();
    end(below_store_);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  template <class T>
  T run(Task<T> task) {
    std::optional<T> value;
    spawn(keep(std::move(task), &value));
    while (!value.has_value())
      reactor.turn();
    return std::move(*value);
  }
  template <class T>
  T& own(Result<std::unique_ptr<T>> made) {
    BASALT_ASSERT(made.ok());
    T& bdev = **made;
    owned_.push_back(std::move(made).value());
    return bdev;
  }
  Bdev& null(uint64_t count_blocks) { return own(NullBdev::create(reactor, {name(), {}, block_bytes, count_blocks})); }
  Bdev& malloc(uint64_t count_blocks) {
    return own(MallocBdev::create(reactor, {name(), {}, block_bytes, count_blocks}));
  }
  LvStore& lvstore(Bdev& base) {
    BASALT_ASSERT(make_store(base).ok());
    return *store_;
  }
  // Of what is refused on a disk that has something.
  Outcome make_store(Bdev& base) {
    below_store_.swap(owned_);
    LvStoreOptions options{.name = "pool", .uuid = {}};
    auto made = run(LvStore::create(reactor, handle(base), options));
    if (!made.ok()) return made.error();
    store_ = std::move(made).value();
    return success();
  }
  LvStore& store() { return *store_; }
  Handle handle(Bdev& bdev) { return {bdev, reactor}; }
  std::string name() { return "b" + std::to_string(next_name_++); }

  std::unique_ptr<env::Env> env = env::make_linux_env();
  Arena arena{size_t{256} << 20};
  Reactor reactor{*env, arena, {}};

 private:
  void end(std::vector<std::unique_ptr<Bdev>>& bdevs) {
    for (; !bdevs.empty(); bdevs.pop_back())
      BASALT_ASSERT(run(bdevs.back()->close()).ok());
  }
  template <class T>
  static Task<void> keep(Task<T> task, std::optional<T>* out) {
    T value = co_await std::move(task);
    out->emplace(std::move(value));
  }
  std::vector<std::unique_ptr<Bdev>> owned_;
  std::vector<std::unique_ptr<Bdev>> below_store_;
  std::unique_ptr<LvStore> store_;
  int next_name_ = 0;
};

struct Workload {
  IoType type;
  uint32_t depth;
  uint32_t count_blocks = 1;    // of a request
  uint64_t span_blocks = 8192;  // requests go through so many blocks, then begin again
  bool random = false;          // they go anywhere in them
  uint64_t pass_blocks = 0;     // not 0: a pass is so many blocks
};

// Keeps `depth` requests in flight, one batch after another.
class Load {
 public:
  Load(World& world, Bdev& bdev, const Workload& work, uint8_t byte = 7)
      : world_(world),
        bdev_(bdev),
        work_(work),
        ios_(work.depth),
        memory_(size_t{work.count_blocks} * block_bytes, byte) {
    iov_ = {memory_.data(), memory_.size()};
    for (Io& io : ios_) {
      io.type = work.type;
      io.iov = &iov_;
      io.iov_count = 1;
      io.count_blocks = work.count_blocks;
      io.context = this;
      io.done = [](Io* done) {
        BASALT_ASSERT(done->status.ok());
        static_cast<Load*>(done->context)->in_flight_--;
      };
    }
  }
  void batch() {
    for (Io& io : ios_) {
      io.offset_blocks = work_.random ? drawn() : next_;
      next_ += work_.count_blocks;
      if (next_ + work_.count_blocks > (work_.pass_blocks == 0 ? work_.span_blocks : work_.pass_blocks)) next_ = 0;
      in_flight_++;
      bdev_.submit(&io);
    }
    while (in_flight_ > 0)
      world_.reactor.turn();
  }
  // The next request is the first one of a pass.
  bool at_start() const { return next_ == 0; }
  uint64_t batch_requests() const { return ios_.size(); }

 private:
  uint64_t drawn() {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_ % (work_.span_blocks / work_.count_blocks) * work_.count_blocks;
  }
  World& world_;
  Bdev& bdev_;
  const Workload work_;
  std::vector<Io> ios_;
  std::vector<uint8_t> memory_;
  Iovec iov_;
  uint64_t next_ = 0;
  uint64_t random_ = 0x9e3779b97f4a7c15;
  uint64_t in_flight_ = 0;
};

// Of this process, which has one thread. Not getrusage(): that counts up to the last tick of the system's clock.
inline uint64_t cpu_ns() {
  return static_cast<uint64_t>(std::clock()) * (1'000'000'000 / CLOCKS_PER_SEC);
}

inline void fill(World& world, Bdev& bdev, uint64_t count_blocks, uint8_t byte = 7) {
  Load load(world, bdev, {.type = IoType::write, .depth = 256, .span_blocks = count_blocks}, byte);
  for (uint64_t i = 0; i < count_blocks; i += 256)
    load.batch();
}

}  // namespace basalt::bench
