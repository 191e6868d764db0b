// SPDX-License-Identifier: Apache-2.0
#include "env/linux/verbs_rdma.h"

#ifdef BASALT_HAS_VERBS

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "env/linux/verbs_connection.h"
#include "env/linux/verbs_device.h"
#include "env/linux/verbs_listener.h"

namespace basalt::env {
namespace {

constexpr int resolve_timeout_ms = 2000;

Errc rdma_errc(int error) {
  switch (error) {
    case EADDRINUSE:
      return Errc::busy;
    case EACCES:
    case EPERM:
      return Errc::permission;
    case ENODEV:
    case EADDRNOTAVAIL:
      return Errc::not_found;
    case ENOMEM:
    case EMFILE:
      return Errc::no_memory;
    default:
      return Errc::io;
  }
}

Error rdma_error(const char* what, const Address& address, int error) {
  const bool no_device = error == ENODEV || error == EADDRNOTAVAIL;
  return {rdma_errc(error), std::string(what) + " " + address.to_string() + ": " +
                                (no_device ? "no RDMA adapter has or reaches this address" : std::strerror(error))};
}

Error not_an_address(const Address& address) {
  return {Errc::invalid_argument, "'" + address.host + "' is not an IPv4 or IPv6 address"};
}

}  // namespace

bool verbs_sockaddr(const Address& address, sockaddr_storage* out) {
  *out = {};
  auto* v4 = reinterpret_cast<sockaddr_in*>(out);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(out);
  if (address.family != Address::Family::ip) return false;
  if (inet_pton(AF_INET, address.host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address.port);
    return true;
  }
  if (inet_pton(AF_INET6, address.host.c_str(), &v6->sin6_addr) != 1) return false;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(address.port);
  return true;
}

std::string verbs_address_text(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "?";
  uint16_t port = 0;
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    port = ntohs(v4->sin_port);
  } else if (address->sa_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
    inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
    port = ntohs(v6->sin6_port);
  }
  return std::string(text) + ":" + std::to_string(port);
}

VerbsRdma::VerbsRdma(SocketPoller& poller, std::shared_ptr<VerbsChannel> channel)
    : poller_(poller),
      channel_(std::move(channel)),
      events_fd_(
          poller, channel_->events->fd, [](void* self) { static_cast<VerbsRdma*>(self)->read_events(); }, this) {}

VerbsRdma::~VerbsRdma() {
  for (const Lingering& last : lingering_)
    rdma_core().manager.destroy_id(last.id);
}

// ---- events --------------------------------------------------------------------------------------------------------

void VerbsRdma::read_events() {
  rdma_cm_event* event = nullptr;
  while (rdma_core().manager.get_cm_event(channel_->events, &event) == 0) {
    VerbsNews news{event->event, event->status, event->id, 0, 0, {}};
    // A request comes by an id of its own; who listens is the other one.
    const bool request = event->event == RDMA_CM_EVENT_CONNECT_REQUEST;
    auto* listening = static_cast<VerbsListening*>((request ? event->listen_id : event->id)->context);
    news.responder_resources = event->param.conn.responder_resources;
    news.initiator_depth = event->param.conn.initiator_depth;
    const auto* data = static_cast<const uint8_t*>(event->param.conn.private_data);
    if (data != nullptr) news.private_data.assign(data, data + event->param.conn.private_data_len);
    // Given back first: an id can be destroyed only then.
    rdma_core().manager.ack_cm_event(event);
    if (listening != nullptr) listening->on_news(std::move(news));
  }
}

void VerbsRdma::linger(rdma_cm_id* id) {
  Lingering& last = lingering_.emplace_back();
  last.rdma = this;
  last.id = id;
  id->context = static_cast<VerbsListening*>(&last);
}

void VerbsRdma::Lingering::on_news(VerbsNews news) {
  if (news.type != RDMA_CM_EVENT_DISCONNECTED && news.type != RDMA_CM_EVENT_TIMEWAIT_EXIT &&
      news.type != RDMA_CM_EVENT_DEVICE_REMOVAL) {
    return;
  }
  VerbsRdma& owner = *rdma;
  owner.rdma_core().manager.destroy_id(id);
  owner.lingering_.remove_if([this](const Lingering& each) { return &each == this; });
}

// ---- polling -------------------------------------------------------------------------------------------------------

size_t VerbsRdma::poll() {
  for (const auto& device : devices_)
    device->poll();
  // Work that is run may destroy things whose work stands behind it: forget() finds it in the line.
  size_t ran = 0;
  const size_t batch = ready_.size();
  for (size_t i = 0; i < batch && !ready_.empty(); i++) {
    Work* work = ready_.front().work;
    ready_.pop_front();
    if (work == nullptr) continue;
    work->run(work);
    ran++;
  }
  return ran;
}

bool VerbsRdma::prepare_sleep() {
  for (const auto& device : devices_)
    device->arm();
  return ready_.empty();
}

void VerbsRdma::forget(const void* owner) {
  for (Ready& ready : ready_) {
    if (ready.owner == owner) ready.work = nullptr;
  }
}

// ---- the door ------------------------------------------------------------------------------------------------------

Result<VerbsDevice*> VerbsRdma::open(ibv_device* device) {
  for (const auto& known : devices_) {
    if (!known->removed() && known->is(device)) return known.get();
  }
  auto opened = VerbsDevice::open(*this, device);
  if (!opened) return std::move(opened).error();
  devices_.push_back(std::move(opened).value());
  return devices_.back().get();
}

Result<std::unique_ptr<RdmaListener>> VerbsRdma::listen(const Address& address) {
  sockaddr_storage native;
  if (!verbs_sockaddr(address, &native)) return not_an_address(address);
  rdma_cm_id* id = nullptr;
  const VerbsLibrary::Manager& manager = rdma_core().manager;
  if (manager.create_id(channel_->events, &id, nullptr, RDMA_PS_TCP) != 0) {
    return rdma_error("listen on", address, errno);
  }
  if (manager.bind_addr(id, reinterpret_cast<sockaddr*>(&native)) != 0 ||
      manager.listen(id, static_cast<int>(VerbsListener::backlog_max)) != 0) {
    const int error = errno;
    manager.destroy_id(id);
    return rdma_error("listen on", address, error);
  }
  Address bound = address;
  bound.port = ntohs(manager.get_src_port(id));
  return std::unique_ptr<RdmaListener>(std::make_unique<VerbsListener>(*this, id, std::move(bound)));
}

Result<std::unique_ptr<RdmaConnection>> VerbsRdma::connect(const Address& address) {
  sockaddr_storage native;
  if (!verbs_sockaddr(address, &native)) return not_an_address(address);
  rdma_cm_id* id = nullptr;
  const VerbsLibrary::Manager& manager = rdma_core().manager;
  if (manager.create_id(channel_->events, &id, nullptr, RDMA_PS_TCP) != 0) {
    return rdma_error("connect to", address, errno);
  }
  auto connection = std::make_unique<VerbsConnection>(*this, id, address.to_string());
  if (manager.resolve_addr(id, nullptr, reinterpret_cast<sockaddr*>(&native), resolve_timeout_ms) != 0) {
    return rdma_error("connect to", address, errno);
  }
  return std::unique_ptr<RdmaConnection>(std::move(connection));
}

std::unique_ptr<RdmaConnection> VerbsRdma::adopt(std::unique_ptr<RdmaPending> pending) {
  auto& request = static_cast<VerbsPending&>(*pending);
  if (!request.move_to(*this)) return nullptr;
  auto device = open(request.id()->verbs->device);
  if (!device) return nullptr;
  return std::make_unique<VerbsConnection>(*this, **device, request);
}

}  // namespace basalt::env
#endif
