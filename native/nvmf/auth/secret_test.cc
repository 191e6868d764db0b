// SPDX-License-Identifier: Apache-2.0
// Secrets and responses against other implementations: texts made by nvme-cli and by a script over another language's
// crypto library, responses by that script from the formulas of the specification.
#include "nvmf/auth/secret.h"

#include <gtest/gtest.h>

#include <string>

#include "crypto/hex_testing.h"
#include "nvmf/auth/exchange.h"

namespace basalt::nvmf::auth {
namespace {

using crypto::to_hex;

constexpr char hostnqn[] = "nqn.2026-01.test:host";
constexpr char subnqn[] = "nqn.2026-01.test:volume";
// Keys that count up from 0 and from 100.
constexpr char plain_text[] = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
constexpr const char* host_texts[] = {
    "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
    "DHHC-1:02:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vcSEgBQ==:",
    "DHHC-1:03:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P4zODhA=:"};
constexpr const char* controller_texts[] = {
    "DHHC-1:01:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:",
    "DHHC-1:02:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOEhYaHiImKi4yNjo+QkZKTvGwQfg==:",
    "DHHC-1:03:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOEhYaHiImKi4yNjo+QkZKTlJWWl5iZmpucnZ6foKGio8FPdnY=:"};
// What nvme-cli 2.3 makes of the first key, bound to the host NQN by SHA-256.
constexpr char bound_text[] = "DHHC-1:01:OOKF2V1xUAzmIdDsgXbENLraUVjlEGt5F5/amq3K81BP0ZF1:";

Secret secret_of(const char* text) {
  auto secret = Secret::parse(text);
  BASALT_ASSERT(secret.ok());
  return std::move(secret).value();
}

std::vector<uint8_t> counting(size_t length, unsigned from) {
  std::vector<uint8_t> out(length);
  for (size_t i = 0; i < length; i++)
    out[i] = static_cast<uint8_t>(i + from);
  return out;
}

TEST(Secret, HoldsTheKeyOfItsText) {
  EXPECT_EQ(to_hex(crypto::as_bytes(secret_of(plain_text).key_of(hostnqn))), to_hex(counting(32, 0)));
  for (const char* text : host_texts)
    EXPECT_TRUE(Secret::parse(text).ok()) << text;
  for (const char* text : controller_texts)
    EXPECT_TRUE(Secret::parse(text).ok()) << text;
}

TEST(Secret, IsBoundToItsOwnersNqnAsNvmeCliDoesIt) {
  const Secret bound = secret_of(bound_text);
  const Secret free = secret_of(host_texts[0]);
  const std::string text = bound_text;
  // Without the transformation of its own, the bound text's key is the other one's, transformed.
  const Secret bound_key = secret_of(("DHHC-1:00" + text.substr(9)).c_str());
  EXPECT_EQ(to_hex(crypto::as_bytes(free.key_of(hostnqn))), to_hex(crypto::as_bytes(bound_key.key_of(hostnqn))));
  EXPECT_NE(to_hex(crypto::as_bytes(free.key_of(hostnqn))), to_hex(crypto::as_bytes(free.key_of(subnqn))));
  EXPECT_TRUE(bound.same_key(bound_key));
  EXPECT_FALSE(bound.same_key(free));
}

TEST(Secret, RefusesATextThatIsDamagedAndDoesNotRepeatIt) {
  const std::string good = plain_text;
  const std::string body = good.substr(10, good.size() - 11);
  std::vector<std::string> bad = {"",
                                  "DHHC-1",
                                  "DHHC-1:",
                                  "DHHC-1:00:",
                                  "DHHC-1:00::",
                                  "DHHC-2" + good.substr(6),
                                  "dhhc-1" + good.substr(6),
                                  "DHHC-1:04:" + body + ":",
                                  "DHHC-1:0:" + body + ":",
                                  "DHHC-1:10:" + body + ":",
                                  "DHHC-1:00:" + body,
                                  "DHHC-1:00:" + body + ":\n",
                                  "DHHC-1:00:" + body + "::",
                                  " " + good,
                                  "DHHC-1:00:" + body.substr(4) + ":",  // 29 bytes
                                  "DHHC-1:00:" + body + "AAAA" + ":",   // 35 bytes
                                  "DHHC-1:00:" + body.substr(0, 20) + "=" + body.substr(21) + ":",
                                  "DHHC-1:00:" + body.substr(0, 20) + "-" + body.substr(21) + ":",
                                  "DHHC-1:00:AAAA:"};
  for (size_t at = 10; at < good.size() - 1; at++) {
    std::string flipped = good;
    flipped[at] = flipped[at] == 'A' ? 'B' : 'A';
    bad.push_back(flipped);
  }
  for (const std::string& text : bad) {
    const auto parsed = Secret::parse(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, Errc::invalid_argument);
    for (size_t at = 10; at + 6 < text.size(); at++)
      EXPECT_EQ(parsed.error().message.find(text.substr(at, 6)), std::string::npos) << parsed.error().message;
  }
  // Bits behind the last byte.
  std::string trailing = host_texts[2];
  trailing[trailing.size() - 3] = 'B';
  EXPECT_FALSE(Secret::parse(trailing).ok());
}

TEST(Response, IsWhatTheSpecificationsFormulasGive) {
  const char* expected[3][3] = {
      {"5a6661fcb8f5db6962951f0f30a5457829f9350fc13d1bbddb41d852b3535b57",
       "fd0c0d5b16a74c35a5885f2fb517d40d94cf39f755eb69596ebd784b94bd7fbe",
       "491488cbba5e7cd5d5cae7fc475de8200118e6c0926bdc54a0e2c2b2b80fb0ab"},
      {"4ade695250766778d535fd059d18feaaf8fb3bad00e89686e360a6543c411d4bd1a4a960f84d1ee4e0344204a53d17b4",
       "95097002cc7926395b70437fbf7fa2366ad7d0bc9c9534665fea7add653078c819fdc93deceded1bf8303238cd192ae0",
       "39c5a5788506b4103e871b79262cc663bbc165e64763de186f976ee243b5c83d2463ce3fa748d52a43b8696f7db7e527"},
      {"17fbcc24b971cd1d27aa1862ab2104c49874188bf8b1dc5738e41ef379e170ee"
       "d378b6dc183fcdcef18d4d6688e95f329d754d3032dae635789f690163af5ccd",
       "e1e26591ffacd31001a4aea4cc6135b6d1f4ebdd0600c748ab75eb362b073339"
       "b24f1c1ba4348bf5e256084821ad0f51cd7495fc21939b2a21dec59e6c05e727",
       "350de239904df87252f8afe449aa6b2dbd9f13d849659c8c33b25e53a95973d3"
       "b449e3ea3da5a87091df8062361c81bddaa714ed42921d787332871bd5aea9ea"}};
  const Parties parties{hostnqn, subnqn};
  const crypto::SecretBytes session = crypto::secret_copy(counting(256, 3));
  for (size_t i = 0; i < 3; i++) {
    const auto hash = static_cast<HashId>(i + 1);
    const auto challenge = counting(digest_bytes(hash), 7);
    const Question plain{hash, challenge, 0x01020304, 0x1122, nullptr};
    const Question augmented{hash, challenge, 0x01020304, 0x1122, &session};
    const Question back{hash, challenge, 0xa0b0c0d0, 0xffee, &session};
    EXPECT_EQ(to_hex(response_of(Side::host, plain, secret_of(plain_text), parties).span()), expected[i][0]);
    EXPECT_EQ(to_hex(response_of(Side::host, augmented, secret_of(host_texts[i]), parties).span()), expected[i][1]);
    EXPECT_EQ(to_hex(response_of(Side::controller, back, secret_of(controller_texts[i]), parties).span()),
              expected[i][2]);
  }
}

}  // namespace
}  // namespace basalt::nvmf::auth
