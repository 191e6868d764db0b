// SPDX-License-Identifier: Apache-2.0
#include "nvmf/target/target.h"

#include <algorithm>

#include "nvmf/target/controller.h"

namespace basalt::nvmf {

std::string printable(const char* text, size_t length_max) {
  std::string out;
  for (size_t i = 0; i < length_max && text[i] != '\0'; i++)
    out.push_back(text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?');
  return out;
}

bool valid_nqn(const std::string& nqn) {
  if (nqn.size() > nvme::nqn_bytes_max || nqn.rfind("nqn.", 0) != 0 || nqn.size() < 5) return false;
  return std::all_of(nqn.begin(), nqn.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

Target::Target(std::vector<Reactor*> reactors, const TargetLimits& limits)
    : reactors_(std::move(reactors)), limits_(limits) {
  BASALT_ASSERT(!reactors_.empty());
  SubsystemOptions options;
  options.nqn = nvme::discovery_nqn;
  options.allow_any_host = true;
  options.discovery = true;
  options.internal = true;
  discovery_ = std::make_unique<Subsystem>(*this, options);
}

Target::~Target() {
  BASALT_ASSERT(subsystems_.empty() && listeners_.empty());
}

void Target::add_transport(std::unique_ptr<TargetTransport> transport) {
  transports_.push_back(std::move(transport));
}

Subsystem* Target::find_subsystem(const std::string& nqn) const {
  if (nqn == nvme::discovery_nqn) return discovery_.get();
  for (const auto& subsystem : subsystems_) {
    if (subsystem->options().nqn == nqn) return subsystem.get();
  }
  return nullptr;
}

std::vector<SubsystemInfo> Target::subsystems() const {
  std::vector<SubsystemInfo> out;
  for (const auto& subsystem : subsystems_)
    out.push_back(subsystem->info());
  return out;
}

Result<Subsystem*> Target::create_subsystem(const SubsystemOptions& options) {
  if (!valid_nqn(options.nqn)) {
    return Error{Errc::invalid_argument, "nqn: must begin with nqn. and have at most 223 printable characters"};
  }
  if (find_subsystem(options.nqn) != nullptr) return Error{Errc::exists, "nqn: " + options.nqn + " exists"};
  if (options.cntlid_min == 0 || options.cntlid_min > options.cntlid_max || options.cntlid_max > 0xffef) {
    return Error{Errc::invalid_argument, "min_cntlid, max_cntlid: must be a range within 1..65519"};
  }
  if (options.namespaces_max == 0 || options.namespaces_max > 1024) {
    return Error{Errc::invalid_argument, "max_namespaces: must be 1..1024"};
  }
  if (options.serial_number.size() > 20) return Error{Errc::invalid_argument, "serial_number: at most 20 characters"};
  if (options.model_number.size() > 40) return Error{Errc::invalid_argument, "model_number: at most 40 characters"};
  subsystems_.push_back(std::make_unique<Subsystem>(*this, options));
  return subsystems_.back().get();
}

Task<Outcome> Target::delete_subsystem(std::string nqn) {
  Subsystem* subsystem = find_subsystem(nqn);
  if (subsystem == nullptr || subsystem == discovery_.get()) co_return Error{Errc::not_found, "nqn: no " + nqn};
  if (subsystem->gate_.closed()) co_return Error{Errc::busy, "nqn: " + nqn + " is being deleted"};
  co_await subsystem->close();
  std::erase_if(subsystems_, [&](const auto& held) { return held.get() == subsystem; });
  discovery_changed();
  co_return success();
}

Task<void> Target::close() {
  while (!subsystems_.empty()) {
    std::string nqn = subsystems_.back()->options().nqn;
    auto gone = co_await delete_subsystem(std::move(nqn));
    BASALT_ASSERT(gone.ok());
  }
  co_await discovery_->close();
  while (!listeners_.empty())
    co_await close_listener(listeners_.back().get());
  co_await gate_.close();
  // Queues whose last message is on its way.
  co_await pass_all_reactors();
}

Task<Result<Listener*>> Target::open_listener(ListenAddress address) {
  for (const auto& listener : listeners_) {
    if (listener->address == address && address.trsvcid != "0") {
      if (listener->address.secure_channel != address.secure_channel) {
        co_return Error{Errc::busy, std::string("listen_address: others listen there with") +
                                        (listener->address.secure_channel ? "" : "out") + " TLS"};
      }
      listener->user_count++;
      co_return listener.get();
    }
  }
  for (const auto& transport : transports_) {
    if (address.trtype != transport->trtype()) continue;
    auto listener = std::make_unique<Listener>();
    listener->address = address;
    listener->portid = next_portid_++;
    listener->user_count = 1;
    auto listening = co_await transport->listen(listener.get());
    if (!listening) co_return std::move(listening).error();
    listeners_.push_back(std::move(listener));
    co_return listeners_.back().get();
  }
  co_return Error{Errc::unsupported, "trtype: this engine does not listen on " + address.trtype};
}

Task<void> Target::close_listener(Listener* listener) {
  if (--listener->user_count > 0) co_return;
  // A new user would find it half closed: it leaves the list first.
  std::unique_ptr<Listener> held;
  for (auto& candidate : listeners_) {
    if (candidate.get() == listener) held = std::move(candidate);
  }
  std::erase_if(listeners_, [](const auto& candidate) { return candidate == nullptr; });
  for (const auto& transport : transports_) {
    if (held->address.trtype == transport->trtype()) co_await transport->unlisten(listener);
  }
}

Task<void> Target::pass_all_reactors() {
  for (Reactor* reactor : reactors_) {
    auto there = hop(*reactor);
    co_await there;
  }
  auto back = hop(home());
  co_await back;
}

Attachments::Taken Target::end_attachments(const std::string& hostnqn,
                                           const std::function<bool(const Attachment&)>& which) {
  Attachments::Taken taken;
  for (const auto& subsystem : subsystems_) {
    if (!subsystem->options().node_link) continue;
    for (const auto& controller : subsystem->controllers_) {
      if (hostnqn.empty() || controller->options().hostnqn == hostnqn) controller->end_attachments(which, &taken);
    }
  }
  return taken;
}

void Target::attached_changed(const ns::Namespace& space) {
  for (const auto& subsystem : subsystems_) {
    if (!subsystem->options().node_link) continue;
    for (const auto& controller : subsystem->controllers_)
      controller->attached_changed(space);
  }
}

// The target does not end before it has passed all reactors itself.
void Target::free_later(Attachments::Taken taken) {
  if (gate_.enter()) return spawn(free_attachments(std::move(taken)));
  for (auto& each : taken)
    ended_attachments_.push_back(std::move(each));
}

Task<void> Target::free_attachments(Attachments::Taken taken) {
  Gate::Leaver leaver(gate_);
  co_await pass_all_reactors();
}

void Target::tls_refused(const std::string& peer, TlsRefusal refusal) {
  if (tls_refusals_.note(peer, refusal)) spawn(tell_refusal(TlsRefusals::address_of(peer), refusal));
}

Task<void> Target::tell_refusal(std::string traddr, TlsRefusal refusal) {
  auto there = hop(home());
  co_await there;
  if (on_tls_refused) on_tls_refused(traddr, refusal);
}

void Target::admin_arrived(Work* work) {
  auto* request = static_cast<Request*>(static_cast<ns::NsIo*>(work)->context);
  Controller* controller = request->queue->controller_;
  BASALT_ASSERT(controller != nullptr);
  controller->admin(request);
}

void Target::queue_leaves(Work* work) {
  TargetQueue* queue = static_cast<TargetQueue::Message*>(work)->queue;
  if (queue->controller_ != nullptr) queue->controller_->detach(queue);
  work->run = [](Work* back) {
    TargetQueue* drained = static_cast<TargetQueue::Message*>(back)->queue;
    drained->callbacks_.drained(drained);
  };
  queue->reactor_.post(work);
}

}  // namespace basalt::nvmf
