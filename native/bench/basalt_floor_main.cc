// SPDX-License-Identifier: Apache-2.0
// basalt_floor: the bytes of NVMe/TCP reads or writes between a minimal server and client, with nothing above the
// sockets: what a target is compared with. Both look for work for 200 us, giving way meanwhile, and then sleep, as
// reactors do.
//
//   basalt_floor serve                  prints its port, serves one client after the other until killed
//   basalt_floor relay --to N,...       the same, by asking others: reads the first of them, writes all
//   basalt_floor run --port N,... --op read|write --depth 32 --milliseconds 1000 [--server-pid N,...]
//                    [--bytes 4096] [--connections 1] [--pause-ms 0]
//
// `depth` is over all connections. With a pause, the next request waits that long after an answer.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
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
constexpr size_t iovec_count_max = 1020;
constexpr int64_t spin_ns = 200'000;
constexpr size_t connection_count_max = 64;
// With more of them, those that are ready are asked for first.
constexpr size_t scanned_count_max = 8;

// What a client says first, on each of its connections.
struct Hello {
  char op = 'r';
  uint8_t connections = 1;
  uint16_t reserved = 0;
  uint32_t block_bytes = 4096;  // a power of two
  bool writes() const { return op == 'w'; }
};

struct Shape {
  size_t request_bytes;
  size_t answer_bytes;
};
Shape shape_of(const Hello& hello) {
  return hello.writes() ? Shape{command_bytes + hello.block_bytes, response_bytes}
                        : Shape{command_bytes, data_header_bytes + hello.block_bytes};
}

// Of all ends of a process: what is received is forgotten there, and blocks are sent from here.
struct Memory {
  std::vector<char> in = std::vector<char>(size_t{512} << 10);
  std::vector<char> blocks = std::vector<char>(1 << 24);
};

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "basalt_floor: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

// One end. Messages out are all of one kind; bytes in are counted and forgotten.
class End {
 public:
  // `block_bytes`: of the block at the end of each message out; 0: they have none.
  End(int fd, Memory& memory, size_t out_bytes, size_t block_bytes)
      : fd_(fd), out_bytes_(out_bytes), block_(block_bytes), in_(memory.in), blocks_(memory.blocks) {
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
        next_block_ = (next_block_ * 1103515245 + 12345) & ((blocks_.size() / block_) - 1);
        pieces[count++] = {blocks_.data() + next_block_ * block_ + (at - header_bytes), take};
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
  std::vector<char>& in_;
  std::vector<char>& blocks_;
  size_t next_block_ = 0;
  size_t owed_bytes_ = 0;
  size_t phase_ = 0;
  char header_[command_bytes] = {};
};

int connect_to(uint16_t port, const Hello& hello) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) die("connect");
  if (send(fd, &hello, sizeof(hello), 0) != sizeof(hello)) die("send");
  return fd;
}

// Those that a request goes to: a read to the first, a write to all. It is answered when all of them have.
class Servers {
 public:
  Servers(const std::vector<uint16_t>& ports, Memory& memory, const Hello& hello) : shape_(shape_of(hello)) {
    const size_t count = hello.writes() ? ports.size() : 1;
    const size_t block_bytes = hello.writes() ? hello.block_bytes : 0;
    for (size_t i = 0; i < count; i++)
      ends_.push_back(std::make_unique<End>(connect_to(ports[i], hello), memory, shape_.request_bytes, block_bytes));
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

void sleep_until_ready(std::vector<pollfd> ready, int timeout_ms = 1000) {
  poll(ready.data(), ready.size(), timeout_ms);
}

// Which of many connections are worth a look; all of few.
class Ready {
 public:
  void look(const std::vector<pollfd>& wanted) {
    polled_ = wanted;
    many_ = wanted.size() > scanned_count_max;
    if (many_) poll(polled_.data(), polled_.size(), 0);
  }
  bool at(size_t index) const { return !many_ || polled_[index].revents != 0; }

 private:
  std::vector<pollfd> polled_;
  bool many_ = false;
};

struct Client {
  std::unique_ptr<End> end;
  size_t partial_bytes = 0;
};

// Those that the first one's hello announces. False: it went away before that.
bool accept_clients(int listener, Memory& memory, std::vector<Client>& clients, Hello& hello) {
  for (size_t count = 0; count == 0 || count < hello.connections; count++) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return false;
    if (recv(fd, &hello, sizeof(hello), MSG_WAITALL) != sizeof(hello)) {
      close(fd);
      return false;
    }
    const size_t block_bytes = hello.writes() ? 0 : hello.block_bytes;
    clients.push_back({std::make_unique<End>(fd, memory, shape_of(hello).answer_bytes, block_bytes), 0});
  }
  return true;
}

// Answers by itself, or when `to` names others, as they do; then there is one connection.
void serve_clients(env::Env& env, Memory& memory, std::vector<Client>& clients, const Hello& hello,
                   const std::vector<uint16_t>& to) {
  const Shape shape = shape_of(hello);
  std::optional<Servers> others;
  if (!to.empty()) others.emplace(to, memory, Hello{hello.op, 1, 0, hello.block_bytes});
  Instant busy = env.now();
  Ready ready;
  std::vector<pollfd> wanted;
  for (;;) {
    wanted.clear();
    for (const Client& client : clients)
      wanted.push_back(client.end->wanted());
    ready.look(wanted);
    bool worked = false;
    for (size_t i = 0; i < clients.size(); i++) {
      if (!ready.at(i)) continue;
      Client& client = clients[i];
      const ssize_t received = client.end->receive();
      if (received < 0) return;
      client.partial_bytes += static_cast<size_t>(received);
      const size_t requests = client.partial_bytes / shape.request_bytes;
      client.partial_bytes %= shape.request_bytes;
      size_t answers = requests;
      if (others) {
        others->queue(requests);
        others->flush();
        answers = others->answers();
      }
      client.end->queue(answers);
      if (!client.end->flush()) return;
      worked |= received > 0 || answers > 0;
    }
    if (worked) {
      busy = env.now();
    } else if ((env.now() - busy).ns > spin_ns) {
      if (others) others->wait_for(wanted);
      sleep_until_ready(wanted);
      busy = env.now();
    } else {
      sched_yield();
    }
  }
}

int serve(env::Env& env, const std::vector<uint16_t>& to) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(listener, 128) != 0) die("listen");
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  std::printf("%u\n", ntohs(address.sin_port));
  std::fflush(stdout);
  Memory memory;
  for (;;) {
    std::vector<Client> clients;
    Hello hello;
    if (accept_clients(listener, memory, clients, hello)) serve_clients(env, memory, clients, hello, to);
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

struct Plan {
  std::vector<uint16_t> ports;
  Hello hello;
  size_t depth = 1;
  Duration length;
  Duration pause;
};

Plan read_plan(Arguments& arguments) {
  Plan plan;
  plan.ports = read_ports(arguments, "port");
  const std::string op = arguments.text("op", "read");
  if (op != "read" && op != "write") Arguments::fail("--op", "must be read or write");
  plan.hello.op = op[0];
  plan.hello.block_bytes = static_cast<uint32_t>(arguments.number("bytes", 4096, 1 << 20));
  if (!std::has_single_bit(plan.hello.block_bytes)) Arguments::fail("--bytes", "must be a power of two");
  plan.hello.connections = static_cast<uint8_t>(arguments.number("connections", 1, connection_count_max));
  plan.depth = arguments.number("depth", 1, 1024);
  if (plan.hello.connections == 0 || plan.depth < plan.hello.connections)
    Arguments::fail("--depth", "must be at least 1 for each connection");
  plan.length = milliseconds(static_cast<int64_t>(arguments.number("milliseconds", 1000, 3'600'000)));
  plan.pause = milliseconds(static_cast<int64_t>(arguments.number("pause-ms", 0, 3'600'000)));
  if (plan.pause.ns > 0 && plan.depth > 1) Arguments::fail("--pause-ms", "goes with --depth 1");
  return plan;
}

// One connection of the load.
struct Lane {
  std::unique_ptr<Servers> servers;
  std::vector<Instant> started;  // in order, so the oldest request is the one that is answered
  size_t oldest = 0;
  size_t paused = 0;  // that many are asked for when their time has come
  Instant due;
};

class Run {
 public:
  Run(env::Env& env, const Plan& plan, Meter& meter) : env_(env), plan_(plan), meter_(meter) {
    lanes_.resize(plan.hello.connections);
    for (size_t i = 0; i < lanes_.size(); i++) {
      const size_t depth = plan.depth / lanes_.size() + (i < plan.depth % lanes_.size() ? 1 : 0);
      lanes_[i].servers = std::make_unique<Servers>(plan.ports, memory_, plan.hello);
      lanes_[i].started.resize(depth);
    }
  }
  void go() {
    Instant at = env_.now();
    meter_.start(at, plan_.length);
    for (Lane& lane : lanes_) {
      lane.paused = lane.started.size();
      lane.due = at + plan_.pause;
    }
    for (Instant busy = at; !meter_.over(at);) {
      const bool worked = turn(at);
      at = env_.now();
      if (worked) {
        busy = at;
      } else if ((at - busy).ns > spin_ns) {
        sleep_until_ready(wanted(), static_cast<int>(std::min<int64_t>(1000, until_due_ms(at))));
        at = env_.now();
      } else {
        sched_yield();
      }
    }
    meter_.finish(at);
  }

 private:
  std::vector<pollfd> wanted() const {
    std::vector<pollfd> out;
    for (const Lane& lane : lanes_)
      lane.servers->wait_for(out);
    return out;
  }
  int64_t until_due_ms(Instant at) const {
    int64_t least_ms = 1000;
    for (const Lane& lane : lanes_)
      if (lane.paused > 0) least_ms = std::min(least_ms, std::max<int64_t>(0, (lane.due - at).ns / 1'000'000));
    return least_ms;
  }
  bool turn(Instant at) {
    // With several servers behind each lane there are few lanes.
    if (lanes_.size() > scanned_count_max) ready_.look(wanted());
    bool worked = false;
    for (size_t i = 0; i < lanes_.size(); i++) {
      Lane& lane = lanes_[i];
      worked |= send_due(lane, at);
      if (lanes_.size() > scanned_count_max && !ready_.at(i)) continue;
      lane.servers->flush();
      worked |= take_answers(lane) > 0;
    }
    return worked;
  }
  bool send_due(Lane& lane, Instant at) {
    if (lane.paused == 0 || (lane.due - at).ns > 0) return false;
    const Instant now = lane.started.size() == 1 ? env_.now() : at;
    for (size_t i = 0; i < lane.paused; i++)
      lane.started[(lane.oldest + i) % lane.started.size()] = now;
    lane.servers->queue(lane.paused);
    lane.paused = 0;
    lane.servers->flush();
    return true;
  }
  size_t take_answers(Lane& lane) {
    const size_t answers = lane.servers->answers();
    if (answers == 0) return 0;
    const Instant at = env_.now();
    for (size_t i = 0; i < answers; i++) {
      meter_.complete(at, at - lane.started[lane.oldest]);
      lane.started[lane.oldest] = at;
      lane.oldest = (lane.oldest + 1) % lane.started.size();
    }
    if (plan_.pause.ns > 0) {
      lane.paused = answers;
      lane.due = at + plan_.pause;
    } else {
      lane.servers->queue(answers);
      lane.servers->flush();
    }
    return answers;
  }

  env::Env& env_;
  const Plan& plan_;
  Meter& meter_;
  Memory memory_;
  std::vector<Lane> lanes_;
  Ready ready_;
};

int run(env::Env& env, Arguments& arguments) {
  const Plan plan = read_plan(arguments);
  Meter meter(arguments.text("server-pid", ""));
  arguments.end();
  Run(env, plan, meter).go();
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
