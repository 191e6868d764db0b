// SPDX-License-Identifier: Apache-2.0
// A target that wants authentication, and hosts that do it right, wrong, or not at all: a raw host over TCP in memory.
#include <cstring>
#include <set>

#include "nvmf/auth/host_side.h"
#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf {
namespace {

using namespace basalt::nvmf::testing;  // NOLINT
using auth::GroupId;
using auth::HashId;
using auth::Message;
using auth::MessageId;
using auth::Reason;
using nvme::AdminOpcode;
namespace status = nvme::status;

constexpr char host_text[] = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
constexpr char controller_text[] = "DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:";
constexpr uint32_t required = nvme::connect_authentication_required;

auth::SharedSecret secret_of(const char* text) {
  auto secret = auth::Secret::parse(text);
  BASALT_ASSERT(secret.ok());
  return std::make_shared<const auth::Secret>(std::move(secret).value());
}

nvme::Command authentication(nvme::FabricsType type, uint32_t length_bytes) {
  nvme::AuthenticationCommand specific{};
  specific.opcode = 0x7f;
  specific.fctype = static_cast<uint8_t>(type);
  specific.secp = nvme::security_protocol_nvme;
  specific.spsp0 = specific.spsp1 = 1;
  specific.length_bytes = length_bytes;
  nvme::Command command;
  std::memcpy(&command, &specific, sizeof(command));
  return command;
}

RawHost::Answer send(RawHost& host, const Message& message, bool in_capsule = true) {
  const auto length = static_cast<uint32_t>(message.size());
  return host.command(authentication(nvme::FabricsType::auth_send, length), message, 0, in_capsule);
}
RawHost::Answer receive(RawHost& host, uint32_t length_bytes = 4096) {
  return host.command(authentication(nvme::FabricsType::auth_receive, length_bytes), {}, length_bytes);
}

class TcpAuthentication : public TcpTargetFixture {
 protected:
  explicit TcpAuthentication(const TargetLimits& limits = {.unauthenticated_max = 4}, Wire wire = Wire::memory)
      : TcpTargetFixture(wire, {}, limits) {
    add_namespace();
    keys_ = {secret_of(host_text), secret_of(controller_text), "host-key", "controller-key"};
    BASALT_ASSERT(subsystem_->set_host_keys(hostnqn, keys_).ok());
    target_->set_authentication_policy(quick_);
  }

  auth::HostSettings settings(bool two_way = false) {
    return {{hostnqn, subnqn},
            keys_.host,
            two_way ? keys_.controller : nullptr,
            quick_,
            [this](void* out, size_t length_bytes) { env().random(out, length_bytes); }};
  }
  // As a host does it; what the host side says in the end.
  std::optional<Reason> authenticate(RawHost& host, auth::HostSettings with) {
    auth::HostSide side(std::move(with));
    auth::HostSide::Next next = side.begin();
    for (;;) {
      if (!next.send.empty()) {
        EXPECT_TRUE(send(host, next.send).status.ok());
      }
      if (!next.receive) break;
      const auto answer = receive(host);
      EXPECT_TRUE(answer.status.ok()) << to_string(answer.status);
      EXPECT_EQ(answer.data.size(), 4096u);
      next = side.receive(answer.data);
    }
    EXPECT_EQ(side.authenticated(), !side.failure());
    return side.failure();
  }
  RawHost::Answer connected(RawHost& host, uint16_t qid, uint16_t cntlid = 0xffff, uint16_t hostid = 1,
                            uint32_t kato_ms = 0) {
    host.initialize();
    const auto answer = host.connect(qid, subnqn, hostnqn, hostid, cntlid, kato_ms);
    EXPECT_TRUE(answer.came && answer.status.ok()) << to_string(answer.status);
    EXPECT_EQ(answer.dw0 & 0xffff0000, required);
    return answer;
  }
  // An authenticated, enabled admin queue; its controller identifier.
  uint16_t admit(RawHost& host, uint16_t hostid = 1) {
    const auto cntlid = static_cast<uint16_t>(connected(host, 0, 0xffff, hostid).dw0);
    EXPECT_EQ(authenticate(host, settings()), std::nullopt);
    EXPECT_TRUE(host.property_set(nvme::property_cc, cc_enable).status.ok());
    return cntlid;
  }
  void expect_refused(const RawHost::Answer& answer) {
    EXPECT_TRUE(answer.came);
    EXPECT_TRUE(answer.status.is(status::authentication_required)) << to_string(answer.status);
    EXPECT_TRUE(answer.status.do_not_retry());
    EXPECT_TRUE(answer.data.empty());
  }
  size_t controllers() const { return subsystem_->controllers().size(); }

  const auth::Policy quick_{{HashId::sha256}, {GroupId::none}};
  HostKeys keys_;
};

// What no honest host does, in memory and over sockets of the machine.
class MalformedAuthentication : public TcpAuthentication, public ::testing::WithParamInterface<Wire> {
 protected:
  MalformedAuthentication() : TcpAuthentication({.unauthenticated_max = 4}, GetParam()) {}
};

INSTANTIATE_TEST_SUITE_P(, MalformedAuthentication, ::testing::Values(Wire::memory, Wire::sockets), wire_name);

TEST_F(TcpAuthentication, OpensEveryQueueByItself) {
  for (const bool two_way : {false, true}) {
    RawHost& admin = dial();
    const auto cntlid = static_cast<uint16_t>(connected(admin, 0).dw0);
    EXPECT_EQ(authenticate(admin, settings(two_way)), std::nullopt);
    EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
    EXPECT_EQ(admin.identify(1).data.size(), 4096u);
    for (uint16_t qid = 1; qid <= 3; qid++) {
      RawHost& io = dial();
      connected(io, qid, cntlid);
      expect_refused(io.read(1, 0, 1));
      EXPECT_EQ(authenticate(io, settings(two_way)), std::nullopt);
      EXPECT_EQ(io.read(1, 0, 1).data.size(), 4096u);
    }
    admin.drop();
    ASSERT_TRUE(run_until([&] { return controllers() == 0; }));
  }
}

TEST_F(TcpAuthentication, WorksWithEveryHashAndWithDiffieHellman) {
  for (const HashId hash : {HashId::sha256, HashId::sha384, HashId::sha512}) {
    const auth::Policy policy{{hash}, {GroupId::ffdhe2048}};
    target_->set_authentication_policy(policy);
    RawHost& admin = dial();
    connected(admin, 0);
    auto with = settings(true);
    with.policy = policy;
    EXPECT_EQ(authenticate(admin, with), std::nullopt);
    EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
    admin.drop();
    ASSERT_TRUE(run_until([&] { return controllers() == 0; }));
  }
}

TEST_F(TcpAuthentication, HostsWithoutAKeyConnectAsBefore) {
  const char other[] = "nqn.2026-01.test:open";
  ASSERT_TRUE(subsystem_->add_host(other).ok());
  RawHost& admin = dial();
  admin.initialize();
  const auto answer = admin.connect(0, subnqn, other, 2);
  ASSERT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.dw0 & 0xffff0000, 0u);
  EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
}

TEST_P(MalformedAuthentication, M35NothingElseIsAnsweredBefore) {
  RawHost& admin = dial();
  const auto cntlid = static_cast<uint16_t>(connected(admin, 0).dw0);
  const auto expect_nothing = [&] {
    expect_refused(admin.property_get(nvme::property_cap, true));
    expect_refused(admin.property_set(nvme::property_cc, cc_enable));
    expect_refused(admin.identify(1));
    expect_refused(admin.log_page(nvme::LogPageId::ana, 4096));
    expect_refused(admin.admin(AdminOpcode::keep_alive, 0));
    expect_refused(admin.admin(AdminOpcode::set_features, 7, 3 | 3 << 16));
    expect_refused(admin.admin(AdminOpcode::async_event_request, 0));
    expect_refused(admin.admin(static_cast<AdminOpcode>(0xc0), 0));
    expect_refused(admin.connect(0, subnqn, hostnqn, 1));
  };
  expect_nothing();
  auth::HostSide side(settings());
  auto next = side.begin();
  ASSERT_TRUE(send(admin, next.send).status.ok());
  expect_nothing();  // neither half way
  next = side.receive(receive(admin).data);
  ASSERT_TRUE(send(admin, next.send).status.ok());
  expect_nothing();  // nor with a right answer that nobody has acknowledged
  // No I/O queue either, with a controller that is not enabled.
  RawHost& io = dial();
  io.initialize();
  EXPECT_FALSE(io.connect(1, subnqn, hostnqn, 1, cntlid).status.ok());
  next = side.receive(receive(admin).data);
  EXPECT_TRUE(side.authenticated());
  EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
}

TEST_P(MalformedAuthentication, M35LargeDataOfAStrangerIsNotTakenIn) {
  RawHost& admin = dial();
  admit(admin);
  const auto cntlid = static_cast<uint16_t>(subsystem_->controllers()[0].cntlid);
  RawHost& io = dial();
  connected(io, 1, cntlid);
  const size_t before = buffers_in_use_count();
  expect_refused(io.write(1, 0, pattern(65536, 1), false));
  EXPECT_EQ(buffers_in_use_count(), before);
  EXPECT_TRUE(send(io, Message(16384, 0), false).status.is(status::data_sgl_length_invalid));
  EXPECT_TRUE(receive(io, 16384).status.is(status::data_sgl_length_invalid));
}

TEST_P(MalformedAuthentication, M35AWrongKeyIsToldAndTheConnectionEnds) {
  RawHost& admin = dial();
  connected(admin, 0);
  auto with = settings();
  with.host_secret = secret_of(controller_text);
  EXPECT_EQ(authenticate(admin, with), Reason::failed);
  expect_refused(admin.identify(1));
  expect_refused(send(admin, auth::write(auth::Negotiate{1, quick_.hashes, quick_.groups})));  // no second try
  EXPECT_TRUE(admin.closes());
  EXPECT_TRUE(run_until([&] { return controllers() == 0; }));
}

TEST_F(TcpAuthentication, AnIoQueueThatFailsTakesNobodyAlong) {
  RawHost& admin = dial();
  const uint16_t cntlid = admit(admin);
  RawHost& good = dial();
  connected(good, 1, cntlid);
  EXPECT_EQ(authenticate(good, settings()), std::nullopt);
  RawHost& bad = dial();
  connected(bad, 2, cntlid);
  auto with = settings();
  with.host_secret = secret_of(controller_text);
  EXPECT_EQ(authenticate(bad, with), Reason::failed);
  EXPECT_TRUE(bad.closes());
  EXPECT_EQ(good.read(1, 0, 1).data.size(), 4096u);
  EXPECT_EQ(admin.identify(1).data.size(), 4096u);
}

TEST_F(TcpAuthentication, WhoDoesNotAuthenticateInTimeIsDropped) {
  RawHost& admin = dial();
  const uint16_t cntlid = admit(admin);
  RawHost& io = dial();
  connected(io, 1, cntlid);
  RawHost& other = dial();
  connected(other, 0, 0xffff, 2, 1000);  // its keep-alive time-out does not end it earlier
  const Instant begin = now();
  run_for(seconds(15));
  EXPECT_EQ(controllers(), 2u);
  EXPECT_TRUE(other.closes());
  EXPECT_TRUE(io.closes());
  EXPECT_LE(now() - begin, seconds(25));
  EXPECT_TRUE(run_until([&] { return controllers() == 1; }));
  EXPECT_EQ(admin.identify(1).data.size(), 4096u);
}

TEST_F(TcpAuthentication, OneStrangerTooManyTakesTheOldestOnesPlace) {
  RawHost& admitted = dial();
  admit(admitted, 100);
  std::vector<RawHost*> strangers;
  for (uint16_t i = 0; i < 5; i++) {
    strangers.push_back(&dial());
    connected(*strangers.back(), 0, 0xffff, static_cast<uint16_t>(i + 1));
  }
  const Instant begin = now();
  EXPECT_TRUE(strangers[0]->closes());
  EXPECT_LT(now() - begin, seconds(1));
  EXPECT_EQ(authenticate(*strangers[4], settings()), std::nullopt);
  EXPECT_EQ(admitted.identify(1).data.size(), 4096u);
}

TEST_F(TcpAuthentication, ANameAloneSupersedesNobody) {
  RawHost& first = dial();
  admit(first);
  RawHost& stranger = dial();
  connected(stranger, 0);  // same host NQN, same host identifier
  auto with = settings();
  with.host_secret = secret_of(controller_text);
  EXPECT_EQ(authenticate(stranger, with), Reason::failed);
  EXPECT_EQ(first.identify(1).data.size(), 4096u);
  RawHost& second = dial();
  connected(second, 0);
  EXPECT_EQ(first.identify(1).data.size(), 4096u);
  EXPECT_EQ(authenticate(second, settings()), std::nullopt);
  EXPECT_TRUE(first.closes());  // now it was the host itself
  EXPECT_TRUE(second.property_set(nvme::property_cc, cc_enable).status.ok());
}

TEST_F(TcpAuthentication, TheOldAssociationsCommandsEndBeforeTheNewOneIsAdmitted) {
  RawHost& first = dial();
  const uint16_t cntlid = admit(first);
  RawHost& io = dial();
  connected(io, 1, cntlid);
  EXPECT_EQ(authenticate(io, settings()), std::nullopt);
  bdev_->hold = true;
  nvme::Command write{};
  write.opcode = 1;
  write.nsid = 1;
  write.cid = 500;
  write.flags = 0x40;
  write.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
  io.send(RawHost::capsule(write, pattern(4096, 1)));
  ASSERT_TRUE(run_until([&] { return !bdev_->held.empty(); }));
  RawHost& second = dial();
  connected(second, 0);
  auth::HostSide side(settings());
  ASSERT_TRUE(send(second, side.begin().send).status.ok());
  const auto next = side.receive(receive(second).data);
  ASSERT_TRUE(send(second, next.send).status.ok());
  // AUTH_Success1 waits for the write.
  auto command = authentication(nvme::FabricsType::auth_receive, 4096);
  command.cid = 7;
  command.flags = 0x40;
  command.sgl = {0, 4096, {}, nvme::sgl_transport_data_block};
  second.send(RawHost::capsule(command));
  run_for(seconds(1));
  EXPECT_FALSE(second.poll().has_value());
  bdev_->release();
  const auto answer = second.collect(7);
  EXPECT_TRUE(answer.status.ok()) << to_string(answer.status);
  side.receive(answer.data);
  EXPECT_TRUE(side.authenticated());
}

TEST_F(TcpAuthentication, MayBeRepeatedOnEveryQueueWhileItIsInUse) {
  RawHost& admin = dial();
  const uint16_t cntlid = admit(admin);
  RawHost& io = dial();
  connected(io, 1, cntlid);
  EXPECT_EQ(authenticate(io, settings()), std::nullopt);
  for (int i = 0; i < 3; i++) {
    EXPECT_EQ(authenticate(admin, settings(i % 2 == 0)), std::nullopt);
    EXPECT_EQ(admin.identify(1).data.size(), 4096u);
    auth::HostSide side(settings());
    ASSERT_TRUE(send(io, side.begin().send).status.ok());
    EXPECT_EQ(io.read(1, 0, 1).data.size(), 4096u);  // in the middle of it
    const auto next = side.receive(receive(io).data);
    ASSERT_TRUE(send(io, next.send).status.ok());
    side.receive(receive(io).data);
    EXPECT_TRUE(side.authenticated());
  }
}

TEST_P(MalformedAuthentication, M35ARepetitionThatFailsEndsTheQueue) {
  RawHost& admin = dial();
  const uint16_t cntlid = admit(admin);
  RawHost& io = dial();
  connected(io, 1, cntlid);
  EXPECT_EQ(authenticate(io, settings()), std::nullopt);
  auto with = settings();
  with.host_secret = secret_of(controller_text);
  EXPECT_EQ(authenticate(io, with), Reason::failed);
  expect_refused(io.read(1, 0, 1));
  EXPECT_TRUE(io.closes());
  EXPECT_EQ(admin.identify(1).data.size(), 4096u);
}

TEST_F(TcpAuthentication, UsesTheKeysThatAreRightWhenItBegins) {
  RawHost& admin = dial();
  admit(admin);
  ASSERT_TRUE(subsystem_->set_host_keys(hostnqn, {secret_of(controller_text), nullptr, "", ""}).ok());
  EXPECT_EQ(admin.identify(1).data.size(), 4096u);  // what is connected stays
  auto with = settings();
  with.host_secret = secret_of(controller_text);
  EXPECT_EQ(authenticate(admin, with), std::nullopt);
  RawHost& late = dial();
  connected(late, 0, 0xffff, 2);
  EXPECT_EQ(authenticate(late, settings()), Reason::failed);
}

TEST_F(TcpAuthentication, AHostThatNobodyAsksForItIsToldThatItDoesNotWork) {
  const char other[] = "nqn.2026-01.test:open";
  ASSERT_TRUE(subsystem_->add_host(other).ok());
  RawHost& admin = dial();
  admin.initialize();
  ASSERT_TRUE(admin.connect(0, subnqn, other, 2).status.ok());
  auto with = settings();
  with.parties.hostnqn = other;
  EXPECT_EQ(authenticate(admin, with), Reason::protocol_not_usable);
  EXPECT_TRUE(admin.closes());
}

TEST_P(MalformedAuthentication, M35AnotherHostsNameDoesNotGoWithTheKey) {
  const char other[] = "nqn.2026-01.test:other";
  ASSERT_TRUE(subsystem_->add_host(other, {secret_of(controller_text), nullptr, "", ""}).ok());
  RawHost& admin = dial();
  admin.initialize();
  ASSERT_TRUE(admin.connect(0, subnqn, other, 2).status.ok());
  auto with = settings();
  with.parties.hostnqn = other;
  EXPECT_EQ(authenticate(admin, with), Reason::failed);
}

TEST_P(MalformedAuthentication, M35WrongFieldsOfTheCommandsAreRefused) {
  RawHost& admin = dial();
  connected(admin, 0);
  const Message negotiate = auth::write(auth::Negotiate{1, quick_.hashes, quick_.groups});
  const auto length = static_cast<uint32_t>(negotiate.size());
  EXPECT_TRUE(receive(admin).status.is(status::command_sequence_error));  // nothing to receive yet
  for (const size_t at : {41, 42, 43}) {
    auto command = authentication(nvme::FabricsType::auth_send, length);
    reinterpret_cast<uint8_t*>(&command)[at] ^= 0x10;
    EXPECT_TRUE(admin.command(command, negotiate).status.is(status::invalid_field)) << at;
  }
  auto command = authentication(nvme::FabricsType::auth_send, length + 4);
  EXPECT_TRUE(admin.command(command, negotiate).status.is(status::data_sgl_length_invalid));
  command = authentication(nvme::FabricsType::auth_send, 0);
  EXPECT_TRUE(admin.command(command, negotiate).status.is(status::invalid_field));
  // None of this was a failed authentication.
  ASSERT_TRUE(send(admin, negotiate).status.ok());
  EXPECT_TRUE(receive(admin, 16).status.is(status::invalid_field));  // too short for the Challenge, which stays
  const auto challenge = receive(admin);
  ASSERT_TRUE(challenge.status.ok());
  EXPECT_EQ(challenge.data[1], static_cast<uint8_t>(MessageId::challenge));
  EXPECT_TRUE(receive(admin).status.is(status::command_sequence_error));  // taken
  EXPECT_EQ(authenticate(admin, settings()), std::nullopt);
}

// Whichever byte of a message is another one, nobody gets in by it that should not, and everybody else does after it.
TEST_P(MalformedAuthentication, M35EveryByteOfAMessageThatIsWrong) {
  // Of the Negotiate: type, message, secure channel, protocols and their kind, numbers of hashes and groups, the only
  // one of each. Of the Reply: type, message, transaction, length of the response, whether there is a challenge.
  const std::set<size_t> negotiate_matters = {0, 1, 6, 7, 8, 10, 11, 12, 42};
  const std::set<size_t> reply_matters = {0, 1, 4, 5, 6, 8};
  const auto is_response = [](size_t at) { return at >= 16 && at < 48; };
  for (const bool in_reply : {false, true}) {
    size_t size = 1;
    for (size_t at = 0; at < size; at++) {
      RawHost& admin = dial();
      connected(admin, 0);
      auth::HostSide side(settings());
      auto next = side.begin();
      if (in_reply) {
        ASSERT_TRUE(send(admin, next.send).status.ok());
        next = side.receive(receive(admin).data);
      }
      size = next.send.size();
      next.send[at] ^= 0xff;
      const auto sent = send(admin, next.send);
      bool taken = sent.came && sent.status.ok();
      if (taken) {
        const auto answer = receive(admin);
        const auto expected = in_reply ? MessageId::success1 : MessageId::challenge;
        taken = answer.came && answer.status.ok() && answer.data.size() > 1 &&
                answer.data[1] == static_cast<uint8_t>(expected);
      }
      const bool matters = in_reply ? reply_matters.contains(at) || is_response(at) : negotiate_matters.contains(at);
      EXPECT_FALSE(taken && matters) << (in_reply ? "reply, byte " : "negotiate, byte ") << at;
      // A Challenge is no admission.
      if (!taken || !in_reply) {
        const auto identified = admin.identify(1);
        EXPECT_FALSE(identified.came && identified.status.ok()) << at;
      }
      admin.drop();
      ASSERT_TRUE(run_until([&] { return controllers() == 0; }));
    }
  }
  RawHost& honest = dial();
  admit(honest);
}

TEST_F(TcpAuthentication, DataMayComeInTheCapsuleOrByR2t) {
  RawHost& admin = dial();
  connected(admin, 0);
  auth::HostSide side(settings());
  ASSERT_TRUE(send(admin, side.begin().send, false).status.ok());
  const auto next = side.receive(receive(admin).data);
  ASSERT_TRUE(send(admin, next.send, false).status.ok());
  side.receive(receive(admin).data);
  EXPECT_TRUE(side.authenticated());
}

TEST_F(TcpAuthentication, NoListShowsAKey) {
  const SubsystemInfo info = subsystem_->info();
  ASSERT_EQ(info.hosts.size(), 1u);
  EXPECT_EQ(info.hosts[0].keys.host_name, "host-key");
  auto same = keys_;
  same.controller = same.host;
  EXPECT_FALSE(subsystem_->set_host_keys(hostnqn, same).ok());
  EXPECT_FALSE(subsystem_->set_host_keys(hostnqn, {nullptr, keys_.host, "", ""}).ok());
  EXPECT_FALSE(subsystem_->set_host_keys("nqn.2026-01.test:nobody", keys_).ok());
}

TEST_P(MalformedAuthentication, M35AConnectionThatEndsAnywhereLeavesNothingBehind) {
  for (int stop = 0; stop < 5; stop++) {
    RawHost& admin = dial();
    connected(admin, 0);
    auth::HostSide side(settings(true));
    auth::HostSide::Next next = side.begin();
    for (int step = 0; step < stop && !side.authenticated(); step++) {
      if (step % 2 == 0) {
        send(admin, next.send);
      } else {
        next = side.receive(receive(admin).data);
      }
    }
    admin.drop();
    ASSERT_TRUE(run_until([&] { return controllers() == 0; }));
  }
}

// ---- discovery -----------------------------------------------------------------------------------------------------

class TcpAuthenticatedDiscovery : public TcpAuthentication {
 protected:
  TcpAuthenticatedDiscovery() { target_->set_discovery_access(DiscoveryAccess::authenticated); }

  auth::HostSettings for_discovery() {
    auto with = settings();
    with.parties.subnqn = nvme::discovery_nqn;
    return with;
  }
  RawHost::Answer connect_discovery(RawHost& host, const char* as = hostnqn) {
    host.initialize();
    return host.connect(0, nvme::discovery_nqn, as, 1);
  }
  static uint64_t entries_seen_by(RawHost& host) {
    const auto log = host.log_page(nvme::LogPageId::discovery, 8192);
    EXPECT_TRUE(log.status.ok()) << to_string(log.status);
    return load_le<uint64_t>(log.data.data() + 8);
  }
};

TEST_F(TcpAuthenticatedDiscovery, TellsAHostWithAKeyWhatItMayUseWhenItHasProvenIt) {
  RawHost& host = dial();
  EXPECT_EQ(connect_discovery(host).dw0 & 0xffff0000, required);
  expect_refused(host.log_page(nvme::LogPageId::discovery, 8192));
  expect_refused(host.property_set(nvme::property_cc, cc_enable));
  EXPECT_EQ(authenticate(host, for_discovery()), std::nullopt);
  EXPECT_TRUE(host.property_set(nvme::property_cc, cc_enable).status.ok());
  EXPECT_EQ(entries_seen_by(host), 1u);
  // Of another subsystem that knows the host by another key nothing is proven.
  auto other = target_->create_subsystem({.nqn = "nqn.2024-01.io.basalt:other"});
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(run((*other)->add_listener(address_)).ok());
  ASSERT_TRUE((*other)->add_host(hostnqn, {secret_of(controller_text), nullptr, "another", ""}).ok());
  EXPECT_EQ(entries_seen_by(host), 1u);
  ASSERT_TRUE((*other)->set_host_keys(hostnqn, {secret_of(host_text), nullptr, "the same", ""}).ok());
  EXPECT_EQ(entries_seen_by(host), 2u);
}

TEST_F(TcpAuthenticatedDiscovery, AWrongKeyEndsTheConnection) {
  RawHost& host = dial();
  EXPECT_TRUE(connect_discovery(host).status.ok());
  auto wrong = for_discovery();
  wrong.host_secret = secret_of(controller_text);
  EXPECT_EQ(authenticate(host, wrong), Reason::failed);
  ASSERT_TRUE(run_until([&] { return target_->discovery().controllers().empty(); }));
}

TEST_F(TcpAuthenticatedDiscovery, HostsWithoutAKeyGoByTheirNameAndStrangersSeeNothing) {
  ASSERT_TRUE(subsystem_->set_host_keys(hostnqn, {}).ok());
  RawHost& host = dial();
  EXPECT_EQ(connect_discovery(host).dw0 & 0xffff0000, 0u);
  EXPECT_TRUE(host.property_set(nvme::property_cc, cc_enable).status.ok());
  EXPECT_EQ(entries_seen_by(host), 1u);
  // A key that it is given meanwhile is one that it has not proven.
  ASSERT_TRUE(subsystem_->set_host_keys(hostnqn, keys_).ok());
  EXPECT_EQ(entries_seen_by(host), 0u);
  RawHost& nobody = dial();
  EXPECT_TRUE(connect_discovery(nobody, "nqn.2014-08.org.nvmexpress:uuid:none").status.ok());
  EXPECT_TRUE(nobody.property_set(nvme::property_cc, cc_enable).status.ok());
  EXPECT_EQ(entries_seen_by(nobody), 0u);
}

TEST_F(TcpAuthentication, OpenDiscoveryAsksNobody) {
  RawHost& host = dial();
  host.initialize();
  EXPECT_EQ(host.connect(0, nvme::discovery_nqn, hostnqn, 1).dw0 & 0xffff0000, 0u);
  EXPECT_TRUE(host.property_set(nvme::property_cc, cc_enable).status.ok());
  EXPECT_EQ(load_le<uint64_t>(host.log_page(nvme::LogPageId::discovery, 8192).data.data() + 8), 1u);
}

}  // namespace
}  // namespace basalt::nvmf
