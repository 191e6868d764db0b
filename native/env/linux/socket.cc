// SPDX-License-Identifier: Apache-2.0
#include "env/linux/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/assert.h"

namespace basalt::env {
namespace {

struct NativeAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  int family() const { return storage.ss_family; }
};

Result<NativeAddress> to_native(const Address& address) {
  NativeAddress native;
  if (address.family == Address::Family::unix_path) {
    auto* unix_address = reinterpret_cast<sockaddr_un*>(&native.storage);
    if (address.host.empty() || address.host.size() >= sizeof(unix_address->sun_path)) {
      return Error{Errc::invalid_argument,
                   "path of a Unix socket: 1 to 107 bytes, got " + std::to_string(address.host.size())};
    }
    unix_address->sun_family = AF_UNIX;
    std::memcpy(unix_address->sun_path, address.host.c_str(), address.host.size() + 1);
    native.length = sizeof(sockaddr_un);
    return native;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(&native.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&native.storage);
  if (inet_pton(AF_INET, address.host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address.port);
    native.length = sizeof(sockaddr_in);
  } else if (inet_pton(AF_INET6, address.host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(address.port);
    native.length = sizeof(sockaddr_in6);
  } else {
    return Error{Errc::invalid_argument, "'" + address.host + "' is not an IPv4 or IPv6 address"};
  }
  return native;
}

std::string name_of(const sockaddr_storage& storage) {
  char text[INET6_ADDRSTRLEN] = "?";
  uint16_t port = 0;
  if (storage.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    port = ntohs(v4.sin_port);
  } else if (storage.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
    port = ntohs(v6.sin6_port);
  } else {
    return "unix";
  }
  return std::string(text) + ":" + std::to_string(port);
}

// `unreachable` says that nobody listens there: a machine answered so. No route is a fault of the network, perhaps this
// machine's own, and says nothing about the peer.
Errc code_of(int error) {
  switch (error) {
    case EADDRINUSE:
      return Errc::busy;
    case EACCES:
    case EPERM:
      return Errc::permission;
    case ECONNREFUSED:
    case ENOENT:
      return Errc::unreachable;
    case ETIMEDOUT:
      return Errc::timed_out;
    case EADDRNOTAVAIL:
      return Errc::invalid_argument;
    case EMFILE:
    case ENFILE:
      return Errc::no_memory;
    default:
      return Errc::io;
  }
}

Error system_error(const char* what, const Address& address, int error) {
  return {code_of(error), std::string(what) + " " + address.to_string() + ": " + std::strerror(error)};
}

Transfer to_transfer(ssize_t moved) {
  if (moved > 0) return {Transfer::State::done, static_cast<size_t>(moved)};
  if (moved == 0) return {Transfer::State::closed, 0};
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return {Transfer::State::would_block, 0};
  return {Transfer::State::failed, 0};
}

msghdr message_of(const Iovec* iov, size_t count) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(reinterpret_cast<const iovec*>(iov));
  message.msg_iovlen = count;
  return message;
}

class LinuxSocket final : public StreamSocket, public Watched {
 public:
  LinuxSocket(SocketPoller& poller, int fd, std::string peer) : Watched(poller, fd), peer_(std::move(peer)) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }

  Transfer try_recv(const Iovec* iov, size_t count) override {
    ssize_t moved;
    if (count == 1) {
      moved = recv(fd(), iov->base, iov->length_bytes, MSG_DONTWAIT);
    } else {
      msghdr message = message_of(iov, count);
      moved = recvmsg(fd(), &message, MSG_DONTWAIT);
    }
    const Transfer transfer = to_transfer(moved);
    if (transfer.state == Transfer::State::done) {
      poller_.note_progress();
      poller_.make_hot(*this);
    } else if (transfer.state == Transfer::State::would_block) {
      read_drained();
    }
    return transfer;
  }

  Transfer try_send(const Iovec* iov, size_t count) override {
    msghdr message = message_of(iov, count);
    const ssize_t moved = sendmsg(fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    const Transfer transfer = to_transfer(moved);
    if (transfer.state == Transfer::State::would_block) write_filled();
    return transfer;
  }

  void arm_readable(Work* work) override { arm_read(work); }
  void arm_writable(Work* work) override { arm_write(work); }
  void disarm() override { disarm_all(); }

  Outcome connect_result() override {
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(fd(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error == 0) return success();
    return Error{code_of(error), "connect to " + peer_ + ": " + std::strerror(error)};
  }

  std::string peer() const override { return peer_; }

 private:
  std::string peer_;
};

class LinuxPending final : public PendingSocket {
 public:
  LinuxPending(int fd, std::string peer) : fd_(fd), peer_(std::move(peer)) {}
  ~LinuxPending() override {
    if (fd_ >= 0) close(fd_);
  }
  int release() { return std::exchange(fd_, -1); }
  const std::string& peer() const { return peer_; }

 private:
  int fd_;
  std::string peer_;
};

class LinuxListener final : public StreamListener, public Watched {
 public:
  LinuxListener(SocketPoller& poller, int fd, Address address) : Watched(poller, fd), address_(std::move(address)) {}
  ~LinuxListener() override {
    if (address_.family == Address::Family::unix_path) unlink(address_.host.c_str());
  }

  std::unique_ptr<PendingSocket> try_accept() override {
    for (;;) {
      sockaddr_storage peer{};
      socklen_t length = sizeof(peer);
      const int accepted = accept4(fd(), reinterpret_cast<sockaddr*>(&peer), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (accepted < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        // Out of descriptors, too: the next connection's event tries again, instead of spinning until then.
        read_drained();
        return nullptr;
      }
      poller_.note_progress();
      if (address_.family == Address::Family::unix_path && !may_connect(accepted)) {
        close(accepted);
        continue;
      }
      return std::make_unique<LinuxPending>(accepted, name_of(peer));
    }
  }

  void arm_acceptable(Work* work) override { arm_read(work); }
  const Address& address() const override { return address_; }

 private:
  // A Unix socket serves its own user and root.
  static bool may_connect(int accepted) {
    ucred credentials{};
    socklen_t length = sizeof(credentials);
    if (getsockopt(accepted, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return false;
    return credentials.uid == geteuid() || credentials.uid == 0;
  }
  Address address_;
};

// A socket file that nobody serves any more may go; one that answers is in use.
bool remove_stale_unix_socket(const NativeAddress& native, const Address& address) {
  struct stat info;
  if (lstat(address.host.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (probe < 0) return false;
  const int result = connect(probe, reinterpret_cast<const sockaddr*>(&native.storage), native.length);
  const bool stale = result != 0 && errno == ECONNREFUSED;
  close(probe);
  return stale && unlink(address.host.c_str()) == 0;
}

uint16_t bound_port(int fd) {
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length);
  if (bound.ss_family == AF_INET) return ntohs(reinterpret_cast<sockaddr_in&>(bound).sin_port);
  if (bound.ss_family == AF_INET6) return ntohs(reinterpret_cast<sockaddr_in6&>(bound).sin6_port);
  return 0;
}

}  // namespace

Watched::Watched(SocketPoller& poller, int fd) : poller_(poller), fd_(fd) {
  poller_.watch(*this);
}

Watched::~Watched() {
  if (ready_node.linked()) ready_node.unlink();
  if (hot_node.linked()) hot_node.unlink();
  poller_.unwatch(*this);
  close(fd_);
}

void Watched::arm_read(Work* work) {
  BASALT_ASSERT(reader_ == nullptr);
  reader_ = work;
  if (readable_) poller_.make_ready(*this);
}

void Watched::arm_write(Work* work) {
  BASALT_ASSERT(writer_ == nullptr);
  writer_ = work;
  if (writable_) poller_.make_ready(*this);
}

void Watched::disarm_all() {
  reader_ = writer_ = nullptr;
}

void Watched::on_events(bool readable, bool writable) {
  readable_ |= readable;
  writable_ |= writable;
  if ((readable_ && reader_ != nullptr) || (writable_ && writer_ != nullptr)) poller_.make_ready(*this);
}

void Watched::run_ready() {
  Work* writer = writable_ ? std::exchange(writer_, nullptr) : nullptr;
  Work* reader = readable_ ? std::exchange(reader_, nullptr) : nullptr;
  // Either may destroy this object or disarm the other: the second runs from a later poll when both are due.
  if (writer != nullptr && reader != nullptr) {
    reader_ = reader;
    poller_.make_ready(*this);
    writer->run(writer);
  } else if (writer != nullptr) {
    writer->run(writer);
  } else if (reader != nullptr) {
    reader->run(reader);
  }
}

void Watched::run_speculatively() {
  Work* reader = std::exchange(reader_, nullptr);
  if (reader != nullptr) reader->run(reader);
}

Result<std::unique_ptr<StreamSocket>> connect_socket(SocketPoller& poller, const Address& address) {
  auto native = to_native(address);
  if (!native) return std::move(native).error();
  const int fd = socket(native->family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return system_error("socket for", address, errno);
  const int result = connect(fd, reinterpret_cast<const sockaddr*>(&native->storage), native->length);
  if (result != 0 && errno != EINPROGRESS) {
    const int error = errno;
    close(fd);
    return system_error("connect to", address, error);
  }
  return std::unique_ptr<StreamSocket>(std::make_unique<LinuxSocket>(poller, fd, address.to_string()));
}

Result<std::unique_ptr<StreamListener>> listen_socket(SocketPoller& poller, const Address& address) {
  auto native = to_native(address);
  if (!native) return std::move(native).error();
  const int fd = socket(native->family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return system_error("socket for", address, errno);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (address.family == Address::Family::unix_path) fchmod(fd, 0600);  // before bind: the path never has another mode
  const auto try_bind = [&] { return bind(fd, reinterpret_cast<const sockaddr*>(&native->storage), native->length); };
  // Kept at once: finding out whether a path is stale has errors of its own.
  int error = try_bind() != 0 ? errno : 0;
  if (error == EADDRINUSE && remove_stale_unix_socket(*native, address)) error = try_bind() != 0 ? errno : 0;
  if (error == 0 && listen(fd, 1024) != 0) error = errno;
  if (error != 0) {
    close(fd);
    return system_error("listen on", address, error);
  }
  Address bound = address;
  if (address.family == Address::Family::ip) bound.port = bound_port(fd);
  return std::unique_ptr<StreamListener>(std::make_unique<LinuxListener>(poller, fd, std::move(bound)));
}

std::unique_ptr<StreamSocket> adopt_socket(SocketPoller& poller, std::unique_ptr<PendingSocket> pending) {
  auto* accepted = static_cast<LinuxPending*>(pending.get());
  std::string peer = accepted->peer();
  return std::make_unique<LinuxSocket>(poller, accepted->release(), std::move(peer));
}

}  // namespace basalt::env
