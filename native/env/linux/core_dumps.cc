// SPDX-License-Identifier: Apache-2.0
#include "env/linux/core_dumps.h"

#include <sys/prctl.h>

#include "base/assert.h"

namespace basalt::env {

void refuse_core_dumps() {
  // RLIMIT_CORE would not do: a handler that dumps are piped to (core_pattern) is not bound by it.
  const int outcome = prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  BASALT_ASSERT(outcome == 0);  // fails for unknown values only
}

}  // namespace basalt::env
