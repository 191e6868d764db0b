// SPDX-License-Identifier: Apache-2.0
#include "nvmf/host/transport.h"

namespace basalt::nvmf {

HostQueue::~HostQueue() {
  BASALT_ASSERT(outstanding_count_ == 0);
  reactor_.cancel(&age_timer_);
}

void HostQueue::submit(HostCommand* command) {
  command->submitted = reactor_.now();
  command->lost = false;
  command->completion = {};
  outstanding_count_++;
  BASALT_ASSERT(!drained_);  // closed but not drained: it is lost with the others
  if (command->unaged) {
    unaged_.push_back(command);
  } else {
    outstanding_.push_back(command);
    if (!age_timer_.armed() && !closed_) {
      age_timer_.queue = this;
      age_timer_.run = [](Work* work) { static_cast<AgeTimer*>(work)->queue->check_age(); };
      reactor_.arm(&age_timer_, command->submitted + timeout_);
    }
  }
  if (!closed_) start(command);
}

void HostQueue::set_timeout(Duration timeout) {
  timeout_ = timeout;
  if (!age_timer_.armed()) return;
  reactor_.arm(&age_timer_, reactor_.now());  // looks again
}

void HostQueue::check_age() {
  const HostCommand* oldest = outstanding_.front();
  if (oldest == nullptr || closed_) return;
  if (oldest->submitted + timeout_ > reactor_.now()) {
    reactor_.arm(&age_timer_, oldest->submitted + timeout_);
  } else if (owner_ != nullptr) {
    owner_->queue_timed_out(*this, *oldest);
  }
}

void HostQueue::complete(HostCommand* command) {
  BASALT_ASSERT(outstanding_count_ > 0);
  outstanding_count_--;
  command->node.unlink();
  command->done(command);
}

void HostQueue::close() {
  if (closed_) return;
  closed_ = true;
  reactor_.cancel(&age_timer_);
  end_connection();
}

void HostQueue::lose(Error reason) {
  if (closed_) return;
  close();
  if (owner_ != nullptr) owner_->queue_lost(*this, reason);
}

void HostQueue::all_lost() {
  BASALT_ASSERT(closed_ && !drained_);
  // A done handler may submit again: those are lost too, in this same loop.
  for (;;) {
    HostCommand* command = outstanding_.front();
    if (command == nullptr) command = unaged_.front();
    if (command == nullptr) break;
    if (command->wait_node.linked()) command->wait_node.unlink();
    command->lost = true;
    command->completion = {};
    command->set_status(nvme::status::host_path_error);
    complete(command);
  }
  drained_ = true;
  if (owner_ != nullptr) owner_->queue_drained(*this);
}

}  // namespace basalt::nvmf
