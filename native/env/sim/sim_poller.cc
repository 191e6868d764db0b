// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_poller.h"

#include "base/assert.h"

namespace basalt::env {

SimPoller::~SimPoller() = default;

size_t SimPoller::poll() {
  // Work that is run may destroy handles whose work stands behind it: forget() finds it in the queue.
  size_t count = 0;
  const size_t batch = ready_.size();
  for (size_t i = 0; i < batch && !ready_.empty(); i++) {
    Work* work = ready_.front().work;
    ready_.pop_front();
    if (work == nullptr) continue;
    work->run(work);
    count++;
  }
  return count;
}

void SimPoller::forget(const void* owner) {
  for (Ready& ready : ready_) {
    if (ready.owner == owner) ready.work = nullptr;
  }
}

void SimPoller::wait(Instant) {
  BASALT_ASSERT(false);
}  // the world turns loops; nobody sleeps

}  // namespace basalt::env
