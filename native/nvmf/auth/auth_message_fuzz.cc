// SPDX-License-Identifier: Apache-2.0
// Any sequence of messages to either side of an authentication: nobody is authenticated who does not know the key,
// every refusal is a well-formed AUTH_Failure, and one that was given is the last word. Two sides that know it agree
// when nobody meddles. And any text as a key.
#include "nvmf/auth/controller_side.h"
#include "nvmf/auth/host_side.h"
#include "nvmf/auth/key_text.h"
#include "nvmf/auth/tls_key.h"
#include "testing/fuzz_target.h"

namespace basalt::nvmf::auth {
namespace {

using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

SharedSecret secret_of(const char* text) {
  auto secret = Secret::parse(text);
  BASALT_ASSERT(secret.ok());
  return std::make_shared<const Secret>(std::move(secret).value());
}

// The same in every run: what the fuzzer learns stays true.
Random counter(uint32_t from) {
  return [state = from](void* out, size_t length_bytes) mutable {
    for (size_t i = 0; i < length_bytes; i++) {
      state = state * 1664525 + 1013904223;
      static_cast<uint8_t*>(out)[i] = static_cast<uint8_t>(state >> 24);
    }
  };
}

void controller(FuzzInput& input) {
  ControllerSettings settings;
  settings.parties = {"nqn.2026-01.test:host", "nqn.2026-01.test:volume"};
  settings.host_secret = secret_of("DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:");
  settings.controller_secret = settings.host_secret;
  settings.policy = {{HashId::sha256, HashId::sha512}, {GroupId::none, GroupId::ffdhe2048}};
  settings.random = counter(1);
  ControllerSide side(settings);
  while (!input.empty()) {
    const bool failed = side.failure().has_value();
    const auto bytes = input.blob();
    // Exactly as long as it is, so that a sanitizer sees a byte too far.
    const Message message(bytes.begin(), bytes.end());
    side.receive(message);
    BASALT_ASSERT(!side.authenticated() && !side.host_proven());
    BASALT_ASSERT(!failed || side.failure().has_value());
    if (side.failure()) BASALT_ASSERT(std::strlen(to_string(*side.failure())) > 0);
    if (const Message* answer = side.pending()) {
      BASALT_ASSERT(answer->size() >= 8 && answer->size() <= message_bytes_max);
      if (side.failure()) BASALT_ASSERT((*answer)[1] == 0xf0 && read_failure(*answer) == side.failure());
      if ((input.u8() & 1) != 0) side.delivered();
    }
  }
}

void host(FuzzInput& input) {
  HostSettings settings;
  settings.parties = {"nqn.2026-01.test:host", "nqn.2026-01.test:volume"};
  settings.host_secret = secret_of("DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:");
  settings.controller_secret = settings.host_secret;
  settings.policy = {{HashId::sha256, HashId::sha512}, {GroupId::none, GroupId::ffdhe2048}};
  settings.random = counter(7);
  HostSide side(settings);
  HostSide::Next next = side.begin();
  const uint16_t transaction = read_header(next.send)->transaction;
  while (next.receive) {
    const auto bytes = input.blob();
    Message message(bytes.begin(), bytes.end());
    if (message.size() >= 6 && (input.u8() & 1) == 0) std::memcpy(message.data() + 4, &transaction, 2);
    next = side.receive(message);
    BASALT_ASSERT(!side.authenticated());
    BASALT_ASSERT(next.receive != side.failure().has_value());
  }
}

// Somebody between two sides that know the keys.
void both(FuzzInput& input) {
  const bool two_way = (input.u8() & 1) != 0;
  const auto hash = static_cast<HashId>(1 + input.u8() % 3);
  const Parties parties{"nqn.2026-01.test:host", "nqn.2026-01.test:volume"};
  const SharedSecret host_secret = secret_of("DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:");
  const SharedSecret controller_secret = secret_of("DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:");
  const Policy policy{{hash}, {GroupId::none}};
  HostSide host({parties, host_secret, two_way ? controller_secret : nullptr, policy, counter(7)});
  ControllerSide controller({parties, host_secret, controller_secret, policy, counter(1)});
  bool changed = false;
  const auto meddle = [&](Message& message) {
    const Message before = message;
    input.patch(message);
    changed |= message != before;
  };
  HostSide::Next next = host.begin();
  for (;;) {
    if (!next.send.empty()) {
      meddle(next.send);
      controller.receive(next.send);
    }
    if (!next.receive || controller.pending() == nullptr) break;
    Message answer = *controller.pending();
    controller.delivered();
    meddle(answer);
    next = host.receive(answer);
  }
  BASALT_ASSERT(!(host.authenticated() && host.failure()) && !(controller.authenticated() && controller.failure()));
  if (!changed) BASALT_ASSERT(host.authenticated() && controller.authenticated());
}

void key_text(std::span<const uint8_t> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  BASALT_ASSERT(encode_base64(bytes).size() == (bytes.size() + 2) / 3 * 4);
  auto secret = Secret::parse(text);
  BASALT_ASSERT(secret.ok() || !secret.error().message.empty());
  if (secret.ok()) BASALT_ASSERT(secret->same_key(*secret) && secret->key_of("nqn.2026-01.test:host").size() >= 32);
  auto tls = TlsKey::parse(text);
  BASALT_ASSERT(tls.ok() || !tls.error().message.empty());
  if (tls.ok()) BASALT_ASSERT(tls->psk("nqn.2026-01.test:host", "nqn.2026-01.test:volume") != nullptr);
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  switch (input.u8() % 4) {
    case 1:
      host(input);
      break;
    case 2:
      both(input);
      break;
    default:
      controller(input);
  }
  key_text(input.rest());
  key_text(bytes);
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  std::vector<uint8_t> filling(256, 0x5a);
  const Bytes value = filling;
  for (const GroupId group : {GroupId::none, GroupId::ffdhe2048}) {
    const std::string name = to_string(group);
    const Bytes dh = value.first(dh_value_bytes(group));
    const Message negotiate = write(Negotiate{9, {HashId::sha256}, {group}});
    Reply reply{9, 5, value.first(32), value.first(32), dh};
    const Message replied = write(reply, HashId::sha256);
    out.push_back({"controller-" + name, FuzzOutput().u8(0).blob(negotiate).u8(1).blob(replied).u8(1).bytes()});
    out.push_back(
        {"controller-success2-" + name,
         FuzzOutput().u8(0).blob(negotiate).u8(1).blob(write_success2(9)).u8(1).blob(negotiate).u8(0).bytes()});
    Challenge challenge{9, HashId::sha256, group, 3, value.first(32), dh};
    const Message success = write(Success1{9, value.first(32)}, HashId::sha256);
    out.push_back({"host-" + name, FuzzOutput().u8(1).blob(write(challenge)).u8(0).blob(success).u8(0).bytes()});
  }
  const Message failure1 = write_failure(MessageId::failure1, 9, Reason::failed);
  const Message failure2 = write_failure(MessageId::failure2, 9, Reason::group_not_usable);
  out.push_back({"host-failure1", FuzzOutput().u8(1).blob(failure1).u8(0).bytes()});
  out.push_back({"controller-failure2", FuzzOutput().u8(0).blob(failure2).u8(0).bytes()});
  for (const unsigned two_way : {0u, 1u}) {
    for (const unsigned hash : {0u, 1u, 2u})
      out.push_back({"both-" + std::to_string(two_way) + "-" + std::to_string(hash),
                     FuzzOutput().u8(2).u8(two_way).u8(hash).bytes()});
    // In the middle of each message.
    for (unsigned message = 0; message < 4; message++) {
      FuzzOutput meddled;
      meddled.u8(2).u8(two_way).u8(0);
      for (unsigned before = 0; before < message; before++)
        meddled.no_patch();
      const uint8_t value[] = {0xa5};
      out.push_back(
          {"meddled-" + std::to_string(two_way) + "-" + std::to_string(message), meddled.patch_one(20, value).bytes()});
    }
  }
  const char* texts[] = {
      "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
      "DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:",
      "DHHC-2:00:",
      "DHHC-1:04:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
      "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR",
      "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaS:",
      "DHHC-1:00:/+ECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+Kfi==:",
      "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+Kfi~=:",
      "DHHC-1:00:AAA=:",
      "DHHC-1:00:AAB=:",  // bits where there should be none
      "DHHC-1:00:AAAAAAA=:",
      "DHHC-1:00:AI3vAtI=:",  // too short, with a right checksum
      "DHHC-1:00::",
      "NVMeTLSkey-1:00:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:",
      "NVMeTLSkey-1:02:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3W2LxIcLXVsDn8kXZQ==:",
      "NVMeTLSkey-1:03:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:",
      "NVMeTLSkey-1:00:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ",
      "NVMeTLSkey-1:00:AI3vAtI=:",
  };
  for (const char* text : texts)
    out.push_back({"secret-" + std::to_string(out.size()), FuzzOutput().add(std::string(text)).bytes()});
  return out;
}

BASALT_FUZZ_TARGET(auth_message, run, seeds)

}  // namespace
}  // namespace basalt::nvmf::auth
