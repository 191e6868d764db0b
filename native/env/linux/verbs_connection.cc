// SPDX-License-Identifier: Apache-2.0
// How connections over real adapters come about and end.
#include "env/linux/verbs_connection.h"

#ifdef BASALT_HAS_VERBS

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "env/linux/verbs_device.h"
#include "env/linux/verbs_listener.h"

namespace basalt::env {
namespace {

constexpr int resolve_route_timeout_ms = 2000;
constexpr uint8_t ack_timeout_exponent = 17;  // 4.096 us << 17: half a second; some seconds with the retries
constexpr uint8_t ack_retry_count = 7;
constexpr uint8_t short_of_receives_timer = 12;  // 0.64 ms; the connection manager's own is 0.65 s
// Reasons of InfiniBand's connection manager.
constexpr int reject_no_listener = 8;
constexpr int reject_by_consumer = 28;

}  // namespace

VerbsConnection::VerbsConnection(VerbsRdma& rdma, rdma_cm_id* id, std::string peer)
    : rdma_(rdma),
      library_(rdma.rdma_core()),
      id_(id),
      peer_(std::move(peer)),
      state_(State::resolving),
      told_(State::resolving) {
  ended_.connection = this;
  id_->context = static_cast<VerbsListening*>(this);
}

VerbsConnection::VerbsConnection(VerbsRdma& rdma, VerbsDevice& device, VerbsPending& request)
    : rdma_(rdma),
      library_(rdma.rdma_core()),
      id_(request.id()),
      device_(&device),
      peer_(verbs_address_text(rdma_get_peer_addr(id_))),
      state_(State::requested),
      told_(State::requested),
      private_data_(std::move(request.news().private_data)),
      port_(id_->port_num),
      incoming_reads_(request.news().responder_resources),
      outgoing_reads_(request.news().initiator_depth) {
  ended_.connection = this;
  request.release()->context = static_cast<VerbsListening*>(this);
}

VerbsConnection::~VerbsConnection() {
  BASALT_ASSERT(state_ == State::ended || !has_pair_);
  end_id(true);
  for (const void* owner : {static_cast<void*>(this), static_cast<void*>(&watcher_), static_cast<void*>(&ended_)})
    rdma_.forget(owner);
}

RdmaDevice& VerbsConnection::device() {
  BASALT_ASSERT(device_ != nullptr);
  return *device_;
}

// ---- telling -------------------------------------------------------------------------------------------------------

void VerbsConnection::become(State state) {
  state_ = state;
  was_established_ |= state == State::established;
  if (watcher_ == nullptr) return;
  told_ = state_;
  rdma_.queue(std::exchange(watcher_, nullptr), &watcher_);
}

void VerbsConnection::arm_changed(Work* work) {
  BASALT_ASSERT(watcher_ == nullptr);
  watcher_ = work;
  if (state_ != told_) become(state_);
}

void VerbsConnection::disarm() {
  watcher_ = nullptr;
  rdma_.forget(&watcher_);
}

void VerbsConnection::on_news(VerbsNews news) {
  if (over()) return;
  switch (news.type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
      return address_resolved();
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
      return route_resolved();
    case RDMA_CM_EVENT_CONNECT_RESPONSE:
      private_data_ = std::move(news.private_data);
      return answered();
    case RDMA_CM_EVENT_ESTABLISHED:
      if (state_ == State::connecting) become(State::established);
      return;
    case RDMA_CM_EVENT_REJECTED:
      private_data_ = std::move(news.private_data);
      return rejected(news.status);
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
      return break_with(Cause::unreachable);
    case RDMA_CM_EVENT_DISCONNECTED:
      return break_with(Cause::disconnected);
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      // All of the adapter's connections hear of it; one is enough.
      if (device_ != nullptr) device_->note_removed();
      return break_with(Cause::removed);
    default:
      return;
  }
}

void VerbsConnection::heard() {
  if (state_ == State::connecting) library_.manager.notify(id_, IBV_EVENT_COMM_EST);
}

// ---- connecting ----------------------------------------------------------------------------------------------------

void VerbsConnection::address_resolved() {
  if (library_.manager.resolve_route(id_, resolve_route_timeout_ms) != 0) break_with(Cause::unreachable);
}

void VerbsConnection::route_resolved() {
  auto device = rdma_.open(id_->verbs->device);
  if (!device) return break_with(Cause::unreachable);
  device_ = *device;
  port_ = id_->port_num;
  incoming_reads_ = outgoing_reads_ = UINT8_MAX;
  become(State::resolved);
}

Outcome VerbsConnection::make_queue_pair(const RdmaQueuePairOptions& options) {
  BASALT_ASSERT(!has_pair_ && device_ != nullptr);
  const std::string& name = device_->name();
  if (over()) return Error{Errc::closed, peer_ + ": the connection is gone"};
  if (device_->removed()) return Error{Errc::closed, name + ": the device is gone"};
  const RdmaLimits& limits = device_->limits();
  if (options.send_depth > limits.send_depth_max || options.receive_depth > limits.receive_depth_max) {
    return Error{Errc::invalid_argument, name + ": queue depth out of range"};
  }
  const auto* shared = static_cast<const VerbsReceiveQueue*>(options.shared);
  const uint32_t own_entries = options.send_depth + options.receive_depth;
  auto completions = device_->completions_for(own_entries, shared, shared == nullptr ? 0 : shared->depth());
  if (!completions) return std::move(completions).error();
  ibv_qp_init_attr wanted{};
  wanted.qp_context = this;
  wanted.send_cq = wanted.recv_cq = (*completions)->queue();
  wanted.srq = shared == nullptr ? nullptr : shared->queue();
  wanted.cap.max_send_wr = options.send_depth;
  wanted.cap.max_recv_wr = options.receive_depth;
  wanted.cap.max_send_sge = limits.pieces_max;
  wanted.cap.max_recv_sge = shared == nullptr ? limits.pieces_max : 0;
  wanted.qp_type = IBV_QPT_RC;
  completions_ = *completions;
  options_ = options;
  incoming_reads_ = std::min({incoming_reads_, options.read_depth, device_->incoming_reads_max()});
  outgoing_reads_ = std::min({outgoing_reads_, options.read_depth, device_->outgoing_reads_max()});
  pair_ = library_.verbs.create_qp(device_->domain(), &wanted);
  const bool made = pair_ != nullptr && set_state(IBV_QPS_INIT);
  const int error = errno;
  number_ = pair_ == nullptr ? 0 : pair_->qp_num;
  device_->add(*this, number_);
  if (!made) {
    end_pair();
    return Error{error == ENOMEM ? Errc::no_memory : Errc::io, name + ": no queue pair: " + std::strerror(error)};
  }
  has_pair_ = true;
  requests_.size(options.send_depth);
  receives_.size(options.receive_depth);
  return success();
}

// As the connection manager wants it, with this side's limits.
bool VerbsConnection::set_state(ibv_qp_state state) {
  ibv_qp_attr wanted{};
  int mask = 0;
  wanted.qp_state = state;
  if (library_.manager.init_qp_attr(id_, &wanted, &mask) != 0) return false;
  if (state == IBV_QPS_INIT) {
    wanted.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
  } else if (state == IBV_QPS_RTR) {
    // Kernels say more here than InfiniBand ports take (librdmacm leaves the same out).
    constexpr int ethernet_only = 0xe00000;
    if (device_->is_infiniband(port_)) mask &= ~ethernet_only;
    wanted.max_dest_rd_atomic = std::min(wanted.max_dest_rd_atomic, incoming_reads_);
    wanted.min_rnr_timer = short_of_receives_timer;
  } else {
    wanted.max_rd_atomic = std::min(wanted.max_rd_atomic, outgoing_reads_);
    wanted.timeout = ack_timeout_exponent;
    wanted.retry_cnt = ack_retry_count;
    wanted.rnr_retry = options_.rnr_retry_max;
  }
  return library_.verbs.modify_qp(pair_, &wanted, mask) == 0;
}

bool VerbsConnection::make_ready() {
  return set_state(IBV_QPS_RTR) && set_state(IBV_QPS_RTS);
}

rdma_conn_param VerbsConnection::parameters(std::span<const uint8_t> private_data) const {
  rdma_conn_param out{};
  out.private_data = private_data.data();
  out.private_data_len = static_cast<uint8_t>(private_data.size());
  out.responder_resources = incoming_reads_;
  out.initiator_depth = outgoing_reads_;
  out.flow_control = 1;
  out.retry_count = ack_retry_count;
  out.rnr_retry_count = options_.rnr_retry_max;
  out.srq = options_.shared != nullptr;
  out.qp_num = number_;
  return out;
}

void VerbsConnection::connect(std::span<const uint8_t> private_data) {
  BASALT_ASSERT(has_pair_ && private_data.size() <= rdma_request_private_bytes_max);
  if (over()) return;
  BASALT_ASSERT(state_ == State::resolved);
  become(State::connecting);
  rdma_conn_param wanted = parameters(private_data);
  if (library_.manager.connect(id_, &wanted) != 0) break_with(Cause::unreachable);
}

// The target has accepted.
void VerbsConnection::answered() {
  if (state_ != State::connecting) return;
  if (!make_ready() || library_.manager.establish(id_) != 0) return break_with(Cause::failed);
  become(State::established);
}

void VerbsConnection::accept(std::span<const uint8_t> private_data) {
  BASALT_ASSERT(has_pair_ && private_data.size() <= rdma_accept_private_bytes_max);
  if (over()) return;
  BASALT_ASSERT(state_ == State::requested);
  become(State::connecting);
  rdma_conn_param wanted = parameters(private_data);
  if (!make_ready() || library_.manager.accept(id_, &wanted) != 0) break_with(Cause::unreachable);
}

void VerbsConnection::reject(std::span<const uint8_t> private_data) {
  BASALT_ASSERT(state_ == State::requested && private_data.size() <= rdma_reject_private_bytes_max);
  library_.manager.reject(id_, private_data.data(), static_cast<uint8_t>(private_data.size()));
  close();
}

// Only where nobody listens, the peer's process is gone for sure.
void VerbsConnection::rejected(int status) {
  const bool refused = status == reject_no_listener;
  break_with(status == reject_by_consumer ? Cause::rejected : (refused ? Cause::refused : Cause::unreachable));
}

// ---- endings -------------------------------------------------------------------------------------------------------

void VerbsConnection::break_with(Cause cause) {
  if (over()) return;
  why_ = cause;
  state_ = State::broken;
  tear_down(cause == Cause::disconnected || cause == Cause::removed);
  become(State::broken);
}

void VerbsConnection::close() {
  if (closing_) return;
  closing_ = true;
  break_with(Cause::none);
  // Behind everything that is to run before it.
  ended_.run = [](Work* work) { static_cast<Ended*>(work)->connection->become(State::ended); };
  rdma_.queue(&ended_, &ended_);
}

void VerbsConnection::tear_down(bool peer_knows) {
  // Also answers a peer that has ended the connection.
  if (id_ != nullptr && was_established_) peer_knows |= library_.manager.disconnect(id_) != 0;
  if (completions_ != nullptr) {
    end_pair();
    flush();
  }
  end_id(peer_knows);
}

void VerbsConnection::end_pair() {
  if (pair_ != nullptr) {
    ibv_qp_attr error{};
    error.qp_state = IBV_QPS_ERR;
    library_.verbs.modify_qp(pair_, &error, IBV_QP_STATE);
  }
  while (VerbsWindow* window = windows_.pop_front())
    window->close();
  if (pair_ != nullptr) library_.verbs.destroy_qp(std::exchange(pair_, nullptr));
  device_->drop(*this, number_, *std::exchange(completions_, nullptr), options_.send_depth + options_.receive_depth);
}

void VerbsConnection::end_id(bool peer_knows) {
  if (id_ == nullptr) return;
  rdma_cm_id* id = std::exchange(id_, nullptr);
  if (was_established_ && !peer_knows) {
    rdma_.linger(id);
  } else {
    library_.manager.destroy_id(id);
  }
}

}  // namespace basalt::env
#endif
