// SPDX-License-Identifier: Apache-2.0
#include "env/linux/verbs_listener.h"

#ifdef BASALT_HAS_VERBS

namespace basalt::env {

VerbsPending::VerbsPending(std::shared_ptr<VerbsChannel> channel, VerbsNews news)
    : channel_(std::move(channel)), news_(std::move(news)) {
  news_.id->context = nullptr;
}

VerbsPending::~VerbsPending() {
  if (news_.id == nullptr) return;
  channel_->library->manager.reject(news_.id, nullptr, 0);
  channel_->library->manager.destroy_id(news_.id);
}

bool VerbsPending::move_to(VerbsRdma& rdma) {
  if (rdma.channel() == channel_) return true;
  if (rdma.rdma_core().manager.migrate_id(news_.id, rdma.channel()->events) != 0) return false;
  channel_ = rdma.channel();
  return true;
}

VerbsListener::VerbsListener(VerbsRdma& rdma, rdma_cm_id* id, Address address)
    : rdma_(rdma), id_(id), address_(std::move(address)) {
  id_->context = static_cast<VerbsListening*>(this);
}

VerbsListener::~VerbsListener() {
  rdma_.forget(this);
  backlog_.clear();
  if (id_ != nullptr) rdma_.rdma_core().manager.destroy_id(id_);
}

void VerbsListener::on_news(VerbsNews news) {
  if (news.type == RDMA_CM_EVENT_DEVICE_REMOVAL) {
    rdma_.rdma_core().manager.destroy_id(std::exchange(id_, nullptr));
    return;
  }
  if (news.type != RDMA_CM_EVENT_CONNECT_REQUEST) return;
  auto pending = std::make_unique<VerbsPending>(rdma_.channel(), std::move(news));
  if (backlog_.size() >= backlog_max) return;  // refused
  backlog_.push_back(std::move(pending));
  if (acceptor_ != nullptr) rdma_.queue(std::exchange(acceptor_, nullptr), this);
}

std::unique_ptr<RdmaPending> VerbsListener::try_accept() {
  if (backlog_.empty()) return nullptr;
  auto pending = std::move(backlog_.front());
  backlog_.pop_front();
  return pending;
}

void VerbsListener::arm_acceptable(Work* work) {
  acceptor_ = work;
  if (!backlog_.empty()) rdma_.queue(std::exchange(acceptor_, nullptr), this);
}

}  // namespace basalt::env
#endif
