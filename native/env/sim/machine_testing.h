// SPDX-License-Identifier: Apache-2.0
// For the tests of the simulated world: a node whose loop only polls, with files and sockets that are used by hand.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "env/sim/sim_world.h"

namespace basalt::env::testing {

struct Machine final : Loop {
  Machine(SimWorld& world, const std::string& name) : node(world.add_node(name)) { boot(); }
  void boot() {
    poller = node.make_poller({}).value();
    handle = node.start(*this, {});
  }
  void run() override {}
  bool turn() override { return poller->poll() > 0; }
  Instant deadline() const override { return timer; }

  SimNode& node;
  std::unique_ptr<Poller> poller;
  std::unique_ptr<LoopHandle> handle;
  Instant timer = Instant::never();
};

struct DiskIo : FileIo {
  DiskIo(FileIo::Type io_type, uint64_t offset, uint64_t length, uint8_t fill = 0, bool stable = false) {
    type = io_type;
    fua = stable;
    offset_bytes = offset;
    length_bytes = length;
    data.assign(length, fill);
    piece = {data.data(), data.size()};
    iov = &piece;
    iov_count = type == Type::read || type == Type::write ? 1 : 0;
    run = [](Work* work) { static_cast<DiskIo*>(work)->ended = true; };
  }
  std::vector<uint8_t> data;
  Iovec piece;
  bool ended = false;
};

// One machine with one open disk.
class DiskBench {
 public:
  static constexpr uint64_t disk_bytes = 1 << 20;
  explicit DiskBench(uint64_t seed = 1) : world(seed), machine(world, "m") {
    file = machine.poller->open({.path = "disk", .create_bytes = disk_bytes}).value();
  }
  SimDisk& disk() { return world.disk("m", "disk"); }
  void submit(DiskIo& io) { file->submit(&io); }
  int wait(DiskIo& io) {
    EXPECT_TRUE(world.run_until([&] { return io.ended; }, seconds(10)));
    return io.error;
  }
  int write(uint64_t offset, uint64_t length, uint8_t fill, bool fua = false) {
    DiskIo io(FileIo::Type::write, offset, length, fill, fua);
    submit(io);
    return wait(io);
  }
  int flush() {
    DiskIo io(FileIo::Type::flush, 0, 0);
    submit(io);
    return wait(io);
  }
  int zero(uint64_t offset, uint64_t length) {
    DiskIo io(FileIo::Type::zero, offset, length);
    submit(io);
    return wait(io);
  }
  // The byte that fills the range; -1: several; -2: the read failed.
  int read(uint64_t offset, uint64_t length) {
    DiskIo io(FileIo::Type::read, offset, length);
    submit(io);
    if (wait(io) != 0) return -2;
    return filled_with(io.data);
  }
  static int filled_with(const std::vector<uint8_t>& data) {
    for (const uint8_t byte : data) {
      if (byte != data[0]) return -1;
    }
    return data[0];
  }
  static int at(const SimImage& image, uint64_t offset, uint64_t length) {
    std::vector<uint8_t> data(length);
    image.read(offset, data.data(), length);
    return filled_with(data);
  }
  // What a power cut that keeps nothing of the cache leaves there.
  int stable(uint64_t offset, uint64_t length) { return at(disk().after_prefix(0), offset, length); }

  SimWorld world;
  Machine machine;
  std::unique_ptr<BlockFile> file;
};

}  // namespace basalt::env::testing
