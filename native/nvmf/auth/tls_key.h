// SPDX-License-Identifier: Apache-2.0
// TlsKey: a host's key for TLS over TCP, as tools write it: "NVMeTLSkey-1:<hash>:<base64 of key and CRC-32>:", and the
// pre-shared keys of TLS that come out of it, one for each subsystem.
// <hash> says how the key is bound to the host NQN: 00 not at all, 01 SHA-256, 02 SHA-384. A key of 32 bytes goes with
// SHA-256 in TLS, one of 48 with SHA-384.
// Immutable: any thread.
// Invariant: neither the text nor the key is ever in an error's message.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "crypto/tls_psk.h"

namespace basalt::nvmf::auth {

class TlsKey {
 public:
  static Result<TlsKey> parse(std::string_view text);

  // What a host and a controller of this subsystem use; of identity version 1.
  crypto::SharedTlsPsk psk(std::string_view hostnqn, std::string_view subnqn) const;
  bool same_key(const TlsKey& other) const;

 private:
  TlsKey() = default;
  crypto::SecretBytes retained(std::string_view hostnqn) const;
  crypto::Hash hash() const { return key_.size() == 32 ? crypto::Hash::sha256 : crypto::Hash::sha384; }

  std::optional<crypto::Hash> transform_;
  crypto::SecretBytes key_;
};

using SharedTlsKey = std::shared_ptr<const TlsKey>;

}  // namespace basalt::nvmf::auth
