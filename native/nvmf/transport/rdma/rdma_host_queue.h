// SPDX-License-Identifier: Apache-2.0
// RdmaHostQueue: the host's end of one NVMe/RDMA connection.
//   rdma_host_queue.cc (life)   rdma_host_send.cc (commands)   rdma_host_receive.cc (responses)
//   rdma_host_end.h (what outlives the queue until the connection has ended)
//
// A command's data is opened to the target by a memory window over exactly that data, for this connection alone, and
// for one direction; the response closes it again (remote invalidation), or this side does, before the command
// completes. Small writes of I/O queues travel in the capsule. Data in one piece of the arena is used in place; what is
// in pieces or elsewhere is copied through a pool buffer, and counted.
//
// Slots: one per command that the controller may hold; a CID is (generation, slot), so that a late or invented response
// is recognised. A command completes when its response is there, its requests have ended and its window is closed.
//
// What the target sends is not trusted: a response that fits no outstanding command, of a wrong length, or that closes
// another window ends the connection with an error that names it. How much of a read's data the target has written
// cannot be seen; it can write nothing else.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nvmf/transport/rdma/rdma_host.h"
#include "nvmf/transport/rdma/rdma_host_end.h"

namespace basalt::nvmf {

class RdmaHostQueue final : public HostQueue {
 public:
  RdmaHostQueue(Reactor& reactor, const HostQueueOptions& options, RdmaHostTransport& transport,
                std::shared_ptr<RdmaHostStats> stats, std::string peer);
  ~RdmaHostQueue() override;

  // Waits for the connection and exchanges private data. Once, before the first submit.
  Task<Outcome> handshake(std::unique_ptr<env::RdmaConnection> connection);

 private:
  friend struct RdmaHostEnd;
  static constexpr size_t pieces_max = 16;        // of a capsule: the command and its data
  static constexpr size_t bdev_pieces_max = 512;  // of what a submitter has
  enum class DataWay : uint8_t { none, in_capsule, window };
  struct Slot {
    HostCommand* command = nullptr;
    RdmaHostQueue* queue = nullptr;
    uint16_t index = 0;
    uint16_t generation = 0;
    uint8_t requests_out = 0;  // posted, and have not run
    DataWay way = DataWay::none;
    bool window_open = false;
    bool answered = false;
    bool sent = false;
    nvme::Command* capsule = nullptr;  // in the end's block
    uint16_t piece_count = 0;
    env::RdmaPiece pieces[pieces_max];  // the first is the command
    env::RdmaPiece window_piece;
    env::RdmaRequest bind;
    env::RdmaRequest send;
    env::RdmaRequest invalidate;
    RdmaBounce bounce;
    struct Refused : Work {
      Slot* slot = nullptr;
    } refused;
  };
  class Changed;

  void start(HostCommand* command) override;
  void end_connection() override;
  Outcome prepare();
  Outcome rejected() const;
  bool late();
  void connection_changed();
  void lose_connection(const std::string& what);
  void maybe_drained();

  // rdma_host_send.cc
  void assign(Slot* slot, HostCommand* command);
  bool in_place(Slot* slot, bool* refused);
  void bounce_ready(Slot* slot);
  void use_bounce(Slot* slot);
  void post(Slot* slot);
  void post_request(Slot* slot, env::RdmaRequest* request);
  static void request_ran(Work* work);
  void refuse(Slot* slot);
  void next_commands();

  // rdma_host_receive.cc
  void received(env::RdmaReceive* receive);
  void take_response(const nvme::Completion& completion, const env::RdmaReceive& receive);
  Slot* find(uint16_t cid);
  void maybe_release(Slot* slot);
  void release(Slot* slot);
  void copy_back(Slot* slot);

  const HostQueueOptions options_;
  RdmaHostTransport& transport_;
  const std::shared_ptr<RdmaHostStats> stats_;
  const std::string peer_;
  uint16_t slot_bits_ = 0;
  std::unique_ptr<RdmaHostEnd> end_;
  std::unique_ptr<Slot[]> slots_;
  std::vector<Slot*> free_;
  List<HostCommand, &HostCommand::wait_node> waiting_;  // for a slot, or behind one that waits for a buffer
  Slot* stalled_ = nullptr;                             // waits for a buffer; commands keep their order
  size_t deferred_count_ = 0;                           // refusals that are deferred
  bool ended_ = false;
};

}  // namespace basalt::nvmf
