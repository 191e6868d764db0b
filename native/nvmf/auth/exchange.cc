// SPDX-License-Identifier: Apache-2.0
#include "nvmf/auth/exchange.h"

#include "base/bytes.h"

namespace basalt::nvmf::auth {

std::vector<HashId> default_hashes() {
  return {HashId::sha512, HashId::sha384, HashId::sha256};
}

std::vector<GroupId> default_groups() {
  return {GroupId::ffdhe3072, GroupId::ffdhe4096, GroupId::ffdhe6144, GroupId::ffdhe8192, GroupId::ffdhe2048};
}

crypto::Digest response_of(Side side, const Question& question, const Secret& secret, const Parties& parties) {
  const crypto::Hash hash = hash_of(question.hash);
  crypto::Digest challenge(hash);
  BASALT_ASSERT(question.challenge.size() == challenge.size());
  if (question.session == nullptr) {
    std::memcpy(challenge.data(), question.challenge.data(), challenge.size());
  } else {
    // Augmented with what only the two ends of this exchange know.
    const crypto::Digest session = crypto::digest(hash, crypto::as_bytes(*question.session));
    challenge = crypto::Hmac(hash, session.span()).add(question.challenge).finish();
  }
  const bool host = side == Side::host;
  const std::string& own = host ? parties.hostnqn : parties.subnqn;
  const std::string& other = host ? parties.subnqn : parties.hostnqn;
  uint8_t numbers[7];
  store_le<uint32_t>(numbers, question.sequence);
  store_le<uint16_t>(numbers + 4, question.transaction);
  numbers[6] = 0;  // SC_C
  const uint8_t zero = 0;
  const crypto::SecretBytes key = secret.key_of(own);
  return crypto::Hmac(hash, crypto::as_bytes(key))
      .add(challenge.span())
      .add(numbers)
      .add(host ? "HostHost" : "Controller")
      .add(own)
      .add({&zero, 1})
      .add(other)
      .finish();
}

}  // namespace basalt::nvmf::auth
