// SPDX-License-Identifier: Apache-2.0
// The two sides against each other, and each against messages that no honest peer sends.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "base/bytes.h"
#include "nvmf/auth/controller_side.h"
#include "nvmf/auth/host_side.h"

namespace basalt::nvmf::auth {
namespace {

constexpr char host_text[] = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
constexpr char controller_text[] = "DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:";

SharedSecret secret_of(const char* text) {
  auto secret = Secret::parse(text);
  BASALT_ASSERT(secret.ok());
  return std::make_shared<const Secret>(std::move(secret).value());
}

// Not random at all, but never the same twice.
struct Counter {
  uint32_t state = 1;
  Random random() {
    return [this](void* out, size_t length_bytes) {
      for (size_t i = 0; i < length_bytes; i++) {
        state = state * 1664525 + 1013904223;
        static_cast<uint8_t*>(out)[i] = static_cast<uint8_t>(state >> 24);
      }
    };
  }
};

class Sides : public ::testing::Test {
 protected:
  Sides() {
    const Parties parties{"nqn.2026-01.test:host", "nqn.2026-01.test:volume"};
    const Policy quick{{HashId::sha256}, {GroupId::none}};
    host_settings = {parties, secret_of(host_text), nullptr, quick, counter.random()};
    controller_settings = {parties, secret_of(host_text), secret_of(controller_text), quick, counter.random()};
  }

  // The whole exchange; `meddle` may change messages on their way.
  using Meddle = std::function<void(Message& message, bool to_controller)>;
  void run(const Meddle& meddle = nullptr) {
    host.emplace(host_settings);
    controller.emplace(controller_settings);
    HostSide::Next next = host->begin();
    for (int turn = 0; turn < 8; turn++) {
      if (!next.send.empty()) {
        if (meddle) meddle(next.send, true);
        controller->receive(next.send);
      }
      if (!next.receive) return;
      ASSERT_NE(controller->pending(), nullptr);
      Message answer = *controller->pending();
      controller->delivered();
      if (meddle) meddle(answer, false);
      next = host->receive(answer);
    }
    FAIL() << "no end";
  }
  void expect_both_authenticated() {
    EXPECT_TRUE(host->authenticated());
    EXPECT_TRUE(controller->authenticated());
    EXPECT_FALSE(host->failure());
    EXPECT_FALSE(controller->failure());
  }
  void expect_refused(Reason reason) {
    EXPECT_FALSE(controller->authenticated());
    ASSERT_TRUE(controller->failure());
    EXPECT_EQ(*controller->failure(), reason);
    EXPECT_FALSE(host->authenticated());
    ASSERT_TRUE(host->failure());
    EXPECT_EQ(*host->failure(), reason);
  }
  // What the controller says to this message: AUTH_Failure1 with a reason, as on the wire.
  void expect_failure1(ControllerSide& side, Reason reason) {
    ASSERT_NE(side.pending(), nullptr);
    const Message& message = *side.pending();
    ASSERT_EQ(message.size(), 8u);
    EXPECT_EQ(message[0], 0x00);
    EXPECT_EQ(message[1], 0xf0);
    EXPECT_EQ(message[6], 0x01);
    EXPECT_EQ(message[7], static_cast<uint8_t>(reason));
    EXPECT_FALSE(side.authenticated());
  }

  Counter counter;
  HostSettings host_settings;
  ControllerSettings controller_settings;
  std::optional<HostSide> host;
  std::optional<ControllerSide> controller;
};

TEST_F(Sides, AuthenticateWithEveryHashAndGroupInBothDirections) {
  for (const HashId hash : {HashId::sha256, HashId::sha384, HashId::sha512}) {
    for (uint8_t group = 0; group <= 5; group++) {
      if (group > 2 && hash != HashId::sha256) continue;  // large groups take their time
      host_settings.policy = {{HashId::sha256, HashId::sha384, HashId::sha512},
                              {GroupId::none, GroupId::ffdhe2048, GroupId::ffdhe3072, GroupId::ffdhe4096,
                               GroupId::ffdhe6144, GroupId::ffdhe8192}};
      controller_settings.policy = {{hash}, {static_cast<GroupId>(group)}};
      for (const bool two_way : {false, true}) {
        host_settings.controller_secret = two_way ? secret_of(controller_text) : nullptr;
        Message challenge;
        run([&](Message& message, bool to_controller) {
          if (!to_controller && message[1] == 0x01) challenge = message;
        });
        expect_both_authenticated();
        EXPECT_EQ(challenge[8], static_cast<uint8_t>(hash));
        EXPECT_EQ(challenge[9], group);
      }
    }
  }
}

TEST_F(Sides, TheControllersPreferenceDecides) {
  host_settings.policy = {{HashId::sha256, HashId::sha512}, {GroupId::none, GroupId::ffdhe2048}};
  controller_settings.policy = {{HashId::sha384, HashId::sha512, HashId::sha256},
                                {GroupId::ffdhe3072, GroupId::ffdhe2048, GroupId::none}};
  Message challenge;
  run([&](Message& message, bool to_controller) {
    if (!to_controller && message[1] == 0x01) challenge = message;
  });
  expect_both_authenticated();
  EXPECT_EQ(challenge[8], 3);
  EXPECT_EQ(challenge[9], 1);
}

TEST_F(Sides, NothingInCommonIsRefusedByName) {
  host_settings.policy = {{HashId::sha256}, {GroupId::none}};
  controller_settings.policy = {{HashId::sha512}, {GroupId::none}};
  run();
  expect_refused(Reason::hash_not_usable);
  controller_settings.policy = {{HashId::sha256}, Policy{}.groups};
  run();
  expect_refused(Reason::group_not_usable);
}

TEST_F(Sides, AWrongKeyIsRefused) {
  host_settings.host_secret = secret_of(controller_text);
  run();
  expect_refused(Reason::failed);
}

TEST_F(Sides, AnotherHostsNqnDoesNotGoWithAKeyThatIsBoundToItsOwner) {
  host_settings.parties.hostnqn = "nqn.2026-01.test:other";
  run();
  expect_refused(Reason::failed);
}

TEST_F(Sides, AHostWithoutAKeyHereIsRefused) {
  controller_settings.host_secret = nullptr;
  run();
  expect_refused(Reason::protocol_not_usable);
}

TEST_F(Sides, AControllerWithoutAKeyCannotProveItself) {
  controller_settings.controller_secret = nullptr;
  host_settings.controller_secret = secret_of(controller_text);
  run();
  expect_refused(Reason::failed);
}

TEST_F(Sides, TheHostTellsAControllerThatHasAnotherKey) {
  host_settings.controller_secret = secret_of(host_text);
  run();
  EXPECT_FALSE(host->authenticated());
  EXPECT_EQ(host->failure(), Reason::failed);
  EXPECT_FALSE(host->refused_by_controller());
  EXPECT_FALSE(controller->authenticated());  // AUTH_Failure2 came instead of Success2
  EXPECT_EQ(controller->failure(), Reason::failed);
  EXPECT_EQ(controller->pending(), nullptr);
}

TEST_F(Sides, AControllerThatSkipsItsProofIsNotBelieved) {
  host_settings.controller_secret = secret_of(controller_text);
  run([](Message& message, bool to_controller) {
    if (!to_controller && message[1] == 0x03) message[8] = 0;  // RVALID
  });
  EXPECT_FALSE(host->authenticated());
  EXPECT_EQ(host->failure(), Reason::failed);
}

// Negotiates by hand, up to the Challenge.
Message challenge_of(ControllerSide& side, uint16_t transaction) {
  side.receive(write(Negotiate{transaction, {HashId::sha256}, {GroupId::none}}));
  BASALT_ASSERT(side.pending() != nullptr);
  const Message out = *side.pending();
  side.delivered();
  return out;
}
Message answer_to(const Message& challenge, const ControllerSettings& settings) {
  const auto read = std::get<Challenge>(read_challenge(challenge));
  const Question question{read.hash, read.challenge, read.sequence, read.transaction, nullptr};
  const crypto::Digest response = response_of(Side::host, question, *settings.host_secret, settings.parties);
  Reply reply;
  reply.transaction = read.transaction;
  reply.response = response.span();
  return write(reply, read.hash);
}

TEST_F(Sides, AReplayedAnswerIsRefused) {
  ControllerSide first(controller_settings);
  const Message answer = answer_to(challenge_of(first, 9), controller_settings);
  first.receive(answer);
  first.delivered();
  EXPECT_TRUE(first.authenticated());
  ControllerSide second(controller_settings);
  challenge_of(second, 9);
  second.receive(answer);
  expect_failure1(second, Reason::failed);
}

TEST_F(Sides, AChallengeIsAnsweredAtMostOnce) {
  ControllerSide side(controller_settings);
  const Message challenge = challenge_of(side, 9);
  Message wrong = answer_to(challenge, controller_settings);
  wrong[16] ^= 1;
  side.receive(wrong);
  expect_failure1(side, Reason::failed);
  side.receive(answer_to(challenge, controller_settings));  // too late
  expect_failure1(side, Reason::failed);
}

TEST_F(Sides, AChallengeThatIsReflectedIsRefused) {
  ControllerSide side(controller_settings);
  const Message challenge = challenge_of(side, 9);
  Message answer = answer_to(challenge, controller_settings);
  answer[8] = 1;  // CVALID
  store_le<uint32_t>(answer.data() + 12, 5);
  std::copy_n(challenge.begin() + 16, 32, answer.begin() + 48);
  side.receive(answer);
  expect_failure1(side, Reason::failed);
}

TEST_F(Sides, AnAnswerInTheOtherDirectionDoesNotServe) {
  // The controller answers a challenge of the attacker's choice; that answer is no host's answer to it.
  controller_settings.controller_secret = controller_settings.host_secret;
  ControllerSide victim(controller_settings);
  const auto asked = challenge_of(victim, 9);
  const auto read = std::get<Challenge>(read_challenge(asked));
  const Question question{read.hash, read.challenge, read.sequence, 9, nullptr};
  const crypto::Digest response =
      response_of(Side::controller, question, *controller_settings.host_secret, controller_settings.parties);
  Reply reply;
  reply.transaction = 9;
  reply.response = response.span();
  victim.receive(write(reply, read.hash));
  expect_failure1(victim, Reason::failed);
}

TEST_F(Sides, AnotherTransactionIdentifierIsRefused) {
  ControllerSide side(controller_settings);
  Message answer = answer_to(challenge_of(side, 9), controller_settings);
  answer[4] ^= 1;
  side.receive(answer);
  expect_failure1(side, Reason::incorrect_payload);
  run([](Message& message, bool to_controller) {
    if (!to_controller) message[4] ^= 1;
  });
  EXPECT_EQ(host->failure(), Reason::incorrect_payload);
}

TEST_F(Sides, EveryTruncationIsRefused) {
  host_settings.controller_secret = secret_of(controller_text);
  host_settings.policy = controller_settings.policy = {{HashId::sha256}, {GroupId::ffdhe2048}};
  for (const uint8_t id : {0x00, 0x01, 0x02, 0x03, 0x04}) {
    size_t whole = SIZE_MAX;
    for (size_t keep = 0; keep < whole; keep += keep < 24 ? 1 : 37) {
      run([&](Message& message, bool) {
        if (message[1] != id || (id == 0 && message.size() != 72)) return;
        whole = message.size();
        message.resize(keep);
      });
      EXPECT_NE(whole, SIZE_MAX);
      const bool last = id == 0x04;  // Success2 has nothing behind its header
      if (last && keep >= 8) continue;
      EXPECT_FALSE(host->authenticated() && controller->authenticated()) << int{id} << " " << keep;
      EXPECT_TRUE(host->failure() || controller->failure()) << int{id} << " " << keep;
    }
  }
}

TEST_F(Sides, MessagesOutOfOrderAreRefused) {
  const Message success2 = write_success2(9);
  const Message negotiate = write(Negotiate{9, {HashId::sha256}, {GroupId::none}});
  {
    ControllerSide side(controller_settings);
    side.receive(success2);
    expect_failure1(side, Reason::incorrect_message);
  }
  {
    ControllerSide side(controller_settings);
    challenge_of(side, 9);
    side.receive(success2);
    expect_failure1(side, Reason::incorrect_message);
  }
  {
    ControllerSide side(controller_settings);
    challenge_of(side, 9);
    side.receive(negotiate);
    expect_failure1(side, Reason::incorrect_message);
  }
  {
    ControllerSide side(controller_settings);
    side.receive(negotiate);
    side.receive(answer_to(*side.pending(), controller_settings));  // the Challenge was not taken
    expect_failure1(side, Reason::incorrect_message);
  }
  {
    ControllerSide side(controller_settings);
    Message unknown = negotiate;
    unknown[0] = 2;
    side.receive(unknown);
    expect_failure1(side, Reason::incorrect_message);
  }
}

TEST_F(Sides, EveryWrongFieldOfANegotiationHasItsReason) {
  const Message good = write(Negotiate{9, {HashId::sha256}, {GroupId::none}});
  const struct {
    size_t at;
    uint8_t value;
    Reason reason;
  } wrong[] = {{6, 1, Reason::concatenation_mismatch}, {7, 0, Reason::incorrect_payload},
               {7, 2, Reason::incorrect_payload},      {8, 2, Reason::protocol_not_usable},
               {10, 31, Reason::incorrect_payload},    {11, 31, Reason::incorrect_payload},
               {10, 0, Reason::hash_not_usable},       {11, 0, Reason::group_not_usable},
               {12, 4, Reason::hash_not_usable},       {42, 6, Reason::group_not_usable},
               {0, 1, Reason::incorrect_message},      {1, 0x05, Reason::incorrect_message}};
  for (const auto& [at, value, reason] : wrong) {
    ControllerSide side(controller_settings);
    Message message = good;
    message[at] = value;
    side.receive(message);
    SCOPED_TRACE(at);
    expect_failure1(side, reason);
  }
}

TEST_F(Sides, EveryWrongFieldOfAReplyHasItsReason) {
  controller_settings.policy.groups = {GroupId::ffdhe2048};
  host_settings.policy.groups = {GroupId::ffdhe2048};
  const struct {
    size_t at;
    uint8_t value;
    Reason reason;
  } wrong[] = {
      {6, 48, Reason::incorrect_payload}, {8, 2, Reason::incorrect_payload}, {10, 4, Reason::incorrect_payload},
      {11, 0, Reason::incorrect_payload}, {16, 0, Reason::failed},           {100, 0, Reason::failed}};
  for (const auto& [at, value, reason] : wrong) {
    SCOPED_TRACE(at);
    run([&](Message& message, bool to_controller) {
      if (to_controller && message[1] == 0x02) message[at] = value == 0 ? message[at] ^ 1 : value;
    });
    expect_refused(reason);
  }
}

TEST_F(Sides, ADiffieHellmanValueThatFixesTheSecretIsRefusedOnBothSides) {
  controller_settings.policy.groups = host_settings.policy.groups = {GroupId::ffdhe2048};
  for (const uint8_t value : {0, 1}) {
    run([&](Message& message, bool to_controller) {
      if (!to_controller || message[1] != 0x02) return;
      std::fill(message.end() - 256, message.end(), 0);
      message.back() = value;
    });
    expect_refused(Reason::incorrect_payload);
    run([&](Message& message, bool to_controller) {
      if (to_controller || message[1] != 0x01) return;
      std::fill(message.end() - 256, message.end(), 0);
      message.back() = value;
    });
    EXPECT_EQ(host->failure(), Reason::incorrect_payload);
    EXPECT_EQ(controller->failure(), Reason::incorrect_payload);  // told by AUTH_Failure2
  }
}

TEST_F(Sides, TheHostIsNotTalkedIntoLessThanItOffered) {
  host_settings.policy = {{HashId::sha512}, {GroupId::ffdhe2048}};
  controller_settings.policy = {{HashId::sha256}, {GroupId::none}};
  run([](Message& message, bool to_controller) {
    if (!to_controller || message[1] != 0x00) return;
    message[8 + 4] = 1;  // an attacker between them changes the offer
    message[8 + 34] = 0;
  });
  EXPECT_FALSE(host->authenticated());
  EXPECT_EQ(host->failure(), Reason::hash_not_usable);
}

TEST_F(Sides, NoMessageHoldsAKey) {
  host_settings.controller_secret = secret_of(controller_text);
  const auto host_key = secret_of(host_text)->key_of("nqn.2026-01.test:host");
  const auto raw_key = secret_of(controller_text)->key_of("");
  run([&](Message& message, bool) {
    for (const auto* key : {&host_key, &raw_key}) {
      const auto found = std::search(message.begin(), message.end(), key->data(), key->data() + 8);
      EXPECT_EQ(found, message.end());
    }
  });
  expect_both_authenticated();
}

}  // namespace
}  // namespace basalt::nvmf::auth
