// SPDX-License-Identifier: Apache-2.0
#include "nvmf/target/subsystem.h"

#include <algorithm>

#include "nvmf/target/controller.h"
#include "nvmf/target/target.h"

namespace basalt::nvmf {
namespace {

struct Gone {
  Controller& controller;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) { controller.wait_gone(waiter); }
  void await_resume() const noexcept {}
};

Error being_deleted() {
  return {Errc::closed, "nqn: the subsystem is being deleted"};
}

}  // namespace

// Heard on the bdev's home, told on the target's. Messages between two reactors keep their order: what was heard before
// the ear was taken off has been told when drop_namespace() is back.
struct Subsystem::Ear final : bdev::SizeWatcher, ns::ReservationWatcher {
  struct Grown : Work {
    Ear* ear = nullptr;
  };
  struct Told : Work {
    Ear* ear = nullptr;
    ns::Notice notice;
  };
  Ear(Subsystem& of, uint32_t of_nsid) : subsystem(of), nsid(of_nsid) {
    grown.ear = this;
    grown.run = [](Work* work) {
      Ear* ear = static_cast<Grown*>(work)->ear;
      ear->posted.store(false, std::memory_order_release);
      if (ear->subsystem.find_namespace(ear->nsid) != nullptr) ear->subsystem.namespaces_changed(ear->nsid);
    };
  }
  void size_changed(bdev::Bdev&) override {
    if (!posted.exchange(true, std::memory_order_acq_rel)) subsystem.target_.home().post(&grown);
  }
  void reservation_notice(const ns::Notice& notice) override {
    auto told = std::make_unique<Told>();
    told->ear = this;
    told->notice = notice;
    told->run = [](Work* work) {
      const std::unique_ptr<Told> arrived(static_cast<Told*>(work));
      arrived->ear->subsystem.reservation_notice(arrived->ear->nsid, arrived->notice);
    };
    subsystem.target_.home().post(told.release());
  }
  Subsystem& subsystem;
  const uint32_t nsid;
  std::atomic<bool> posted{false};
  Grown grown;
};

Subsystem::Subsystem(Target& target, const SubsystemOptions& options)
    : target_(target),
      options_(options),
      table_(new std::atomic<ns::Namespace*>[options.namespaces_max]),
      next_cntlid_(options.cntlid_min) {
  for (uint32_t i = 0; i < options.namespaces_max; i++)
    table_[i].store(nullptr, std::memory_order_relaxed);
}

Subsystem::~Subsystem() {
  BASALT_ASSERT(controllers_.empty() && namespaces_.empty());
}

SubsystemInfo Subsystem::info() const {
  SubsystemInfo out{options_, hosts_, {}, {}};
  for (const auto& path : paths_)
    out.listeners.push_back(path->listener.address);
  for (const auto& space : namespaces_) {
    const ns::NamespaceOptions& o = space->options();
    out.namespaces.push_back({o.nsid, space->bdev().info().name, o.uuid, o.nguid, o.ana_group, o.one_writer});
  }
  return out;
}

std::vector<ControllerInfo> Subsystem::controllers() const {
  std::vector<ControllerInfo> out;
  for (const auto& controller : controllers_) {
    const ControllerOptions& o = controller->options();
    out.push_back({o.cntlid, o.hostnqn, o.hostid, controller->io_queue_count()});
  }
  return out;
}

uint16_t Subsystem::take_cntlid() {
  const uint32_t count = uint32_t{options_.cntlid_max} - options_.cntlid_min + 1;
  for (uint32_t i = 0; i < count; i++) {
    const uint16_t candidate = next_cntlid_;
    next_cntlid_ = candidate == options_.cntlid_max ? options_.cntlid_min : static_cast<uint16_t>(candidate + 1);
    const bool taken = std::any_of(controllers_.begin(), controllers_.end(),
                                   [&](const auto& c) { return c->options().cntlid == candidate; });
    if (!taken) return candidate;
  }
  return 0;
}

// ---- namespaces ----------------------------------------------------------------------------------------------------

Task<Result<uint32_t>> Subsystem::add_namespace(ns::NamespaceOptions options, bdev::Bdev* bdev) {
  if (options_.node_link) co_return Error{Errc::invalid_argument, "nqn: a node link has no namespaces of its own"};
  if (options.nsid > options_.namespaces_max) {
    co_return Error{Errc::invalid_argument, "nsid: must be 1.." + std::to_string(options_.namespaces_max)};
  }
  const auto taken = [this](uint32_t nsid) {
    return find_namespace(nsid) != nullptr ||
           std::find(nsids_busy_.begin(), nsids_busy_.end(), nsid) != nsids_busy_.end();
  };
  if (options.nsid == 0) {
    for (options.nsid = 1; options.nsid <= options_.namespaces_max && taken(options.nsid);)
      options.nsid++;
    if (options.nsid > options_.namespaces_max) co_return Error{Errc::no_space, "nsid: all are taken"};
  }
  if (taken(options.nsid)) co_return Error{Errc::exists, "nsid: " + std::to_string(options.nsid) + " is taken"};
  if (options.ana_group == 0) options.ana_group = options.nsid;
  if (options.ana_group > options_.namespaces_max) {
    co_return Error{Errc::invalid_argument, "anagrpid: must be 1.." + std::to_string(options_.namespaces_max)};
  }
  if (!gate_.enter()) co_return Error{Errc::closed, "nqn: the subsystem is being deleted"};
  nsids_busy_.push_back(options.nsid);
  auto there = hop(bdev->home());
  co_await there;
  auto opened = co_await ns::Namespace::open(bdev, options);
  auto ear = std::make_unique<Ear>(*this, options.nsid);
  if (opened) {
    bdev->watch_size(ear.get());
    (*opened)->watch_reservations(ear.get());
  }
  auto back = hop(target_.home());
  co_await back;
  std::erase(nsids_busy_, options.nsid);
  if (opened) {
    namespaces_.push_back(std::move(opened).value());
    ears_.push_back(std::move(ear));
    table_[options.nsid - 1].store(namespaces_.back().get(), std::memory_order_release);
    ana_change_count_++;
    namespaces_changed(options.nsid);
  }
  gate_.leave();
  if (!opened) co_return std::move(opened).error();
  co_return options.nsid;
}

Task<Outcome> Subsystem::remove_namespace(uint32_t nsid) {
  if (!gate_.enter()) co_return being_deleted();
  Outcome removed = co_await drop_namespace(nsid);
  gate_.leave();
  co_return removed;
}

Task<Outcome> Subsystem::drop_namespace(uint32_t nsid) {
  ns::Namespace* space = find_namespace(nsid);
  if (space == nullptr) co_return Error{Errc::not_found, "nsid: no " + std::to_string(nsid)};
  table_[nsid - 1].store(nullptr, std::memory_order_seq_cst);
  nsids_busy_.push_back(nsid);
  std::unique_ptr<ns::Namespace> held;
  for (auto& candidate : namespaces_) {
    if (candidate.get() == space) held = std::move(candidate);
  }
  std::erase_if(namespaces_, [](const auto& candidate) { return candidate == nullptr; });
  ana_change_count_++;
  namespaces_changed(nsid);
  const auto ended = target_.end_attachments({}, [space](const Attachment& each) { return each.space == space; });
  Ear* ear = nullptr;
  for (const auto& candidate : ears_) {
    if (candidate->nsid == nsid) ear = candidate.get();
  }
  co_await target_.pass_all_reactors();
  auto there = hop(space->home());
  co_await there;
  co_await space->close();
  space->bdev().unwatch_size(ear);
  held.reset();
  auto back = hop(target_.home());
  co_await back;
  std::erase_if(ears_, [&](const auto& ear) { return ear->nsid == nsid; });
  std::erase(nsids_busy_, nsid);
  co_return success();
}

void Subsystem::reservation_notice(uint32_t nsid, const ns::Notice& notice) {
  for (const auto& controller : controllers_) {
    const ns::HostId& host = controller->options().hostid;
    if (std::find(notice.hosts.begin(), notice.hosts.end(), host) == notice.hosts.end()) continue;
    controller->reservation_notice(nsid, notice.kind);
  }
}

void Subsystem::namespaces_changed(uint32_t nsid) {
  for (const auto& controller : controllers_)
    controller->namespace_changed(nsid);
  const ns::Namespace* space = find_namespace(nsid);
  if (space != nullptr && space->options().one_writer) target_.attached_changed(*space);
}

// ---- listeners and ANA ---------------------------------------------------------------------------------------------

SubsystemListener* Subsystem::path(const Listener& listener) const {
  for (const auto& path : paths_) {
    if (&path->listener == &listener) return path.get();
  }
  return nullptr;
}

SubsystemListener* Subsystem::path_at(const ListenAddress& address) const {
  for (const auto& path : paths_) {
    if (path->listener.address == address) return path.get();
  }
  return nullptr;
}

bool Subsystem::has_ended(uint16_t cntlid, const SubsystemListener* path) const {
  // It was of this node, and a controller goes only when all of its commands have ended.
  if (!options_.one_active) return cntlid >= options_.cntlid_min && cntlid <= options_.cntlid_max;
  if (path == nullptr || namespaces_.empty()) return false;
  return std::all_of(namespaces_.begin(), namespaces_.end(), [path](const auto& space) {
    const nvme::AnaState state = path->state(space->options().ana_group);
    return state == nvme::AnaState::optimized || state == nvme::AnaState::non_optimized;
  });
}

Task<Result<ListenAddress>> Subsystem::add_listener(ListenAddress address) {
  if (path_at(address) != nullptr) co_return Error{Errc::exists, "listen_address: the subsystem listens there already"};
  if (!gate_.enter()) co_return Error{Errc::closed, "nqn: the subsystem is being deleted"};
  auto listener = co_await target_.open_listener(address);
  if (listener) {
    paths_.push_back(std::make_unique<SubsystemListener>(**listener, options_.namespaces_max));
    target_.discovery_changed();
  }
  gate_.leave();
  if (!listener) co_return std::move(listener).error();
  co_return (*listener)->address;
}

Task<Outcome> Subsystem::remove_listener(ListenAddress address) {
  if (!gate_.enter()) co_return being_deleted();
  Outcome removed = co_await drop_listener(std::move(address));
  gate_.leave();
  co_return removed;
}

Task<Outcome> Subsystem::drop_listener(ListenAddress address) {
  SubsystemListener* path = path_at(address);
  if (path == nullptr) co_return Error{Errc::not_found, "listen_address: the subsystem does not listen there"};
  std::unique_ptr<SubsystemListener> held;
  for (auto& candidate : paths_) {
    if (candidate.get() == path) held = std::move(candidate);
  }
  std::erase_if(paths_, [](const auto& candidate) { return candidate == nullptr; });
  target_.discovery_changed();
  const auto ended = target_.end_attachments({}, [path](const Attachment& each) { return each.path == path; });
  co_await close_controllers(path, nullptr);
  if (!ended.empty()) co_await target_.pass_all_reactors();
  co_await target_.close_listener(&held->listener);
  co_return success();
}

Task<Outcome> Subsystem::set_ana_state(ListenAddress address, uint32_t group, nvme::AnaState state) {
  SubsystemListener* path = path_at(address);
  if (path == nullptr) co_return Error{Errc::not_found, "listen_address: the subsystem does not listen there"};
  if (group > options_.namespaces_max) {
    co_return Error{Errc::invalid_argument, "anagrpid: must be 1.." + std::to_string(options_.namespaces_max)};
  }
  for (uint32_t i = group == 0 ? 1 : group; i <= (group == 0 ? options_.namespaces_max : group); i++)
    path->set_state(i, state);
  ana_change_count_++;
  for (const auto& controller : controllers_) {
    if (controller->path() == path) controller->ana_changed();
  }
  co_await target_.pass_all_reactors();
  co_return success();
}

// ---- hosts and controllers -----------------------------------------------------------------------------------------

bool Subsystem::allows(const std::string& hostnqn) const {
  return options_.allow_any_host || lists(hostnqn);
}

bool Subsystem::lists(const std::string& hostnqn) const {
  return std::any_of(hosts_.begin(), hosts_.end(), [&](const HostInfo& host) { return host.nqn == hostnqn; });
}

const HostKeys& Subsystem::login_keys_of(const std::string& hostnqn) const {
  const bool asks = options_.discovery && target_.discovery_access() == DiscoveryAccess::authenticated;
  return asks ? target_.discovery_keys_of(hostnqn) : keys_of(hostnqn);
}

const HostKeys& Subsystem::keys_of(const std::string& hostnqn) const {
  for (const HostInfo& host : hosts_) {
    if (host.nqn == hostnqn) return host.keys;
  }
  return no_keys_;
}

namespace {

// One key for both directions would let an attacker have the host's answers made by the host itself.
Outcome check_keys(const HostKeys& keys) {
  if (keys.controller != nullptr && keys.host == nullptr) {
    return Error{Errc::invalid_argument, "dhchap_ctrlr_key: goes with dhchap_key only"};
  }
  if (keys.controller != nullptr && keys.controller->same_key(*keys.host)) {
    return Error{Errc::invalid_argument, "dhchap_ctrlr_key: must be another key than dhchap_key"};
  }
  return success();
}

}  // namespace

void HostKeys::keep_unnamed(const HostKeys& before) {
  if (tls != nullptr && host == nullptr) {
    host = before.host;
    controller = before.controller;
    host_name = before.host_name;
    controller_name = before.controller_name;
  } else if (tls == nullptr) {
    tls = before.tls;
    tls_name = before.tls_name;
  }
}

// What close() has taken from the target's keys must not come back.
Outcome Subsystem::set_host_keys(const std::string& hostnqn, HostKeys keys) {
  if (gate_.closed()) return being_deleted();
  const Outcome checked = check_keys(keys);
  if (!checked) return checked;
  for (HostInfo& host : hosts_) {
    if (host.nqn != hostnqn) continue;
    host.keys = std::move(keys);
    target_.tls_keys().set(hostnqn, options_.nqn, host.keys.tls);
    target_.discovery_changed();
    return success();
  }
  return Error{Errc::not_found, "host: " + hostnqn + " is not in the list"};
}

Outcome Subsystem::add_host(std::string hostnqn, HostKeys keys) {
  if (gate_.closed()) return being_deleted();
  if (!valid_nqn(hostnqn)) {
    return Error{Errc::invalid_argument, "host: must begin with nqn. and have at most 223 printable characters"};
  }
  const Outcome checked = check_keys(keys);
  if (!checked) return checked;
  for (const HostInfo& host : hosts_) {
    if (host.nqn == hostnqn) return Error{Errc::exists, "host: " + hostnqn + " is allowed already"};
  }
  target_.tls_keys().set(hostnqn, options_.nqn, keys.tls);
  hosts_.push_back({std::move(hostnqn), std::move(keys)});
  target_.discovery_changed();
  return success();
}

Task<Outcome> Subsystem::remove_host(std::string hostnqn) {
  const size_t erased = std::erase_if(hosts_, [&](const HostInfo& host) { return host.nqn == hostnqn; });
  if (erased == 0) co_return Error{Errc::not_found, "host: " + hostnqn + " is not in the list"};
  target_.tls_keys().set(hostnqn, options_.nqn, nullptr);
  target_.discovery_changed();
  if (!gate_.enter()) co_return being_deleted();
  if (!options_.allow_any_host) {
    target_.free_later(
        target_.end_attachments(hostnqn, [this](const Attachment& each) { return each.subsystem == this; }));
    co_await close_controllers(nullptr, &hostnqn);
  }
  gate_.leave();
  co_return success();
}

Task<Outcome> Subsystem::set_allow_any_host(bool allow) {
  if (!gate_.enter()) co_return being_deleted();
  options_.allow_any_host = allow;
  target_.discovery_changed();
  if (!allow) target_.free_later(end_strangers_attachments());
  while (!allow) {
    Controller* stranger = nullptr;
    for (const auto& controller : controllers_) {
      if (!allows(controller->options().hostnqn)) stranger = controller.get();
    }
    if (stranger == nullptr) break;
    co_await close_controller(stranger);
  }
  gate_.leave();
  co_return success();
}

Attachments::Taken Subsystem::end_strangers_attachments() {
  Attachments::Taken taken;
  for (const auto& subsystem : target_.all_subsystems()) {
    for (const auto& controller : subsystem->controllers_) {
      if (controller->attachments() == nullptr || allows(controller->options().hostnqn)) continue;
      controller->end_attachments([this](const Attachment& each) { return each.subsystem == this; }, &taken);
    }
  }
  return taken;
}

Task<void> Subsystem::close_controller(Controller* controller) {
  controller->terminate();
  Gone gone{*controller};
  co_await gone;
}

// The list is in the order in which they were made. A newer one waits for older ones only, so no two wait for each
// other.
Task<void> Subsystem::supersede(std::string hostnqn, ns::HostId hostid, const Listener& listener,
                                const Controller* newest) {
  for (;;) {
    Controller* older = nullptr;
    for (const auto& candidate : controllers_) {
      if (candidate.get() == newest) break;
      const ControllerOptions& options = candidate->options();
      if (options.hostnqn != hostnqn || options.hostid != hostid || &candidate->listener() != &listener) continue;
      older = candidate.get();
      break;
    }
    if (older == nullptr) co_return;
    co_await close_controller(older);
  }
}

// nullptr: any.
Task<void> Subsystem::close_controllers(const SubsystemListener* path, const std::string* hostnqn) {
  for (;;) {
    Controller* found = nullptr;
    for (const auto& controller : controllers_) {
      if (path != nullptr && controller->path() != path) continue;
      if (hostnqn != nullptr && controller->options().hostnqn != *hostnqn) continue;
      found = controller.get();
    }
    if (found == nullptr) co_return;
    co_await close_controller(found);
  }
}

Task<void> Subsystem::close() {
  target_.tls_keys().remove_subsystem(options_.nqn);
  auto closing = gate_.close();
  co_await closing;
  co_await close_controllers(nullptr, nullptr);
  while (!paths_.empty()) {
    ListenAddress address = paths_.back()->listener.address;
    auto removed = co_await drop_listener(std::move(address));
    BASALT_ASSERT(removed.ok());
  }
  while (!namespaces_.empty()) {
    auto removed = co_await drop_namespace(namespaces_.back()->nsid());
    BASALT_ASSERT(removed.ok());
  }
}

}  // namespace basalt::nvmf
