// SPDX-License-Identifier: Apache-2.0
// Requests of simulated RDMA connections: carried out at the peer in order, answered in order.
#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "env/sim/sim_rdma.h"

namespace basalt::env {
namespace {

uint64_t bytes_of(const RdmaWork& work) {
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < work.piece_count; i++)
    bytes += work.pieces[i].length_bytes;
  return bytes;
}

std::vector<uint8_t> gather(const RdmaWork& work) {
  std::vector<uint8_t> bytes;
  for (uint16_t i = 0; i < work.piece_count; i++) {
    const auto* from = static_cast<const uint8_t*>(work.pieces[i].base);
    bytes.insert(bytes.end(), from, from + work.pieces[i].length_bytes);
  }
  return bytes;
}

void scatter(const RdmaWork& work, const std::vector<uint8_t>& bytes) {
  size_t at = 0;
  for (uint16_t i = 0; i < work.piece_count && at < bytes.size(); i++) {
    const size_t take = std::min<size_t>(work.pieces[i].length_bytes, bytes.size() - at);
    std::memcpy(work.pieces[i].base, bytes.data() + at, take);
    at += take;
  }
}

}  // namespace

void SimRdmaConnection::post(RdmaRequest* request) {
  BASALT_ASSERT(has_queue_pair_ && state_ != State::ended);
  BASALT_ASSERT(requests_out_ < options_.send_depth && request->piece_count <= device_->limits().pieces_max);
  requests_out_++;
  if (request->type == RdmaRequest::Type::bind) {
    static_cast<SimRdmaWindow*>(request->window)->key_ = fabric().next_key();
  }
  if (over()) {
    complete(request, RdmaStatus::flushed);
    return;
  }
  BASALT_ASSERT(state_ == State::established || (state_ == State::connecting && pending_ != nullptr));
  SimRdmaGround& ground = fabric().ground_;
  Instant arrives = ground.now() + ground.travel_time(node(), peer_node_);
  if (executed_count_ < sends_.size()) arrives = std::max(arrives, sends_.back().arrives);
  sends_.push_back({request, arrives, ground.now()});
  step_at(arrives);
}

void SimRdmaConnection::post_receive(RdmaReceive* receive) {
  BASALT_ASSERT(has_queue_pair_ && shared_ == nullptr && state_ != State::ended);
  BASALT_ASSERT(receives_out_ < options_.receive_depth);
  receives_out_++;
  if (over()) {
    receive->status = RdmaStatus::flushed;
    receive->connection = nullptr;
    rdma_.queue(receive, this, &receives_out_);
    return;
  }
  receives_.push_back(receive);
}

void SimRdmaConnection::complete(RdmaWork* work, RdmaStatus status) {
  work->status = status;
  rdma_.queue(work, this, &requests_out_);
}

// What was under way may have been carried out or not; nobody says. Some completions never come at all.
void SimRdmaConnection::flush() {
  for (const Entry& entry : sends_) {
    if (!fabric().random_.strikes(fabric().knobs.lose_completion_chance)) {
      complete(entry.request, RdmaStatus::flushed);
    }
  }
  sends_.clear();
  executed_count_ = 0;
  for (RdmaReceive* receive : receives_) {
    receive->status = RdmaStatus::flushed;
    receive->connection = nullptr;
    rdma_.queue(receive, this, &receives_out_);
  }
  receives_.clear();
  for (SimRdmaWindow* window : fabric().windows_) {
    if (window->bound_to_ == this) window->bound_to_ = nullptr;
  }
}

void SimRdmaConnection::step_at(Instant when) {
  fabric().ground_.at(when, [this, lives = lives_] {
    if (*lives && !over()) step();
  });
}

void SimRdmaConnection::step() {
  const SimRdmaGround& ground = fabric().ground_;
  while (executed_count_ < sends_.size() && !stuck_) {
    Entry& entry = sends_[executed_count_];
    if (entry.arrives > ground.now() || !execute(entry)) break;
    executed_count_++;
  }
  while (executed_count_ > 0 && sends_.front().arrives <= ground.now()) {
    Entry& entry = sends_.front();
    const bool local = entry.request->type >= RdmaRequest::Type::bind;
    if (!local && !stuck_ && !ground.reachable(peer_node_, node())) {
      if (!wait_for_peer(entry, fabric().knobs.retransmit)) continue;
      return;
    }
    if (entry.request->type == RdmaRequest::Type::read && entry.status == RdmaStatus::success) {
      if (covers_all(*entry.request)) {
        scatter(*entry.request, entry.data);
      } else {
        entry.status = RdmaStatus::local_error;
      }
    }
    RdmaRequest* request = entry.request;
    const RdmaStatus status = entry.status;
    sends_.pop_front();
    executed_count_--;
    complete(request, status);
    if (status != RdmaStatus::success) return break_with(Cause::failed);
  }
}

// The peer, or its answer, cannot be reached. True: later, perhaps; false: given up, the entry has its status.
bool SimRdmaConnection::wait_for_peer(Entry& entry, Duration pause) {
  SimRdmaGround& ground = fabric().ground_;
  if (ground.now() - entry.since > fabric().knobs.give_up) {
    entry.status = RdmaStatus::retry_exceeded;
    stuck_ = true;
    return false;
  }
  entry.arrives = ground.now() + pause;
  step_at(entry.arrives);
  return true;
}

// The status is known; it is back here later.
void SimRdmaConnection::answer(Entry& entry, RdmaStatus status) {
  SimRdmaGround& ground = fabric().ground_;
  entry.executed = true;
  entry.status = status;
  if (status != RdmaStatus::success) stuck_ = true;
  const bool local = entry.request->type >= RdmaRequest::Type::bind;
  entry.arrives = ground.now() + (local ? nanoseconds(0) : ground.travel_time(peer_node_, node()));
  if (executed_count_ > 0) entry.arrives = std::max(entry.arrives, sends_[executed_count_ - 1].arrives);
  step_at(entry.arrives);
}

bool SimRdmaConnection::covers_all(const RdmaWork& work) const {
  for (uint16_t i = 0; i < work.piece_count; i++) {
    if (!device_->covers(work.pieces[i])) return false;
  }
  return true;
}

// False: not now.
bool SimRdmaConnection::execute(Entry& entry) {
  RdmaRequest& request = *entry.request;
  if (request.type == RdmaRequest::Type::bind || request.type == RdmaRequest::Type::invalidate) {
    auto& window = static_cast<SimRdmaWindow&>(*request.window);
    if (request.type == RdmaRequest::Type::invalidate) {
      window.bound_to_ = nullptr;
    } else {
      if (request.piece_count != 1 || window.bound_to_ != nullptr || !covers_all(request)) {
        answer(entry, RdmaStatus::local_error);
        return true;
      }
      window.bound_to_ = this;
      window.bound_key_ = window.key_;
      window.base_ = static_cast<char*>(request.pieces[0].base);
      window.length_bytes_ = request.pieces[0].length_bytes;
      window.peer_writes_ = request.peer_writes;
    }
    answer(entry, RdmaStatus::success);
    return true;
  }
  if (!covers_all(request)) {
    answer(entry, RdmaStatus::local_error);
    return true;
  }
  const SimRdmaGround& ground = fabric().ground_;
  if (peer_ == nullptr || peer_->over() || !ground.reachable(node(), peer_node_)) {
    if (wait_for_peer(entry, fabric().knobs.retransmit)) return false;
    entry.executed = true;
    return true;
  }
  if (request.type == RdmaRequest::Type::send || request.type == RdmaRequest::Type::send_invalidate) {
    return deliver(entry);
  }
  const RdmaStatus status = carry_out(entry);
  // A request that breaks the rules breaks the side that it came to as well.
  if (status == RdmaStatus::remote_access_error) peer_->break_with(Cause::failed);
  answer(entry, status);
  return true;
}

RdmaReceive* SimRdmaConnection::take_receive() {
  auto& receives = shared_ != nullptr ? shared_->receives_ : receives_;
  if (receives.empty()) return nullptr;
  RdmaReceive* receive = receives.front();
  receives.pop_front();
  return receive;
}

bool SimRdmaConnection::deliver(Entry& entry) {
  const RdmaRequest& request = *entry.request;
  SimRdmaConnection& peer = *peer_;
  RdmaReceive* receive = peer.take_receive();
  if (receive == nullptr) {
    if (options_.rnr_retry_max != 7 && entry.rnr_count++ >= options_.rnr_retry_max) {
      answer(entry, RdmaStatus::receiver_not_ready);
      return true;
    }
    entry.since = fabric().ground_.now();  // it answers, after all
    entry.arrives = fabric().ground_.now() + fabric().knobs.rnr_delay;
    step_at(entry.arrives);
    return false;
  }
  const std::vector<uint8_t> bytes = gather(request);
  receive->connection = &peer;
  receive->length_bytes = static_cast<uint32_t>(bytes.size());
  receive->invalidated = request.type == RdmaRequest::Type::send_invalidate;
  receive->invalidated_key = receive->invalidated ? request.remote_key : 0;
  receive->status = RdmaStatus::success;
  RdmaStatus answered = RdmaStatus::success;
  if (receive->invalidated) {
    SimRdmaWindow* window = fabric().find_window(request.remote_key);
    if (window == nullptr || window->bound_to_ != &peer) {
      answered = RdmaStatus::remote_access_error;
    } else {
      window->bound_to_ = nullptr;
    }
  }
  if (bytes.size() > bytes_of(*receive) || !peer.covers_all(*receive)) answered = RdmaStatus::remote_error;
  if (answered == RdmaStatus::success) {
    scatter(*receive, bytes);
  } else {
    receive->status = RdmaStatus::local_error;
  }
  peer.rdma_.queue(receive, &peer, peer.shared_ != nullptr ? nullptr : &peer.receives_out_);
  if (answered != RdmaStatus::success) peer.break_with(Cause::failed);
  answer(entry, answered);
  return true;
}

RdmaStatus SimRdmaConnection::carry_out(Entry& entry) {
  const RdmaRequest& request = *entry.request;
  const bool writes = request.type == RdmaRequest::Type::write;
  const uint64_t length_bytes = bytes_of(request);
  const SimRdmaWindow* window = fabric().find_window(request.remote_key);
  if (window == nullptr || window->bound_to_ != peer_ || window->peer_writes_ != writes) {
    return RdmaStatus::remote_access_error;
  }
  const auto base = reinterpret_cast<uint64_t>(window->base_);
  if (request.remote_address < base || request.remote_address - base > window->length_bytes_ ||
      length_bytes > window->length_bytes_ - (request.remote_address - base)) {
    return RdmaStatus::remote_access_error;
  }
  auto* far = window->base_ + (request.remote_address - base);
  fabric().moved_bytes_ += length_bytes;
  if (writes) {
    const std::vector<uint8_t> bytes = gather(request);
    std::memcpy(far, bytes.data(), bytes.size());
  } else {
    entry.data.assign(far, far + length_bytes);
  }
  return RdmaStatus::success;
}

}  // namespace basalt::env
