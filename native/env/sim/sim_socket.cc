// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/assert.h"
#include "base/probe.h"
#include "env/sim/sim_listener.h"
#include "env/sim/sim_poller.h"

namespace basalt::env {
namespace {
constexpr Duration retransmit_min = milliseconds(200);
constexpr Duration retransmit_max = seconds(120);
constexpr Duration give_up_after = seconds(924);  // what Linux comes to by default
constexpr Duration connect_retry_max = seconds(1);
}  // namespace

SimSocket::SimSocket(SimNode& node, SimPoller* poller) : node_(&node), poller_(poller) {
  node.world().sockets_.push_back(this);
}

SimSocket::~SimSocket() {
  *alive_ = false;
  if (poller_ != nullptr) poller_->forget(this);
  std::erase(node_->world().sockets_, this);
  if (other_ != nullptr) close_towards(std::exchange(other_, nullptr));
}

void SimSocket::join(SimSocket& one, SimSocket& other) {
  one.other_ = &other;
  other.other_ = &one;
  one.peer_node_ = other.node_->name();
  other.peer_node_ = one.node_->name();
}

void SimSocket::established() {
  state_ = State::open;
  notify();
}

void SimSocket::refuse() {
  state_ = State::refused;
  notify();
}

// ---- endings -------------------------------------------------------------------------------------------------------

// This end closes: with unread input that resets the connection; else what was sent still arrives, then the end.
void SimSocket::close_towards(SimSocket* other) {
  other->other_ = nullptr;
  if (unread_bytes() > 0) return other->break_end();
  SimWorld& world = node_->world();
  const Instant last = other->on_the_way_.empty() ? world.now() : other->on_the_way_.back().arrives;
  other->on_the_way_.push_back({last, {}, true});
  other->deliver_later();
}

void SimSocket::break_end() {
  if (state_ == State::broken) return;
  state_ = State::broken;
  // What had arrived unread may be lost with the connection, or still be read.
  if (unread_bytes() > 0 && node_->world().random().chance(0.5)) {
    input_.clear();
    input_at_ = 0;
  }
  on_the_way_.clear();
  on_the_way_bytes_ = 0;
  vanished_peer_ = nullptr;
  notify();
}

void SimSocket::reset() {
  reach(Mark::fault_connection_cut);
  if (other_ != nullptr) other_->break_end();
  break_end();
}

void SimSocket::killed() {
  reader_ = writer_ = nullptr;
  if (other_ != nullptr) {
    SimSocket* other = std::exchange(other_, nullptr);
    if (node_->world().random().chance(0.5)) {
      close_towards(other);
    } else {
      other->other_ = nullptr;
      other->break_end();
    }
  }
  state_ = State::broken;
}

void SimSocket::vanished() {
  reader_ = writer_ = nullptr;
  if (other_ != nullptr) {
    SimSocket* other = std::exchange(other_, nullptr);
    reach(Mark::fault_peer_vanished);
    other->other_ = nullptr;
    other->vanished_peer_ = node_;
    other->unanswered_bytes_ = on_the_way_bytes_;
    if (other->unanswered_bytes_ > 0) other->retransmit(retransmit_min);
  }
  state_ = State::broken;
}

// Towards a machine that has vanished: it answers with a reset once it is up again, if ever.
void SimSocket::retransmit(Duration after) {
  SimWorld& world = node_->world();
  retransmitting_ = true;
  world.at(world.now() + after, [this, after, alive = alive_] {
    if (!*alive || vanished_peer_ == nullptr) return;
    const SimWorld& later = node_->world();
    const bool reached = !vanished_peer_->crashed() && !later.partitioned(node_->name(), peer_node_) &&
                         !later.partitioned(peer_node_, node_->name());
    if (reached || after > give_up_after / 2) return break_end();
    retransmit(std::min(after * 2, retransmit_max));
  });
}

// ---- readiness -----------------------------------------------------------------------------------------------------

size_t SimSocket::sent_bytes() const {
  return other_ == nullptr ? unanswered_bytes_ : other_->on_the_way_bytes_ + other_->unread_bytes();
}

bool SimSocket::writable() const {
  if (state_ == State::connecting) return false;
  if (state_ != State::open) return true;  // the try tells the error
  if (other_ == nullptr && vanished_peer_ == nullptr) return true;
  return sent_bytes() < node_->world().knobs().socket_buffer_bytes;
}

void SimSocket::notify() {
  if (poller_ == nullptr) return;
  if (reader_ != nullptr && readable()) poller_->queue(std::exchange(reader_, nullptr), this);
  if (writer_ != nullptr && writable()) poller_->queue(std::exchange(writer_, nullptr), this);
}

void SimSocket::arm_readable(Work* work) {
  BASALT_ASSERT(reader_ == nullptr);
  reader_ = work;
  SimWorld& world = node_->world();
  if (readable() || world.random().chance(world.knobs().spurious_wake_chance)) {
    poller_->queue(std::exchange(reader_, nullptr), this);
  }
}

void SimSocket::arm_writable(Work* work) {
  BASALT_ASSERT(writer_ == nullptr);
  writer_ = work;
  if (writable()) poller_->queue(std::exchange(writer_, nullptr), this);
}

void SimSocket::disarm() {
  reader_ = writer_ = nullptr;
  poller_->forget(this);
}

Outcome SimSocket::connect_result() {
  if (state_ == State::open || state_ == State::ended) return success();
  return Error{Errc::unreachable, "connect to " + peer_node_ + ": refused"};
}

// ---- bytes ---------------------------------------------------------------------------------------------------------

Transfer SimSocket::try_recv(const Iovec* iov, size_t count) {
  const uint64_t unread = unread_bytes();
  if (unread == 0) {
    if (state_ == State::broken || state_ == State::refused) return {Transfer::State::failed, 0};
    return {state_ == State::ended ? Transfer::State::closed : Transfer::State::would_block, 0};
  }
  SimWorld& world = node_->world();
  uint64_t room = std::min<uint64_t>(iovec_bytes(iov, count), unread);
  if (room > 1 && world.random().chance(world.knobs().short_transfer_chance)) room = 1 + world.random().below(room);
  uint64_t moved = 0;
  for (size_t i = 0; i < count && moved < room; i++) {
    const uint64_t take = std::min<uint64_t>(iov[i].length_bytes, room - moved);
    std::copy_n(input_.data() + input_at_ + moved, take, static_cast<uint8_t*>(iov[i].base));
    moved += take;
  }
  input_at_ += moved;
  if (input_at_ == input_.size()) {
    input_.clear();
    input_at_ = 0;
  }
  if (other_ != nullptr) other_->notify();
  return {Transfer::State::done, static_cast<size_t>(moved)};
}

Transfer SimSocket::try_send(const Iovec* iov, size_t count) {
  if (state_ == State::connecting) return {Transfer::State::would_block, 0};
  if (state_ != State::open || (other_ == nullptr && vanished_peer_ == nullptr)) return {Transfer::State::failed, 0};
  SimWorld& world = node_->world();
  const SimKnobs& knobs = world.knobs();
  const size_t used = sent_bytes();
  if (used >= knobs.socket_buffer_bytes) return {Transfer::State::would_block, 0};
  uint64_t room = std::min<uint64_t>(iovec_bytes(iov, count), knobs.socket_buffer_bytes - used);
  if (room > 1 && world.random().chance(knobs.short_transfer_chance)) room = 1 + world.random().below(room);
  if (other_ == nullptr) {
    unanswered_bytes_ += room;
    if (!retransmitting_) retransmit(retransmit_min);
    return {Transfer::State::done, static_cast<size_t>(room)};
  }
  Segment segment;
  segment.bytes.reserve(room);
  for (size_t i = 0; i < count && segment.bytes.size() < room; i++) {
    const auto* bytes = static_cast<const uint8_t*>(iov[i].base);
    const uint64_t take = std::min<uint64_t>(iov[i].length_bytes, room - segment.bytes.size());
    segment.bytes.insert(segment.bytes.end(), bytes, bytes + take);
  }
  segment.arrives = world.now() + world.travel_time(node_->name(), peer_node_);
  if (!other_->on_the_way_.empty()) segment.arrives = std::max(segment.arrives, other_->on_the_way_.back().arrives);
  other_->on_the_way_bytes_ += room;
  other_->on_the_way_.push_back(std::move(segment));
  other_->deliver_later();
  return {Transfer::State::done, static_cast<size_t>(room)};
}

void SimSocket::deliver_later() {
  if (on_the_way_.empty()) return;
  node_->world().at(on_the_way_.front().arrives, [this, alive = alive_] {
    if (*alive) deliver();
  });
}

void SimSocket::deliver() {
  SimWorld& world = node_->world();
  if (state_ == State::broken) return;
  if (world.partitioned(peer_node_, node_->name())) {  // healing delivers again
    const bool both_ways = world.partitioned(node_->name(), peer_node_);
    return reach(both_ways ? Mark::fault_link_partitioned : Mark::fault_link_one_way);
  }
  if (world.now() < held_until_) return;  // so does the end of the hold
  while (!on_the_way_.empty() && on_the_way_.front().arrives <= world.now()) {
    Segment& segment = on_the_way_.front();
    input_.insert(input_.end(), segment.bytes.begin(), segment.bytes.end());
    on_the_way_bytes_ -= segment.bytes.size();
    if (segment.end) state_ = State::ended;
    on_the_way_.pop_front();
  }
  deliver_later();
  notify();
}

void SimSocket::hold_sent(Instant until) {
  if (other_ == nullptr || other_->held_until_ >= until) return;
  other_->held_until_ = until;
  node_->world().at(until, [socket = other_, alive = other_->alive_] {
    if (*alive) socket->deliver();
  });
}

// ---- connecting ----------------------------------------------------------------------------------------------------

Result<std::unique_ptr<StreamSocket>> SimPoller::connect(const Address& address) {
  auto near = std::make_unique<SimSocket>(node_, this);
  const SimKnobs& knobs = node_.world().knobs();
  near->begin_connect(address, node_.world().random_delay(knobs.network_delay_min, knobs.network_delay_max));
  return std::unique_ptr<StreamSocket>(std::move(near));
}

// No answer is no error: whoever connects tries again until the other side answers; the caller's time-out decides.
void SimSocket::begin_connect(const Address& address, Duration delay) {
  peer_port_ = address.port;
  SimWorld& world = node_->world();
  world.at(world.now() + delay, [this, alive = alive_, address, delay] {
    if (!*alive || state_ != State::connecting) return;
    SimWorld& later = node_->world();
    const Duration again = std::min(milliseconds(1) + delay, connect_retry_max);
    SimListener* listener = SimListener::find(later, address);
    if (listener == nullptr) return later.dark(address) ? begin_connect(address, again) : refuse();
    SimNode& far = listener->node();
    if (later.partitioned(node_->name(), far.name()) || later.partitioned(far.name(), node_->name()) || far.paused() ||
        listener->full()) {
      return begin_connect(address, again);
    }
    if (later.random().strikes(later.knobs().refuse_chance)) return refuse();
    auto accepted = std::make_unique<SimSocket>(far, nullptr);
    join(*this, *accepted);
    accepted->established();
    listener->arrive(std::move(accepted));
    established();
  });
}

std::unique_ptr<StreamSocket> SimPoller::adopt(std::unique_ptr<PendingSocket> pending) {
  auto socket = static_cast<SimPending*>(pending.get())->take();
  socket->attach(this);
  return socket;
}

}  // namespace basalt::env
