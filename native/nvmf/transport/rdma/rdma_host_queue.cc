// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/rdma/rdma_host_queue.h"

#include <algorithm>
#include <bit>

#include "nvmf/transport/rdma/rdma_wire.h"

namespace basalt::nvmf {

using State = env::RdmaConnection::State;
using Cause = env::RdmaConnection::Cause;

// co_await Changed(queue): until the connection's state changes, or a slice of time has passed (the caller looks at its
// deadline then).
class RdmaHostQueue::Changed : Work {
 public:
  explicit Changed(RdmaHostQueue& queue) : queue_(queue) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    run = [](Work* work) { static_cast<Changed*>(work)->resume(true); };
    timer_.changed = this;
    timer_.run = [](Work* work) { static_cast<SliceTimer*>(work)->changed->resume(false); };
    queue_.reactor().arm(&timer_, std::min(queue_.options_.deadline, queue_.reactor().now() + milliseconds(50)));
    queue_.end_->connection->arm_changed(this);
  }
  void await_resume() const noexcept {}

 private:
  struct SliceTimer : Timer {
    Changed* changed = nullptr;
  };
  void resume(bool changed) {
    queue_.reactor().cancel(&timer_);
    if (!changed) queue_.end_->connection->disarm();
    waiter_.resume();
  }
  RdmaHostQueue& queue_;
  SliceTimer timer_;
  std::coroutine_handle<> waiter_;
};

RdmaHostQueue::RdmaHostQueue(Reactor& reactor, const HostQueueOptions& options, RdmaHostTransport& transport,
                             std::shared_ptr<RdmaHostStats> stats, std::string peer)
    : HostQueue(reactor, options.qid),
      options_(options),
      transport_(transport),
      stats_(std::move(stats)),
      peer_(std::move(peer)),
      end_(std::make_unique<RdmaHostEnd>(this, reactor)),
      slots_(std::make_unique<Slot[]>(options.slot_count)) {
  BASALT_ASSERT(options.slot_count > 0 && options.slot_count <= 4095);
  slot_bits_ = static_cast<uint16_t>(std::bit_width(options.slot_count));
  free_.reserve(options.slot_count);
  for (uint16_t i = options.slot_count; i > 0; i--) {
    Slot& slot = slots_[i - 1];
    slot.queue = this;
    slot.index = static_cast<uint16_t>(i - 1);
    slot.refused.slot = &slot;
    for (env::RdmaRequest* request : {&slot.bind, &slot.send, &slot.invalidate}) {
      request->context = &slot;
      request->run = request_ran;
    }
    slot.bounce.context = &slot;
    slot.bounce.ready = [](RdmaBounce* bounce) {
      Slot* waited = static_cast<Slot*>(bounce->context);
      waited->queue->bounce_ready(waited);
    };
    free_.push_back(&slot);
  }
}

RdmaHostQueue::~RdmaHostQueue() {
  RdmaHostEnd::leave(std::move(end_));
}

bool RdmaHostQueue::late() {
  return reactor().now() >= options_.deadline || (options_.cancelled != nullptr && *options_.cancelled);
}

Task<Outcome> RdmaHostQueue::handshake(std::unique_ptr<env::RdmaConnection> connection) {
  end_->connection = std::move(connection);
  env::RdmaConnection& link = *end_->connection;
  const Error no_connection{Errc::timed_out, peer_ + ": no connection in time"};
  while (link.state() == State::resolving) {
    co_await Changed(*this);
    if (late()) co_return no_connection;
  }
  if (link.state() != State::resolved) co_return Error{Errc::io, peer_ + ": no RDMA device leads there"};
  const Outcome prepared = prepare();
  if (!prepared) co_return prepared;
  rdma::RequestData request{};
  request.recfmt = rdma::record_format;
  request.qid = options_.qid;
  request.hrqsize = static_cast<uint16_t>(options_.slot_count + 1);
  request.hsqsize = options_.slot_count;
  link.connect(rdma::private_bytes(request));
  while (link.state() == State::connecting) {
    co_await Changed(*this);
    if (late() && link.state() == State::connecting) co_return no_connection;
  }
  if (link.state() != State::established) co_return rejected();
  rdma::AcceptData accepted;
  if (!rdma::read_private_data(link.private_data(), &accepted) || accepted.recfmt != rdma::record_format) {
    co_return Error{Errc::io, peer_ + ": accepts the connection with private data of a wrong length or format"};
  }
  if (accepted.crqsize < options_.slot_count) {
    co_return Error{Errc::io, peer_ + ": receives only " + std::to_string(accepted.crqsize) + " commands of " +
                                  std::to_string(options_.slot_count)};
  }
  link.arm_changed(&end_->changed);
  co_return success();
}

Outcome RdmaHostQueue::prepare() {
  env::RdmaConnection& link = *end_->connection;
  env::RdmaDevice& device = link.device();
  if (device.limits().window_count_max == 0) {
    return Error{Errc::unsupported, device.name() + ": has no memory windows (type 2)"};
  }
  end_->device = transport_.device(reactor(), device);
  const Outcome block = end_->make_block(options_.slot_count);
  if (!block) return Error{block.error().code, peer_ + ": " + block.error().message};
  auto* commands = static_cast<char*>(end_->block->data);
  for (uint16_t i = 0; i < options_.slot_count; i++) {
    auto window = device.make_window();
    if (!window) return Error{window.error().code, peer_ + ": " + window.error().message};
    end_->windows.push_back(std::move(window).value());
    slots_[i].capsule = reinterpret_cast<nvme::Command*>(commands + i * RdmaHostEnd::cell_bytes);
  }
  env::RdmaQueuePairOptions pair;
  pair.send_depth = 3u * options_.slot_count;
  pair.receive_depth = options_.slot_count + 1u;
  // A target that is short of receives is slow, not broken: the command's time-out decides.
  pair.rnr_retry_max = 7;
  const Outcome made = link.make_queue_pair(pair);
  if (!made) return Error{made.error().code, peer_ + ": " + made.error().message};
  end_->has_queue_pair = true;
  end_->post_receives();
  return success();
}

Outcome RdmaHostQueue::rejected() const {
  const env::RdmaConnection& link = *end_->connection;
  switch (link.why()) {
    case Cause::rejected: {
      rdma::RejectData reason;
      if (!rdma::read_private_data(link.private_data(), &reason)) {
        return Error{Errc::io, peer_ + ": the target rejects the connection and does not say why"};
      }
      const bool full = reason.status == static_cast<uint16_t>(rdma::RejectStatus::no_resources);
      return Error{full ? Errc::busy : Errc::io,
                   peer_ + ": the target rejects the connection: " + rdma::reject_text(reason.status)};
    }
    case Cause::removed:
      return Error{Errc::closed, peer_ + ": the RDMA device went away"};
    case Cause::refused:
      return Error{Errc::unreachable, "connect to " + peer_ + ": refused"};
    default:
      return Error{Errc::timed_out, "connect to " + peer_ + ": no answer"};
  }
}

// ---- endings -------------------------------------------------------------------------------------------------------

void RdmaHostQueue::connection_changed() {
  env::RdmaConnection& link = *end_->connection;
  if (link.state() == State::ended) {
    ended_ = true;
    maybe_drained();
    return;
  }
  link.arm_changed(&end_->changed);
  if (link.state() != State::broken || closed()) return;
  switch (link.why()) {
    case Cause::disconnected:
      return lose_connection("the target closed the connection");
    case Cause::removed:
      return lose_connection("the RDMA device went away");
    default:
      return lose_connection("the connection broke");
  }
}

void RdmaHostQueue::lose_connection(const std::string& what) {
  lose({Errc::closed, peer_ + " queue " + std::to_string(qid()) + ": " + what});
}

// From here on the adapter lets the target touch nothing; what is under way of this side ends with the connection.
void RdmaHostQueue::end_connection() {
  end_->connection->close();
}

void RdmaHostQueue::maybe_drained() {
  if (!ended_ || deferred_count_ > 0) return;
  for (uint16_t i = 0; i < options_.slot_count; i++) {
    if (slots_[i].bounce.leave_line()) return;  // comes yet, and looks again
  }
  ended_ = false;  // once
  stalled_ = nullptr;
  for (uint16_t i = 0; i < options_.slot_count; i++)
    slots_[i].bounce.release();
  all_lost();
}

}  // namespace basalt::nvmf
