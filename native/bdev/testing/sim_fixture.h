// SPDX-License-Identifier: Apache-2.0
// A simulated node with one reactor, for bdev tests: runs tasks and requests to their end in virtual time.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bdev/handle.h"
#include "env/sim/sim_world.h"

namespace basalt::bdev {

class SimFixture {
 public:
  explicit SimFixture(uint64_t seed = 1)
      : world(seed), node(world.add_node("node")), arena(size_t{1} << 30), reactor(node, arena, {}) {
    EXPECT_TRUE(reactor.init().ok());
    loop = node.start(reactor, {});
  }

  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    spawn(collect(std::move(task), &result));
    EXPECT_TRUE(world.run_until([&] { return result.has_value(); }, seconds(600))) << "seed " << world.seed();
    return std::move(*result);
  }
  bool run_until(const std::function<bool()>& condition, Duration limit = seconds(60)) {
    return world.run_until(condition, limit);
  }

  nvme::Status io(Bdev& bdev, IoType type, uint64_t offset_blocks, uint32_t count_blocks, void* data = nullptr,
                  bool fua = false) {
    return run(io_task(Handle(bdev, reactor), type, offset_blocks, count_blocks, data, fua));
  }
  nvme::Status write(Bdev& bdev, uint64_t offset_blocks, const std::vector<uint8_t>& data) {
    return io(bdev, IoType::write, offset_blocks, static_cast<uint32_t>(data.size() / bdev.info().block_size_bytes),
              const_cast<uint8_t*>(data.data()));
  }
  std::vector<uint8_t> read(Bdev& bdev, uint64_t offset_blocks, uint32_t count_blocks) {
    std::vector<uint8_t> data(size_t{count_blocks} * bdev.info().block_size_bytes, 0xee);
    const nvme::Status status = io(bdev, IoType::read, offset_blocks, count_blocks, data.data());
    EXPECT_TRUE(status.ok()) << nvme::to_string(status);
    return data;
  }

  env::SimWorld world;
  env::SimNode& node;
  Arena arena;
  Reactor reactor;
  std::unique_ptr<env::LoopHandle> loop;

 private:
  template <class T>
  static Task<void> collect(Task<T> task, std::optional<T>* result) {
    result->emplace(co_await task);
  }
  static Task<nvme::Status> io_task(Handle handle, IoType type, uint64_t offset_blocks, uint32_t count_blocks,
                                    void* data, bool fua) {
    Iovec iov{data, size_t{count_blocks} * handle.info().block_size_bytes};
    Io io;
    io.type = type;
    io.fua = fua;
    io.offset_blocks = offset_blocks;
    io.count_blocks = count_blocks;
    io.iov = &iov;
    io.iov_count = data == nullptr ? 0 : 1;
    co_return co_await io_wait(handle, io);
  }
};

}  // namespace basalt::bdev
