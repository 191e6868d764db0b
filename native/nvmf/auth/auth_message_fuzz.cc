// SPDX-License-Identifier: Apache-2.0
// Any sequence of messages to either side of an authentication: nobody is authenticated who does not know the key,
// every refusal is a well-formed AUTH_Failure, and one that was given is the last word.
#include "nvmf/auth/controller_side.h"
#include "nvmf/auth/host_side.h"
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

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  if ((input.u8() & 1) == 0) {
    controller(input);
  } else {
    host(input);
  }
  const auto text = input.rest();
  (void)Secret::parse({reinterpret_cast<const char*>(text.data()), text.size()});
  (void)Secret::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
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
  const std::string text = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
  out.push_back({"secret", FuzzOutput().add(text).bytes()});
  return out;
}

}  // namespace
}  // namespace basalt::nvmf::auth

BASALT_FUZZ_TARGET(auth_message, basalt::nvmf::auth::run, basalt::nvmf::auth::seeds)
