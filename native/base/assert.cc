// SPDX-License-Identifier: Apache-2.0
#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace basalt {

void assert_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "basalt: assertion failed: %s (%s:%d)\n", expression, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace basalt
