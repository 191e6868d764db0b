// SPDX-License-Identifier: Apache-2.0
// For the tests of lvol: a reactor driven turn by turn in a world without time, and a disk in memory that can lose
// power. The disk completes what is submitted in a random order and remembers what was not flushed; image() makes what
// a power cut would leave: all that was flushed, and any subset of the 512-byte sectors written since.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <random>
#include <vector>

#include "bdev/handle.h"
#include "memory/arena.h"
#include "runtime/reactor.h"

namespace basalt::bdev::test {

class FakePoller final : public env::Poller {
 public:
  size_t poll() override { return 0; }
  void wait(Instant) override {}
  void wake() override {}
  Result<std::unique_ptr<env::StreamListener>> listen(const env::Address&) override { return none(); }
  Result<std::unique_ptr<env::StreamSocket>> connect(const env::Address&) override { return none(); }
  std::unique_ptr<env::StreamSocket> adopt(std::unique_ptr<env::PendingSocket>) override { return nullptr; }
  Result<std::unique_ptr<env::BlockFile>> open(const env::FileOptions&) override { return none(); }
  std::string description() const override { return "none"; }

 private:
  static Error none() { return {Errc::unsupported, "not in this test"}; }
};

class FakeEnv final : public env::Env {
 public:
  explicit FakeEnv(uint64_t seed) : random_(seed) {}
  Instant now() const override { return {++now_ns_}; }
  int64_t wall_ms() const override { return 0; }
  void random(void* out, size_t length_bytes) override {
    for (size_t i = 0; i < length_bytes; i++)
      static_cast<uint8_t*>(out)[i] = static_cast<uint8_t>(random_());
  }
  Result<std::unique_ptr<env::Poller>> make_poller(const env::PollerOptions&) override {
    return std::unique_ptr<env::Poller>(std::make_unique<FakePoller>());
  }
  std::unique_ptr<env::LoopHandle> start(env::Loop&, const env::LoopOptions&) override { return nullptr; }

 private:
  std::mt19937_64 random_;
  mutable int64_t now_ns_ = 0;
};

struct World {
  explicit World(uint64_t seed) : random(seed), env(seed), reactor(env, arena, {}) { EXPECT_TRUE(reactor.init().ok()); }
  std::mt19937_64 random;
  Arena arena{size_t{64} << 20};
  FakeEnv env;
  Reactor reactor;

  // Turns until nothing is left to do.
  void settle() {
    while (reactor.turn()) {
    }
  }
};

template <class T>
Task<void> keep_value(Task<T> task, std::optional<T>* out) {
  T value = co_await std::move(task);
  out->emplace(std::move(value));
}
template <class T>
T run(World& world, Task<T> task) {
  std::optional<T> value;
  spawn(keep_value(std::move(task), &value));
  while (!value.has_value()) {
    if (!world.reactor.turn()) {
      std::fprintf(stderr, "the task waits for something that never comes\n");
      std::abort();
    }
  }
  return std::move(*value);
}

class CrashDisk final : public Bdev {
 public:
  static constexpr uint32_t sector_bytes = 512;

  CrashDisk(World& world, uint64_t size_bytes, uint32_t block_size_bytes = 512)
      : CrashDisk(world, std::vector<uint8_t>(size_bytes), block_size_bytes) {}
  CrashDisk(World& world, std::vector<uint8_t> image, uint32_t block_size_bytes = 512)
      : Bdev(world.reactor), world_(world), current_(std::move(image)) {
    info_.name = "disk";
    info_.product = "test";
    info_.block_size_bytes = block_size_bytes;
    info_.count_blocks = current_.size() / block_size_bytes;
    info_.volatile_cache = true;
    pump_.disk = this;
    pump_.run = [](Work* work) { static_cast<Pump*>(work)->disk->pump(); };
  }

  Handle handle() { return Handle(*this, home()); }
  void submit(Io* io) override {
    pending_.push_back({io, log_end(), {}});
    if (io->type == IoType::write) {
      pending_.back().data.resize(bytes(io->count_blocks));
      iovec_copy_out(io->iov, io->iov_count, pending_.back().data.data());
    } else if (io->type == IoType::write_zeroes) {
      pending_.back().data.assign(bytes(io->count_blocks), 0);
    }
    schedule();
  }
  Task<Outcome> close() override { co_return success(); }

  // Called after each write and flush; the moment to cut the power.
  std::function<void()> on_change;
  // A status for an Io instead of doing it.
  std::function<std::optional<nvme::Status>(const Io&)> fault;
  bool in_order = false;
  bool held = false;                     // complete nothing until release()
  std::function<bool(const Io&)> holds;  // the same for single requests
  void release() {
    held = false;
    if (!pending_.empty()) schedule();
  }

  uint64_t write_count = 0;
  uint64_t flush_count = 0;
  uint64_t read_count = 0;
  size_t pending_count() const { return pending_.size(); }
  std::vector<uint8_t>& bytes_now() { return current_; }

  // After the end of the process: all that completed; what was in flight in any state.
  std::vector<uint8_t> image_of_kill(std::mt19937_64& random) const {
    std::vector<uint8_t> image = current_;
    for (const Pending& pending : pending_) {
      if (!pending.data.empty()) tear(image, bytes(pending.io->offset_blocks), pending.data, random() % 101, random);
    }
    return image;
  }
  // After a power cut: of what was completed and not flushed, exactly the sectors that `keep` names by their offset.
  std::vector<uint8_t> image_keeping(const std::function<bool(uint64_t offset_bytes)>& keep) const {
    std::vector<uint8_t> image = flushed_image();
    for (const Change& change : log_) {
      for (size_t at = 0; at < change.after.size(); at += sector_bytes) {
        const uint64_t offset_bytes = change.offset_bytes + at;
        if (keep(offset_bytes)) std::memcpy(image.data() + offset_bytes, change.after.data() + at, sector_bytes);
      }
    }
    return image;
  }
  // After a power cut. keep_percent of the unflushed sectors are there.
  std::vector<uint8_t> image_of_power_cut(unsigned keep_percent, std::mt19937_64& random) const {
    std::vector<uint8_t> image = flushed_image();
    for (const Change& change : log_)
      tear(image, change.offset_bytes, change.after, keep_percent, random);
    for (const Pending& pending : pending_) {
      if (!pending.data.empty()) tear(image, bytes(pending.io->offset_blocks), pending.data, keep_percent, random);
    }
    return image;
  }

 private:
  struct Pending {
    Io* io;
    uint64_t log_position;  // a flush covers what completed before it was submitted
    std::vector<uint8_t> data;
  };
  struct Change {
    uint64_t offset_bytes;
    std::vector<uint8_t> before;
    std::vector<uint8_t> after;
  };
  struct Pump : Work {
    CrashDisk* disk;
  };

  std::vector<uint8_t> flushed_image() const {
    std::vector<uint8_t> image = current_;
    for (size_t i = log_.size(); i > 0; i--) {
      const Change& change = log_[i - 1];
      std::memcpy(image.data() + change.offset_bytes, change.before.data(), change.before.size());
    }
    return image;
  }
  uint64_t bytes(uint64_t blocks) const { return blocks * info_.block_size_bytes; }
  uint64_t log_end() const { return log_start_ + log_.size(); }
  static void tear(std::vector<uint8_t>& image, uint64_t offset_bytes, const std::vector<uint8_t>& data,
                   uint64_t keep_percent, std::mt19937_64& random) {
    for (size_t at = 0; at < data.size(); at += sector_bytes) {
      if (random() % 100 < keep_percent) std::memcpy(image.data() + offset_bytes + at, data.data() + at, sector_bytes);
    }
  }
  void schedule() {
    if (scheduled_ || held) return;
    scheduled_ = true;
    home().at_turn_end(&pump_);
  }
  void pump() {
    scheduled_ = false;
    if (held || pending_.empty()) return;
    size_t index = in_order ? 0 : world_.random() % pending_.size();
    for (size_t tried = 0; holds && holds(*pending_[index].io); tried++) {
      if (tried == pending_.size()) return;
      index = (index + 1) % pending_.size();
    }
    Pending done = std::move(pending_[index]);
    pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(index));
    perform(done);
    if (!pending_.empty()) schedule();
    if (on_change && done.io->type != IoType::read) on_change();
    done.io->done(done.io);
  }
  void perform(Pending& pending) {
    Io* io = pending.io;
    io->status = check(*io);
    if (io->status.ok() && fault) {
      if (auto status = fault(*io)) io->status = *status;
    }
    if (!io->status.ok()) return;
    const uint64_t offset_bytes = bytes(io->offset_blocks);
    switch (io->type) {
      case IoType::read:
        read_count++;
        iovec_copy_in(io->iov, io->iov_count, current_.data() + offset_bytes);
        return;
      case IoType::flush:
        flush_count++;
        while (log_start_ < pending.log_position) {
          log_.erase(log_.begin());
          log_start_++;
        }
        return;
      default:
        write_count++;
        apply(offset_bytes, std::move(pending.data), io->fua);
    }
  }
  void apply(uint64_t offset_bytes, std::vector<uint8_t> data, bool fua) {
    uint8_t* at = current_.data() + offset_bytes;
    if (fua) {
      // Stable at once: earlier unflushed changes of these bytes must not come back.
      for (Change& change : log_)
        overwrite(change, offset_bytes, data);
    } else {
      log_.push_back({offset_bytes, std::vector<uint8_t>(at, at + data.size()), data});
    }
    std::memcpy(at, data.data(), data.size());
  }
  static void overwrite(Change& change, uint64_t offset_bytes, const std::vector<uint8_t>& data) {
    const uint64_t from = std::max(change.offset_bytes, offset_bytes);
    const uint64_t to = std::min(change.offset_bytes + change.after.size(), offset_bytes + data.size());
    if (from >= to) return;
    std::memcpy(change.before.data() + (from - change.offset_bytes), data.data() + (from - offset_bytes), to - from);
    std::memcpy(change.after.data() + (from - change.offset_bytes), data.data() + (from - offset_bytes), to - from);
  }

  World& world_;
  std::vector<uint8_t> current_;
  std::vector<Change> log_;
  uint64_t log_start_ = 0;
  std::vector<Pending> pending_;
  bool scheduled_ = false;
  Pump pump_;
};

// One Io with memory of its own.
struct TestIo {
  Io io;
  std::vector<uint8_t> data;
  Iovec iov;
  bool ended = false;
  void start(Bdev& bdev, IoType type, uint64_t offset_blocks, uint32_t count_blocks, uint8_t fill = 0,
             bool fua = false) {
    ended = false;
    io.type = type;
    io.fua = fua;
    io.offset_blocks = offset_blocks;
    io.count_blocks = count_blocks;
    if (type == IoType::read || type == IoType::write) {
      if (type == IoType::read) fill = 0xee;
      if (data.size() != size_t{count_blocks} * 4096 || type == IoType::read || fill != 0)
        data.assign(size_t{count_blocks} * 4096, fill);
      iov = {data.data(), data.size()};
      io.iov = &iov;
      io.iov_count = 1;
    }
    io.context = this;
    io.done = [](Io* io) { static_cast<TestIo*>(io->context)->ended = true; };
    bdev.submit(&io);
    EXPECT_FALSE(ended) << "completed inside submit";
  }
};

inline nvme::Status do_io(World& world, Bdev& bdev, IoType type, uint64_t offset_blocks = 0, uint32_t count_blocks = 0,
                          uint8_t fill = 0, bool fua = false) {
  TestIo io;
  io.start(bdev, type, offset_blocks, count_blocks, fill, fua);
  while (!io.ended) {
    if (!world.reactor.turn()) std::abort();
  }
  return io.io.status;
}
inline std::vector<uint8_t> read_blocks(World& world, Bdev& bdev, uint64_t offset_blocks, uint32_t count_blocks) {
  TestIo io;
  io.start(bdev, IoType::read, offset_blocks, count_blocks);
  while (!io.ended) {
    if (!world.reactor.turn()) std::abort();
  }
  EXPECT_TRUE(io.io.status.ok()) << nvme::to_string(io.io.status);
  return io.data;
}
inline bool all_are(const std::vector<uint8_t>& data, uint8_t value) {
  for (uint8_t byte : data) {
    if (byte != value) return false;
  }
  return true;
}

}  // namespace basalt::bdev::test
