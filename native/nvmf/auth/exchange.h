// SPDX-License-Identifier: Apache-2.0
// What both sides of DH-HMAC-CHAP share: who they are, what they may use, and the responses.
#pragma once

#include <functional>
#include <string>

#include "nvmf/auth/message.h"
#include "nvmf/auth/secret.h"

namespace basalt::nvmf::auth {

// The longest first.
std::vector<HashId> default_hashes();
// 3072 bits first, as strong as the 128 bits of what it protects. The NULL group is not among them: without
// Diffie-Hellman, who records the exchange may try weak secrets on it.
std::vector<GroupId> default_groups();

// What a side may use, in order of preference.
struct Policy {
  std::vector<HashId> hashes = default_hashes();
  std::vector<GroupId> groups = default_groups();
};

struct Parties {
  std::string hostnqn;
  std::string subnqn;
};

// Fills a range with unpredictable bytes.
using Random = std::function<void(void* out, size_t length_bytes)>;

enum class Side : uint8_t { host, controller };

// What a side is challenged with, and with whose key it answers.
struct Question {
  HashId hash = HashId::sha256;
  Bytes challenge;
  uint32_t sequence = 0;
  uint16_t transaction = 0;
  const crypto::SecretBytes* session = nullptr;  // g^xy mod p; nullptr: the NULL group
};

// The answer of `side`, which proves that it knows `secret`.
crypto::Digest response_of(Side side, const Question& question, const Secret& secret, const Parties& parties);

}  // namespace basalt::nvmf::auth
