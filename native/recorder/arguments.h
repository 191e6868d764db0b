// SPDX-License-Identifier: Apache-2.0
// What the command line of basalt_history asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace basalt::recorder {

struct Arguments {
  std::string device;
  std::string history;
  bool resume = false;
  bool erase = false;
  bool durable = false;
  std::optional<uint64_t> volume;  // of the stamps; drawn when not given
  std::optional<uint64_t> seed;
  uint64_t first_block = 0;
  uint64_t block_count = 1024;
  uint64_t client_count = 8;
  uint64_t rate = 0;             // operations per second, all clients together; 0: as many as the device carries
  uint64_t operation_count = 0;  // 0: no end by number
  uint64_t length_s = 0;         // 0: no end by time
};

const char* usage_text();

// The error names the option.
Result<Arguments> read_arguments(const std::vector<std::string>& words);

}  // namespace basalt::recorder
