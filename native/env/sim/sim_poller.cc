// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_poller.h"

#include "base/assert.h"
#include "env/sim/sim_rdma.h"

namespace basalt::env {

SimPoller::SimPoller(SimNode& node) : node_(node) {}
SimPoller::~SimPoller() = default;

Rdma* SimPoller::rdma() {
  if (rdma_ == nullptr) rdma_ = std::make_unique<SimRdma>(node_.world().rdma(), node_.name());
  return rdma_.get();
}

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
  if (rdma_ != nullptr) count += rdma_->poll();
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
