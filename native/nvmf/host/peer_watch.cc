// SPDX-License-Identifier: Apache-2.0
#include "nvmf/host/peer_watch.h"

#include <algorithm>
#include <utility>

namespace basalt::nvmf {
namespace {

// Of the attempts while the peer is away one takes its time, for a peer that is slow.
constexpr unsigned patient_every = 4;

}  // namespace

PeerWatch::PeerWatch(Reactor& reactor, HostTransport& transport, PeerWatchOptions options, Listener* listener)
    : reactor_(reactor), transport_(transport), options_(std::move(options)), listener_(listener) {
  reactor_.env().random(hostid_.bytes.data(), hostid_.bytes.size());
}

PeerWatch::~PeerWatch() {
  BASALT_ASSERT(controller_ == nullptr);
}

HostControllerOptions PeerWatch::controller_options(Duration connect_timeout) {
  HostControllerOptions options;
  options.address = options_.address;
  options.subnqn = nvme::discovery_nqn;
  options.hostnqn = options_.hostnqn;
  options.hostid = hostid_;
  options.keep_alive_ms = options_.keep_alive_ms;
  options.connect_timeout = connect_timeout;
  options.admin_timeout = connect_timeout;
  options.discovery = true;
  options.authentication = options_.authentication;
  return options;
}

Outcome PeerWatch::start() {
  const Outcome checked = controller_options(options_.connect_timeout).check();
  if (!checked) return checked;
  if (options_.keep_alive_ms == 0) return Error{Errc::invalid_argument, "keep_alive_ms: at least 100"};
  (void)gate_.enter();
  spawn(run());
  return success();
}

void PeerWatch::controller_lost(const Error& reason) {
  live_ = false;
  lost_reason_ = reason;
  wake_.set();
}

void PeerWatch::report_lost() {
  if (!connected_) return;
  connected_ = false;
  if (!stopping_ && listener_ != nullptr) listener_->peer_lost(lost_reason_);
}

void PeerWatch::report_failure(const Error& reason) {
  if (stopping_ || listener_ == nullptr) return;
  if (reason.code == Errc::unreachable) {
    denied_ = false;  // whoever comes next may be another one
    if (!std::exchange(refused_, true)) listener_->peer_refused(reason);
  } else if (reason.code == Errc::permission) {
    refused_ = false;
    if (!std::exchange(denied_, true)) listener_->peer_denied(reason);
  }
}

// After a loss the peer is asked once more, at once: it may have ended the association because this process was
// stalled. A peer that has died refuses at once, so that costs nothing when it matters.
Duration PeerWatch::patience(unsigned attempt) const {
  const Duration hasty = std::min(options_.connect_timeout, milliseconds(options_.keep_alive_ms));
  return connected_ || attempt % patient_every != 0 ? hasty : options_.connect_timeout;
}

Task<void> PeerWatch::run() {
  Gate::Leaver leaver(gate_);
  co_await hop(reactor_);  // nothing happens inside start()
  Duration delay = options_.delay_min;
  unsigned attempt = 0;
  while (!stopping_) {
    HostController::Listener* listener = this;
    controller_ =
        std::make_unique<HostController>(reactor_, transport_, controller_options(patience(attempt++)), listener);
    const Outcome outcome = co_await controller_->connect();
    if (outcome.ok() && !stopping_) {
      delay = options_.delay_min;
      attempt = 0;
      live_ = true;
      refused_ = denied_ = false;
      const bool known = std::exchange(connected_, true);
      if (!known && listener_ != nullptr) listener_->peer_connected();
      while (live_ && !stopping_)
        co_await wake_.wait(reactor_);
      live_ = false;
      co_await controller_->close();
      controller_.reset();
      continue;
    }
    report_lost();
    if (!outcome) report_failure(outcome.error());
    co_await controller_->close();
    controller_.reset();
    if (stopping_) break;
    co_await wake_.wait_for(reactor_, delay);
    delay = std::min(delay * 2, options_.delay_max);
  }
  connected_ = false;
}

Task<void> PeerWatch::stop() {
  stopping_ = true;
  if (controller_) controller_->abort({Errc::closed, "no longer watched"});
  wake_.set();
  co_await gate_.close();
}

}  // namespace basalt::nvmf
