// SPDX-License-Identifier: Apache-2.0
// What a node link of a fuzz target leads to: a target with replicas on disks that hold, fail and grow, and a
// management that takes namespaces, hosts and listeners away and brings them back.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "nvmf/auth/secret.h"
#include "nvmf/transport/tcp/raw_host_testing.h"
#include "nvmf/transport/tcp/tcp_target.h"
#include "testing/fuzz_world.h"

namespace basalt::nvmf::testing {

class LinkReplicas {
 public:
  // The first two may be attached. The others may not: one asks for a key, one admits somebody else, one is a volume.
  enum Place : uint8_t { place_a, place_b, place_keyed, place_closed, place_volume, place_count };
  static constexpr const char* nqns[] = {"nqn.2026-01.test:a", "nqn.2026-01.test:b", "nqn.2026-01.test:keyed",
                                         "nqn.2026-01.test:closed", "nqn.2026-01.test:volume"};
  static constexpr char linknqn[] = "nqn.2026-01.test:link";
  static constexpr char hostnqn[] = "nqn.2026-01.test:host";
  static constexpr uint32_t block_bytes = 512;
  static constexpr uint64_t count_blocks = 256;
  static constexpr uint64_t count_blocks_max = 2 * count_blocks;
  static constexpr uint32_t attachments_max = 6;

  explicit LinkReplicas(uint8_t seed) : world(seed, 2, knobs()) {
    target_ = std::make_unique<Target>(world.reactor_list());
    TcpTargetOptions options;
    options.connection.in_capsule_bytes = 8192;
    auto transport = std::make_unique<TcpTargetTransport>(*target_, options);
    transport_ = transport.get();
    target_->add_transport(std::move(transport));
    SubsystemOptions link;
    link.nqn = linknqn;
    link.internal = link.node_link = true;
    link.attachments_max = attachments_max;
    link_ = target_->create_subsystem(link).value();
    BASALT_ASSERT(link_->add_host(hostnqn).ok());
    auto bound = world.run(link_->add_listener({"TCP", "127.0.0.1", "0"}));
    BASALT_ASSERT(bound.ok());
    address_ = bound.value();
    for (uint8_t place = 0; place < place_count; place++)
      add_replica(place);
  }

  static uint8_t place_of(const char* nqn, size_t length) {
    const auto found = std::find(std::begin(nqns), std::end(nqns), std::string(nqn, strnlen(nqn, length)));
    return static_cast<uint8_t>(found - std::begin(nqns));
  }
  std::unique_ptr<RawHost> dial() {
    env::Address address;
    address.host = "127.0.0.1";
    address.port = static_cast<uint16_t>(std::stoi(address_.trsvcid));
    auto socket = world.home().poller().connect(address);
    BASALT_ASSERT(socket.ok());
    auto raw = std::make_unique<RawHost>(std::move(socket).value(), [this](const std::function<bool()>& done) {
      return world.world.run_until(done, milliseconds(5));
    });
    world.world.run_for(microseconds(50));
    raw->initialize();
    return raw;
  }

  uint64_t size_blocks(uint8_t place) const { return replicas_[place].disk->info().count_blocks; }
  void grow(uint8_t place, uint64_t by_blocks) {
    basalt::testing::FuzzDisk& disk = *replicas_[place].disk;
    disk.grow(std::min(disk.info().count_blocks + by_blocks, count_blocks_max));
  }
  void set_disks(bool hold, bool fail) {
    for (Replica& replica : replicas_) {
      replica.disk->fail = fail;
      if (!hold) replica.disk->release();
      replica.disk->hold = hold;
    }
  }
  void manage(basalt::testing::FuzzInput& input) {
    const uint8_t how = input.u8();
    const uint8_t place = how >> 4 & 1;
    Subsystem& replica = *replicas_[place].subsystem;
    // Removing waits for commands at the disk.
    for (Replica& each : replicas_)
      each.disk->release();
    switch (how % 10) {
      case 0:
        (void)world.run(replica.remove_namespace(1)).ok();
        break;
      case 1:
        add_namespace(place);
        break;
      case 2:
        (void)world.run(replica.remove_host(hostnqn)).ok();
        break;
      case 3:
        (void)replica.add_host(hostnqn).ok();
        break;
      case 4:
      case 5: {
        const auto state = (how % 10) == 4 ? nvme::AnaState(1 + (input.u8() % 4)) : nvme::AnaState::optimized;
        (void)world.run(replica.set_ana_state(address_, 0, state)).ok();
        break;
      }
      case 6:
        (void)world.run(replica.remove_listener(address_)).ok();
        break;
      case 7:
        (void)world.run(replica.add_listener(address_)).ok();
        break;
      case 8:
        (void)world.run(link_->remove_host(hostnqn)).ok();
        break;
      default:
        (void)link_->add_host(hostnqn).ok();
        break;
    }
  }

  // Nobody is connected any more, soon: nothing is left of anybody, and what may not be attached was never written.
  void must_be_left_alone() {
    set_disks(false, false);
    world.must([&] { return transport_->connection_count() == 0; }, seconds(60));
    BASALT_ASSERT(transport_->half_open_count() == 0);
    world.must([&] { return link_->controllers().empty(); }, seconds(60));
    BASALT_ASSERT(world.buffers_in_use_count() == 0);
    for (const Place place : {place_keyed, place_closed, place_volume})
      BASALT_ASSERT(replicas_[place].disk->write_count == 0);
  }
  // Who was not let in so far is let in.
  void open_the_closed() {
    (void)link_->add_host(hostnqn).ok();
    BASALT_ASSERT(replicas_[place_closed].subsystem->add_host(hostnqn).ok());
  }
  void close() {
    world.run_void(target_->close());
    BASALT_ASSERT(transport_->connection_count() == 0 && world.buffers_in_use_count() == 0);
    target_.reset();
  }

  basalt::testing::FuzzWorld world;
  // The highest that somebody was told to hold each replica under.
  std::array<uint64_t, place_count + 1> epochs{};

 private:
  struct Replica {
    std::unique_ptr<basalt::testing::FuzzDisk> disk;
    Subsystem* subsystem = nullptr;
  };

  static env::SimKnobs knobs() {
    env::SimKnobs out;
    out.network_delay_min = out.network_delay_max = microseconds(5);
    out.socket_buffer_bytes = 32 << 10;
    return out;
  }
  void add_replica(uint8_t place) {
    Replica& replica = replicas_[place];
    replica.disk = std::make_unique<basalt::testing::FuzzDisk>(*world.reactors[place % 2], block_bytes, count_blocks);
    SubsystemOptions options;
    options.nqn = nqns[place];
    options.serial_number = "incarnation";
    options.internal = place != place_volume;
    replica.subsystem = target_->create_subsystem(options).value();
    HostKeys keys;
    if (place == place_keyed) {
      auto secret = auth::Secret::parse("DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:");
      keys.host = std::make_shared<const auth::Secret>(std::move(secret).value());
    }
    const char* host = place == place_closed ? "nqn.2026-01.test:stranger" : hostnqn;
    BASALT_ASSERT(replica.subsystem->add_host(host, keys).ok());
    add_namespace(place);
    BASALT_ASSERT(world.run(replica.subsystem->add_listener(address_)).ok());
  }
  void add_namespace(uint8_t place) {
    ns::NamespaceOptions options;
    options.nsid = 1;
    options.one_writer = place != place_volume;
    (void)world.run(replicas_[place].subsystem->add_namespace(options, replicas_[place].disk.get())).ok();
  }

  Replica replicas_[place_count];
  std::unique_ptr<Target> target_;
  TcpTargetTransport* transport_ = nullptr;
  Subsystem* link_ = nullptr;
  ListenAddress address_;
};

}  // namespace basalt::nvmf::testing
