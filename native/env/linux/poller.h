// SPDX-License-Identifier: Apache-2.0
// The poller of env/linux: one epoll set (edge-triggered sockets, a wake-up eventfd, the file backend's eventfd) and
// one file backend. It sleeps in one place, epoll_pwait2, that sees all of them.
//
// Hot sockets: a socket that moved data within the last turns is tried directly, without asking epoll first (a recv
// that finds nothing costs less than epoll_wait plus recv). A hot socket that stays silent cools down and is left to
// epoll.
#pragma once

#include <memory>

#include "env/env.h"

namespace basalt::env {

Result<std::unique_ptr<Poller>> make_linux_poller(Env& env, const PollerOptions& options);

}  // namespace basalt::env
