// SPDX-License-Identifier: Apache-2.0
// The I/O half of the multipath host: choosing a path, judging answers, waiting and sending again.
#include <algorithm>

#include "base/probe.h"
#include "bdev/nvmf/multipath.h"
#include "bdev/nvmf/verdict.h"

namespace basalt::bdev {
namespace {

constexpr size_t flights_max = 8192;
constexpr Duration blocked_after_path_error = milliseconds(20);
constexpr Duration look_interval = milliseconds(20);

bool is_ana(nvme::Status status) {
  return status.is(nvme::status::ana_inaccessible) || status.is(nvme::status::ana_transition) ||
         status.is(nvme::status::ana_persistent_loss);
}

bool changes_data(IoType type) {
  return type == IoType::write || type == IoType::write_zeroes || type == IoType::unmap;
}

bool is_accessible(nvme::AnaState state) {
  return state == nvme::AnaState::optimized || state == nvme::AnaState::non_optimized;
}

}  // namespace

NvmfBdev::NvmfBdev(NvmfController& set, const nvmf::HostNamespace& ns, const nvmf::HostControllerInfo& controller)
    : Bdev(set.reactor()), set_(set), nsid_(ns.nsid), uuid_(ns.uuid), nguid_(ns.nguid), flights_(flights_max) {
  fill_nvmf_info(info_, ns, controller);
  info_.name = set.options().name + "n" + std::to_string(nsid_);
  resend_work_.bdev = look_timer_.bdev = this;
  resend_work_.run = [](Work* work) { static_cast<OwnedWork*>(work)->bdev->resend(); };
  look_timer_.run = [](Work* work) { static_cast<OwnedTimer*>(work)->bdev->look_again(); };
}

NvmfBdev::~NvmfBdev() {
  BASALT_ASSERT(gate_.count() == 0 && !resend_queued_);
}

bool NvmfBdev::is_same(const nvmf::HostNamespace& ns) const {
  return ns.nsid == nsid_ && ns.uuid == uuid_ && ns.nguid == nguid_ && ns.block_size_bytes == info_.block_size_bytes;
}

nvme::AnaState NvmfBdev::ana_state(const NvmfPath& path) const {
  for (const View& view : views_) {
    if (view.path == &path && view.present) return view.ana_state;
  }
  return nvme::AnaState::inaccessible;
}

// After any change of the paths: who has this namespace, in which state. The first path that has it gives the size.
void NvmfBdev::refresh_views() {
  std::vector<View> before;
  before.swap(views_);
  bool usable = false;
  bool sized = false;
  for (const auto& path : set_.paths_) {
    View view;
    view.path = path.get();
    view.association = path->association();
    const View* old = nullptr;
    for (const View& candidate : before) {
      if (candidate.path == path.get()) old = &candidate;
    }
    if (old != nullptr) view.blocked_until = old->blocked_until;
    const nvmf::HostNamespace* ns = path->live() ? path->controller().find(nsid_) : nullptr;
    if (ns != nullptr && is_same(*ns)) {
      view.present = true;
      view.ana_state = ns->ana_state;
      view.geometry = nvmf_geometry(*ns, path->controller().info());
      if (is_accessible(ns->ana_state)) {
        usable = true;
        const bool known = old != nullptr && old->present && old->association == view.association;
        if (known) view.accessible_since = is_accessible(old->ana_state) ? old->accessible_since : home().now();
      }
      if (!sized) set_size(ns->count_blocks);
      sized = true;
    }
    views_.push_back(view);
  }
  if (usable) {
    unusable_since_ = Instant::never();
  } else if (unusable_since_ == Instant::never()) {
    unusable_since_ = home().now();
  }
  kick();
}

bool NvmfBdev::may_take(const View& view, const Flight& flight) {
  if (!view.present || view.stale || !view.path->live() || view.blocked_until > home().now()) return false;
  return flight.remnant == nullptr || set_.remnants_.may_send(*flight.remnant, *view.path, view.accessible_since);
}

// Optimized before non-optimized; among equal ones the policy decides.
NvmfBdev::View* NvmfBdev::choose(const Flight& flight) {
  if (flight.not_before > home().now()) return nullptr;
  for (const nvme::AnaState state : {nvme::AnaState::optimized, nvme::AnaState::non_optimized}) {
    candidates_.clear();
    for (size_t i = 0; i < views_.size(); i++) {
      if (views_[i].ana_state == state && may_take(views_[i], flight)) {
        candidates_.push_back({i, &views_[i].path->load()});
      }
    }
    if (!candidates_.empty()) return &views_[chooser_.choose(candidates_, home().now())];
  }
  return nullptr;
}

void NvmfBdev::submit(Io* io) {
  const nvme::Status status = closing_ ? nvme::status::host_aborted : check(*io);
  if (!status.ok()) return complete_later(io, status);
  (void)gate_.enter();
  Flight* flight = flights_.take();
  if (flight == nullptr) {
    ios_without_flight_.push_back(io);
    return;
  }
  flight->begin(io);
  flight->owner = this;
  dispatch(flight);
}

void NvmfBdev::dispatch(Flight* flight) {
  // Behind those that wait already, so that nobody is overtaken for ever.
  View* view = waiting_.empty() ? choose(*flight) : nullptr;
  if (view == nullptr) return wait(flight);
  send(flight, *view);
}

void NvmfBdev::send(Flight* flight, View& view) {
  flight->prepare(view.geometry);
  flight->route = view.path;
  flight->remnant.reset();
  view.path->load_.sent();
  flight->done = [](nvmf::HostCommand* command) {
    auto* done = static_cast<Flight*>(command);
    static_cast<NvmfBdev*>(done->owner)->answered(done);
  };
  view.path->controller().submit(flight);
}

void NvmfBdev::answered(Flight* flight) {
  auto& path = *static_cast<NvmfPath*>(flight->route);
  path.load_.ended();
  if (flight->lost) return lost(flight, path);
  const nvme::Status status = flight->status();
  Verdict verdict = judge(status);
  if (verdict == Verdict::later && flight->later_count == later_count_max) verdict = Verdict::up;
  // Asked again, a device that could not make data stable may say that all is well.
  if (status.is(nvme::status::internal_error) && flight->io->type == IoType::flush) verdict = Verdict::up;
  switch (verdict) {
    case Verdict::done:
      path.load_.measured(home().now() - flight->submitted, home().now());
      if (!flight->advance()) return finish(flight, nvme::status::success);
      flight->waited = false;
      return dispatch(flight);
    case Verdict::up:
      if (status.is(nvme::status::invalid_namespace) && path.live()) path.controller().refresh_namespaces();
      return finish(flight, status);
    case Verdict::elsewhere:
      flight->path_status = status;
      for (View& view : views_) {
        if (view.path == &path) path_error(flight, &view);
      }
      return wait(flight);
    case Verdict::later:
      flight->path_status = status;
      flight->not_before = home().now() + later_delay * (int64_t{1} << flight->later_count++);
      return wait(flight);
  }
}

// Whether it was carried out is unknown, and whether it still will be.
void NvmfBdev::lost(Flight* flight, NvmfPath& path) {
  flight->path_status = flight->status();
  if (changes_data(flight->io->type) && !closing_ && !set_.options().resend_at_once) {
    if (path.remnant_ == nullptr) path.remnant_ = set_.remnants_.add(path.controller());
    flight->remnant = path.remnant_;
  }
  wait(flight);
}

void NvmfBdev::path_error(Flight* flight, View* view) {
  if (!view->path->live()) return;
  if (is_ana(flight->path_status)) {
    view->stale = true;
    view->path->controller().refresh_ana();
  }
  view->blocked_until = home().now() + blocked_after_path_error;
}

void NvmfBdev::wait(Flight* flight) {
  if (!flight->waited) {
    flight->waited = true;
    flight->waiting_since = home().now();
  }
  park(flight);
  kick();
}

// What has to wait for its own reasons keeps nobody else waiting.
void NvmfBdev::park(Flight* flight) {
  const bool held = (flight->remnant != nullptr && !flight->remnant->ended) || flight->not_before > home().now();
  (held ? held_ : waiting_).push_back(flight);
  waiting_count_++;
}

void NvmfBdev::finish(Flight* flight, nvme::Status status) {
  Io* io = std::exchange(flight->io, nullptr);
  flight->remnant.reset();
  if (Io* next = ios_without_flight_.pop_front()) {
    flight->begin(next);
    dispatch(flight);
  } else {
    flights_.give(flight);
  }
  complete_now(io, status);
  gate_.leave();
}

// Has the waiting ones looked at later in this turn.
void NvmfBdev::kick() {
  if (waiting_count_ == 0 || resend_queued_) return;
  resend_queued_ = true;
  home().defer(&resend_work_);
}

Instant NvmfBdev::give_up_at(const Flight& flight) const {
  const MultipathOptions& options = set_.options();
  const Duration limit = options.fast_io_fail_timeout.ns > 0
                             ? std::min(options.fast_io_fail_timeout, options.ctrlr_loss_timeout)
                             : options.ctrlr_loss_timeout;
  return std::min(flight.waiting_since, unusable_since_) + limit;
}

void NvmfBdev::resend() {
  resend_queued_ = false;
  List<Flight, &Flight::flight_node> ready;
  ready.splice_back(held_);
  ready.splice_back(waiting_);
  waiting_count_ = 0;
  const bool hopeless = closing_ || !set_.hopeful();
  const Instant now = home().now();
  while (Flight* flight = ready.pop_front()) {
    View* view = closing_ ? nullptr : choose(*flight);
    if (view != nullptr) {
      resent_count_++;
      reach(Mark::path_replay);
      send(flight, *view);
    } else if (hopeless || now >= give_up_at(*flight)) {
      nvme::Status status = flight->path_status;
      if (closing_) status = nvme::status::host_aborted;
      if (status.ok()) status = nvme::status::host_path_error;
      finish(flight, status);
    } else {
      park(flight);
    }
  }
  if (waiting_count_ > 0 && !look_timer_.armed()) home().arm_after(&look_timer_, look_interval);
}

void NvmfBdev::look_again() {
  kick();
}

Task<Outcome> NvmfBdev::close() {
  closing_ = true;
  kick();
  co_await gate_.close();
  while (resend_queued_)
    co_await sleep_for(home(), Duration{0});
  home().cancel(&look_timer_);
  co_return success();
}

}  // namespace basalt::bdev
