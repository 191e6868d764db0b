// SPDX-License-Identifier: Apache-2.0
// Goal: the discovery log names other discovery services to the hosts that somebody has named here, tells of every
// change, and tells nobody anything when it is switched off. A raw host over TCP in memory.
#include <cstring>

#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf {
namespace {

using namespace basalt::nvmf::testing;  // NOLINT
using nvme::AdminOpcode;
using nvme::LogPageId;

constexpr char stranger[] = "nqn.2014-08.org.nvmexpress:uuid:99999999-2222-3333-4444-555555555555";

struct Log {
  uint64_t generation = 0;
  std::vector<nvme::DiscoveryLogEntry> entries;
};

class TcpDiscovery : public TcpTargetFixture {
 protected:
  TcpDiscovery() : TcpTargetFixture(Wire::memory) {}

  RawHost& discover(const char* as = hostnqn) {
    RawHost& host = dial();
    host.initialize();
    EXPECT_TRUE(host.connect(0, nvme::discovery_nqn, as, 1, 0xffff, 120'000).status.ok());
    EXPECT_TRUE(host.property_set(nvme::property_cc, cc_enable).status.ok());
    EXPECT_TRUE(host.admin(AdminOpcode::set_features, 0x0b, 1u << 31).status.ok());
    return host;
  }
  static Log read(RawHost& host) {
    const auto answer = host.log_page(LogPageId::discovery, 16384);
    EXPECT_TRUE(answer.status.ok());
    nvme::DiscoveryLogHeader header;
    std::memcpy(&header, answer.data.data(), sizeof(header));
    Log log{header.genctr, {}};
    EXPECT_LE(header.numrec, 15u);
    for (uint64_t i = 0; i < header.numrec; i++) {
      log.entries.emplace_back();
      std::memcpy(&log.entries.back(), answer.data.data() + 1024 * (i + 1), 1024);
    }
    return log;
  }
  static size_t referral_count(const Log& log) {
    return static_cast<size_t>(
        std::count_if(log.entries.begin(), log.entries.end(), [](const auto& entry) { return entry.subtype == 1; }));
  }
  static void ask_for_event(RawHost& host, uint16_t cid) {
    nvme::Command event{};
    event.opcode = 0x0c;
    event.cid = cid;
    host.send(RawHost::capsule(event));
  }

  const ListenAddress other_{"TCP", "10.1.2.3", "4420"};
  const ListenAddress other6_{"TCP", "2001:db8::7", "8009"};
};

TEST_F(TcpDiscovery, ReferralsAreEntriesOfOtherDiscoveryServices) {
  ASSERT_TRUE(target_->add_referral(other_).ok());
  ASSERT_TRUE(target_->add_referral(other6_).ok());
  const Log log = read(discover());
  ASSERT_EQ(log.entries.size(), 3u);
  EXPECT_EQ(log.entries[0].subtype, 2);
  EXPECT_STREQ(log.entries[0].subnqn, subnqn);
  const nvme::DiscoveryLogEntry& entry = log.entries[1];
  EXPECT_EQ(entry.trtype, 3);
  EXPECT_EQ(entry.adrfam, 1);
  EXPECT_EQ(entry.subtype, 1);
  EXPECT_EQ(entry.treq, 0);
  EXPECT_EQ(entry.portid, 0);
  EXPECT_EQ(entry.cntlid, 0xffff);
  EXPECT_EQ(entry.asqsz, 32);
  EXPECT_EQ(entry.eflags, 2);  // connections there may stay
  EXPECT_STREQ(entry.trsvcid, "4420");
  EXPECT_STREQ(entry.traddr, "10.1.2.3");
  EXPECT_STREQ(entry.subnqn, "nqn.2014-08.org.nvmexpress.discovery");
  EXPECT_EQ(entry.tsas[0], 0);
  EXPECT_EQ(log.entries[2].adrfam, 2);
  EXPECT_STREQ(log.entries[2].traddr, "2001:db8::7");
}

TEST_F(TcpDiscovery, EveryChangeOfReferralsIsToldToWhoStaysConnected) {
  RawHost& host = discover();
  uint64_t generation = 0;
  for (uint16_t cid = 1000; cid < 1004; cid++) {
    ask_for_event(host, cid);
    const Log log = read(host);
    const bool there = referral_count(log) == 1;
    EXPECT_EQ(there, cid % 2 == 1);
    EXPECT_GT(log.generation, generation);
    generation = log.generation;
    ASSERT_TRUE((there ? target_->remove_referral(other_) : target_->add_referral(other_)).ok());
    const auto told = host.collect(cid);
    ASSERT_TRUE(told.came && told.status.ok());
    EXPECT_EQ(told.dw0, 2u | 0xf0u << 8 | 0x70u << 16);
  }
  // What changes nothing is no news.
  EXPECT_FALSE(target_->remove_referral(other_).ok());
  EXPECT_EQ(read(host).generation, generation + 1);
}

TEST_F(TcpDiscovery, ReferralsAreForHostsThatSomebodyHasNamed) {
  ASSERT_TRUE(target_->add_referral(other_).ok());
  RawHost& host = discover(stranger);
  EXPECT_TRUE(read(host).entries.empty());
  // Of a subsystem that takes anybody, everybody hears; of others, not.
  auto open = target_->create_subsystem({.nqn = "nqn.2024-01.io.basalt:open", .allow_any_host = true});
  ASSERT_TRUE(open.ok());
  ASSERT_TRUE(run((*open)->add_listener(address_)).ok());
  EXPECT_EQ(read(host).entries.size(), 1u);
  EXPECT_EQ(referral_count(read(host)), 0u);
  // A host whose volumes are elsewhere: the discovery subsystem names it.
  ASSERT_TRUE(target_->discovery().add_host(stranger).ok());
  EXPECT_EQ(referral_count(read(host)), 1u);
  ASSERT_TRUE(run(target_->discovery().remove_host(stranger)).ok());
  EXPECT_EQ(referral_count(read(host)), 0u);
}

TEST_F(TcpDiscovery, AHostThatComesInClearIsNotSentToTls) {
  ListenAddress secure = other_;
  secure.secure_channel = true;
  ASSERT_TRUE(target_->add_referral(secure).ok());
  RawHost& host = discover();
  EXPECT_EQ(referral_count(read(host)), 0u);
  EXPECT_EQ(target_->add_referral(other_).error().code, Errc::exists);
  ASSERT_TRUE(target_->remove_referral(secure).ok());
  ASSERT_TRUE(target_->add_referral(other_).ok());
  EXPECT_EQ(referral_count(read(host)), 1u);
}

TEST_F(TcpDiscovery, SwitchedOffItTellsNobodyAnythingAndStaysConnected) {
  ASSERT_TRUE(target_->add_referral(other_).ok());
  RawHost& host = discover();
  EXPECT_EQ(read(host).entries.size(), 2u);
  ask_for_event(host, 1000);
  target_->set_discovery_access(DiscoveryAccess::off);
  const auto told = host.collect(1000);  // that there is nothing any more
  ASSERT_TRUE(told.came && told.status.ok());
  EXPECT_TRUE(read(host).entries.empty());
  // Nor when something changes; the next event is that it is on again.
  ask_for_event(host, 1001);
  ASSERT_TRUE(target_->remove_referral(other_).ok());
  ASSERT_TRUE(subsystem_->add_host(stranger).ok());
  EXPECT_TRUE(read(host).entries.empty());
  target_->set_discovery_access(DiscoveryAccess::open);
  EXPECT_TRUE(host.collect(1001).status.ok());
  EXPECT_EQ(read(host).entries.size(), 1u);
  target_->set_discovery_access(DiscoveryAccess::off);
  EXPECT_TRUE(read(discover()).entries.empty());
}

TEST_F(TcpDiscovery, ReferralsHaveABound) {
  for (size_t i = 0; i < Referrals::count_max; i++)
    ASSERT_TRUE(target_->add_referral({"TCP", "10.1.2.3", std::to_string(i + 1)}).ok());
  EXPECT_EQ(target_->add_referral(other6_).error().code, Errc::no_space);
  EXPECT_EQ(target_->add_referral({"TCP", "10.1.2.3", "7"}).error().code, Errc::exists);
}

}  // namespace
}  // namespace basalt::nvmf
