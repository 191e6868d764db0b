// SPDX-License-Identifier: Apache-2.0
// Bytes as hexadecimal digits, two for each.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace basalt {

std::string to_hex(std::string_view bytes);
// Nothing when it is not whole bytes of digits.
std::optional<std::string> from_hex(std::string_view digits);

}  // namespace basalt
