// SPDX-License-Identifier: Apache-2.0
// Uuid: 16 bytes in RFC 4122 order; text form is lower case with hyphens. Also used for NVMe host identifiers.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace basalt {

struct Uuid {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;
  bool is_zero() const { return *this == Uuid{}; }
  std::string to_string() const;
  static std::optional<Uuid> parse(std::string_view text);
};

}  // namespace basalt
