// SPDX-License-Identifier: Apache-2.0
// HKDF (RFC 5869) over this folder's HMAC, with the labels of TLS 1.3 (RFC 8446, 7.1).
// Thread: any.
#pragma once

#include <string_view>

#include "crypto/digest.h"

namespace basalt::crypto {

// An empty salt stands for as many zeroes as the digest is long.
Digest hkdf_extract(Hash hash, Bytes salt, Bytes input);

// At most 255 digests of output.
SecretBytes hkdf_expand(Hash hash, Bytes key, Bytes info, size_t length_bytes);

// HKDF-Expand-Label: `label` without its "tls13 "; label and context have at most 249 and 255 bytes.
SecretBytes hkdf_expand_label(Hash hash, Bytes key, std::string_view label, std::string_view context,
                              size_t length_bytes);

}  // namespace basalt::crypto
