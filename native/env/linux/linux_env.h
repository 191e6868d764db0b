// SPDX-License-Identifier: Apache-2.0
// The real world: CLOCK_BOOTTIME, getrandom, one thread per loop, sockets by epoll, files by io_uring or threads.
#pragma once

#include <memory>

#include "env/env.h"

namespace basalt::env {

// Raises RLIMIT_NOFILE to its hard limit. One per process is enough; several work.
std::unique_ptr<Env> make_linux_env();

}  // namespace basalt::env
