// SPDX-License-Identifier: Apache-2.0
#include "crypto/bytes.h"

#include <openssl/crypto.h>

namespace basalt::crypto {

bool equal(Bytes one, Bytes other) {
  return one.size() == other.size() && (one.empty() || CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0);
}

}  // namespace basalt::crypto
