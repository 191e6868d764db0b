// SPDX-License-Identifier: Apache-2.0
// Keys for TLS against values computed elsewhere: identities by libnvme's own test vectors, pre-shared keys by the
// Linux kernel's for its derivation (from keys that are not bound to the host), and all of it again by the formulas of
// the specification over the HMAC of another language.
#include "nvmf/auth/tls_key.h"

#include <gtest/gtest.h>

#include "crypto/hex_testing.h"
#include "nvmf/auth/key_text.h"

namespace basalt::nvmf::auth {
namespace {

using crypto::to_hex;

constexpr char text_256[] = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
constexpr char text_384[] = "NVMeTLSkey-1:02:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3W2LxIcLXVsDn8kXZQ==:";
constexpr char text_unbound[] = "NVMeTLSkey-1:00:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";

struct Vector {
  std::string text, hostnqn, subnqn, identity, psk;
};

TEST(TlsKey, GivesTheIdentitiesAndKeysOfOtherImplementations) {
  const Vector vectors[] = {
      {text_256, "nqn.psk-test-host", "nqn.psk-test-subsys",
       "NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys iSbjiStwJ/1TrTvDlt2fjFmzvsytOJelidNnA+X5lEU=",
       "8fc3c0badfd4c0c66fa3ca33aadd0314f85536cc9bc47338b60f3e6e563786ca"},
      {text_384, "nqn.psk-test-host", "nqn.psk-test-subsys",
       "NVMe1R02 nqn.psk-test-host nqn.psk-test-subsys "
       "QhW2+Rp6RzHlNtCslyRxMnwJ11tKKhz8JCAQpQ+XUD8f9td1VeH5h53yz2wKJG1a",
       "a2b2f943f479fc682555cec89857c80ed004ce92f32a973d5764155bb7e36b17a85368a0666d250afac9282dda2e62ca"},
      {text_unbound, "nqn.psk-test-host", "nqn.psk-test-subsys",
       "NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys quJVUJjp/BImWR0UQay/MjSfEgyAr6TyBOWybS/B404=",
       "a45d08ee4639c7570729bb3e57e905e466a49a15ece5401af906830c4d3bdb0b"},
      {"NVMeTLSkey-1:00:FzPFn6f0j8839fJvxP8CaK1PeOAw9POwv9HUfnuxRHre+Y7v:", "hostnqn", "subsysnqn",
       "NVMe1R01 hostnqn subsysnqn OldoKuTfKddMuyCznAZojkWD7P4D9/AtzDzLimtOxqI=",
       "3c17da628474a04d2247c4cab47968c915388193f7c071bd9489cc3666cd7cc8"},
      {"NVMeTLSkey-1:00:8Ust0yNMRZaU07xj+JaL1rN8LG3oSeIuEYdJABzku+hkC546dIyxHOSx1x01nM45CD5VHQ==:", "hostnqn",
       "subsysnqn", "NVMe1R02 hostnqn subsysnqn cffMWk8TSS7HOQebjgYEIkrPrjWPV4JE5cdPB8WhEvY4JBW5YynKyv66XscN4A9n",
       "2774753233537b3fa50eb7d16a8e43457d85f4906c005b2236616c5d80939d0898fff15bb8b77119d2be0aac423e7590"}};
  for (const Vector& vector : vectors) {
    const auto key = TlsKey::parse(vector.text);
    ASSERT_TRUE(key.ok()) << key.error().message;
    const crypto::SharedTlsPsk psk = key->psk(vector.hostnqn, vector.subnqn);
    EXPECT_EQ(psk->identity, vector.identity);
    EXPECT_EQ(to_hex(crypto::as_bytes(psk->key)), vector.psk);
    EXPECT_EQ(psk->key.size(), crypto::digest_bytes(psk->hash));
  }
}

TEST(TlsKey, BelongsToOneHostAndSubsystem) {
  const auto key = TlsKey::parse(text_256);
  ASSERT_TRUE(key.ok());
  const auto psk = key->psk("nqn.a", "nqn.b");
  EXPECT_NE(to_hex(crypto::as_bytes(psk->key)), to_hex(crypto::as_bytes(key->psk("nqn.a", "nqn.c")->key)));
  EXPECT_NE(to_hex(crypto::as_bytes(psk->key)), to_hex(crypto::as_bytes(key->psk("nqn.c", "nqn.b")->key)));
  // The longest names that there are.
  EXPECT_EQ(key->psk(std::string(223, 'a'), std::string(223, 'b'))->identity.size(), 8u + 3 + 223 + 223 + 44);
}

TEST(TlsKey, RefusesATextThatIsDamagedAndDoesNotRepeatIt) {
  const std::string body = "VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ";
  const struct {
    std::string text, reason;
  } cases[] = {
      {"", "must begin with NVMeTLSkey-1:"},
      {"DHHC-1:01:" + body + ":", "must begin with NVMeTLSkey-1:"},
      {"NVMeTLSkey-2:01:" + body + ":", "must begin with NVMeTLSkey-1:"},
      {"NVMeTLSkey-1:03:" + body + ":", "the hash must be 00, 01 or 02"},
      {"NVMeTLSkey-1:1:" + body + ":", "the hash must be 00, 01 or 02"},
      {"NVMeTLSkey-1:01:" + body, "must end with a colon"},
      {"NVMeTLSkey-1:01:", "must end with a colon"},
      {"NVMeTLSkey-1:01::", "not base64"},
      {"NVMeTLSkey-1:01:" + body.substr(1) + ":", "not base64"},
      {"NVMeTLSkey-1:01:" + body + "\n:", "not base64"},
      {"NVMeTLSkey-1:01:W" + body.substr(1) + ":", "checksum"},
      {"NVMeTLSkey-1:01:" + body.substr(4) + ":", "checksum"},
      {"NVMeTLSkey-1:01:AAAAAA==:", "too short"},
      {"NVMeTLSkey-1:01:AAAAAAAAjfUBAQ==:", "checksum"},
      // Right, but of 16 bytes.
      {"NVMeTLSkey-1:01:AAAAAAAAAAAAAAAAAAAAAFVLu+w=:", "32 or 48 bytes"},
      {"NVMeTLSkey-1:01:" + std::string(4000, 'A') + ":", "too long"},
  };
  for (const auto& wrong : cases) {
    const auto key = TlsKey::parse(wrong.text);
    ASSERT_FALSE(key.ok()) << wrong.text;
    EXPECT_EQ(key.error().code, Errc::invalid_argument);
    EXPECT_NE(key.error().message.find(wrong.reason), std::string::npos) << wrong.text << ": " << key.error().message;
    EXPECT_EQ(key.error().message.find("VRLb"), std::string::npos);
    EXPECT_EQ(key.error().message.find("tdWwN"), std::string::npos);
  }
}

TEST(KeyText, EncodesBase64WithItsPadding) {
  const struct {
    const char *plain, *encoded;
  } cases[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foobar", "Zm9vYmFy"}};
  for (const auto& each : cases)
    EXPECT_EQ(encode_base64(crypto::as_bytes(each.plain)), each.encoded);
}

}  // namespace
}  // namespace basalt::nvmf::auth
