// SPDX-License-Identifier: Apache-2.0
// One NBD connection: negotiation, then requests. It is a state machine over "the next N bytes"; input is taken only
// while there is room for the answers.
//
// Invariants: - a request's memory stays until its completion, even when the socket is gone: the connection is freed
//               only when nothing is in flight
//             - replies leave in order of completion, one send per turn
//             - input is read only while its answers have room: at most negotiation_out_bytes_max of option replies,
//               in_flight_count_max requests and in_flight_bytes_max of payload wait for the client
//             - work per turn is bounded, whatever is in the socket
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "base/list.h"
#include "base/pool.h"
#include "export/nbd/server.h"

namespace basalt::nbd {

class Connection {
 public:
  Connection(Server& server, std::unique_ptr<env::StreamSocket> socket);
  ~Connection();
  void start();
  void drop();  // ends it now; freed by the server once nothing is in flight
  bool negotiating() const { return state_ <= State::option_data; }
  bool ended() const { return state_ == State::ended; }

 private:
  static constexpr size_t in_flight_count_max = 128;
  static constexpr size_t in_flight_bytes_max = size_t{16} << 20;
  static constexpr size_t payload_bytes_max = bdev::io_bytes_max;
  static constexpr size_t negotiation_out_bytes_max = 64 << 10;
  static constexpr uint32_t refused_payload_bytes_max = 32u << 20;  // a refused write's payload, read and dropped

  struct Op {
    bdev::Io io;
    Connection* connection = nullptr;
    Request request{};
    Buffer* buffer = nullptr;
    Iovec iov;
    uint32_t error = 0;
    uint32_t reply_data_bytes = 0;
    std::array<uint8_t, simple_reply_bytes> header{};
    ListNode node;
  };
  struct Event : Work {
    Connection* connection = nullptr;
  };
  enum class State : uint8_t {
    client_flags,
    option_header,
    option_data,
    request_header,
    write_payload,
    read_buffer,
    drop_payload,
    ended
  };

  void receive();
  bool step(size_t* budget_bytes);
  bool drop_payload(size_t* budget_bytes);
  void wait_for_input();
  void negotiated();
  bool take_bytes(void* to, size_t want);  // false: not all there yet
  void on_client_flags();
  void on_option_header();
  void on_option_data();
  void answer_list();
  void answer_info();
  void on_request();
  void judge(Op* op);
  uint32_t error_of(const Request& request) const;
  bool take_payload_buffer();
  void submit(Op* op);
  static void io_done(bdev::Io* io);
  void reply(Op* op);
  void flush_output();
  void send_now();
  void free_op(Op* op);
  void maybe_free();

  Server& server_;
  Reactor& reactor_;
  std::unique_ptr<env::StreamSocket> socket_;
  State state_ = State::client_flags;
  bool no_zeroes_ = false;
  bool waiting_for_buffer_ = false;
  bool receiving_stopped_ = false;  // too much in flight
  bool hung_up_ = false;            // no more input will come: end when all is answered

  std::array<uint8_t, 32> header_{};
  size_t have_bytes_ = 0;  // of what the state waits for
  OptionHeader option_{};
  std::vector<uint8_t> option_data_;
  uint32_t drop_bytes_ = 0;
  Op* incoming_ = nullptr;  // a write whose payload is arriving

  std::vector<uint8_t> negotiation_out_;
  size_t negotiation_sent_bytes_ = 0;
  List<Op, &Op::node> replies_;
  size_t first_reply_sent_bytes_ = 0;
  bool flush_queued_ = false;
  bool writable_armed_ = false;
  bool readable_armed_ = false;

  Pool<Op> ops_{in_flight_count_max + 1, 16};
  size_t in_flight_bytes_ = 0;
  Event readable_;
  Event writable_;
  Event turn_end_;
  struct Waiter : BufferWaiter {
    Connection* connection = nullptr;
  } buffer_waiter_;
  // Ends a handshake that is not finished, or a payload that does not arrive, in time.
  struct Deadline : Timer {
    Connection* connection = nullptr;
  } deadline_;
};

}  // namespace basalt::nbd
