// SPDX-License-Identifier: Apache-2.0
// Secret: a DH-HMAC-CHAP secret as tools write it: "DHHC-1:<hash>:<base64 of key and CRC-32>:".
// <hash> says how the key is bound to the NQN of its owner: 00 not at all, 01 SHA-256, 02 SHA-384, 03 SHA-512.
// Immutable: any thread.
// Invariant: neither the text nor the key is ever in an error's message.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "crypto/digest.h"

namespace basalt::nvmf::auth {

class Secret {
 public:
  // Of a 32, 48 or 64 byte key.
  static Result<Secret> parse(std::string_view text);

  // What HMACs are computed with: the key, transformed as the secret asks, for the owner's NQN (the host's secret
  // belongs to the host NQN, the controller's to the subsystem NQN).
  crypto::SecretBytes key_of(std::string_view nqn) const;
  // SHA-256 of that, as hexadecimal digits: tells keys apart, and nothing else about them.
  std::string digest_of(std::string_view nqn) const;
  bool same_key(const Secret& other) const;

 private:
  Secret() = default;
  std::optional<crypto::Hash> transform_;
  crypto::SecretBytes key_;
};

using SharedSecret = std::shared_ptr<const Secret>;

}  // namespace basalt::nvmf::auth
