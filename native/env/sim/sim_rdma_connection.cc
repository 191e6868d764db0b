// SPDX-License-Identifier: Apache-2.0
// How simulated RDMA connections come about and end.
#include <algorithm>

#include "base/assert.h"
#include "env/sim/sim_rdma.h"

namespace basalt::env {

SimRdmaConnection::SimRdmaConnection(SimRdma& rdma, Address address)
    : rdma_(rdma), address_(std::move(address)), peer_node_(address_.host) {
  ended_.connection = this;
  fabric().connections_.push_back(this);
  resolve();
}

SimRdmaConnection::SimRdmaConnection(SimRdma& rdma, std::unique_ptr<RdmaPending> pending)
    : rdma_(rdma), state_(State::requested), told_(State::requested), pending_(std::move(pending)) {
  ended_.connection = this;
  auto& request = static_cast<SimRdmaPending&>(*pending_);
  peer_node_ = request.from_node;
  private_data_ = request.private_data;
  device_ = rdma_.open(request.device);
  fabric().connections_.push_back(this);
}

SimRdmaConnection::~SimRdmaConnection() {
  BASALT_ASSERT(state_ == State::ended || !has_queue_pair_);
  *lives_ = false;
  for (const void* owner : {static_cast<void*>(this), static_cast<void*>(&watcher_), static_cast<void*>(&ended_)})
    rdma_.forget(owner);
  std::erase(fabric().connections_, this);
  if (shared_ != nullptr) shared_->user_count_--;
}

const std::string& SimRdmaConnection::node() const {
  return rdma_.node();
}

SimRdmaFabric& SimRdmaConnection::fabric() const {
  return rdma_.fabric();
}

RdmaDevice& SimRdmaConnection::device() {
  BASALT_ASSERT(device_ != nullptr);
  return *device_;
}

// ---- telling -------------------------------------------------------------------------------------------------------

void SimRdmaConnection::become(State state) {
  state_ = state;
  if (watcher_ != nullptr) {
    told_ = state_;
    rdma_.queue(std::exchange(watcher_, nullptr), &watcher_);
  }
}

void SimRdmaConnection::arm_changed(Work* work) {
  BASALT_ASSERT(watcher_ == nullptr);
  watcher_ = work;
  if (state_ != told_) become(state_);
}

void SimRdmaConnection::disarm() {
  watcher_ = nullptr;
  rdma_.forget(&watcher_);
}

// ---- connecting ----------------------------------------------------------------------------------------------------

void SimRdmaConnection::resolve() {
  SimRdmaGround& ground = fabric().ground_;
  ground.at(ground.now() + ground.travel_time(node(), node()), [this, lives = lives_] {
    if (!*lives || state_ != State::resolving) return;
    const std::string* name = fabric().device_of(node());
    if (name == nullptr) return break_with(Cause::unreachable);
    device_ = rdma_.open(*name);
    become(State::resolved);
  });
}

Outcome SimRdmaConnection::make_queue_pair(const RdmaQueuePairOptions& options) {
  BASALT_ASSERT(!has_queue_pair_ && device_ != nullptr);
  if (over()) return Error{Errc::closed, peer_node_ + ": the connection is gone"};
  if (device_->removed()) return Error{Errc::closed, device_->name() + ": the device is gone"};
  const RdmaLimits& limits = device_->limits();
  if (options.send_depth > limits.send_depth_max || options.receive_depth > limits.receive_depth_max) {
    return Error{Errc::invalid_argument, device_->name() + ": queue depth out of range"};
  }
  options_ = options;
  shared_ = static_cast<SimRdmaReceiveQueue*>(options.shared);
  if (shared_ != nullptr) shared_->user_count_++;
  has_queue_pair_ = true;
  return success();
}

void SimRdmaConnection::connect(std::span<const uint8_t> private_data) {
  BASALT_ASSERT(has_queue_pair_ && private_data.size() <= rdma_request_private_bytes_max);
  if (over()) return;
  BASALT_ASSERT(state_ == State::resolved);
  become(State::connecting);
  SimRdmaGround& ground = fabric().ground_;
  ground.at(ground.now() + fabric().knobs.connect_give_up, [this, lives = lives_] {
    if (*lives && state_ == State::connecting) break_with(Cause::unreachable);
  });
  request_arrives({private_data.begin(), private_data.end()}, ground.now());
}

// No answer is no error until the connection manager gives up.
void SimRdmaConnection::request_arrives(std::vector<uint8_t> private_data, Instant since) {
  SimRdmaGround& ground = fabric().ground_;
  const bool first = ground.now() == since;
  const Duration way = first ? ground.travel_time(node(), address_.host) : fabric().knobs.retransmit;
  ground.at(ground.now() + way, [this, lives = lives_, data = std::move(private_data), since]() mutable {
    if (!*lives || state_ != State::connecting) return;
    SimRdmaFabric& all = fabric();
    SimRdmaListener* listener = all.find_listener(address_);
    if (listener == nullptr) {
      // A name is a machine's; one that is there refuses, one that is not says nothing.
      if (all.ground_.reachable(node(), address_.host)) return answered_by_reject(Cause::refused, {});
      return request_arrives(std::move(data), since);
    }
    const std::string& far = listener->rdma_.node();
    if (!all.ground_.reachable(node(), far) || !all.ground_.reachable(far, node()) ||
        listener->backlog_.size() >= all.knobs.backlog_max) {
      return request_arrives(std::move(data), since);
    }
    const std::string* device = all.device_of(far);
    if (device == nullptr || all.random_.strikes(all.knobs.refuse_chance)) {
      return answered_by_reject(Cause::refused, {});
    }
    peer_node_ = far;
    auto pending = std::make_unique<SimRdmaPending>();
    pending->fabric = &all;
    pending->from = this;
    pending->from_lives = lives_;
    pending->from_node = node();
    pending->device = *device;
    if (all.random_.strikes(all.knobs.pad_private_data_chance)) data.resize(rdma_request_private_bytes_max);
    pending->private_data = std::move(data);
    listener->arrive(std::move(pending));
  });
}

SimRdmaPending::~SimRdmaPending() {
  if (from != nullptr && *from_lives) from->answered_by_reject(RdmaConnection::Cause::refused, {});
}

void SimRdmaConnection::accept(std::span<const uint8_t> private_data) {
  BASALT_ASSERT(has_queue_pair_ && private_data.size() <= rdma_accept_private_bytes_max);
  if (over()) return;
  BASALT_ASSERT(state_ == State::requested);
  become(State::connecting);
  auto& request = static_cast<SimRdmaPending&>(*pending_);
  std::vector<uint8_t> data(private_data.begin(), private_data.end());
  if (fabric().random_.strikes(fabric().knobs.pad_private_data_chance)) data.resize(rdma_accept_private_bytes_max);
  SimRdmaConnection* from = std::exchange(request.from, nullptr);
  accept_arrives(from, request.from_lives, std::move(data), fabric().ground_.now());
}

// What was accepted is so for the other side first; this side hears that it knows a little later.
void SimRdmaConnection::accept_arrives(SimRdmaConnection* from, std::shared_ptr<bool> from_lives,
                                       std::vector<uint8_t> data, Instant since) {
  SimRdmaGround& ground = fabric().ground_;
  const bool first = ground.now() == since;
  const Duration way = first ? ground.travel_time(node(), peer_node_) : fabric().knobs.retransmit;
  ground.at(ground.now() + way, [this, lives = lives_, from, from_lives, data = std::move(data), since]() mutable {
    if (!*lives || state_ != State::connecting) {
      if (*from_lives && from->state_ == State::connecting) from->answered_by_reject(Cause::refused, {});
      return;
    }
    SimRdmaFabric& all = fabric();
    const bool there = *from_lives && from->state_ == State::connecting;
    if (!there) {
      // Nobody answers the accept: the connection manager finds out in its time.
      all.ground_.at(since + all.knobs.give_up, [this, lives = lives_] {
        if (*lives && state_ == State::connecting) break_with(Cause::unreachable);
      });
      return;
    }
    if (!all.ground_.reachable(node(), peer_node_) || !all.ground_.reachable(peer_node_, node())) {
      if (all.ground_.now() - since > all.knobs.connect_give_up) return break_with(Cause::unreachable);
      return accept_arrives(from, std::move(from_lives), std::move(data), since);
    }
    from->peer_ = this;
    peer_ = from;
    from->private_data_ = std::move(data);
    from->become(State::established);
    all.ground_.at(all.ground_.now() + all.ground_.travel_time(peer_node_, node()), [this, lives = lives_] {
      if (*lives && state_ == State::connecting) become(State::established);
    });
  });
}

void SimRdmaConnection::reject(std::span<const uint8_t> private_data) {
  BASALT_ASSERT(state_ == State::requested && private_data.size() <= rdma_reject_private_bytes_max);
  auto& request = static_cast<SimRdmaPending&>(*pending_);
  std::vector<uint8_t> data(private_data.begin(), private_data.end());
  if (fabric().random_.strikes(fabric().knobs.pad_private_data_chance)) data.resize(rdma_reject_private_bytes_max);
  if (SimRdmaConnection* from = std::exchange(request.from, nullptr)) {
    if (*request.from_lives) from->answered_by_reject(Cause::rejected, std::move(data));
  }
  close();
}

void SimRdmaConnection::answered_by_reject(Cause cause, std::vector<uint8_t> private_data) {
  SimRdmaGround& ground = fabric().ground_;
  const auto way = ground.travel_time(peer_node_, node());
  ground.at(ground.now() + way, [this, lives = lives_, cause, data = std::move(private_data)] {
    if (!*lives || state_ != State::connecting) return;
    private_data_ = data;
    break_with(cause);
  });
}

// ---- endings -------------------------------------------------------------------------------------------------------

void SimRdmaConnection::break_with(Cause cause) {
  if (over()) return;
  why_ = cause;
  state_ = State::broken;
  flush();
  become(State::broken);
}

void SimRdmaConnection::close() {
  if (closing_) return;
  closing_ = true;
  break_with(Cause::none);
  if (peer_ != nullptr) {
    SimRdmaConnection* peer = std::exchange(peer_, nullptr);
    peer->peer_ = nullptr;
    tell_end(fabric(), node(), peer, peer->lives_, fabric().ground_.now());
  }
  pending_.reset();
  // Behind everything that is to run before it.
  ended_.run = [](Work* work) { static_cast<Ended*>(work)->connection->become(State::ended); };
  rdma_.queue(&ended_, &ended_);
}

void SimRdmaConnection::tell_end(SimRdmaFabric& fabric, const std::string& from, SimRdmaConnection* peer,
                                 std::shared_ptr<bool> peer_lives, Instant since) {
  SimRdmaGround& ground = fabric.ground_;
  const std::string to = peer->node();
  const Duration way = ground.now() == since ? ground.travel_time(from, to) : fabric.knobs.retransmit;
  ground.at(ground.now() + way, [&fabric, from, to, peer, peer_lives, since] {
    if (!*peer_lives) return;
    if (fabric.ground_.reachable(from, to)) return peer->break_with(Cause::disconnected);
    // Repeated a few times; a peer that does not hear it is left to find out.
    if (fabric.ground_.now() - since < fabric.knobs.give_up) tell_end(fabric, from, peer, peer_lives, since);
  });
}

// The process is gone: nothing of this runs any more. A test may destroy what is left of it.
void SimRdmaConnection::killed(bool power_lost) {
  *lives_ = false;
  if (peer_ != nullptr) {
    SimRdmaConnection* peer = std::exchange(peer_, nullptr);
    peer->peer_ = nullptr;
    if (!power_lost) tell_end(fabric(), node(), peer, peer->lives_, fabric().ground_.now());
  }
  pending_.reset();
  state_ = State::ended;
}

}  // namespace basalt::env
