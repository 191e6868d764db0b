// SPDX-License-Identifier: Apache-2.0
// A served bdev in the simulated world, for NBD tests.
#pragma once

#include <memory>
#include <string>

#include "bdev/malloc/malloc.h"
#include "bdev/testing/sim_fixture.h"
#include "export/nbd/client_testing.h"
#include "export/nbd/server.h"

namespace basalt::nbd {

// Passes Ios on to another bdev, or keeps them until release().
class HoldingBdev final : public bdev::Bdev {
 public:
  HoldingBdev(Reactor& home, bdev::Bdev& below) : Bdev(home), below_(below) { info_ = below.info(); }
  void submit(bdev::Io* io) override {
    submitted_count++;
    if (io->type == bdev::IoType::write && io->fua) fua_count++;
    if (!fail_with.ok()) return complete_later(io, fail_with);
    if (!holding) return below_.submit(io);
    held_.push_back(io);
    held_count++;
  }
  void release() {
    holding = false;
    held_count = 0;
    while (bdev::Io* io = held_.pop_front())
      below_.submit(io);
  }
  Task<Outcome> close() override { co_return success(); }
  void grow(uint64_t count_blocks) { set_size(count_blocks); }
  void allow(bdev::IoTypes types) { info_.io_types = types; }

  nvme::Status fail_with = nvme::status::success;
  bool holding = false;
  size_t held_count = 0;
  size_t submitted_count = 0;
  size_t fua_count = 0;

 private:
  bdev::Bdev& below_;
  List<bdev::Io, &bdev::Io::node> held_;
};

class NbdFixture : public bdev::SimFixture {
 public:
  static constexpr uint64_t size_bytes = uint64_t{16} << 20;

  explicit NbdFixture(uint64_t seed = 1, const std::string& export_name = "disk", uint32_t block_size_bytes = 4096)
      : SimFixture(seed) {
    bdev::MallocOptions options;
    options.name = "memory";
    options.block_size_bytes = block_size_bytes;
    options.count_blocks = size_bytes / block_size_bytes;
    auto made = bdev::MallocBdev::create(reactor, options);
    memory = std::move(*made);
    disk = std::make_unique<HoldingBdev>(reactor, *memory);
    serve(export_name);
  }
  ~NbdFixture() {
    disk->release();
    if (server != nullptr) stop();
    EXPECT_EQ(reactor.buffers().in_use_count(), 0u);
  }
  void serve(const std::string& export_name) {
    auto started = Server::start(reactor, bdev::Handle(*disk, reactor),
                                 {{env::Address::Family::unix_path, "/run/nbd", 0}, export_name});
    ASSERT_TRUE(started.ok()) << started.error().message;
    server = std::move(*started);
  }
  void stop() {
    EXPECT_TRUE(run(server->stop()).ok());
    server.reset();
  }
  std::unique_ptr<TestClient> client() {
    return std::make_unique<TestClient>(node, reactor.poller(), server->address());
  }
  std::unique_ptr<TestClient> ready_client() {
    auto made = client();
    made->go();
    return made;
  }
  bool wait_connections(uint64_t count, Duration limit = seconds(1)) {
    return run_until([&] { return server->stats().connection_count == count; }, limit);
  }
  // Whatever happened to others: a new client is served.
  void expect_serves() {
    auto another = ready_client();
    EXPECT_EQ(another->write(0, Bytes(4096, 0x5a)), 0u);
    EXPECT_EQ(another->read(0, 4096), Bytes(4096, 0x5a));
  }

  std::unique_ptr<bdev::MallocBdev> memory;
  std::unique_ptr<HoldingBdev> disk;
  std::unique_ptr<Server> server;
};

}  // namespace basalt::nbd
