// SPDX-License-Identifier: Apache-2.0
#include "nvmf/target/controller.h"

#include <algorithm>

#include "nvmf/target/queue_authentication.h"

namespace basalt::nvmf {

Controller::Controller(Target& target, Subsystem& subsystem, SubsystemListener* path, Listener& listener,
                       const ControllerOptions& options)
    : target_(target),
      subsystem_(subsystem),
      path_(path),
      listener_(listener),
      options_(options),
      attachments_(subsystem.options().node_link
                       ? std::make_unique<Attachments>(subsystem.options().attachments_max,
                                                       subsystem.options().planted_ignore_epoch)
                       : nullptr),
      keep_alive_ms_(options.keep_alive_ms) {
  last_keep_alive_ = target.home().now();
  keep_alive_timer_.owner = this;
  keep_alive_timer_.run = keep_alive_due;
  arm_keep_alive();
}

Controller::~Controller() {
  BASALT_ASSERT(queues_.empty() && async_requests_.empty());
  target_.home().cancel(&keep_alive_timer_);
}

size_t Controller::io_queue_count() const {
  return static_cast<size_t>(
      std::count_if(queues_.begin(), queues_.end(), [](const TargetQueue* queue) { return queue->qid_ != 0; }));
}

bool Controller::has_queue(uint16_t qid) const {
  return std::any_of(queues_.begin(), queues_.end(), [&](const TargetQueue* queue) { return queue->qid_ == qid; });
}

size_t Controller::admitted_queue_count() const {
  return static_cast<size_t>(
      std::count_if(queues_.begin(), queues_.end(), [](const TargetQueue* queue) { return queue->admitted(); }));
}

void Controller::attach(TargetQueue* queue, bool authentication) {
  BASALT_ASSERT(!ending_);
  queue->admitted_.store(!authentication, std::memory_order_release);
  if (authentication) queue->authentication_ = std::make_unique<QueueAuthentication>(target_, *queue);
  queue->controller_ = this;
  queue->subsystem_ = &subsystem_;
  queue->path_ = path_;
  queue->attachments_ = attachments_.get();
  queue->hostid_ = options_.hostid;
  queues_.push_back(queue);
}

void Controller::detach(TargetQueue* queue) {
  std::erase(queues_, queue);
  queue->controller_ = nullptr;
  queue->authentication_.reset();
  if (queue->qid_ == 0 && !ending_) {
    terminate();  // without its admin queue; may be the end of this object
    return;
  }
  maybe_gone();
}

void Controller::terminate() {
  if (ending_) return;
  ending_ = true;
  ended_.store(true, std::memory_order_release);
  enabled_.store(false, std::memory_order_release);
  target_.home().cancel(&keep_alive_timer_);
  abort_async_events(nvme::status::aborted_sq_deletion);
  for (TargetQueue* queue : queues_)
    queue->ask_close();
  maybe_gone();
}

void Controller::maybe_gone() {
  if (!ending_ || !queues_.empty() || gone_) return;
  gone_ = true;
  const auto waiters = std::move(gone_waiters_);
  auto& list = subsystem_.controllers_;
  const uint16_t cntlid = options_.cntlid;
  const uint64_t cirn = options_.cirn;
  std::erase_if(list, [this](const auto& held) { return held.get() == this; });
  for (const auto& other : list)
    other->instance_gone(cntlid, cirn);
  // This object is gone; the waiters look at the subsystem's list again.
  for (const auto waiter : waiters)
    waiter.resume();
}

void Controller::arm_keep_alive() {
  target_.home().cancel(&keep_alive_timer_);
  if (keep_alive_ms_ == 0) return;
  target_.home().arm(&keep_alive_timer_, last_keep_alive_ + milliseconds(keep_alive_ms_));
}

// Any command on any queue counts: keep-alive by traffic.
void Controller::keep_alive_due(Work* work) {
  Controller& self = *static_cast<KeepAliveTimer*>(work)->owner;
  for (const TargetQueue* queue : self.queues_) {
    const Instant last{queue->last_command_ns_.load(std::memory_order_relaxed)};
    self.last_keep_alive_ = std::max(self.last_keep_alive_, last);
    // A host that works on its authentication sends nothing else; that has a time-out of its own.
    if (queue->qid_ == 0 && !queue->admitted()) self.last_keep_alive_ = self.target_.home().now();
  }
  // Admin commands moved last_keep_alive_ without arming the timer anew.
  if (self.last_keep_alive_ + milliseconds(self.keep_alive_ms_) > self.target_.home().now()) {
    self.arm_keep_alive();
    return;
  }
  self.status_ |= 2;  // CSTS.CFS
  self.terminate();
}

}  // namespace basalt::nvmf
