// SPDX-License-Identifier: Apache-2.0
// Golden images as text: the offset of each 32-byte piece that is not zero, and its bytes.
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include "bdev/lvol/crash_disk_test_util.h"

namespace basalt::bdev::test {

inline std::string golden_path(const std::string& name) {
  return std::string(BASALT_SOURCE_DIR) + "/native/testdata/" + name;
}

inline void write_golden(const std::string& name, const std::vector<uint8_t>& image) {
  std::ofstream out(golden_path(name));
  char text[32];
  out << "size " << image.size() << "\n";
  for (size_t at = 0; at < image.size(); at += 32) {
    if (all_are(std::vector<uint8_t>(image.begin() + static_cast<ptrdiff_t>(at),
                                     image.begin() + static_cast<ptrdiff_t>(at) + 32),
                0))
      continue;
    // Pieces that repeat one byte are short.
    const bool repeats = all_are(std::vector<uint8_t>(image.begin() + static_cast<ptrdiff_t>(at),
                                                      image.begin() + static_cast<ptrdiff_t>(at) + 32),
                                 image[at]);
    std::snprintf(text, sizeof(text), "%zx ", at);
    out << text;
    for (size_t i = 0; i < (repeats ? 1u : 32u); i++) {
      std::snprintf(text, sizeof(text), "%02x", image[at + i]);
      out << text;
    }
    out << "\n";
  }
}

inline std::vector<uint8_t> read_golden(const std::string& name) {
  std::ifstream in(golden_path(name));
  std::string word;
  size_t size_bytes = 0;
  in >> word >> size_bytes;
  std::vector<uint8_t> image(size_bytes);
  std::string hex;
  while (in >> word >> hex) {
    const size_t at = std::strtoull(word.c_str(), nullptr, 16);
    for (size_t i = 0; i < 32; i++) {
      const std::string byte = hex.size() == 2 ? hex : hex.substr(2 * i, 2);
      image.at(at + i) = static_cast<uint8_t>(std::strtoul(byte.c_str(), nullptr, 16));
    }
  }
  return image;
}

}  // namespace basalt::bdev::test
