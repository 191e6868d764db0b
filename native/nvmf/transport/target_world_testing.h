// SPDX-License-Identifier: Apache-2.0
// TargetWorld: a real target and the host's transports in one test: two reactors in virtual time, sockets in memory, a
// disk whose requests the test can hold, fail and look at. Each listener address is one path.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bdev/handle.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/loopback/loopback.h"
#include "nvmf/transport/memory_net_testing.h"
#include "nvmf/transport/rdma/rdma_host.h"
#include "nvmf/transport/rdma/rdma_target.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt::testing {

class TestDisk final : public bdev::Bdev {
 public:
  TestDisk(Reactor& home, uint64_t count_blocks, uint8_t id) : Bdev(home), bytes(count_blocks * 4096) {
    info_.name = "disk" + std::to_string(id);
    info_.product = "test";
    info_.uuid.bytes[0] = id;
    info_.block_size_bytes = 4096;
    info_.count_blocks = count_blocks;
    info_.volatile_cache = true;
  }
  void submit(bdev::Io* io) override {
    submit_count++;
    if (io->type == bdev::IoType::flush) flush_count++;
    if (hold) {
      held.push_back(io);
      return;
    }
    serve(io);
  }
  void serve(bdev::Io* io) {
    nvme::Status status = check(*io);
    if (status.ok() && on_io) status = on_io(*io);
    uint8_t* at = bytes.data() + io->offset_blocks * 4096;
    if (status.ok()) {
      if (io->type == bdev::IoType::read) iovec_copy_in(io->iov, io->iov_count, at);
      if (io->type == bdev::IoType::write) iovec_copy_out(io->iov, io->iov_count, at);
      if (io->type == bdev::IoType::write_zeroes || io->type == bdev::IoType::unmap) {
        std::fill_n(at, size_t{io->count_blocks} * 4096, 0);
      }
    }
    complete_later(io, status);
  }
  void release() {
    hold = false;
    while (!held.empty()) {
      bdev::Io* io = held.front();
      held.pop_front();
      serve(io);
    }
  }
  void resize(uint64_t count_blocks) {
    bytes.resize(count_blocks * 4096);
    set_size(count_blocks);
  }
  Task<Outcome> close() override { co_return success(); }
  Task<Outcome> set_attribute(std::string value) override {
    while (hold_attributes)
      co_await sleep_for(home(), milliseconds(1));
    if (fail_attributes) co_return Error{Errc::io, "attribute"};
    attribute_ = std::move(value);
    attribute_count++;
    co_return success();
  }
  std::string attribute() const override { return attribute_; }
  // Asks `may_begin` when `hold_snapshots` ends; the snapshot is there when `keep_snapshots` ends.
  Task<Outcome> snapshot(std::string name, std::function<bool()> may_begin) override {
    while (hold_snapshots)
      co_await sleep_for(home(), milliseconds(1));
    if (!may_begin()) co_return Error{Errc::fenced, name};
    snapshots_begun++;
    while (keep_snapshots)
      co_await sleep_for(home(), milliseconds(1));
    if (snapshots.contains(name)) co_return Error{Errc::exists, name};
    snapshots[name] = bytes;
    co_return success();
  }
  Task<Outcome> prepare_snapshot() override {
    prepare_count++;
    co_return success();
  }

  std::map<std::string, std::vector<uint8_t>> snapshots;
  bool hold_attributes = false;
  bool fail_attributes = false;
  size_t attribute_count = 0;
  bool hold_snapshots = false;
  bool keep_snapshots = false;
  size_t snapshots_begun = 0;
  size_t prepare_count = 0;
  std::vector<uint8_t> bytes;
  std::function<nvme::Status(const bdev::Io&)> on_io;
  bool hold = false;
  std::deque<bdev::Io*> held;
  size_t submit_count = 0;
  size_t flush_count = 0;

 private:
  std::string attribute_;
};

struct TestIo : bdev::Io {
  bool ended = false;
  std::vector<Iovec> pieces;
  std::vector<uint8_t> data;

  TestIo(bdev::IoType io_type, uint64_t offset, uint32_t count, size_t piece_bytes = SIZE_MAX) {
    type = io_type;
    offset_blocks = offset;
    count_blocks = count;
    if (type == bdev::IoType::read || type == bdev::IoType::write) {
      data.resize(size_t{count} * 4096);
      for (size_t at = 0; at < data.size();) {
        const size_t take = std::min(piece_bytes, data.size() - at);
        pieces.push_back({data.data() + at, take});
        at += take;
      }
      iov = pieces.data();
      iov_count = static_cast<uint16_t>(pieces.size());
    }
    done = [](bdev::Io* io) { static_cast<TestIo*>(io)->ended = true; };
  }
};

inline constexpr char test_subnqn[] = "nqn.2026-01.test:volume";
inline constexpr char test_link_nqn[] = "nqn.2026-01.test:link";
inline constexpr char test_hostnqn[] = "nqn.2026-01.test:host";

class TargetWorld {
 public:
  explicit TargetWorld(uint64_t seed = 1, const nvmf::RdmaTargetOptions& rdma_options = {}) : net(seed) {
    BASALT_ASSERT(home.init().ok() && host.init().ok());
    net.add(&home);
    net.add(&host);
    target = std::make_unique<nvmf::Target>(std::vector<Reactor*>{&home, &host});
    target->add_transport(std::make_unique<nvmf::TcpTargetTransport>(*target));
    auto rdma_transport = std::make_unique<nvmf::RdmaTargetTransport>(*target, rdma_options);
    rdma_target = rdma_transport.get();
    target->add_transport(std::move(rdma_transport));
    auto loopback_target = std::make_unique<nvmf::LoopbackTargetTransport>(*target);
    loopback = std::make_unique<nvmf::LoopbackHostTransport>(*loopback_target);
    target->add_transport(std::move(loopback_target));
  }
  ~TargetWorld() { close(); }
  // A fixture whose disks end before this world closes it first: namespaces go before their disks.
  void close() {
    if (!target) return;
    net.run_void(target->close());
    net.run_for(milliseconds(5));
    target.reset();
    net.run_for(milliseconds(5));
    // Nothing of the adapters' is left: connections, registrations, windows, queues.
    EXPECT_EQ(net.rdma().counts(), env::SimRdmaCounts{});
  }

  nvmf::Subsystem* add_subsystem(const std::string& nqn, bdev::Bdev* disk, bool one_writer = false,
                                 uint64_t gate_epoch = 0) {
    nvmf::SubsystemOptions options;
    options.nqn = nqn;
    options.serial_number = "incarnation-1";
    options.allow_any_host = true;
    auto made = target->create_subsystem(options);
    BASALT_ASSERT(made.ok());
    nvmf::Subsystem* subsystem = made.value();
    ns::NamespaceOptions ns_options;
    ns_options.nsid = 1;
    ns_options.one_writer = one_writer;
    ns_options.gate_epoch = gate_epoch;
    BASALT_ASSERT(net.run(subsystem->add_namespace(ns_options, disk)).ok());
    return subsystem;
  }
  // At the same place as replicas.
  nvmf::Subsystem* add_node_link(const nvmf::HostAddress& address, bool planted_ignore_epoch = false) {
    nvmf::SubsystemOptions options;
    options.nqn = test_link_nqn;
    options.allow_any_host = options.internal = options.node_link = true;
    options.ana_reporting = false;
    options.planted_ignore_epoch = planted_ignore_epoch;
    auto made = target->create_subsystem(options);
    BASALT_ASSERT(made.ok());
    BASALT_ASSERT(net.run(made.value()->add_listener(as_listen(address, "TCP"))).ok());
    return made.value();
  }
  nvmf::HostAddress listen(nvmf::Subsystem* subsystem, const std::string& trtype) {
    nvmf::ListenAddress address;
    address.trtype = trtype;
    address.traddr = trtype == "LOOPBACK" ? "here" : "127.0.0.1";
    address.trsvcid = "0";
    auto bound = net.run(subsystem->add_listener(address));
    BASALT_ASSERT(bound.ok());
    return {bound->traddr, bound->trsvcid};
  }
  nvmf::HostTransport& transport(const std::string& trtype) {
    if (trtype == "TCP") return tcp;
    if (trtype == "RDMA") return rdma;
    return *loopback;
  }
  nvmf::ListenAddress as_listen(const nvmf::HostAddress& address, const std::string& trtype) {
    nvmf::ListenAddress out;
    out.trtype = trtype;
    out.traddr = address.traddr;
    out.trsvcid = address.trsvcid;
    return out;
  }
  static uint16_t port(const nvmf::HostAddress& address) { return static_cast<uint16_t>(std::stoi(address.trsvcid)); }

  nvme::Status io(bdev::Bdev& bdev, TestIo& io, Duration limit = seconds(60)) {
    bdev.submit(&io);
    EXPECT_FALSE(io.ended);
    EXPECT_TRUE(net.run_until([&] { return io.ended; }, limit));
    return io.status;
  }
  nvme::Status write(bdev::Bdev& bdev, uint64_t block, uint32_t count, uint8_t fill) {
    TestIo request(bdev::IoType::write, block, count);
    std::fill(request.data.begin(), request.data.end(), fill);
    return io(bdev, request);
  }
  // The byte that fills the range, or -1; -2: the read failed.
  int read(bdev::Bdev& bdev, uint64_t block, uint32_t count) {
    TestIo request(bdev::IoType::read, block, count);
    if (!io(bdev, request).ok()) return -2;
    const uint8_t first = request.data[0];
    return std::all_of(request.data.begin(), request.data.end(), [first](uint8_t byte) { return byte == first; })
               ? first
               : -1;
  }

  MemoryNet net;
  Arena arena{size_t{512} << 20};
  Reactor home{net, arena, {}};
  Reactor host{net, arena, {.index = 1}};
  std::unique_ptr<nvmf::Target> target;
  nvmf::TcpHostTransport tcp;
  nvmf::RdmaHostTransport rdma;
  nvmf::RdmaTargetTransport* rdma_target = nullptr;
  std::unique_ptr<nvmf::LoopbackHostTransport> loopback;
};

}  // namespace basalt::testing
