// SPDX-License-Identifier: Apache-2.0
// VerbsRdma: one poller's door to the machine's RDMA adapters: its channel of connection manager events, the adapters
// that it has opened, and the line of work that is to run.
//
// Queue pairs are made here and not by librdmacm: on an adapter that this poller has opened for itself, so that nothing
// of it is shared between threads, and with limits that librdmacm does not let one set.
#pragma once

#include "env/linux/verbs_library.h"

#ifdef BASALT_HAS_VERBS

#include <deque>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "env/linux/linux_rdma.h"
#include "env/linux/verbs_fd.h"

struct sockaddr_storage;

namespace basalt::env {

class VerbsDevice;

// An event of the connection manager, copied: the original has been given back.
struct VerbsNews {
  rdma_cm_event_type type;
  int status;
  rdma_cm_id* id;
  uint8_t responder_resources;
  uint8_t initiator_depth;
  std::vector<uint8_t> private_data;
};

// Who hears of an id; its `context`. nullptr: nobody.
class VerbsListening {
 public:
  virtual ~VerbsListening() = default;
  virtual void on_news(VerbsNews news) = 0;
};

class VerbsRdma final : public LinuxRdma {
 public:
  VerbsRdma(SocketPoller& poller, std::shared_ptr<VerbsChannel> channel);
  ~VerbsRdma() override;
  Result<std::unique_ptr<RdmaListener>> listen(const Address& address) override;
  Result<std::unique_ptr<RdmaConnection>> connect(const Address& address) override;
  std::unique_ptr<RdmaConnection> adopt(std::unique_ptr<RdmaPending> pending) override;
  size_t poll() override;
  bool prepare_sleep() override;

  SocketPoller& poller() const { return poller_; }
  const std::shared_ptr<VerbsChannel>& channel() const { return channel_; }
  const VerbsLibrary& rdma_core() const { return *channel_->library; }
  Result<VerbsDevice*> open(ibv_device* device);

  // Runs at the next poll.
  void queue(Work* work, const void* owner) { ready_.push_back({work, owner}); }
  void forget(const void* owner);
  // The peer is told the end, and told again, until it has answered.
  void linger(rdma_cm_id* id);

 private:
  struct Ready {
    Work* work;
    const void* owner;
  };
  struct Lingering final : VerbsListening {
    void on_news(VerbsNews news) override;
    VerbsRdma* rdma = nullptr;
    rdma_cm_id* id = nullptr;
  };
  void read_events();

  SocketPoller& poller_;
  const std::shared_ptr<VerbsChannel> channel_;
  VerbsFd events_fd_;
  std::vector<std::unique_ptr<VerbsDevice>> devices_;
  std::deque<Ready> ready_;
  std::list<Lingering> lingering_;
};

// An IP literal and a port. False: not one.
bool verbs_sockaddr(const Address& address, sockaddr_storage* out);
std::string verbs_address_text(const sockaddr* address);

}  // namespace basalt::env
#endif
