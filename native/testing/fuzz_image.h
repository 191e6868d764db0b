// SPDX-License-Identifier: Apache-2.0
// Damage to an image, page by page, as fuzz targets of on-disk readers describe it: overwrites, misdirected pages,
// blank ones, torn ones, and pages that are sealed again, so that the damage lies behind a right checksum.
#pragma once

#include "base/bytes.h"
#include "base/crc32c.h"
#include "testing/fuzz_target.h"

namespace basalt::testing {

class FuzzDamage {
 public:
  static constexpr size_t page_bytes = 4096;
  static constexpr size_t sector_bytes = 512;
  enum Kind : uint8_t { patch = 0, copy = 1, blank = 2, tear = 3, kind_count = 4 };
  static constexpr uint8_t flag_reseal = 0x80;
  // What the pages are: how to seal one, and which of its bytes are a checksum (a fuzzer finds the right one).
  struct Format {
    void (*reseal)(uint8_t* page, size_t index);
    bool (*in_checksum)(size_t index, size_t offset);
  };

  // All that the input asks for, up to a limit, each to the image that pick(input) gives; none: that was all.
  template <class Pick>
  void take_all(FuzzInput& input, Pick pick, size_t page_count, const Format& format) {
    for (unsigned left = pieces_max; left > 0 && !input.empty(); left--) {
      const std::span<uint8_t> image = pick(input);
      if (image.empty()) return;
      take(input, image, page_count, format);
    }
  }
  // The checksum of a page whose header has it at its usual place.
  static void seal(uint8_t* page) {
    store_le<uint32_t>(page + 8, 0);
    store_le<uint32_t>(page + 8, crc32c(0, page, page_bytes));
  }

  // Takes one piece of damage from the input and does it to pages [0, page_count) of the image.
  void take(FuzzInput& input, std::span<uint8_t> image, size_t page_count, const Format& format) {
    const uint8_t what = input.u8();
    const size_t index = input.u8() % page_count;
    uint8_t* page = image.data() + index * page_bytes;
    page_last = std::max(page_last, index);
    switch ((what & ~flag_reseal) % kind_count) {
      case patch: {
        const size_t offset = input.u16() % page_bytes;
        const auto bytes = input.take(input.u8());
        for (size_t i = 0; i < bytes.size() && offset + i < page_bytes; i++) {
          page[offset + i] = bytes[i];
          forged |= format.in_checksum(index, offset + i);
        }
        break;
      }
      case copy:
        std::memmove(page, image.data() + input.u8() % page_count * page_bytes, page_bytes);
        forged = true;
        break;
      case blank:
        std::memset(page, input.u8(), page_bytes);
        break;
      case tear: {
        const uint8_t* from = image.data() + input.u8() % page_count * page_bytes;
        const uint8_t sectors = input.u8();
        for (size_t i = 0; i < page_bytes / sector_bytes; i++)
          if ((sectors >> i & 1) != 0) std::memmove(page + i * sector_bytes, from + i * sector_bytes, sector_bytes);
        forged = true;
        break;
      }
    }
    if ((what & flag_reseal) == 0) return;
    format.reseal(page, index);
    forged = true;
  }

  // Some of it may pass for what the writer wrote: checksums cannot tell.
  bool forged = false;
  size_t page_last = 0;  // the last one that was damaged

 private:
  static constexpr unsigned pieces_max = 64;
};

}  // namespace basalt::testing
