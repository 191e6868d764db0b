// SPDX-License-Identifier: Apache-2.0
#include "env/linux/verbs_memory.h"

#ifdef BASALT_HAS_VERBS

#include <sys/resource.h>

#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "env/linux/verbs_rdma.h"

namespace basalt::env {
namespace {

std::string in_kib(uint64_t bytes) {
  return std::to_string(bytes >> 10) + " KiB";
}

// The kernel says "out of memory" for the limit, too; so it is named with its value.
Error registration_error(const std::string& device, size_t length_bytes, int error) {
  const std::string what = device + ": memory cannot be registered (" + in_kib(length_bytes) + ")";
  if (error != ENOMEM && error != EAGAIN) return {Errc::io, what + ": " + std::strerror(error)};
  rlimit locked{};
  getrlimit(RLIMIT_MEMLOCK, &locked);
  const std::string limit = locked.rlim_cur == RLIM_INFINITY ? "unlimited" : in_kib(locked.rlim_cur);
  return {Errc::no_memory, what + ": the limit of locked memory, RLIMIT_MEMLOCK, is " + limit +
                               " (raise it by LimitMEMLOCK= or ulimit -l)"};
}

}  // namespace

int verbs_pieces(const RdmaWork& work, ibv_sge* out) {
  BASALT_ASSERT(work.piece_count <= verbs_pieces_max);
  for (uint16_t i = 0; i < work.piece_count; i++) {
    const RdmaPiece& piece = work.pieces[i];
    out[i] = {reinterpret_cast<uint64_t>(piece.base), piece.length_bytes, piece.key};
  }
  return work.piece_count;
}

// ---- regions -------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<RdmaRegion>> VerbsDevice::register_memory(void* base, size_t length_bytes) {
  if (removed_) return Error{Errc::closed, name_ + ": the device is gone"};
  int access = IBV_ACCESS_LOCAL_WRITE;
  if (limits_.window_count_max > 0) access |= IBV_ACCESS_MW_BIND;
  const auto reg_mr = rdma_core().verbs.reg_mr;
  ibv_mr* region = reg_mr(domain_, base, length_bytes, access);
  if (region == nullptr) return registration_error(name_, length_bytes, errno);
  return std::unique_ptr<RdmaRegion>(std::make_unique<VerbsRegion>(*this, region));
}

VerbsRegion::~VerbsRegion() {
  device_.drop_region(region_->lkey);
  device_.rdma_core().verbs.dereg_mr(region_);
}

// ---- windows -------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<RdmaWindow>> VerbsDevice::make_window() {
  if (removed_) return Error{Errc::closed, name_ + ": the device is gone"};
  if (limits_.window_count_max == 0) return Error{Errc::unsupported, name_ + ": has no memory windows (type 2)"};
  ibv_mw* window = ibv_alloc_mw(domain_, IBV_MW_TYPE_2);
  if (window == nullptr) return Error{Errc::no_memory, name_ + ": has no more memory windows"};
  return std::unique_ptr<RdmaWindow>(std::make_unique<VerbsWindow>(*this, window));
}

ibv_mw* VerbsWindow::open() {
  if (window_ == nullptr) window_ = ibv_alloc_mw(device_.domain(), IBV_MW_TYPE_2);
  return window_;
}

void VerbsWindow::close() {
  if (window_ != nullptr) ibv_dealloc_mw(std::exchange(window_, nullptr));
}

// ---- shared receive queues -----------------------------------------------------------------------------------------

Result<std::unique_ptr<RdmaReceiveQueue>> VerbsDevice::make_receive_queue(uint32_t depth) {
  if (removed_) return Error{Errc::closed, name_ + ": the device is gone"};
  if (depth == 0 || depth > limits_.shared_receive_depth_max) {
    return Error{Errc::invalid_argument, name_ + ": shared receive queue depth out of range"};
  }
  ibv_srq_init_attr wanted{};
  wanted.attr.max_wr = depth;
  wanted.attr.max_sge = limits_.pieces_max;
  ibv_srq* queue = rdma_core().verbs.create_srq(domain_, &wanted);
  if (queue == nullptr) {
    return Error{Errc::no_memory, name_ + ": no shared receive queue: " + std::strerror(errno)};
  }
  return std::unique_ptr<RdmaReceiveQueue>(std::make_unique<VerbsReceiveQueue>(*this, queue, depth));
}

VerbsReceiveQueue::~VerbsReceiveQueue() {
  device_.forget(this);
  device_.rdma().forget(this);
  device_.rdma_core().verbs.destroy_srq(queue_);
}

// What cannot be posted, because the adapter is gone, is as posted as the rest.
void VerbsReceiveQueue::post(RdmaReceive* receive) {
  ibv_sge pieces[verbs_pieces_max];
  ibv_recv_wr wanted{};
  wanted.wr_id = reinterpret_cast<uint64_t>(receive) | static_cast<uint64_t>(VerbsDevice::Kind::shared_receive);
  wanted.num_sge = verbs_pieces(*receive, pieces);
  wanted.sg_list = pieces;
  ibv_recv_wr* bad = nullptr;
  (void)ibv_post_srq_recv(queue_, &wanted, &bad);
}

}  // namespace basalt::env
#endif
