// SPDX-License-Identifier: Apache-2.0
// RdmaTargetConnection: one NVMe/RDMA connection of a host: one queue.
//   rdma_target_connection.cc (life, slots)   rdma_target_command.cc (from capsule to response)
//
// The data of a command that is not in its capsule is moved by RDMA read and write between the host's memory, as the
// command's keyed SGL says, and one pool buffer, which the backend uses too: nothing is copied. What the key allows is
// checked by the host's adapter; a command whose key does not allow it ends the connection.
//
// Thread: made and destroyed on the target's home reactor; everything between on its own reactor.
// Memory: slots are made lazily in chunks and reused; payload is in pool buffers, whose shortage makes commands wait in
// line. Nothing is allocated from a length on the wire.
// End: close() ends the connection: the host's memory is not touched any more. Slots that execute keep their buffers
// until the target finishes them, slots whose requests are under way until the connection has ended. It goes when its
// queue has drained, the connection has ended and no slot is in use.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "base/list.h"
#include "env/rdma.h"
#include "nvmf/target/queue.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/payload_hold.h"
#include "nvmf/transport/rdma/rdma_target_device.h"
#include "nvmf/transport/rdma/rdma_wire.h"

namespace basalt::nvmf {

struct RdmaConnectionOptions {
  Duration connect_timeout = seconds(10);   // from the request until Connect has completed
  Duration transfer_timeout = seconds(30);  // of one request on the wire
  uint32_t in_capsule_bytes = 8192;
  uint32_t receive_count = 512;  // of a reactor and device
  // Until a write is refused for which there is no memory: the host sends it again at once.
  Duration refusal_delay = milliseconds(100);
};

class RdmaTargetConnection {
 public:
  // The connections of one reactor, and the devices that they came by.
  struct Shard;

  RdmaTargetConnection(Target& target, Reactor& reactor, Listener& listener, Shard& shard,
                       std::atomic<size_t>& half_open_count, const RdmaConnectionOptions& options,
                       std::unique_ptr<env::RdmaPending> pending);
  ~RdmaTargetConnection();
  RdmaTargetConnection(const RdmaTargetConnection&) = delete;
  RdmaTargetConnection& operator=(const RdmaTargetConnection&) = delete;

  void start();  // posted to the connection's reactor
  void close();
  Listener& listener() const { return listener_; }
  void received(RdmaTargetDevice::Receive* receive);  // a capsule

  // For the transport: posted to the home reactor when the connection is over.
  struct Message : Work {
    RdmaTargetConnection* connection = nullptr;
  };
  Message start_message;
  Message gone_message;
  void (*on_gone)(RdmaTargetConnection*) = nullptr;
  void* transport_context = nullptr;
  ListNode shard_node;
  ListNode half_open_node;

 private:
  enum class SlotState : uint8_t {
    free,
    buffer_wait,  // in line for a pool buffer
    fetching,     // an RDMA read of the command's data is under way
    executing,    // the target has it
    refused,      // is told so in a while
    sending,      // data and response are under way
  };
  struct Slot {
    Request request;
    RdmaTargetConnection* connection = nullptr;
    SlotState state = SlotState::free;
    uint8_t requests_out = 0;                      // posted, and have not run
    bool outstanding = false;                      // the host has no answer yet
    RdmaTargetDevice::Receive* receive = nullptr;  // that holds the in-capsule data
    PayloadHold payload;
    Iovec iov;
    rdma::KeyedSgl keyed;
    void* response = nullptr;  // a cell
    env::RdmaPiece data_piece;
    env::RdmaPiece response_piece;
    env::RdmaRequest transfer;
    env::RdmaRequest send;
    Instant posted;
    ListNode wire_node;
  };
  struct Event : Work {
    RdmaTargetConnection* connection = nullptr;
  };
  struct Deadline : Timer {
    RdmaTargetConnection* connection = nullptr;
  };
  static constexpr size_t slots_per_chunk = 16;

  // rdma_target_connection.cc
  rdma::RejectStatus admit();
  void connection_changed();
  Slot* take_slot();
  bool add_slots();
  void free_slot(Slot* slot);
  void answered(Slot* slot);
  bool cid_in_use(const Slot* slot) const;
  void make_room();
  void end_half_open();
  void associated();
  void maybe_gone();
  void check_stalls();

  // rdma_target_command.cc
  void command_arrived(RdmaTargetDevice::Receive* receive);
  void translate(Slot* slot);
  nvme::Status take_in_capsule_data(Slot* slot, RdmaTargetDevice::Receive* receive, bool* kept);
  bool take_payload(Slot* slot);
  static void payload_ready(PayloadHold* hold);
  void payload_came(Slot* slot);
  void go_on(Slot* slot);
  void fetch(Slot* slot);
  void execute(Slot* slot);
  static void finished(Request* request);
  void respond(Slot* slot, nvme::Status status);  // without having executed
  void refuse_later(Slot* slot);
  void refuse_due();
  void send_response(Slot* slot);
  bool describe_data(Slot* slot);
  void post(Slot* slot, env::RdmaRequest* request);
  static void request_ran(Work* work);
  void wire_failed();
  static Slot* slot_of(Request* request) { return static_cast<Slot*>(request->transport_context); }

  Target& target_;
  Reactor& reactor_;
  Listener& listener_;
  Shard& shard_;
  std::atomic<size_t>& half_open_count_;
  const RdmaConnectionOptions options_;
  std::unique_ptr<env::RdmaPending> pending_;
  std::unique_ptr<env::RdmaConnection> connection_;
  std::shared_ptr<RdmaTargetDevice> device_;
  TargetQueue queue_;
  uint16_t entries_max_ = 0;  // what the host's private data says

  bool half_open_ = true;
  bool closed_ = false;
  bool ended_ = false;
  bool drained_ = false;

  std::vector<std::unique_ptr<Slot[]>> slot_chunks_;
  std::vector<Slot*> free_slots_;
  size_t in_use_count_ = 0;
  // The host may use a command's place as soon as it sees the answer, which can be before this side hears that it was
  // sent: such slots are in use, and outstanding no more.
  size_t outstanding_count_ = 0;
  // How many outstanding slots have a command identifier that ends in this byte.
  std::array<uint8_t, 256> cid_counts_{};
  HostShare* share_ = nullptr;                // from Connect on
  List<Slot, &Slot::wire_node> on_the_wire_;  // oldest first
  List<Slot, &Slot::wire_node> refused_;      // the same

  Event changed_;
  Deadline timer_;
  Deadline stall_timer_;
  Deadline refusal_timer_;
};

struct RdmaTargetConnection::Shard {
  explicit Shard(Reactor& on) : reactor(on) {}
  // Made with the first connection of a device.
  Result<std::shared_ptr<RdmaTargetDevice>> device(env::RdmaDevice& device, const RdmaConnectionOptions& options);

  Reactor& reactor;
  List<RdmaTargetConnection, &RdmaTargetConnection::shard_node> connections;
  List<RdmaTargetConnection, &RdmaTargetConnection::half_open_node> half_open;  // oldest first
  size_t half_open_count = 0;
  size_t half_open_max = SIZE_MAX;
  std::vector<std::weak_ptr<RdmaTargetDevice>> devices;
  RdmaTargetStats* stats = nullptr;
};

}  // namespace basalt::nvmf
