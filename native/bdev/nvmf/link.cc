// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/link.h"

#include <algorithm>

namespace basalt::bdev {
namespace {

constexpr size_t turns_max = 32;
constexpr size_t given_up_max = 32;
// Less than controllers wait until they try a takeover again that was refused: with the link there, they go by it then.
constexpr Duration absent_rest = milliseconds(100);
constexpr size_t absent_max = 1024;

nvmf::HostControllerOptions controller_options(Reactor& reactor, const LinkOptions& from) {
  nvmf::HostControllerOptions options;
  options.address = from.address;
  options.subnqn = from.subnqn;
  options.hostnqn = from.hostnqn;
  options.authentication = from.authentication;
  reactor.env().random(options.hostid.bytes.data(), options.hostid.bytes.size());
  options.keep_alive_ms = from.keep_alive_ms;
  options.keep_alive_rare_ms = std::max(from.keep_alive_ms, from.keep_alive_told_ms);
  options.connect_timeout = options.admin_timeout = from.connect_timeout;
  options.io_queue_count = from.io_queue_count;
  options.io_queue_depth = from.io_queue_depth;
  options.node_link = true;
  return options;
}

}  // namespace

Link::Link(Reactor& reactor, nvmf::HostTransport& transport, LinkOptions options)
    : reactor_(reactor),
      options_(std::move(options)),
      controller_(reactor, transport, controller_options(reactor, options_), this) {}

Link::~Link() {
  BASALT_ASSERT(users_.empty() && waiting_.empty() && turn_waiting_.empty());
}

Task<Outcome> Link::ready(Instant deadline) {
  if (!gate_.enter()) co_return why_;
  Gate::Leaver leaver(gate_);
  if (state_ == State::idle && gate_.enter()) {
    state_ = State::connecting;
    spawn(connect());
  }
  while (state_ == State::connecting && reactor_.now() < deadline) {
    nvmf::WakeUp wake;
    waiting_.push_back(&wake);
    co_await wake.wait_for(reactor_, deadline - reactor_.now());
    std::erase(waiting_, &wake);
  }
  if (live()) co_return success();
  if (ended()) co_return why_;
  co_return Error{Errc::timed_out, options_.address.to_string() + ": no link with the node in time"};
}

Task<void> Link::connect() {
  Gate::Leaver leaver(gate_);
  Outcome connected = co_await controller_.connect();
  if (connected.ok() && controller_.live()) {
    state_ = State::live;
  } else if (state_ != State::ended) {
    state_ = State::ended;
    why_ = connected.ok() ? Error{Errc::closed, options_.address.to_string() + ": lost when it was connected"}
                          : connected.error();
  }
  wake_all();
}

bool Link::takes_turns() const {
  return live() && given_up_count_ < given_up_max;
}

Task<bool> Link::turn(Instant deadline) {
  if (!gate_.enter()) co_return false;
  Gate::Leaver leaver(gate_);
  while (takes_turns() && turn_count_ >= turns_max && reactor_.now() < deadline) {
    nvmf::WakeUp wake;
    turn_waiting_.push_back(&wake);
    co_await wake.wait_for(reactor_, deadline - reactor_.now());
    std::erase(turn_waiting_, &wake);
  }
  const bool takes = takes_turns() && turn_count_ < turns_max;
  if (takes) turn_count_++;
  co_return takes;
}

void Link::turn_ended() {
  turn_count_--;
  if (turn_waiting_.empty()) return;
  nvmf::WakeUp* next = turn_waiting_.front();
  turn_waiting_.erase(turn_waiting_.begin());
  next->set();
}

void Link::wake_all() {
  auto waiting = std::move(waiting_);
  waiting_.clear();
  waiting.insert(waiting.end(), turn_waiting_.begin(), turn_waiting_.end());
  turn_waiting_.clear();
  for (nvmf::WakeUp* each : waiting)
    each->set();
}

void Link::controller_lost(const Error& reason) {
  state_ = State::ended;
  why_ = reason;
  wake_all();
  const auto users = std::move(users_);
  users_.clear();
  for (const auto& [number, user] : users)
    user->link_lost(reason);
}

void Link::attachments_changed(const std::vector<uint32_t>& numbers, bool all) {
  if (all) {
    for (const auto& [number, user] : users_)
      user->link_changed();
    return;
  }
  for (const uint32_t number : numbers) {
    const auto found = users_.find(number);
    if (found != users_.end()) found->second->link_changed();
  }
}

Task<void> Link::close() {
  if (state_ != State::live) state_ = State::ended;
  co_await controller_.close();
  state_ = State::ended;
  wake_all();
  co_await gate_.close();
}

Links::~Links() {
  BASALT_ASSERT(links_.empty());
}

// With other keys it is another one. Every attachment has read its keys anew, so what counts is what they are.
std::string Links::key_of(const LinkOptions& options) {
  const auto said = [](const nvmf::auth::SharedSecret& secret, const std::string& nqn) {
    return secret == nullptr ? "-" : secret->digest_of(nqn);
  };
  const nvmf::HostAuthentication& keys = options.authentication;
  return options.address.to_string() + " " + options.subnqn + " " + options.hostnqn + " " +
         said(keys.host, options.hostnqn) + " " + said(keys.controller, options.subnqn) + " " +
         (keys.tls == nullptr ? "-" : keys.tls->psk(options.hostnqn, options.subnqn)->identity);
}

std::shared_ptr<Link> Links::get(const LinkOptions& options) {
  const std::string key = key_of(options);
  if (gate_.closed()) return nullptr;
  const auto absent = absent_until_.find(key);
  if (absent != absent_until_.end()) {
    if (reactor_.now() < absent->second) return nullptr;
    absent_until_.erase(absent);
  }
  std::shared_ptr<Link>& link = links_[key];
  if (link != nullptr && link->ended()) release(std::move(link));
  if (link == nullptr) link = std::make_shared<Link>(reactor_, transport_, options);
  return link;
}

void Links::absent(const LinkOptions& options) {
  if (absent_until_.size() >= absent_max) absent_until_.clear();
  absent_until_[key_of(options)] = reactor_.now() + absent_rest;
}

// Two references are left when nobody else uses it: this one, and the list's.
void Links::release(std::shared_ptr<Link> link) {
  if (link == nullptr) return;
  const auto found = links_.find(key_of(link->options()));
  const bool listed = found != links_.end() && found->second == link;
  if (link.use_count() > (listed ? 2 : 1)) return;
  if (listed) links_.erase(found);
  if (gate_.enter()) spawn(end(std::move(link)));
}

Task<void> Links::end(std::shared_ptr<Link> link) {
  Gate::Leaver leaver(gate_);
  auto closing = link->close();
  co_await closing;
  link.reset();
}

Task<void> Links::close() {
  while (!links_.empty()) {
    auto node = links_.extract(links_.begin());
    if (node.mapped() == nullptr) continue;
    auto closing = node.mapped()->close();
    co_await closing;
  }
  co_await gate_.close();
}

std::vector<Links::Info> Links::list() const {
  std::vector<Info> out;
  for (const auto& [key, link] : links_) {
    if (link == nullptr) continue;
    const size_t connections = link->live() ? 1 + link->controller().io_queue_count() : 0;
    out.push_back(
        {link->options().address.to_string(), link->options().hostnqn, link->live(), connections, link->user_count()});
  }
  return out;
}

}  // namespace basalt::bdev
