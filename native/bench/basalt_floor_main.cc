// SPDX-License-Identifier: Apache-2.0
// basalt_floor: the bytes of 4 KiB NVMe/TCP reads or writes between a minimal server and client, with nothing above the
// sockets: what a target is compared with. Both spin for 50 us and then sleep, as reactors do.
//
//   basalt_floor serve                  prints its port, serves one client after the other until killed
//   basalt_floor relay --to N,...       the same, by asking others: reads the first of them, writes all
//   basalt_floor run --port N,... --op read|write --depth 32 --milliseconds 1000 [--server-pid N,...]
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "bench/arguments.h"
#include "bench/meter.h"
#include "env/linux/linux_env.h"

namespace basalt::bench {
namespace {

constexpr size_t command_bytes = 72;
constexpr size_t data_header_bytes = 24;  // carries the success flag: a read's answer has no response of its own
constexpr size_t response_bytes = 24;
constexpr size_t block_bytes = 4096;
constexpr size_t iovec_count_max = 1020;
constexpr int64_t spin_ns = 50'000;

struct Shape {
  size_t request_bytes;
  size_t answer_bytes;
};
Shape shape_of(bool writes) {
  return writes ? Shape{command_bytes + block_bytes, response_bytes}
                : Shape{command_bytes, data_header_bytes + block_bytes};
}

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "basalt_floor: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

// One end. Messages out are all of one kind; bytes in are counted and forgotten.
class End {
 public:
  End(int fd, size_t out_bytes, bool with_block)
      : fd_(fd), out_bytes_(out_bytes), block_(with_block ? block_bytes : 0), in_(size_t{512} << 10), blocks_(1 << 24) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  ~End() { close(fd_); }
  End(const End&) = delete;
  End& operator=(const End&) = delete;

  // Bytes received now; 0: none; -1: the peer has gone.
  ssize_t receive() {
    const ssize_t count = recv(fd_, in_.data(), in_.size(), MSG_DONTWAIT);
    if (count == 0) return -1;
    if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    return count;
  }
  void queue(size_t messages) { owed_bytes_ += messages * out_bytes_; }
  // False: the peer has gone.
  bool flush() {
    while (owed_bytes_ > 0) {
      iovec pieces[iovec_count_max];
      const size_t count = gather(pieces);
      msghdr message{};
      message.msg_iov = pieces;
      message.msg_iovlen = count;
      const ssize_t sent = sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
        return true;
      }
      owed_bytes_ -= static_cast<size_t>(sent);
      phase_ = (phase_ + static_cast<size_t>(sent)) % out_bytes_;
    }
    return true;
  }
  bool blocked() const { return owed_bytes_ > 0; }
  pollfd wanted() const { return {fd_, static_cast<short>(POLLIN | (blocked() ? POLLOUT : 0)), 0}; }

 private:
  // A header, and a block of other memory behind it, as the target sends them.
  size_t gather(iovec* pieces) {
    const size_t header_bytes = out_bytes_ - block_;
    size_t left = owed_bytes_;
    size_t at = phase_;
    size_t count = 0;
    while (left > 0 && count + 2 <= iovec_count_max) {
      if (at < header_bytes) {
        const size_t take = std::min(left, header_bytes - at);
        pieces[count++] = {header_ + at, take};
        left -= take;
        at += take;
      }
      if (at >= header_bytes && left > 0 && block_ > 0) {
        const size_t take = std::min(left, out_bytes_ - at);
        next_block_ = (next_block_ * 1103515245 + 12345) & ((blocks_.size() / block_bytes) - 1);
        pieces[count++] = {blocks_.data() + next_block_ * block_bytes + (at - header_bytes), take};
        left -= take;
        at += take;
      }
      if (at == out_bytes_) at = 0;
    }
    return count;
  }
  const int fd_;
  const size_t out_bytes_;
  const size_t block_;
  std::vector<char> in_;
  std::vector<char> blocks_;
  size_t next_block_ = 0;
  size_t owed_bytes_ = 0;
  size_t phase_ = 0;
  char header_[command_bytes] = {};
};

int connect_to(uint16_t port, bool writes) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) die("connect");
  if (send(fd, writes ? "w" : "r", 1, 0) != 1) die("send");
  return fd;
}

// Those that a request goes to: a read to the first, a write to all. It is answered when all of them have.
class Servers {
 public:
  Servers(const std::vector<uint16_t>& ports, bool writes) : shape_(shape_of(writes)) {
    const size_t count = writes ? ports.size() : 1;
    for (size_t i = 0; i < count; i++)
      ends_.push_back(std::make_unique<End>(connect_to(ports[i], writes), shape_.request_bytes, writes));
    received_bytes_.resize(count);
  }
  void queue(size_t requests) {
    for (const auto& end : ends_)
      end->queue(requests);
  }
  void flush() {
    for (const auto& end : ends_)
      if (!end->flush()) die("send");
  }
  // How many more requests have been answered.
  size_t answers() {
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < ends_.size(); i++) {
      const ssize_t received = ends_[i]->receive();
      if (received < 0) die("receive");
      received_bytes_[i] += static_cast<uint64_t>(received);
      least = std::min(least, received_bytes_[i] / shape_.answer_bytes);
    }
    const size_t more = least - answered_count_;
    answered_count_ = least;
    return more;
  }
  void wait_for(std::vector<pollfd>& ready) const {
    for (const auto& end : ends_)
      ready.push_back(end->wanted());
  }

 private:
  const Shape shape_;
  std::vector<std::unique_ptr<End>> ends_;
  std::vector<uint64_t> received_bytes_;
  uint64_t answered_count_ = 0;
};

void sleep_until_ready(std::vector<pollfd> ready) {
  poll(ready.data(), ready.size(), 1000);
}

// Answers by itself, or when `to` names others, as they do.
void serve_client(env::Env& env, int fd, const std::vector<uint16_t>& to) {
  char op = 0;
  if (recv(fd, &op, 1, 0) != 1) {
    close(fd);
    return;
  }
  const bool writes = op == 'w';
  const Shape shape = shape_of(writes);
  End end(fd, shape.answer_bytes, !writes);
  std::optional<Servers> others;
  if (!to.empty()) others.emplace(to, writes);
  size_t partial_bytes = 0;
  Instant busy = env.now();
  for (;;) {
    const ssize_t received = end.receive();
    if (received < 0) return;
    partial_bytes += static_cast<size_t>(received);
    const size_t requests = partial_bytes / shape.request_bytes;
    partial_bytes %= shape.request_bytes;
    size_t answers = requests;
    if (others) {
      others->queue(requests);
      others->flush();
      answers = others->answers();
    }
    end.queue(answers);
    if (!end.flush()) return;
    if (received > 0 || answers > 0) {
      busy = env.now();
    } else if ((env.now() - busy).ns > spin_ns) {
      std::vector<pollfd> ready{end.wanted()};
      if (others) others->wait_for(ready);
      sleep_until_ready(std::move(ready));
      busy = env.now();
    }
  }
}

int serve(env::Env& env, const std::vector<uint16_t>& to) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(listener, 8) != 0) die("listen");
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  std::printf("%u\n", ntohs(address.sin_port));
  std::fflush(stdout);
  for (;;) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) serve_client(env, fd, to);
  }
}

std::vector<uint16_t> read_ports(Arguments& arguments, const std::string& name) {
  const std::string text = arguments.text(name);
  std::vector<uint16_t> ports;
  for (const char* at = text.c_str(); *at != '\0';) {
    char* end = nullptr;
    const unsigned long port = std::strtoul(at, &end, 10);
    if (end == at || port == 0 || port > 65535 || (*end != ',' && *end != '\0'))
      Arguments::fail("--" + name, "bad port");
    ports.push_back(static_cast<uint16_t>(port));
    at = *end == ',' ? end + 1 : end;
  }
  return ports;
}

int run(env::Env& env, Arguments& arguments) {
  const std::vector<uint16_t> ports = read_ports(arguments, "port");
  const std::string op = arguments.text("op", "read");
  if (op != "read" && op != "write") Arguments::fail("--op", "must be read or write");
  const size_t depth = arguments.number("depth", 1, 1024);
  const auto length = milliseconds(static_cast<int64_t>(arguments.number("milliseconds", 1000, 3'600'000)));
  Meter meter(arguments.text("server-pid", ""));
  arguments.end();

  Servers servers(ports, op == "write");
  // In order, so the oldest request is the one that is answered.
  std::vector<Instant> started(depth);
  size_t oldest = 0;
  Instant at = env.now();
  meter.start(at, length);
  std::fill(started.begin(), started.end(), at);
  servers.queue(depth);
  for (Instant busy = at; !meter.over(at);) {
    servers.flush();
    const size_t answers = servers.answers();
    at = env.now();
    if (answers == 0) {
      if ((at - busy).ns > spin_ns) {
        std::vector<pollfd> ready;
        servers.wait_for(ready);
        sleep_until_ready(std::move(ready));
      }
      continue;
    }
    busy = at;
    for (size_t i = 0; i < answers; i++) {
      meter.complete(at, at - started[oldest]);
      started[oldest] = at;
      oldest = (oldest + 1) % depth;
    }
    servers.queue(answers);
  }
  meter.finish(at);
  std::printf("%s\n", meter.report().c_str());
  return 0;
}

}  // namespace
}  // namespace basalt::bench

int main(int argc, char** argv) {
  using basalt::bench::Arguments;
  const std::string_view mode = argc > 1 ? argv[1] : "";
  if (mode != "serve" && mode != "relay" && mode != "run")
    Arguments::fail("basalt_floor", "expected serve, relay or run");
  Arguments arguments(argc, argv, 2);
  const auto env = basalt::env::make_linux_env();
  if (mode == "run") return basalt::bench::run(*env, arguments);
  std::vector<uint16_t> to;
  if (mode == "relay") to = basalt::bench::read_ports(arguments, "to");
  arguments.end();
  return basalt::bench::serve(*env, to);
}
