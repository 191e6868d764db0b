// SPDX-License-Identifier: Apache-2.0
// What happens on a live association beside I/O: asynchronous events and keep-alive.
#include <algorithm>

#include "base/bytes.h"
#include "nvmf/host/controller.h"

namespace basalt::nvmf {
namespace {

constexpr uint32_t event_namespace_attribute = 1u << 8;
constexpr uint32_t event_ana_change = 1u << 11;
constexpr uint8_t event_type_notice = 2;
constexpr uint8_t notice_namespace_changed = 0x00;
constexpr uint8_t notice_ana_changed = 0x03;
constexpr uint32_t changed_namespace_list_bytes = 4096;

}  // namespace

Task<Outcome> HostController::start_events() {
  Call call;
  call.command.opcode = static_cast<uint8_t>(nvme::AdminOpcode::set_features);
  call.command.cdw10 = static_cast<uint32_t>(nvme::FeatureId::async_event_configuration);
  call.command.cdw11 = event_namespace_attribute | (info_.ana ? event_ana_change : 0);
  const Answer answer = co_await call_on(*admin_, call);
  if (answer.lost || state_ == State::lost) co_return refused("Set Features Async Event Configuration", answer);
  // A controller that has no such events is looked at when it connects, and that is all.
  if (!answer.status.ok()) co_return success();
  event_request_count_ = 1;
  for (size_t i = 0; i < event_request_count_; i++)
    send_event_request(&event_requests_[i]);
  co_return success();
}

void HostController::send_event_request(HostCommand* request) {
  request->command = {};
  request->command.opcode = static_cast<uint8_t>(nvme::AdminOpcode::async_event_request);
  request->unaged = true;
  request->context = this;
  request->done = [](HostCommand* done) { static_cast<HostController*>(done->context)->event_arrived(done); };
  admin_->submit(request);
}

void HostController::event_arrived(HostCommand* request) {
  if (state_ == State::lost || request->lost) return;
  if (!request->status().ok()) return;  // refused: no events from this controller
  const auto type = static_cast<uint8_t>(request->completion.dw0 & 7);
  const auto notice = static_cast<uint8_t>(request->completion.dw0 >> 8);
  send_event_request(request);
  if (type != event_type_notice) return;
  if (notice == notice_namespace_changed) refresh(true);
  if (notice == notice_ana_changed) refresh(false);
}

void HostController::refresh_ana() {
  if (live() && info_.ana) refresh(false);
}

void HostController::refresh_namespaces() {
  if (live()) refresh(true);
}

void HostController::refresh(bool identify) {
  refresh_identify_ |= identify;
  refresh_ana_ = true;
  if (refreshing_ || !gate_.enter()) return;
  refreshing_ = true;
  spawn(refresh_steps());
}

// Reads until nothing has changed since the reading began.
Task<void> HostController::refresh_steps() {
  Gate::Leaver leaver(gate_);
  while ((refresh_identify_ || refresh_ana_) && state_ != State::lost) {
    const bool identify = std::exchange(refresh_identify_, false);
    refresh_ana_ = false;
    Outcome outcome = success();
    if (identify) {
      // Reading the list is what lets the controller send the next event of this kind.
      std::vector<uint8_t> changed(changed_namespace_list_bytes, 0);
      const Answer answer =
          co_await log_page(nvme::LogPageId::changed_namespace_list, changed.data(), changed_namespace_list_bytes);
      if (answer.lost) break;
      if (options_.node_link && live() && listener_ != nullptr) tell_changed(changed);
      if (options_.node_link) continue;
      outcome = co_await identify_namespaces();
    } else {
      outcome = co_await read_ana_log();
    }
    if (state_ == State::lost) break;
    if (!outcome) {
      fail(outcome.error());
      break;
    }
    if (live() && listener_ != nullptr) listener_->namespaces_changed();
  }
  refreshing_ = false;
}

void HostController::tell_changed(const std::vector<uint8_t>& list) {
  std::vector<uint32_t> numbers;
  for (size_t at = 0; at + 4 <= list.size(); at += 4) {
    const auto number = load_le<uint32_t>(list.data() + at);
    if (number == 0) break;
    numbers.push_back(number);
  }
  const bool all = !numbers.empty() && numbers.front() == UINT32_MAX;
  listener_->attachments_changed(numbers, all);
}

void HostController::start_keep_alive() {
  if (options_.keep_alive_ms == 0) return;
  keep_alive_sent_ = reactor_.now();
  reactor_.arm(&keep_alive_timer_, keep_alive_sent_ + milliseconds(options_.keep_alive_ms) / 2);
}

Instant HostController::next_keep_alive() const {
  const bool rare = options_.keep_alive_rare_ms != 0 && listener_ != nullptr && listener_->vouches();
  return keep_alive_sent_ + milliseconds(rare ? options_.keep_alive_rare_ms : options_.keep_alive_ms) / 2;
}

// Due to be sent, or due to have been answered.
void HostController::keep_alive_due() {
  if (state_ == State::lost) return;
  if (keep_alive_outstanding_) {
    return fail({Errc::timed_out, options_.address.to_string() + ": keep-alive had no answer within " +
                                      std::to_string(options_.keep_alive_ms) + " ms"});
  }
  const Instant next = next_keep_alive();
  if (next > reactor_.now()) return reactor_.arm(&keep_alive_timer_, next);
  send_keep_alive();
}

void HostController::send_keep_alive() {
  keep_alive_outstanding_ = true;
  keep_alive_sent_ = reactor_.now();
  keep_alive_.command = {};
  keep_alive_.command.opcode = static_cast<uint8_t>(nvme::AdminOpcode::keep_alive);
  keep_alive_.context = this;
  keep_alive_.done = [](HostCommand* done) { static_cast<HostController*>(done->context)->keep_alive_answered(); };
  reactor_.arm(&keep_alive_timer_, keep_alive_sent_ + milliseconds(options_.keep_alive_ms));
  admin_->submit(&keep_alive_);
}

void HostController::ask() {
  if (!live() || options_.keep_alive_ms == 0 || keep_alive_outstanding_) return;
  reactor_.cancel(&keep_alive_timer_);
  send_keep_alive();
}

void HostController::keep_alive_answered() {
  keep_alive_outstanding_ = false;
  if (state_ == State::lost || keep_alive_.lost) return;
  if (!keep_alive_.status().ok()) {
    return fail({Errc::io, options_.address.to_string() + ": Keep Alive: " + nvme::to_string(keep_alive_.status())});
  }
  reactor_.cancel(&keep_alive_timer_);
  reactor_.arm(&keep_alive_timer_, std::max(next_keep_alive(), reactor_.now()));
}

}  // namespace basalt::nvmf
