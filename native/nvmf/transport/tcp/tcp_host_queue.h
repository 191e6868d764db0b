// SPDX-License-Identifier: Apache-2.0
// TcpHostQueue: the host's end of one NVMe/TCP connection. Submissions are gathered and sent once per turn; read data
// goes from the socket straight into the submitter's memory, but for what was buffered with a header.
//
// Slots: one per command that the controller may hold; a CID is (generation, slot), so that a late or invented response
// is recognised. A slot's header and its command's data stay in place until the socket has taken them: an answer that
// comes before that is kept back.
//
// What the target sends is not trusted: any PDU that does not fit an outstanding command (unknown CID, wrong direction,
// wrong offset, beyond the data, R2T twice, short data reported as success) ends the connection with an error that
// names it; outstanding commands are then lost, and nothing outside their own data was written.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "env/env.h"
#include "nvmf/host/transport.h"
#include "nvmf/pdu/decoder.h"
#include "nvmf/pdu/encoder.h"
#include "nvmf/transport/tcp/tls_socket.h"

namespace basalt::nvmf {

class TcpHostQueue final : public HostQueue {
 public:
  TcpHostQueue(Reactor& reactor, const HostQueueOptions& options, pdu::Digests digests, std::string peer);
  ~TcpHostQueue() override;

  // Waits for the connection, makes it a secure one when there is a context, exchanges ICReq and ICResp. Once, before
  // the first submit.
  Task<Outcome> handshake(std::unique_ptr<env::StreamSocket> socket, const crypto::TlsContext* tls);

 private:
  struct Slot {
    HostCommand* command = nullptr;
    ListNode send_node;  // has something to send
    uint16_t index = 0;
    uint16_t generation = 0;
    bool capsule_sent = false;  // in a batch, at least
    bool in_batch = false;
    bool finished = false;  // answered, and kept back until the batch was sent
    bool r2t_active = false;
    bool in_capsule = false;
    uint16_t r2t_ttag = 0;
    uint32_t r2t_left_bytes = 0;
    uint32_t sent_bytes = 0;      // of host-to-controller data
    uint32_t received_bytes = 0;  // of controller-to-host data
    uint8_t header[pdu::encoded_small_header_bytes_max];
    uint8_t digest[pdu::digest_bytes];
  };
  struct QueueWork : Work {
    TcpHostQueue* queue = nullptr;
  };
  enum class Readiness : uint8_t { readable, writable };
  class Ready;

  void start(HostCommand* command) override;
  void end_connection() override;
  Replaced replace(HostCommand* command, HostCommand* stand_in) override;
  bool expired() const;
  Task<Outcome> secure(const crypto::TlsContext& tls);

  // Sending (tcp_host_send.cc)
  void assign(Slot* slot, HostCommand* command);
  void request_flush();
  void flush();
  bool build_batch();
  bool add_capsule(Slot* slot);
  bool add_data(Slot* slot);
  bool add_payload(Slot* slot, uint32_t offset_bytes, uint32_t length_bytes);
  void batch_sent();
  void release(Slot* slot);

  // Receiving (tcp_host_receive.cc)
  void receive();
  bool receive_some();
  bool process(std::span<const uint8_t> input);
  bool begin_pdu();
  bool begin_data();
  bool take_chunk();
  bool end_pdu();
  bool take_response(const nvme::Completion& completion);
  bool take_r2t();
  bool take_termination();
  Slot* find(uint16_t cid);
  void finish(Slot* slot);
  bool violation(const std::string& what);
  void lose_connection(const char* what);
  void maybe_drained();

  const HostQueueOptions options_;
  const pdu::Digests digests_;
  const std::string peer_;
  std::unique_ptr<TlsScratch> tls_scratch_;  // with TLS
  std::unique_ptr<env::StreamSocket> socket_;
  pdu::Decoder decoder_;
  uint32_t maxh2cdata_bytes_ = pdu::max_h2c_data_bytes_min;
  uint16_t slot_bits_ = 0;
  std::unique_ptr<Slot[]> slots_;
  std::vector<Slot*> free_;
  List<HostCommand, &HostCommand::wait_node> waiting_;  // for a slot
  List<Slot, &Slot::send_node> to_send_;

  std::unique_ptr<Iovec[]> batch_;
  size_t batch_count_ = 0;
  size_t batch_cursor_ = 0;
  std::vector<Slot*> batch_slots_;
  bool flush_queued_ = false;
  bool writable_armed_ = false;
  QueueWork flush_work_;
  QueueWork writable_work_;

  std::unique_ptr<uint8_t[]> input_;
  Slot* data_slot_ = nullptr;       // whose C2HData is arriving
  uint32_t data_offset_bytes_ = 0;  // where its next byte goes
  std::string termination_;         // what the target's termination request says
  QueueWork readable_work_;

  QueueWork lost_work_;
  bool lost_work_ran_ = false;
  bool connected_ = false;
};

}  // namespace basalt::nvmf
