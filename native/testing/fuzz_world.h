// SPDX-License-Identifier: Apache-2.0
// The world of a fuzz target: a simulated node whose reactors run in virtual time, and a disk in memory. One seed, one
// history. What must end is awaited with a limit in virtual time: a hang is an assertion, found at once.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "env/sim/sim_world.h"
#include "runtime/reactor.h"
#include "testing/fuzz_target.h"

namespace basalt::testing {

class FuzzWorld {
 public:
  explicit FuzzWorld(uint64_t seed, unsigned reactor_count = 1, const env::SimKnobs& knobs = {})
      : world(seed, knobs), node(world.add_node("node")), arena(size_t{512} << 20) {
    for (unsigned i = 0; i < reactor_count; i++) {
      reactors.push_back(std::make_unique<Reactor>(node, arena, ReactorOptions{.index = i}));
      BASALT_ASSERT(reactors.back()->init().ok());
      loops_.push_back(node.start(*reactors.back(), {}));
    }
  }
  FuzzWorld(const FuzzWorld&) = delete;
  FuzzWorld& operator=(const FuzzWorld&) = delete;

  Reactor& home() { return *reactors.front(); }
  std::vector<Reactor*> reactor_list() const {
    std::vector<Reactor*> out;
    for (const auto& reactor : reactors)
      out.push_back(reactor.get());
    return out;
  }
  template <class T>
  T run(Task<T> task, Duration limit = seconds(600)) {
    std::optional<T> result;
    spawn(collect(std::move(task), &result));
    const bool ended = world.run_until([&] { return result.has_value(); }, limit);
    BASALT_ASSERT(ended);
    return std::move(*result);
  }
  void run_void(Task<void> task, Duration limit = seconds(600)) {
    bool ended = false;
    spawn(note(std::move(task), &ended));
    const bool in_time = world.run_until([&] { return ended; }, limit);
    BASALT_ASSERT(in_time);
  }
  void must(const std::function<bool()>& condition, Duration limit = seconds(600)) {
    const bool held = world.run_until(condition, limit);
    BASALT_ASSERT(held);
  }
  nvme::Status io(bdev::Bdev& bdev, bdev::IoType type, uint64_t offset_blocks, std::vector<uint8_t>* data) {
    struct Waiting : bdev::Io {
      bool ended = false;
    } request;
    Iovec iov{data->data(), data->size()};
    request.type = type;
    request.offset_blocks = offset_blocks;
    request.count_blocks = static_cast<uint32_t>(data->size() / bdev.info().block_size_bytes);
    request.iov = &iov;
    request.iov_count = 1;
    request.done = [](bdev::Io* io) { static_cast<Waiting*>(io)->ended = true; };
    bdev.submit(&request);
    must([&] { return request.ended; });
    return request.status;
  }
  size_t buffers_in_use_count() const {
    size_t count = 0;
    for (const auto& reactor : reactors)
      count += reactor->buffers().in_use_count();
    return count;
  }

  env::SimWorld world;
  env::SimNode& node;
  Arena arena;
  std::vector<std::unique_ptr<Reactor>> reactors;

 private:
  template <class T>
  static Task<void> collect(Task<T> task, std::optional<T>* result) {
    T value = co_await task;
    result->emplace(std::move(value));
  }
  static Task<void> note(Task<void> task, bool* ended) {
    co_await task;
    *ended = true;
  }
  std::vector<std::unique_ptr<env::LoopHandle>> loops_;
};

// Requests that fail: `count` of them, after `after` others.
struct FuzzFault {
  static constexpr nvme::Status statuses[] = {nvme::status::internal_error, nvme::status::unrecovered_read_error,
                                              nvme::status::write_fault, nvme::status::capacity_exceeded};
  uint64_t after = 0;
  uint64_t count = 0;
  nvme::Status status;

  static FuzzFault take(FuzzInput& input) {
    const uint64_t after = input.u16();
    const uint64_t count = input.u8();
    return {after, count, statuses[input.u8() % std::size(statuses)]};
  }
  // Reads do not fail like writes, nor writes like reads.
  bool meets(bdev::IoType type) const {
    if (status.is(nvme::status::internal_error)) return true;
    return status.is(nvme::status::unrecovered_read_error) == (type == bdev::IoType::read);
  }
  // Of a request of this type.
  nvme::Status next(bdev::IoType type) {
    if (count == 0 || !meets(type)) return nvme::status::success;
    if (after > 0) {
      after--;
      return nvme::status::success;
    }
    count--;
    return status;
  }
};

// Contents in a vector; requests can be held back and failed.
class FuzzDisk final : public bdev::Bdev {
 public:
  FuzzDisk(Reactor& home, uint32_t block_bytes, uint64_t count_blocks, std::string name = "disk")
      : Bdev(home), bytes(size_t{block_bytes} * count_blocks) {
    info_.name = std::move(name);
    info_.product = "fuzz";
    info_.uuid.bytes[0] = 5;
    info_.block_size_bytes = block_bytes;
    info_.count_blocks = count_blocks;
    info_.volatile_cache = true;
  }
  void submit(bdev::Io* io) override {
    if (hold) {
      held_.push_back(io);
    } else {
      serve(io);
    }
  }
  void release() {
    hold = false;
    while (!held_.empty()) {
      bdev::Io* io = held_.front();
      held_.pop_front();
      serve(io);
    }
  }
  void allow(bdev::IoTypes types) { info_.io_types = types; }
  void grow(uint64_t count_blocks) {
    BASALT_ASSERT(count_blocks >= info_.count_blocks);
    bytes.resize(size_t{info_.block_size_bytes} * count_blocks);
    set_size(count_blocks);
  }
  Task<Outcome> close() override { co_return success(); }
  Task<Outcome> set_attribute(std::string value) override {
    attribute_ = std::move(value);
    co_return success();
  }
  std::string attribute() const override { return attribute_; }

  std::vector<uint8_t> bytes;
  bool hold = false;
  bool fail = false;
  FuzzFault fault;
  uint64_t bad_block = UINT64_MAX;  // cannot be read
  size_t write_count = 0;

 private:
  void serve(bdev::Io* io) {
    nvme::Status status = fail ? nvme::status::internal_error : check(*io);
    if (status.ok()) status = fault.next(io->type);
    const bool at_bad = bad_block >= io->offset_blocks && bad_block - io->offset_blocks < io->count_blocks;
    if (status.ok() && io->type == bdev::IoType::read && at_bad) status = nvme::status::unrecovered_read_error;
    if (status.ok() && io->type != bdev::IoType::flush) {
      uint8_t* at = bytes.data() + io->offset_blocks * info_.block_size_bytes;
      const size_t length_bytes = size_t{io->count_blocks} * info_.block_size_bytes;
      if (io->type == bdev::IoType::read) iovec_copy_in(io->iov, io->iov_count, at);
      if (io->type == bdev::IoType::write) iovec_copy_out(io->iov, io->iov_count, at);
      if (io->type == bdev::IoType::write_zeroes || io->type == bdev::IoType::unmap) std::fill_n(at, length_bytes, 0);
      if (io->type != bdev::IoType::read) write_count++;
    }
    complete_later(io, status);
  }
  std::deque<bdev::Io*> held_;
  std::string attribute_;
};

}  // namespace basalt::testing
