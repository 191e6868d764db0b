// SPDX-License-Identifier: Apache-2.0
// TcpConnection: one NVMe/TCP connection of a host: one queue. The state is here; by event family:
//   tcp_target_connection.cc (life, command slots)  tcp_target_receive.cc  tcp_target_send.cc
//   tcp_target_tls.cc (the handshake's outcome)
//
// On a TLS port the socket is a TlsSocket from the start; nothing else differs, and a plain connection pays nothing.
//
// Thread: made and destroyed on the target's home reactor; everything between on its own reactor.
// Memory: slots are made lazily in chunks and reused; payload is in pool buffers, whose shortage makes commands wait in
// line. Nothing is allocated from a length on the wire.
// End: close() drops the socket and what was not read. Slots that execute keep their buffers until the target finishes
// them; the connection goes when its queue has drained and no slot is in use.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "base/list.h"
#include "env/env.h"
#include "nvmf/pdu/decoder.h"
#include "nvmf/pdu/encoder.h"
#include "nvmf/target/queue.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/payload_hold.h"
#include "nvmf/transport/tcp/tls_socket.h"

namespace basalt::nvmf {

struct TcpConnectionOptions {
  Duration tls_timeout = seconds(10);        // for the handshake, where there is one
  Duration initialize_timeout = seconds(5);  // until ICReq
  Duration connect_timeout = seconds(10);    // from ICReq until Connect has completed
  // What the host has to move - the rest of a PDU, data it was asked for, answers it has to read - must move within
  // this time, and as much longer as it keeps up the rate.
  Duration transfer_timeout = seconds(30);
  uint32_t transfer_bytes_per_s_min = 16 << 10;
  Duration linger = seconds(1);  // after a termination request, so that the host can read it
  uint32_t in_capsule_bytes = 8192;
  uint32_t maxh2cdata_bytes = 256 << 10;
  size_t receive_bytes = 64 << 10;
  size_t receive_bytes_per_turn = 512 << 10;
};

class TcpConnection {
 public:
  // The connections of one reactor.
  struct Shard;

  TcpConnection(Target& target, Reactor& reactor, Listener& listener, Shard& shard,
                std::atomic<size_t>& half_open_count, const TcpConnectionOptions& options,
                std::unique_ptr<env::PendingSocket> pending, const crypto::TlsContext* tls = nullptr);
  ~TcpConnection();
  TcpConnection(const TcpConnection&) = delete;
  TcpConnection& operator=(const TcpConnection&) = delete;

  void start();  // posted to the connection's reactor
  void close();
  Listener& listener() const { return listener_; }
  Reactor& reactor() const { return reactor_; }

  // For the transport: posted to the home reactor when the connection is over.
  struct Message : Work {
    TcpConnection* connection = nullptr;
  };
  Message start_message;
  Message gone_message;
  void (*on_gone)(TcpConnection*) = nullptr;
  void* transport_context = nullptr;
  ListNode shard_node;
  ListNode half_open_node;

 private:
  enum class SlotState : uint8_t {
    free,
    receiving,    // in-capsule data, or the rest of the capsule
    buffer_wait,  // in line for a pool buffer
    r2t_queued,   // asking for data
    data_wait,    // the R2T was sent; H2CData comes
    executing,    // the target has it
    sending,
  };
  // When something began that the host must end, and what had been moved by then.
  struct Since {
    Instant when = Instant::never();
    uint64_t moved_bytes = 0;
  };
  struct Slot {
    Request request;
    TcpConnection* connection = nullptr;
    uint16_t tag = 0;
    SlotState state = SlotState::free;
    bool digest_failed = false;
    nvme::Status plan;
    PayloadHold payload;
    Iovec iov;
    const void* lent = nullptr;  // a read's data lies here and not in the buffer, until the end of this turn
    size_t data_piece = 0;       // of the batch
    uint32_t received_bytes = 0;
    Since asked;  // the R2T was sent
    ListNode asked_node;
    ListNode send_node;
    uint64_t send_end = 0;  // in the stream of bytes sent
    uint8_t header[pdu::encoded_small_header_bytes_max];
    uint8_t response[pdu::encoded_small_header_bytes_max];
    uint8_t digest[pdu::digest_bytes];
  };
  static constexpr size_t slots_per_chunk = 16;
  static constexpr size_t pieces_per_slot_max = 4;
  static constexpr size_t pieces_max = 1020;

  // tcp_target_connection.cc
  Slot* take_slot();
  void free_slot(Slot* slot);
  bool get_buffer(Slot* slot);
  static void payload_ready(PayloadHold* hold);
  void buffer_came(Slot* slot);
  void resume(Slot* slot);
  static Slot* slot_of(Request* request) { return static_cast<Slot*>(request->transport_context); }
  static void finished(Request* request);
  void make_room();
  void end_half_open();
  void associated();
  void maybe_gone();
  void fail(pdu::ProtocolError error);
  static void timer_due(Work* work);
  // tcp_target_stalls.cc
  void watch_stalls();
  void check_stalls();
  bool overdue(const Since& since, uint64_t moved_bytes) const;
  bool cid_in_use(const Slot* slot) const;

  // tcp_target_tls.cc
  void begin_tls();
  void look_at_tls(const env::Transfer& transfer);
  void refuse_tls(bool timed_out);
  bool lingers_with_alert();

  // tcp_target_receive.cc
  void readable();
  env::Transfer receive(size_t* capacity);
  void process();
  void header_arrived();
  void initialize();
  void command_arrived();
  void data_header_arrived();
  void data_arrived(std::span<const uint8_t> bytes);
  void pdu_ended();
  void capsule_ended(Slot* slot);
  void h2c_data_ended(Slot* slot);
  void go_on(Slot* slot);  // with its buffer
  void execute(Slot* slot);

  // tcp_target_send.cc
  void respond(Slot* slot, nvme::Status status);  // without having executed
  void send_r2t(Slot* slot);
  void queue_send(Slot* slot);
  void schedule_flush();
  void flush();
  bool fill_batch();
  void append(const void* bytes, size_t length_bytes);
  void append_response(Slot* slot);
  void sent(size_t count_bytes);
  static void keep_lent(Slot* slot);
  void keep_all_lent();

  Target& target_;
  Reactor& reactor_;
  Listener& listener_;
  Shard& shard_;
  std::atomic<size_t>& half_open_count_;
  const TcpConnectionOptions options_;
  std::unique_ptr<env::PendingSocket> pending_;
  const crypto::TlsContext* const tls_context_;  // nullptr: plain
  struct TlsEnd;
  std::unique_ptr<TlsEnd> tls_;
  TlsEnd* securing_ = nullptr;  // until the handshake has ended well
  std::unique_ptr<env::StreamSocket> socket_;
  TargetQueue queue_;

  bool half_open_ = true;
  bool initialized_ = false;
  bool closed_ = false;
  bool failed_ = false;  // a termination request is on its way; input is thrown away
  bool drained_ = false;
  bool processing_ = false;

  // Slots.
  std::vector<std::unique_ptr<Slot[]>> slot_chunks_;
  std::vector<Slot*> free_slots_;
  size_t slot_count_ = 0;
  size_t in_use_count_ = 0;
  // How many slots in use have a command identifier that ends in this byte: a host that numbers its commands plainly
  // has one at most, and nothing else is looked at.
  std::array<uint8_t, 256> cid_counts_{};
  HostShare* share_ = nullptr;  // from Connect on

  // Receiving.
  pdu::Decoder decoder_;
  pdu::Digests digests_;
  std::unique_ptr<uint8_t[]> receive_buffer_;
  std::span<const uint8_t> input_;
  Slot* receiving_ = nullptr;  // whose payload is coming
  Slot* stalled_ = nullptr;    // input waits until this one has a buffer
  uint64_t received_bytes_ = 0;
  uint64_t pdu_count_ = 0;
  List<Slot, &Slot::asked_node> asked_;  // R2T sent and data not all here, oldest first

  // Sending.
  List<Slot, &Slot::send_node> send_queue_;
  List<Slot, &Slot::send_node> sending_;
  std::vector<Iovec> batch_;
  size_t batch_first_ = 0;
  uint64_t queued_bytes_ = 0;
  uint64_t sent_bytes_ = 0;
  size_t control_bytes_ = 0;  // ICResp or a termination request, ahead of everything
  const uint8_t* control_ = nullptr;
  uint8_t ic_response_[sizeof(pdu::IcResponse)];
  uint8_t term_request_[pdu::encoded_header_bytes_max];
  bool flush_scheduled_ = false;
  bool writable_armed_ = false;

  // Stalls: what was seen when they were looked at last.
  uint64_t pdu_seen_ = 0;
  Since inside_pdu_;
  Since blocked_;  // the socket takes nothing

  struct Event : Work {
    TcpConnection* connection = nullptr;
  };
  Event readable_event_;
  Event writable_event_;
  Event flush_event_;
  struct Deadline : Timer {
    TcpConnection* connection = nullptr;
  };
  Deadline timer_;
  Deadline stall_timer_;
};

struct TcpConnection::Shard {
  List<TcpConnection, &TcpConnection::shard_node> connections;
  // Oldest first; who has proven to have a key gives way after all strangers.
  List<TcpConnection, &TcpConnection::half_open_node> half_open;
  List<TcpConnection, &TcpConnection::half_open_node> proven_half_open;
  size_t half_open_count = 0;  // of both
  size_t half_open_max = SIZE_MAX;
  HostShares hosts;
  TlsScratch tls_scratch;
  std::atomic<uint64_t>* tls_established_count = nullptr;
};

}  // namespace basalt::nvmf
