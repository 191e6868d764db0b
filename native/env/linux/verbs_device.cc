// SPDX-License-Identifier: Apache-2.0
#include "env/linux/verbs_device.h"

#ifdef BASALT_HAS_VERBS

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "env/linux/verbs_connection.h"
#include "env/linux/verbs_memory.h"
#include "env/linux/verbs_rdma.h"

namespace basalt::env {
namespace {

constexpr int completions_taken_max = 32;
constexpr uint32_t soft_roce_vendor = 0xffffff;
constexpr uint32_t first_completions_capacity = 4096;
constexpr uint32_t further_completions_capacity = 32768;

void set_nonblocking(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

uint32_t positive(int value) {
  return value > 0 ? static_cast<uint32_t>(value) : 0;
}

uint8_t as_read_depth(int value) {
  return static_cast<uint8_t>(std::clamp(value, 0, 254));  // 255 has a meaning to librdmacm
}

RdmaStatus status_of(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_SUCCESS:
      return RdmaStatus::success;
    case IBV_WC_WR_FLUSH_ERR:
      return RdmaStatus::flushed;
    case IBV_WC_REM_ACCESS_ERR:
      return RdmaStatus::remote_access_error;
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR:
    case IBV_WC_BAD_RESP_ERR:
      return RdmaStatus::remote_error;
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
      return RdmaStatus::retry_exceeded;
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return RdmaStatus::receiver_not_ready;
    default:
      return RdmaStatus::local_error;
  }
}

}  // namespace

// ---- opening and closing -------------------------------------------------------------------------------------------

VerbsDevice::VerbsDevice(VerbsRdma& rdma, ibv_device* device) : rdma_(rdma), device_(device), name_(device->name) {}

Result<std::unique_ptr<VerbsDevice>> VerbsDevice::open(VerbsRdma& rdma, ibv_device* device) {
  std::unique_ptr<VerbsDevice> opened(new VerbsDevice(rdma, device));
  const Outcome outcome = opened->init();
  if (!outcome) return outcome.error();
  return opened;
}

Outcome VerbsDevice::init() {
  const auto failed = [this](const char* what) {
    return Error{errno == ENOMEM ? Errc::no_memory : Errc::io, name_ + ": " + what + ": " + std::strerror(errno)};
  };
  if (device_->transport_type != IBV_TRANSPORT_IB) {
    return Error{Errc::unsupported, name_ + ": is not an InfiniBand or RoCE adapter"};
  }
  context_ = rdma_core().verbs.open_device(device_);
  if (context_ == nullptr) return failed("cannot be opened");
  ibv_device_attr about{};
  errno = rdma_core().verbs.query_device(context_, &about);
  if (errno != 0) return failed("does not say what it can do");
  domain_ = rdma_core().verbs.alloc_pd(context_);
  if (domain_ == nullptr) return failed("no protection domain");
  channel_ = rdma_core().verbs.create_comp_channel(context_);
  if (channel_ == nullptr) return failed("no completion channel");
  set_nonblocking(channel_->fd);
  set_nonblocking(context_->async_fd);

  const bool has_windows = (about.device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B));
  const int shared_pieces = about.max_srq > 0 ? about.max_srq_sge : about.max_sge;
  limits_.pieces_max =
      std::min(static_cast<uint32_t>(verbs_pieces_max), positive(std::min(about.max_sge, shared_pieces)));
  limits_.send_depth_max = limits_.receive_depth_max = positive(about.max_qp_wr);
  limits_.shared_receive_depth_max = about.max_srq > 0 ? positive(about.max_srq_wr) : 0;
  limits_.window_count_max = has_windows ? positive(about.max_mw) : 0;
  // Linux's soft-RoCE tells programs of an invalidation by the kernel's own flag, which has another meaning to them.
  // And it must not be missed: the kernel does not survive that a window is invalidated again.
  if (about.vendor_id == soft_roce_vendor) invalidated_flags_ |= IBV_WC_IP_CSUM_OK;
  completions_max_ = positive(about.max_cqe);
  incoming_reads_max_ = as_read_depth(about.max_qp_rd_atom);
  outgoing_reads_max_ = as_read_depth(about.max_qp_init_rd_atom);

  channel_fd_ = std::make_unique<VerbsFd>(
      rdma_.poller(), channel_->fd, [](void* self) { static_cast<VerbsDevice*>(self)->read_completion_events(); },
      this);
  async_fd_ = std::make_unique<VerbsFd>(
      rdma_.poller(), context_->async_fd, [](void* self) { static_cast<VerbsDevice*>(self)->read_async_events(); },
      this);
  return success();
}

VerbsDevice::~VerbsDevice() {
  BASALT_ASSERT(connections_.empty() && regions_.empty());
  channel_fd_.reset();
  async_fd_.reset();
  completions_.clear();
  if (channel_ != nullptr) rdma_core().verbs.destroy_comp_channel(channel_);
  if (domain_ != nullptr) rdma_core().verbs.dealloc_pd(domain_);
  if (context_ != nullptr) rdma_core().verbs.close_device(context_);
}

const VerbsLibrary& VerbsDevice::rdma_core() const {
  return rdma_.rdma_core();
}

bool VerbsDevice::is_infiniband(uint8_t port) const {
  // By the table: the function of this name has no version that a loader finds.
  const verbs_context* table = verbs_get_ctx_op(context_, query_port);
  ibv_port_attr about{};
  return table != nullptr && table->query_port(context_, port, &about, sizeof(about)) == 0 &&
         about.link_layer == IBV_LINK_LAYER_INFINIBAND;
}

// ---- queue pairs ---------------------------------------------------------------------------------------------------

Result<VerbsCompletions*> VerbsDevice::completions_for(uint32_t entries, const VerbsReceiveQueue* shared,
                                                       uint32_t shared_entries) {
  for (const auto& known : completions_) {
    if (known->reserve(entries, shared, shared_entries)) return known.get();
  }
  const uint32_t least = entries + shared_entries;
  const uint32_t usual = completions_.empty() ? first_completions_capacity : further_completions_capacity;
  const uint32_t capacity = std::min(completions_max_, std::max(least, usual));
  if (least > capacity) return Error{Errc::invalid_argument, name_ + ": has no completion queue that large"};
  ibv_cq* queue = rdma_core().verbs.create_cq(context_, static_cast<int>(capacity), nullptr, channel_, 0);
  if (queue == nullptr) return Error{Errc::no_memory, name_ + ": no completion queue: " + std::strerror(errno)};
  completions_.push_back(std::make_unique<VerbsCompletions>(rdma_core(), queue, capacity));
  queue->cq_context = completions_.back().get();
  BASALT_ASSERT(completions_.back()->reserve(entries, shared, shared_entries));
  return completions_.back().get();
}

void VerbsDevice::add(VerbsConnection& connection, uint32_t number) {
  connections_[number] = &connection;
}

// The queue pair is no more. What it has completed is in the queue, and is taken out while it can still be told whose
// it was.
void VerbsDevice::drop(VerbsConnection& connection, uint32_t number, VerbsCompletions& completions, uint32_t entries) {
  while (!removed_ && take(completions)) {
  }
  std::erase(failed_, &connection);
  connections_.erase(number);
  completions.release(entries);
  if (!completions.unused()) return;
  std::erase_if(completions_, [&](const auto& each) { return each.get() == &completions; });
}

void VerbsDevice::forget(const VerbsReceiveQueue* queue) {
  for (const auto& completions : completions_)
    completions->forget(queue);
}

// ---- completions ---------------------------------------------------------------------------------------------------

void VerbsDevice::poll() {
  if (removed_) return;
  // Breaking a connection may take its queue away.
  for (size_t i = 0; i < completions_.size(); i++)
    take(*completions_[i]);
  break_failed();
}

void VerbsDevice::arm() {
  if (removed_) return;
  for (const auto& completions : completions_)
    completions->arm();
  // What came before they were armed is told by nobody.
  poll();
}

bool VerbsDevice::take(VerbsCompletions& completions) {
  ibv_wc found[completions_taken_max];
  const int count = completions.poll(found, completions_taken_max);
  for (int i = 0; i < count; i++)
    resolve(found[i]);
  return count > 0;
}

void VerbsDevice::resolve(const ibv_wc& completion) {
  constexpr uint64_t kind_mask = 3;
  const auto kind = static_cast<Kind>(completion.wr_id & kind_mask);
  void* const owner = reinterpret_cast<void*>(completion.wr_id & ~kind_mask);
  VerbsConnection* connection;
  RdmaWork* work;
  if (kind == Kind::shared_receive) {
    const auto found = connections_.find(completion.qp_num);
    connection = found == connections_.end() ? nullptr : found->second;
    work = static_cast<RdmaReceive*>(owner);
  } else {
    connection = static_cast<VerbsConnection*>(owner);
    work = kind == Kind::request ? static_cast<RdmaWork*>(connection->oldest_request())
                                 : static_cast<RdmaWork*>(connection->oldest_receive());
  }
  work->status = status_of(completion.status);
  if (kind != Kind::request) {
    auto* receive = static_cast<RdmaReceive*>(work);
    receive->connection = work->status == RdmaStatus::flushed ? nullptr : connection;
    receive->length_bytes = completion.byte_len;
    receive->invalidated = work->status == RdmaStatus::success && (completion.wc_flags & invalidated_flags_) != 0;
    receive->invalidated_key = receive->invalidated ? completion.invalidated_rkey : 0;
  }
  rdma_.queue(work, connection);
  if (work->status == RdmaStatus::success || connection == nullptr || connection->over()) return;
  if (std::find(failed_.begin(), failed_.end(), connection) == failed_.end()) failed_.push_back(connection);
}

void VerbsDevice::break_failed() {
  while (!failed_.empty()) {
    VerbsConnection* connection = failed_.back();
    failed_.pop_back();
    connection->break_with(RdmaConnection::Cause::failed);
  }
}

void VerbsDevice::read_completion_events() {
  ibv_cq* queue = nullptr;
  void* owner = nullptr;
  while (rdma_core().verbs.get_cq_event(channel_, &queue, &owner) == 0) {
    rdma_core().verbs.ack_cq_events(queue, 1);
    static_cast<VerbsCompletions*>(owner)->told();
  }
}

// ---- the adapter's own events --------------------------------------------------------------------------------------

template <class F>
void VerbsDevice::break_connections(F&& which, RdmaConnection::Cause cause) {
  std::vector<VerbsConnection*> chosen;
  for (const auto& [number, connection] : connections_) {
    if (which(*connection)) chosen.push_back(connection);
  }
  for (VerbsConnection* connection : chosen)
    connection->break_with(cause);
}

void VerbsDevice::note_removed() {
  if (removed_) return;
  removed_ = true;
  device_ = nullptr;  // another one may have this address
  break_connections([](const VerbsConnection&) { return true; }, RdmaConnection::Cause::removed);
}

void VerbsDevice::read_async_events() {
  ibv_async_event event;
  while (rdma_core().verbs.get_async_event(context_, &event) == 0) {
    const ibv_async_event seen = event;
    // Given back first: what it is about can be destroyed only then.
    rdma_core().verbs.ack_async_event(&event);
    async_event(seen);
  }
}

void VerbsDevice::async_event(const ibv_async_event& event) {
  switch (event.event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
      break_connections([&](const VerbsConnection& each) { return each.has(event.element.qp); },
                        RdmaConnection::Cause::failed);
      break;
    case IBV_EVENT_COMM_EST:
      for (const auto& [number, connection] : connections_) {
        if (connection->has(event.element.qp)) connection->heard();
      }
      break;
    case IBV_EVENT_PORT_ERR:
      break_connections(
          [&](const VerbsConnection& each) { return each.port() == static_cast<uint8_t>(event.element.port_num); },
          RdmaConnection::Cause::failed);
      break;
    case IBV_EVENT_CQ_ERR:
    case IBV_EVENT_SRQ_ERR:
      break_connections([](const VerbsConnection&) { return true; }, RdmaConnection::Cause::failed);
      break;
    case IBV_EVENT_DEVICE_FATAL:
      note_removed();
      break;
    default:
      break;
  }
}

}  // namespace basalt::env
#endif
