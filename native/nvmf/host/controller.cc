// SPDX-License-Identifier: Apache-2.0
#include "nvmf/host/controller.h"

#include <cstdio>

namespace basalt::nvmf {

Outcome HostControllerOptions::check() const {
  const auto wrong = [](std::string message) -> Outcome { return Error{Errc::invalid_argument, std::move(message)}; };
  if (subnqn.empty() || subnqn.size() > nvme::nqn_bytes_max) return wrong("subnqn: 1 to 223 bytes are right");
  if (hostnqn.empty() || hostnqn.size() > nvme::nqn_bytes_max) return wrong("hostnqn: 1 to 223 bytes are right");
  if (hostid.is_zero()) return wrong("hostid: must not be zero");
  if (keep_alive_ms != 0 && keep_alive_ms < 100) return wrong("keep_alive_ms: 0 (none) or at least 100");
  if (keep_alive_rare_ms != 0 && keep_alive_rare_ms < keep_alive_ms) {
    return wrong("keep_alive_rare_ms: 0 (as keep_alive_ms) or at least that");
  }
  if (!discovery && (io_queue_count == 0 || io_queue_count > 64)) return wrong("io_queue_count: 1 to 64");
  if (authentication.controller != nullptr && authentication.host == nullptr) {
    return wrong("dhchap_ctrlr_key: goes with dhchap_key only");
  }
  if (authentication.controller != nullptr && authentication.controller->same_key(*authentication.host)) {
    return wrong("dhchap_ctrlr_key: must be another key than dhchap_key");
  }
  if (io_queue_depth == 0 || io_queue_depth > 1023) return wrong("io_queue_depth: 1 to 1023");
  return success();
}

HostController::HostController(Reactor& reactor, HostTransport& transport, HostControllerOptions options,
                               Listener* listener)
    : reactor_(reactor), transport_(transport), options_(std::move(options)), listener_(listener) {
  keep_alive_timer_.controller = this;
  keep_alive_timer_.run = [](Work* work) { static_cast<OwnedTimer*>(work)->controller->keep_alive_due(); };
  lost_work_.controller = this;
  lost_work_.run = [](Work* work) { static_cast<OwnedWork*>(work)->controller->report_lost(); };
}

HostController::~HostController() {
  BASALT_ASSERT(state_ == State::idle || (state_ == State::lost && undrained_count_ == 0));
}

const HostNamespace* HostController::find(uint32_t nsid) const {
  for (const HostNamespace& ns : namespaces_) {
    if (ns.nsid == nsid) return &ns;
  }
  return nullptr;
}

void HostController::submit(HostCommand* command) {
  BASALT_ASSERT(live() && !io_queues_.empty());
  if (io_queue_next_ >= io_queues_.size()) io_queue_next_ = 0;
  io_queues_[io_queue_next_++]->submit(command);
}

void HostController::set_command_timeout(Duration timeout) {
  for (auto& queue : io_queues_)
    queue->set_timeout(timeout);
}

void HostController::abort(Error reason) {
  fail(std::move(reason));
}

void HostController::queue_lost(HostQueue& queue, const Error& reason) {
  fail(reason);
}

void HostController::queue_timed_out(HostQueue& queue, const HostCommand& command) {
  char text[96];
  std::snprintf(text, sizeof(text), ": opcode 0x%02x on queue %u had no answer in time", command.command.opcode,
                queue.qid());
  fail({Errc::timed_out, options_.address.to_string() + text});
}

// All connections go before anything completes: a command that is lost here may run elsewhere from its done().
void HostController::fail(Error reason) {
  if (state_ == State::lost || state_ == State::idle) return;
  was_live_ = state_ == State::live;
  state_ = State::lost;
  cancelled_ = true;
  reason_ = std::move(reason);
  reactor_.cancel(&keep_alive_timer_);
  (void)lost_gate_.enter();
  if (admin_) admin_->close();
  for (auto& queue : io_queues_)
    queue->close();
  if (undrained_count_ == 0) reactor_.defer(&lost_work_);
}

void HostController::attach(HostQueue& queue) {
  queue.set_owner(this);
  undrained_count_++;
}

void HostController::queue_drained(HostQueue& queue) {
  BASALT_ASSERT(state_ == State::lost && undrained_count_ > 0);
  if (--undrained_count_ == 0) reactor_.defer(&lost_work_);
}

void HostController::report_lost() {
  const bool report = was_live_ && !closing_;
  Listener* listener = listener_;
  const Error reason = reason_;
  lost_gate_.leave();  // close() may go on here and end this object
  if (report && listener != nullptr) listener->controller_lost(reason);
}

Task<void> HostController::close() {
  closing_ = true;
  cancelled_ = true;
  if (live()) {
    // Orderly: CC.SHN = normal. Its answer is not needed for the association to end.
    admin_->set_timeout(milliseconds(500));
    (void)co_await property_set(nvme::property_cc, cc_enabled | cc_shutdown_normal);
  }
  fail({Errc::closed, "closed"});
  co_await lost_gate_.close();
  co_await gate_.close();
  admin_.reset();
  io_queues_.clear();
}

}  // namespace basalt::nvmf
