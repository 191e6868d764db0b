// SPDX-License-Identifier: Apache-2.0
// What is posted to connections over real adapters.
#include "base/assert.h"
#include "env/linux/verbs_connection.h"

#ifdef BASALT_HAS_VERBS

namespace basalt::env {
namespace {

uint64_t work_id(VerbsConnection* connection, VerbsDevice::Kind kind) {
  return reinterpret_cast<uint64_t>(connection) | static_cast<uint64_t>(kind);
}

}  // namespace

void VerbsConnection::post(RdmaRequest* request) {
  BASALT_ASSERT(has_pair_ && state_ != State::ended);
  if (over()) {
    request->status = RdmaStatus::flushed;
    rdma_.queue(request, this);
    return;
  }
  BASALT_ASSERT(state_ == State::established || state_ == State::connecting);
  ibv_sge pieces[verbs_pieces_max];
  ibv_send_wr wanted{};
  wanted.wr_id = work_id(this, VerbsDevice::Kind::request);
  wanted.send_flags = IBV_SEND_SIGNALED;
  const bool described =
      request->type == RdmaRequest::Type::bind ? describe_bind(*request, &wanted) : describe(*request, &wanted);
  if (!described) return refuse(request);
  if (request->type < RdmaRequest::Type::bind) {
    wanted.num_sge = verbs_pieces(*request, pieces);
    wanted.sg_list = pieces;
  }
  ibv_send_wr* bad = nullptr;
  requests_.push(request);
  if (ibv_post_send(pair_, &wanted, &bad) != 0) return break_with(Cause::failed);
  if (request->type == RdmaRequest::Type::bind) static_cast<VerbsWindow*>(request->window)->posted();
}

// True: as the adapter wants it, but for the pieces.
bool VerbsConnection::describe(const RdmaRequest& request, ibv_send_wr* out) {
  out->wr.rdma.remote_addr = request.remote_address;
  out->wr.rdma.rkey = request.remote_key;
  switch (request.type) {
    case RdmaRequest::Type::send:
      out->opcode = IBV_WR_SEND;
      return true;
    case RdmaRequest::Type::send_invalidate:
      out->opcode = IBV_WR_SEND_WITH_INV;
      out->invalidate_rkey = request.remote_key;
      return true;
    case RdmaRequest::Type::write:
      out->opcode = IBV_WR_RDMA_WRITE;
      return true;
    case RdmaRequest::Type::read:
      out->opcode = IBV_WR_RDMA_READ;
      return true;
    case RdmaRequest::Type::invalidate:
      out->opcode = IBV_WR_LOCAL_INV;
      out->invalidate_rkey = request.window->key();
      return true;
    case RdmaRequest::Type::bind:
      break;
  }
  return false;
}

bool VerbsConnection::describe_bind(const RdmaRequest& request, ibv_send_wr* out) {
  auto& window = static_cast<VerbsWindow&>(*request.window);
  ibv_mw* const opened = window.open();
  if (opened == nullptr || request.piece_count != 1) return false;
  const RdmaPiece& piece = request.pieces[0];
  ibv_mr* const region = device_->region(piece.key);
  if (region == nullptr) return false;
  if (!window.node.linked()) windows_.push_back(&window);
  out->opcode = IBV_WR_BIND_MW;
  out->bind_mw.mw = opened;
  out->bind_mw.rkey = window.next_key();
  out->bind_mw.bind_info.mr = region;
  out->bind_mw.bind_info.addr = reinterpret_cast<uint64_t>(piece.base);
  out->bind_mw.bind_info.length = piece.length_bytes;
  out->bind_mw.bind_info.mw_access_flags = request.peer_writes ? IBV_ACCESS_REMOTE_WRITE : IBV_ACCESS_REMOTE_READ;
  return true;
}

// The adapter would not take it, so it is not asked.
void VerbsConnection::refuse(RdmaRequest* request) {
  break_with(Cause::failed);
  request->status = RdmaStatus::local_error;
  rdma_.queue(request, this);
}

void VerbsConnection::post_receive(RdmaReceive* receive) {
  BASALT_ASSERT(has_pair_ && options_.shared == nullptr && state_ != State::ended);
  if (over()) {
    receive->status = RdmaStatus::flushed;
    receive->connection = nullptr;
    rdma_.queue(receive, this);
    return;
  }
  ibv_sge pieces[verbs_pieces_max];
  ibv_recv_wr wanted{};
  wanted.wr_id = work_id(this, VerbsDevice::Kind::receive);
  wanted.num_sge = verbs_pieces(*receive, pieces);
  wanted.sg_list = pieces;
  ibv_recv_wr* bad = nullptr;
  receives_.push(receive);
  if (ibv_post_recv(pair_, &wanted, &bad) != 0) break_with(Cause::failed);
}

// The adapter is done with it. What was under way may have been carried out or not.
void VerbsConnection::flush() {
  while (!requests_.empty()) {
    RdmaRequest* request = requests_.pop();
    request->status = RdmaStatus::flushed;
    rdma_.queue(request, this);
  }
  while (!receives_.empty()) {
    RdmaReceive* receive = receives_.pop();
    receive->status = RdmaStatus::flushed;
    receive->connection = nullptr;
    rdma_.queue(receive, this);
  }
}

}  // namespace basalt::env
#endif
