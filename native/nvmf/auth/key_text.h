// SPDX-License-Identifier: Apache-2.0
// How keys are written for people and files: base64 of the key and its CRC-32, which finds slips of the pen.
// Invariant: no error repeats anything of the text.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "crypto/bytes.h"

namespace basalt::nvmf::auth {

// `text` is the base64. The error's message says what is wrong with it, for the caller to put a name before.
Result<crypto::SecretBytes> read_key_text(std::string_view text);

// RFC 4648, with padding.
std::string encode_base64(crypto::Bytes bytes);

}  // namespace basalt::nvmf::auth
