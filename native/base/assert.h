// SPDX-License-Identifier: Apache-2.0
// Assertions that stay on in release builds: broken code stops at once, before it can harm data.
// BASALT_ASSERT_SLOW is for checks that walk structures; they run in debug and sanitizer builds only.
#pragma once

namespace basalt {
[[noreturn]] void assert_failed(const char* expression, const char* file, int line);
}

#define BASALT_ASSERT(expression)                               \
  (__builtin_expect(static_cast<bool>(expression), 1) ? void(0) \
                                                      : ::basalt::assert_failed(#expression, __FILE__, __LINE__))
#ifdef BASALT_SLOW_CHECKS
#define BASALT_ASSERT_SLOW(expression) BASALT_ASSERT(expression)
#else
#define BASALT_ASSERT_SLOW(expression) void(0)
#endif
