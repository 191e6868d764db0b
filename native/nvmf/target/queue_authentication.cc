// SPDX-License-Identifier: Apache-2.0
#include "nvmf/target/queue_authentication.h"

#include "nvmf/target/queue.h"
#include "nvmf/target/target.h"

namespace basalt::nvmf {
namespace {

// A host that has read AUTH_Failure1 ends the connection itself; one that does not is not waited for.
constexpr Duration failed_linger = seconds(2);

}  // namespace

QueueAuthentication::QueueAuthentication(Target& target, TargetQueue& queue) : target_(target), queue_(queue) {
  deadline_.owner = this;
  deadline_.run = expired;
  if (queue.admitted()) return;  // it authenticates anew, or unasked
  target_.home().arm_after(&deadline_, target_.limits().authentication_timeout);
  target_.unauthenticated_.push_back(this);
  if (++target_.unauthenticated_count_ > target_.limits().unauthenticated_max) {
    QueueAuthentication* oldest = target_.unauthenticated_.front();
    oldest->leave_list();
    oldest->queue_.end_unauthenticated();
  }
}

QueueAuthentication::~QueueAuthentication() {
  target_.home().cancel(&deadline_);
  leave_list();
}

void QueueAuthentication::leave_list() {
  if (!node.linked()) return;
  node.unlink();
  target_.unauthenticated_count_--;
}

void QueueAuthentication::succeeded() {
  side_.reset();
  target_.home().cancel(&deadline_);
  leave_list();
}

void QueueAuthentication::failed() {
  if (failed_) return;
  failed_ = true;
  target_.home().cancel(&deadline_);
  target_.home().arm_after(&deadline_, failed_linger);
}

void QueueAuthentication::expired(Work* work) {
  static_cast<Deadline*>(work)->owner->queue_.end_unauthenticated();
}

}  // namespace basalt::nvmf
