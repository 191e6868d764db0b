// SPDX-License-Identifier: Apache-2.0
// VerbsFd: one of the libraries' descriptors in the poller's epoll set. They close their descriptors themselves, so
// this holds a copy. `ready` is called, with `context`, when there is something to read, and reads until there is
// nothing. It may destroy this object.
#pragma once

#include <fcntl.h>

#include "env/linux/socket.h"

namespace basalt::env {

class VerbsFd final : Watched, Work {
 public:
  VerbsFd(SocketPoller& poller, int fd, void (*ready)(void*), void* context)
      : Watched(poller, fcntl(fd, F_DUPFD_CLOEXEC, 0)), ready_(ready), context_(context) {
    run = [](Work* work) { static_cast<VerbsFd*>(work)->on_ready(); };
    arm_read(this);
  }

 private:
  void on_ready() {
    read_drained();  // events are edges: what comes from here on is another one
    arm_read(this);
    ready_(context_);
  }
  void (*const ready_)(void*);
  void* const context_;
};

}  // namespace basalt::env
