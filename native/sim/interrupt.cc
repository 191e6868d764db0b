// SPDX-License-Identifier: Apache-2.0
#include "sim/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/assert.h"

namespace basalt::sim {

Interrupt::Interrupt() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  BASALT_ASSERT(fd_ >= 0);
}

Interrupt::~Interrupt() {
  close(fd_);
}

bool Interrupt::seen() const {
  pollfd wanted{fd_, POLLIN, 0};
  return poll(&wanted, 1, 0) > 0;
}

}  // namespace basalt::sim
