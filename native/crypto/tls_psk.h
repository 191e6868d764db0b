// SPDX-License-Identifier: Apache-2.0
// TlsPsk: a pre-shared key of TLS 1.3: the name by which the client calls it, the key, and the digest that it goes with
// (SHA-256: TLS_AES_128_GCM_SHA256, SHA-384: TLS_AES_256_GCM_SHA384). The name is no secret.
#pragma once

#include <memory>
#include <string>

#include "crypto/digest.h"

namespace basalt::crypto {

struct TlsPsk {
  std::string identity;
  SecretBytes key;  // as long as the digest
  Hash hash = Hash::sha256;
};
using SharedTlsPsk = std::shared_ptr<const TlsPsk>;

}  // namespace basalt::crypto
