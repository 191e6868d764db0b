// SPDX-License-Identifier: Apache-2.0
// NVMe/TCP with TLS: our own host and our own target, in memory and virtual time, with every transfer cut at random.
#include <cstring>

#include "bdev/nvmf/multipath.h"
#include "nvmf/host/controller.h"
#include "nvmf/host/peer_watch.h"
#include "nvmf/transport/target_world_testing.h"
#include "nvmf/transport/tcp/tls_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::TargetWorld;
using basalt::testing::TestDisk;
using basalt::testing::TestIo;
using testing::RawHost;
using testing::tls_key_of;
using testing::tls_text_256;
using testing::tls_text_384;
using testing::tls_text_other;

constexpr char subnqn[] = "nqn.2026-01.test:volume";
constexpr char hostnqn[] = "nqn.2026-01.test:host";
constexpr char dhchap_text[] = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";

class TcpTls : public ::testing::Test {
 protected:
  TcpTls() {
    // A target with a transport that can be looked into.
    world.net.run_void(world.target->close());
    world.loopback.reset();
    world.target = std::make_unique<Target>(std::vector<Reactor*>{&world.home, &world.host});
    auto made_transport = std::make_unique<TcpTargetTransport>(*world.target);
    transport = made_transport.get();
    world.target->add_transport(std::move(made_transport));
    SubsystemOptions made;
    made.nqn = subnqn;
    made.serial_number = "serial";
    subsystem = world.target->create_subsystem(made).value();
    BASALT_ASSERT(world.net.run(subsystem->add_namespace({.nsid = 1}, &disk)).ok());
    address = listen(true);
    use_key(tls_text_256);
    options.address = address;
    options.subnqn = subnqn;
    options.hostnqn = hostnqn;
    options.hostid.bytes[0] = 1;
    world.target->on_tls_refused = [this](const std::string& traddr, TlsRefusal refusal) {
      told.push_back(traddr + " " + to_string(refusal));
    };
  }
  ~TcpTls() override {
    close();
    raw.clear();
    EXPECT_TRUE(world.net.run_until([&] { return transport->connection_count() == 0; }));
    world.close();
  }
  void close() {
    if (controller) world.net.run_void(controller->close());
    controller.reset();
  }
  HostAddress listen(bool secure) {
    auto bound = world.net.run(subsystem->add_listener({"TCP", "127.0.0.1", "0", secure}));
    BASALT_ASSERT(bound.ok());
    return {bound->traddr, bound->trsvcid};
  }
  // For the host and the target.
  void use_key(const char* text) {
    keys.tls = tls_key_of(text);
    keys.tls_name = "psk";
    const Outcome set =
        subsystem->allows(hostnqn) ? subsystem->set_host_keys(hostnqn, keys) : subsystem->add_host(hostnqn, keys);
    BASALT_ASSERT(set.ok());
    options.authentication.tls = keys.tls;
  }
  Outcome connect() {
    close();
    controller = std::make_unique<HostController>(world.host, tcp, options, nullptr);
    return world.net.run(controller->connect());
  }
  Error refused() {
    const Outcome outcome = connect();
    EXPECT_FALSE(outcome.ok());
    return outcome.ok() ? Error{Errc::io, "it connected"} : outcome.error();
  }
  uint64_t count(TlsRefusal refusal) { return world.target->tls_refusals().count(refusal); }

  RawHost& dial(const HostAddress& to, const crypto::SharedTlsPsk& psk) {
    env::Address place;
    place.host = to.traddr;
    place.port = TargetWorld::port(to);
    auto socket = world.host.poller().connect(place);
    BASALT_ASSERT(socket.ok());
    struct Writable : Work {
      bool connected = false;
    } writable;
    writable.run = [](Work* work) { static_cast<Writable*>(work)->connected = true; };
    (*socket)->arm_writable(&writable);
    BASALT_ASSERT(world.net.run_until([&] { return writable.connected; }));
    std::unique_ptr<env::StreamSocket> end = std::move(socket).value();
    if (psk) end = client.wrap(world.host, std::move(end), psk);
    raw.push_back(std::make_unique<RawHost>(
        std::move(end), [this](const std::function<bool()>& done) { return world.net.run_until(done, seconds(90)); }));
    return *raw.back();
  }
  crypto::SharedTlsPsk psk(const char* sub = subnqn) { return keys.tls->psk(hostnqn, sub); }

  TargetWorld world;
  TestDisk disk{world.home, 4096, 1};
  TcpHostTransport tcp;
  TcpTargetTransport* transport = nullptr;
  Subsystem* subsystem = nullptr;
  HostAddress address;
  HostKeys keys;
  HostControllerOptions options;
  std::unique_ptr<HostController> controller;
  testing::TlsClient client;
  std::vector<std::unique_ptr<RawHost>> raw;
  std::vector<std::string> told;
};

bdev::MultipathOptions multipath_of(const HostControllerOptions& options) {
  bdev::MultipathOptions set;
  set.name = "n";
  set.subnqn = options.subnqn;
  set.hostnqn = options.hostnqn;
  set.io_queue_count = 4;
  set.authentication = options.authentication;
  return set;
}

TEST_F(TcpTls, CarriesEveryQueueWithEitherKindOfKeyAndAllDigests) {
  for (const char* text : {tls_text_256, tls_text_384}) {
    for (const uint8_t digests : {0, 3}) {
      use_key(text);
      TcpHostTransport with_digests({pdu::Digests::from_bits(digests)});
      bdev::NvmfController many(world.host, multipath_of(options));
      const Outcome added = world.net.run(many.add_path(with_digests, address));
      ASSERT_TRUE(added.ok()) << added.error().message;
      EXPECT_EQ(transport->connection_count(), 5u);
      bdev::Bdev& volume = *many.bdevs()[0];
      for (const uint32_t blocks : {1u, 2u, 33u, 256u}) {
        EXPECT_TRUE(world.write(volume, 7, blocks, static_cast<uint8_t>(blocks)).ok());
        EXPECT_EQ(world.read(volume, 7, blocks), static_cast<uint8_t>(blocks));
      }
      world.net.run_void(many.close());
    }
  }
  EXPECT_EQ(transport->tls_established_count(), 4u * 5u);
  EXPECT_TRUE(world.target->tls_refusals().peers().empty());
}

TEST_F(TcpTls, ManyCommandsAtOnceFillTheSocketAndAllComeBack) {
  bdev::NvmfController many(world.host, multipath_of(options));
  ASSERT_TRUE(world.net.run(many.add_path(tcp, address)).ok());
  std::vector<std::unique_ptr<TestIo>> ios;
  for (uint32_t i = 0; i < 100; i++) {
    ios.push_back(std::make_unique<TestIo>(i % 2 == 0 ? bdev::IoType::write : bdev::IoType::read, 32 * (i % 100), 32,
                                           i % 3 == 0 ? 1000 : SIZE_MAX));
    many.bdevs()[0]->submit(ios.back().get());
  }
  for (const auto& io : ios) {
    EXPECT_TRUE(world.net.run_until([&] { return io->ended; }));
    EXPECT_TRUE(io->status.ok());
  }
  world.net.run_void(many.close());
}

TEST_F(TcpTls, AWrongKeyFailsInTheHandshakeWithAnExactError) {
  options.authentication.tls = tls_key_of(tls_text_other);
  const Error error = refused();
  EXPECT_EQ(error.code, Errc::permission);
  EXPECT_NE(error.message.find("TLS: the target refuses this host's key"), std::string::npos) << error.message;
  EXPECT_EQ(count(TlsRefusal::key), 1u);
  (void)refused();
  EXPECT_EQ(count(TlsRefusal::key), 2u);
  EXPECT_EQ(told, std::vector<std::string>{"memory key"});  // once
}

TEST_F(TcpTls, TheRightNameWithAnotherKeyFailsToo) {
  auto forged = std::make_shared<crypto::TlsPsk>();
  forged->identity = psk()->identity;
  forged->key = crypto::secret_copy(crypto::as_bytes(tls_key_of(tls_text_other)->psk(hostnqn, subnqn)->key));
  RawHost& host = dial(address, forged);
  EXPECT_FALSE(host.send({1, 2, 3}));
  EXPECT_EQ(count(TlsRefusal::key), 1u);
}

TEST_F(TcpTls, PlaintextIsRefusedAtItsFirstByte) {
  options.authentication.tls = nullptr;
  for (int i = 0; i < 5; i++)
    EXPECT_EQ(refused().code, Errc::closed);
  EXPECT_EQ(count(TlsRefusal::plaintext), 5u);
  EXPECT_EQ(told, std::vector<std::string>{"memory plaintext"});
  // One byte is enough.
  RawHost& host = dial(address, nullptr);
  host.send({0});
  EXPECT_TRUE(host.closes());
  EXPECT_EQ(count(TlsRefusal::plaintext), 6u);
  EXPECT_EQ(world.target->tls_refusals().peers().size(), 1u);
}

TEST_F(TcpTls, AHostWithAKeyDoesNotSpeakInTheClear) {
  const HostAddress plain = listen(false);
  options.address = plain;
  const Error error = refused();
  EXPECT_EQ(error.code, Errc::permission);
  EXPECT_NE(error.message.find("no TLS at that port"), std::string::npos) << error.message;
  // Nor is it admitted there when it does.
  options.authentication.tls = nullptr;
  const Error invalid = refused();
  EXPECT_EQ(invalid.code, Errc::permission) << invalid.message;
  // Who has no key may come: the listener is there for it.
  ASSERT_TRUE(subsystem->add_host("nqn.2026-01.test:plain").ok());
  options.hostnqn = "nqn.2026-01.test:plain";
  EXPECT_TRUE(connect().ok());
}

TEST_F(TcpTls, WhatConnectSaysIsWhatTheKeyHasProven) {
  ASSERT_TRUE(subsystem->add_host("nqn.2026-01.test:other", keys).ok());
  struct {
    const char *proven, *host, *sub;
    bool ok;
  } cases[] = {{subnqn, hostnqn, subnqn, true},
               {subnqn, "nqn.2026-01.test:other", subnqn, false},
               {subnqn, hostnqn, nvme::discovery_nqn, false},
               {nvme::discovery_nqn, hostnqn, nvme::discovery_nqn, true},
               {nvme::discovery_nqn, hostnqn, subnqn, false},
               {nvme::discovery_nqn, "nqn.2026-01.test:other", nvme::discovery_nqn, false}};
  for (const auto& each : cases) {
    RawHost& host = dial(address, psk(each.proven));
    host.initialize();
    const auto answer = host.connect(0, each.sub, each.host, 1);
    ASSERT_TRUE(answer.came);
    EXPECT_EQ(answer.status.ok(), each.ok) << each.proven << " " << each.host << " " << each.sub;
    if (!each.ok) {
      EXPECT_TRUE(answer.status.is(nvme::status::connect_invalid_host)) << nvme::to_string(answer.status);
    }
  }
}

TEST_F(TcpTls, AnIoQueueProvesTheSameHost) {
  ASSERT_TRUE(subsystem->add_host("nqn.2026-01.test:other", keys).ok());
  RawHost& admin = dial(address, psk());
  admin.initialize();
  const auto connected = admin.connect(0, subnqn, hostnqn, 1);
  ASSERT_TRUE(connected.status.ok());
  ASSERT_TRUE(admin.property_set(nvme::property_cc, 0x00460001).status.ok());
  const auto cntlid = static_cast<uint16_t>(connected.dw0);
  RawHost& thief = dial(address, keys.tls->psk("nqn.2026-01.test:other", subnqn));
  thief.initialize();
  EXPECT_FALSE(thief.connect(1, subnqn, hostnqn, 1, cntlid).status.ok());
  RawHost& own = dial(address, psk());
  own.initialize();
  EXPECT_TRUE(own.connect(1, subnqn, hostnqn, 1, cntlid).status.ok());
}

TEST_F(TcpTls, DiscoveryShowsAHostItsWaysOnly) {
  (void)listen(false);
  ASSERT_TRUE(subsystem->add_host("nqn.2026-01.test:plain").ok());
  const auto entries_of = [](RawHost& host) {
    EXPECT_TRUE(host.property_set(nvme::property_cc, 0x00460001).status.ok());
    const auto log = host.log_page(nvme::LogPageId::discovery, 8192);
    BASALT_ASSERT(log.data.size() == 8192);
    nvme::DiscoveryLogHeader header;
    std::memcpy(&header, log.data.data(), sizeof(header));
    std::vector<nvme::DiscoveryLogEntry> entries(header.numrec);
    std::memcpy(entries.data(), log.data.data() + sizeof(header), entries.size() * sizeof(entries[0]));
    return entries;
  };
  RawHost& secure = dial(address, psk(nvme::discovery_nqn));
  secure.initialize();
  ASSERT_TRUE(secure.connect(0, nvme::discovery_nqn, hostnqn, 1).status.ok());
  auto entries = entries_of(secure);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_STREQ(entries[0].trsvcid, address.trsvcid.c_str());
  EXPECT_EQ(entries[0].treq & 3, 1);  // a secure channel is required
  EXPECT_EQ(entries[0].tsas[0], 2);   // TLS 1.3

  RawHost& plain = dial(listen(false), nullptr);
  plain.initialize();
  ASSERT_TRUE(plain.connect(0, nvme::discovery_nqn, "nqn.2026-01.test:plain", 1).status.ok());
  entries = entries_of(plain);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].treq | entries[1].treq, 0);
}

TEST_F(TcpTls, APeerIsWatchedByWhomItLetsInAndTellsOthersOnceThatTheyAreNot) {
  struct Watcher : PeerWatch::Listener {
    size_t connected = 0, lost = 0, refused = 0, denied = 0;
    void peer_connected() override { connected++; }
    void peer_lost(const Error&) override { lost++; }
    void peer_refused(const Error&) override { refused++; }
    void peer_denied(const Error& reason) override {
      EXPECT_EQ(reason.code, Errc::permission) << reason.message;
      denied++;
    }
  } watcher, stranger;
  const ListenAddress same_port{"TCP", address.traddr, address.trsvcid, true};
  ASSERT_TRUE(world.net.run(world.target->discovery().add_listener(same_port)).ok());
  PeerWatchOptions watched;
  watched.address = address;
  watched.hostnqn = hostnqn;
  watched.authentication.tls = keys.tls;
  PeerWatch watch(world.host, tcp, watched, &watcher);
  watched.authentication.tls = tls_key_of(tls_text_other);
  PeerWatch strange(world.host, tcp, watched, &stranger);
  ASSERT_TRUE(watch.start().ok());
  ASSERT_TRUE(strange.start().ok());
  ASSERT_TRUE(world.net.run_until([&] { return watcher.connected == 1 && stranger.denied == 1; }));
  world.net.run_for(seconds(10));
  EXPECT_TRUE(watch.connected());
  EXPECT_EQ(watcher.lost + watcher.refused + watcher.denied, 0u);
  EXPECT_EQ(stranger.connected + stranger.lost + stranger.refused, 0u);
  EXPECT_EQ(stranger.denied, 1u) << "told once";
  world.net.run_void(watch.stop());
  world.net.run_void(strange.stop());
}

TEST_F(TcpTls, GoesTogetherWithInBandAuthentication) {
  auto secret = auth::Secret::parse(dhchap_text);
  ASSERT_TRUE(secret.ok());
  keys.host = std::make_shared<const auth::Secret>(std::move(secret).value());
  use_key(tls_text_384);
  EXPECT_EQ(refused().code, Errc::permission);  // TLS alone is not enough
  options.authentication.host = keys.host;
  options.authentication.policy = {auth::default_hashes(), {auth::GroupId::ffdhe2048}};
  const Outcome outcome = connect();
  EXPECT_TRUE(outcome.ok()) << outcome.error().message;
}

TEST_F(TcpTls, ANewKeyIsForNewConnections) {
  bdev::NvmfController many(world.host, multipath_of(options));
  ASSERT_TRUE(world.net.run(many.add_path(tcp, address)).ok());
  const auto old_key = options.authentication.tls;
  use_key(tls_text_384);
  EXPECT_TRUE(world.write(*many.bdevs()[0], 0, 1, 5).ok());
  EXPECT_TRUE(connect().ok());
  options.authentication.tls = old_key;
  EXPECT_EQ(refused().code, Errc::permission);

  // A path that is lost now does not come back, and does not try in a hurry.
  const uint64_t before = count(TlsRefusal::key);
  many.paths()[0]->controller().abort({Errc::io, "a test ends it"});
  world.net.run_for(seconds(60));
  EXPECT_FALSE(many.paths()[0]->live());
  EXPECT_NE(many.paths()[0]->last_error().find("refuses this host's key"), std::string::npos);
  EXPECT_GE(count(TlsRefusal::key) - before, 10u);
  EXPECT_LE(count(TlsRefusal::key) - before, 100u);
  // Until the key is right again.
  keys.tls = old_key;
  ASSERT_TRUE(subsystem->set_host_keys(hostnqn, keys).ok());
  EXPECT_EQ(world.read(*many.bdevs()[0], 0, 1), 5);
  world.net.run_void(many.close());
}

TEST_F(TcpTls, ARemovedHostsKeyOpensNothing) {
  RawHost& idle = dial(address, psk());
  idle.initialize();  // in, and not connected to a controller yet
  ASSERT_TRUE(world.net.run(subsystem->remove_host(hostnqn)).ok());
  EXPECT_TRUE(idle.connect(0, subnqn, hostnqn, 1).status.is(nvme::status::connect_invalid_host));
  EXPECT_EQ(world.target->tls_keys().count(), 0u);
  EXPECT_EQ(refused().code, Errc::permission);
}

TEST_F(TcpTls, AConnectionThatProvedAnOlderKeyGetsInNoMore) {
  const crypto::SharedTlsPsk old = psk();
  RawHost& removed = dial(address, old);
  removed.initialize();
  RawHost& searching = dial(address, psk(nvme::discovery_nqn));
  searching.initialize();
  ASSERT_TRUE(world.net.run(subsystem->remove_host(hostnqn)).ok());
  use_key(tls_text_384);  // adds it again
  EXPECT_TRUE(removed.connect(0, subnqn, hostnqn, 1).status.is(nvme::status::connect_invalid_host));
  EXPECT_TRUE(searching.connect(0, nvme::discovery_nqn, hostnqn, 1).status.is(nvme::status::connect_invalid_host));

  RawHost& admin = dial(address, psk());
  admin.initialize();
  const auto connected = admin.connect(0, subnqn, hostnqn, 1);
  ASSERT_TRUE(connected.status.ok());
  ASSERT_TRUE(admin.property_set(nvme::property_cc, 0x00460001).status.ok());
  RawHost& changed = dial(address, psk());
  changed.initialize();
  use_key(tls_text_256);
  const auto cntlid = static_cast<uint16_t>(connected.dw0);
  EXPECT_TRUE(changed.connect(1, subnqn, hostnqn, 1, cntlid).status.is(nvme::status::connect_invalid_host));
  RawHost& current = dial(address, psk());
  current.initialize();
  const auto answer = current.connect(0, subnqn, hostnqn, 2);
  EXPECT_TRUE(answer.came && answer.status.ok());
}

TEST_F(TcpTls, ASubsystemThatIsBeingDeletedTakesNoKeys) {
  ASSERT_TRUE(connect().ok());  // its end takes a while
  struct Deletion {
    static Task<void> run(Target* target, bool* ended) {
      auto deleting = target->delete_subsystem(subnqn);
      const Outcome deleted = co_await deleting;
      EXPECT_TRUE(deleted.ok());
      *ended = true;
    }
  };
  bool ended = false;
  spawn(Deletion::run(world.target.get(), &ended));
  ASSERT_FALSE(ended);
  EXPECT_EQ(subsystem->set_host_keys(hostnqn, keys).error().code, Errc::closed);
  EXPECT_EQ(subsystem->add_host("nqn.2026-01.test:other", keys).error().code, Errc::closed);
  EXPECT_TRUE(world.net.run_until([&] { return ended; }));
  EXPECT_EQ(world.target->tls_keys().count(), 0u);
}

TEST_F(TcpTls, AChangeOfOneKindOfKeyLeavesTheOther) {
  HostKeys before = keys;
  auto secret = auth::Secret::parse(dhchap_text);
  ASSERT_TRUE(secret.ok());
  before.host = std::make_shared<const auth::Secret>(std::move(secret).value());
  before.host_name = "dh";
  HostKeys psk_only;
  psk_only.tls = tls_key_of(tls_text_other);
  psk_only.tls_name = "new";
  psk_only.keep_unnamed(before);
  EXPECT_EQ(psk_only.host, before.host);
  EXPECT_EQ(psk_only.host_name, "dh");
  EXPECT_EQ(psk_only.tls_name, "new");
  HostKeys dhchap_only;
  dhchap_only.host = before.host;
  dhchap_only.keep_unnamed(before);
  EXPECT_EQ(dhchap_only.tls, before.tls);
  EXPECT_EQ(dhchap_only.tls_name, "psk");
  HostKeys none;
  none.keep_unnamed(before);
  EXPECT_EQ(none.host, nullptr);
  EXPECT_EQ(none.tls, before.tls);
  EXPECT_TRUE(before.tls->same_key(*tls_key_of(tls_text_256)));
  EXPECT_FALSE(before.tls->same_key(*tls_key_of(tls_text_384)));
  EXPECT_FALSE(before.tls->same_key(*tls_key_of(tls_text_other)));
}

TEST_F(TcpTls, WhoDoesNotEndTheHandshakeInTimeIsClosed) {
  RawHost& silent = dial(address, nullptr);
  EXPECT_TRUE(world.net.run_until([&] { return transport->connection_count() == 1; }));
  const Instant begun = world.net.now();
  EXPECT_TRUE(silent.closes());
  EXPECT_GE(world.net.now() - begun, seconds(9));
  EXPECT_LE(world.net.now() - begun, seconds(11));
  EXPECT_EQ(count(TlsRefusal::timeout), 1u);
  // In the handshake's middle, too: the first byte of a record, and no more.
  RawHost& slow = dial(address, nullptr);
  slow.send({0x16});
  EXPECT_TRUE(slow.closes());
  EXPECT_EQ(count(TlsRefusal::timeout), 2u);
  // And afterwards the ordinary limits hold.
  RawHost& quiet = dial(address, psk());
  EXPECT_TRUE(quiet.send({1}));  // of an ICReq
  const Instant secured = world.net.now();
  EXPECT_TRUE(quiet.closes());
  EXPECT_LE(world.net.now() - secured, seconds(6));
}

TEST_F(TcpTls, HalfOpenConnectionsGiveWayToNewOnes) {
  for (int i = 0; i < 600; i++)
    (void)dial(address, nullptr);
  EXPECT_LE(transport->half_open_count(), 256u + 2u);
  EXPECT_TRUE(connect().ok());
}

TEST_F(TcpTls, WhoHasProvenAKeyIsNotPushedOutByStrangers) {
  RawHost& proven = dial(address, psk());
  proven.initialize();
  for (int i = 0; i < 300; i++)
    (void)dial(address, nullptr);
  const Instant begun = world.net.now();
  EXPECT_TRUE(raw[40]->closes());  // pushed out, like all strangers before it
  EXPECT_LT(world.net.now() - begun, seconds(4));
  const auto answer = proven.connect(0, subnqn, hostnqn, 1);
  EXPECT_TRUE(answer.came && answer.status.ok());
}

TEST_F(TcpTls, ProvenConnectionsGiveWayWhenThereIsNobodyElse) {
  for (int i = 0; i < 300; i++)
    dial(address, psk()).initialize();
  EXPECT_LE(transport->half_open_count(), 256u);
  EXPECT_TRUE(connect().ok());
}

TEST_F(TcpTls, AConnectionMayBreakAnywhere) {
  for (uint64_t transfers = 1; transfers < 200; transfers += 3) {
    world.net.cut_after(transfers, TargetWorld::port(address));
    (void)connect();
    close();
  }
  world.net.cut_after(0, 0);
  world.net.cut();
  EXPECT_TRUE(world.net.run_until([&] { return transport->connection_count() == 0; }));
  EXPECT_TRUE(connect().ok());
}

TEST_F(TcpTls, GarbageInsteadOfAHandshakeEndsTheConnection) {
  for (int round = 0; round < 200; round++) {
    testing::Bytes bytes(1 + world.net.draw(2000));
    for (uint8_t& byte : bytes)
      byte = static_cast<uint8_t>(world.net.draw(256));
    bytes[0] = 0x16;
    if (bytes.size() > 4 && round % 2 == 0) {  // a record that ends within what is sent
      bytes[1] = bytes[2] = 3;
      bytes[3] = 0;
      bytes[4] = static_cast<uint8_t>(std::min<size_t>(bytes.size() - 5, 255));
    }
    RawHost& host = dial(address, nullptr);
    host.send(bytes);
    EXPECT_TRUE(host.closes());
    raw.clear();
  }
  EXPECT_EQ(count(TlsRefusal::handshake) + count(TlsRefusal::timeout) + count(TlsRefusal::key), 200u);
  EXPECT_TRUE(connect().ok());
}

TEST_F(TcpTls, AHostThatReadsLateGetsAllOfIt) {
  RawHost& admin = dial(address, psk());
  admin.initialize();
  const auto connected = admin.connect(0, subnqn, hostnqn, 1);
  ASSERT_TRUE(admin.property_set(nvme::property_cc, 0x00460001).status.ok());
  RawHost& io = dial(address, psk());
  io.initialize();
  ASSERT_TRUE(io.connect(1, subnqn, hostnqn, 1, static_cast<uint16_t>(connected.dw0)).status.ok());
  // Answers that fill what is between the two, and nobody who reads them.
  for (uint16_t i = 0; i < 100; i++) {
    nvme::Command read = RawHost::io_command(nvme::NvmOpcode::read, 1, 0, 64);
    read.cid = i;
    read.sgl = {0, 64 * 4096, {}, nvme::sgl_transport_data_block};
    io.send(RawHost::capsule(read));
  }
  world.net.run_for(seconds(5));
  // They are all there when it reads at last.
  size_t count = 0;
  while (count < 100) {
    const auto pdu = io.next();
    ASSERT_TRUE(pdu.has_value()) << count;
    if (pdu->type == pdu::Type::capsule_response || (pdu->as<pdu::Data>().common.flags & pdu::flag_success) != 0) {
      count++;
    }
  }
}

TEST_F(TcpTls, APortIsForOneKindOfChannel) {
  SubsystemOptions made;
  made.nqn = "nqn.2026-01.test:second";
  Subsystem* second = world.target->create_subsystem(made).value();
  const auto mixed = world.net.run(second->add_listener({"TCP", address.traddr, address.trsvcid, false}));
  ASSERT_FALSE(mixed.ok());
  EXPECT_EQ(mixed.error().code, Errc::busy);
  EXPECT_TRUE(world.net.run(second->add_listener({"TCP", address.traddr, address.trsvcid, true})).ok());
}

TEST_F(TcpTls, OnlyTlsListensForOtherMachines) {
  auto open = world.net.run(subsystem->add_listener({"TCP", "192.0.2.1", "0", false}));
  ASSERT_FALSE(open.ok());
  EXPECT_EQ(open.error().code, Errc::permission);
}

}  // namespace
}  // namespace basalt::nvmf
