// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_poller.h"

#include <algorithm>
#include <cerrno>

#include "base/assert.h"

namespace basalt::env {

// ---- poller --------------------------------------------------------------------------------------------------------

SimPoller::~SimPoller() = default;

size_t SimPoller::poll() {
  // Work that is run may destroy handles whose work stands behind it: forget() finds it in the queue.
  size_t count = 0;
  const size_t batch = ready_.size();
  for (size_t i = 0; i < batch && !ready_.empty(); i++) {
    Work* work = ready_.front().work;
    ready_.pop_front();
    if (work == nullptr) continue;
    work->run(work);
    count++;
  }
  return count;
}

void SimPoller::forget(const void* owner) {
  for (Ready& ready : ready_) {
    if (ready.owner == owner) ready.work = nullptr;
  }
}

void SimPoller::wait(Instant) {
  BASALT_ASSERT(false);
}  // the world turns loops; nobody sleeps

// ---- sockets -------------------------------------------------------------------------------------------------------

SimSocket::SimSocket(SimNode& node, SimPoller* poller) : node_(&node), poller_(poller) {
  node.world().sockets_.push_back(this);
}

SimSocket::~SimSocket() {
  *alive_ = false;
  if (poller_ != nullptr) poller_->forget(this);
  std::erase(node_->world().sockets_, this);
  if (other_ != nullptr) {
    // Unread input is lost, as a close with unread data resets; what was sent still arrives, then the end.
    SimSocket* other = std::exchange(other_, nullptr);
    other->other_ = nullptr;
    if (!input_.empty()) {
      other->reset();
    } else {
      SimWorld& world = node_->world();
      const Instant last = other->on_the_way_.empty() ? world.now() : other->on_the_way_.back().arrives;
      other->on_the_way_.push_back({last, {}, true});
      other->deliver_later();
    }
  }
}

void SimSocket::join(SimSocket& one, SimSocket& other) {
  one.other_ = &other;
  other.other_ = &one;
  one.peer_node_ = other.node_->name();
  other.peer_node_ = one.node_->name();
}

void SimSocket::established() {
  state_ = State::open;
  notify();
}

void SimSocket::refuse() {
  state_ = State::refused;
  notify();
}

void SimSocket::reset() {
  for (SimSocket* end : {this, other_}) {
    if (end == nullptr || end->state_ == State::broken) continue;
    end->state_ = State::broken;
    end->input_.clear();
    end->on_the_way_.clear();
    end->on_the_way_bytes_ = 0;
    end->notify();
  }
}

bool SimSocket::writable() const {
  if (state_ == State::connecting) return false;
  if (state_ != State::open || other_ == nullptr) return true;  // the try tells the error
  return other_->on_the_way_bytes_ + other_->input_.size() < node_->world().knobs().socket_buffer_bytes;
}

void SimSocket::notify() {
  if (poller_ == nullptr) return;
  if (reader_ != nullptr && readable()) poller_->queue(std::exchange(reader_, nullptr), this);
  if (writer_ != nullptr && writable()) poller_->queue(std::exchange(writer_, nullptr), this);
}

void SimSocket::arm_readable(Work* work) {
  BASALT_ASSERT(reader_ == nullptr);
  reader_ = work;
  SimWorld& world = node_->world();
  if (readable() || world.random().chance(world.knobs().spurious_wake_chance)) {
    poller_->queue(std::exchange(reader_, nullptr), this);
  }
}

void SimSocket::arm_writable(Work* work) {
  BASALT_ASSERT(writer_ == nullptr);
  writer_ = work;
  if (writable()) poller_->queue(std::exchange(writer_, nullptr), this);
}

void SimSocket::disarm() {
  reader_ = writer_ = nullptr;
  poller_->forget(this);
}

Outcome SimSocket::connect_result() {
  if (state_ == State::open || state_ == State::ended) return success();
  return Error{Errc::unreachable, "connect to " + peer_node_ + ": refused"};
}

Transfer SimSocket::try_recv(const Iovec* iov, size_t count) {
  if (state_ == State::broken || state_ == State::refused) return {Transfer::State::failed, 0};
  if (input_.empty()) return {state_ == State::ended ? Transfer::State::closed : Transfer::State::would_block, 0};
  SimWorld& world = node_->world();
  uint64_t room = std::min<uint64_t>(iovec_bytes(iov, count), input_.size());
  if (room > 1 && world.random().chance(world.knobs().short_transfer_chance)) room = 1 + world.random().below(room);
  uint64_t moved = 0;
  for (size_t i = 0; i < count && moved < room; i++) {
    const uint64_t take = std::min<uint64_t>(iov[i].length_bytes, room - moved);
    std::copy_n(input_.begin(), take, static_cast<uint8_t*>(iov[i].base));
    input_.erase(input_.begin(), input_.begin() + static_cast<int64_t>(take));
    moved += take;
  }
  if (other_ != nullptr) other_->notify();
  return {Transfer::State::done, static_cast<size_t>(moved)};
}

Transfer SimSocket::try_send(const Iovec* iov, size_t count) {
  if (state_ == State::connecting) return {Transfer::State::would_block, 0};
  if (state_ != State::open || other_ == nullptr) return {Transfer::State::failed, 0};
  SimWorld& world = node_->world();
  const size_t used = other_->on_the_way_bytes_ + other_->input_.size();
  if (used >= world.knobs().socket_buffer_bytes) return {Transfer::State::would_block, 0};
  uint64_t room = std::min<uint64_t>(iovec_bytes(iov, count), world.knobs().socket_buffer_bytes - used);
  if (room > 1 && world.random().chance(world.knobs().short_transfer_chance)) room = 1 + world.random().below(room);
  Segment segment;
  segment.bytes.reserve(room);
  for (size_t i = 0; i < count && segment.bytes.size() < room; i++) {
    const auto* bytes = static_cast<const uint8_t*>(iov[i].base);
    const uint64_t take = std::min<uint64_t>(iov[i].length_bytes, room - segment.bytes.size());
    segment.bytes.insert(segment.bytes.end(), bytes, bytes + take);
  }
  const SimKnobs& knobs = world.knobs();
  const auto spread = static_cast<uint64_t>((knobs.network_delay_max - knobs.network_delay_min).ns + 1);
  segment.arrives =
      world.now() + knobs.network_delay_min + nanoseconds(static_cast<int64_t>(world.random().below(spread)));
  if (!other_->on_the_way_.empty()) segment.arrives = std::max(segment.arrives, other_->on_the_way_.back().arrives);
  other_->on_the_way_bytes_ += room;
  other_->on_the_way_.push_back(std::move(segment));
  other_->deliver_later();
  return {Transfer::State::done, static_cast<size_t>(room)};
}

void SimSocket::deliver_later() {
  if (on_the_way_.empty()) return;
  node_->world().at(on_the_way_.front().arrives, [this, alive = alive_] {
    if (*alive) deliver();
  });
}

void SimSocket::deliver() {
  SimWorld& world = node_->world();
  if (state_ == State::broken || world.partitioned(peer_node_, node_->name())) return;  // healing delivers again
  while (!on_the_way_.empty() && on_the_way_.front().arrives <= world.now()) {
    Segment& segment = on_the_way_.front();
    input_.insert(input_.end(), segment.bytes.begin(), segment.bytes.end());
    on_the_way_bytes_ -= segment.bytes.size();
    if (segment.end) state_ = State::ended;
    on_the_way_.pop_front();
  }
  deliver_later();
  notify();
}

// ---- listening -----------------------------------------------------------------------------------------------------

class SimListener final : public StreamListener {
 public:
  SimListener(SimPoller& poller, Address address) : poller_(poller), address_(std::move(address)) {
    listeners(poller.node().world()).insert(this);
  }
  ~SimListener() override {
    poller_.forget(this);
    listeners(poller_.node().world()).erase(this);
  }
  std::unique_ptr<PendingSocket> try_accept() override {
    if (backlog_.empty()) return nullptr;
    auto pending = std::move(backlog_.front());
    backlog_.pop_front();
    return pending;
  }
  void arm_acceptable(Work* work) override {
    acceptor_ = work;
    notify();
  }
  const Address& address() const override { return address_; }
  SimPoller& poller() { return poller_; }

  void arrive(std::unique_ptr<SimSocket> socket) {
    backlog_.push_back(std::make_unique<SimPending>(std::move(socket)));
    notify();
  }

  static std::set<SimListener*>& listeners(SimWorld& world) { return world.listeners_; }
  // Nodes share one address space: every node's listeners are told apart by port; host names a node or is a literal.
  static SimListener* find(SimWorld& world, const Address& address) {
    for (SimListener* listener : listeners(world)) {
      if (listener->poller_.node().crashed()) continue;
      const Address& bound = listener->address_;
      if (bound.family == address.family && bound.port == address.port &&
          (bound.host == address.host || listener->poller_.node().name() == address.host)) {
        return listener;
      }
    }
    return nullptr;
  }

 private:
  void notify() {
    if (acceptor_ != nullptr && !backlog_.empty()) poller_.queue(std::exchange(acceptor_, nullptr), this);
  }
  SimPoller& poller_;
  Address address_;
  Work* acceptor_ = nullptr;
  std::deque<std::unique_ptr<PendingSocket>> backlog_;
};

void SimPoller::forget_listeners(SimNode& node) {
  std::erase_if(node.world().listeners_, [&](SimListener* listener) { return &listener->poller().node() == &node; });
}

Result<std::unique_ptr<StreamListener>> SimPoller::listen(const Address& address) {
  Address bound = address;
  SimWorld& world = node_.world();
  if (bound.family == Address::Family::ip && bound.port == 0) bound.port = world.next_port_++;
  if (SimListener::find(world, bound) != nullptr)
    return Error{Errc::busy, "listen on " + bound.to_string() + ": in use"};
  return std::unique_ptr<StreamListener>(std::make_unique<SimListener>(*this, std::move(bound)));
}

Result<std::unique_ptr<StreamSocket>> SimPoller::connect(const Address& address) {
  SimWorld& world = node_.world();
  auto near = std::make_unique<SimSocket>(node_, this);
  SimSocket* end = near.get();
  const SimKnobs knobs = world.knobs();
  const auto spread = static_cast<uint64_t>((knobs.network_delay_max - knobs.network_delay_min).ns + 1);
  const Duration delay = knobs.network_delay_min + nanoseconds(static_cast<int64_t>(world.random().below(spread)));
  end->begin_connect(address, delay);
  return std::unique_ptr<StreamSocket>(std::move(near));
}

void SimSocket::begin_connect(const Address& address, Duration delay) {
  SimWorld& world = node_->world();
  world.at(world.now() + delay, [this, alive = alive_, address, delay] {
    if (!*alive || state_ != State::connecting) return;
    SimWorld& later = node_->world();
    SimListener* listener = SimListener::find(later, address);
    if (listener == nullptr) return refuse();
    SimNode& far = listener->poller().node();
    if (later.partitioned(node_->name(), far.name()) || later.partitioned(far.name(), node_->name()) || far.paused()) {
      return begin_connect(address, milliseconds(1) + delay);  // no answer yet; the caller's time-out decides
    }
    auto accepted = std::make_unique<SimSocket>(far, nullptr);
    join(*this, *accepted);
    accepted->established();
    listener->arrive(std::move(accepted));
    established();
  });
}

std::unique_ptr<StreamSocket> SimPoller::adopt(std::unique_ptr<PendingSocket> pending) {
  auto socket = static_cast<SimPending*>(pending.get())->take();
  socket->attach(this);
  return socket;
}

// ---- files ---------------------------------------------------------------------------------------------------------

void SimDisk::write(uint64_t offset, const Iovec* iov, size_t count, uint64_t length, bool durable) {
  uint64_t at = offset;
  if (iov == nullptr) {
    std::fill_n(current_.begin() + static_cast<int64_t>(at), length, uint8_t{0});
  } else {
    for (size_t i = 0; i < count; i++) {
      const auto* bytes = static_cast<const uint8_t*>(iov[i].base);
      std::copy_n(bytes, iov[i].length_bytes, current_.begin() + static_cast<int64_t>(at));
      at += iov[i].length_bytes;
    }
  }
  for (uint64_t sector = offset / sector_bytes; sector < (offset + length + sector_bytes - 1) / sector_bytes;
       sector++) {
    if (durable) {
      const uint64_t start = sector * sector_bytes;
      std::copy_n(current_.begin() + static_cast<int64_t>(start),
                  std::min<uint64_t>(sector_bytes, current_.size() - start),
                  stable_.begin() + static_cast<int64_t>(start));
      unflushed_.erase(sector);
    } else {
      unflushed_[sector] = true;
    }
  }
}

// The process was killed: each of its writes in flight happened or did not.
void SimDisk::crash(SimRandom& random) {
  for (FileIo* io : std::exchange(in_flight_, {})) {
    if (!random.chance(0.5)) continue;
    if (io->type == FileIo::Type::write) {
      write(io->offset_bytes, io->iov, io->iov_count, iovec_bytes(io->iov, io->iov_count), false);
    } else if (io->type == FileIo::Type::zero) {
      write(io->offset_bytes, nullptr, 0, io->length_bytes, false);
    }
  }
  open_ = false;
}

void SimDisk::flush() {
  for (const auto& [sector, differs] : unflushed_) {
    const uint64_t start = sector * sector_bytes;
    std::copy_n(current_.begin() + static_cast<int64_t>(start),
                std::min<uint64_t>(sector_bytes, current_.size() - start),
                stable_.begin() + static_cast<int64_t>(start));
  }
  unflushed_.clear();
}

void SimDisk::power_cut(SimRandom& random) {
  uint64_t unit = UINT64_MAX;
  bool kept = false;
  for (const auto& [sector, differs] : unflushed_) {
    if (const uint64_t next = sector * sector_bytes / atomic_bytes; next != unit) {
      unit = next;
      kept = random.chance(0.5);
    }
    if (kept) continue;
    const uint64_t start = sector * sector_bytes;
    std::copy_n(stable_.begin() + static_cast<int64_t>(start),
                std::min<uint64_t>(sector_bytes, current_.size() - start),
                current_.begin() + static_cast<int64_t>(start));
  }
  stable_ = current_;
  unflushed_.clear();
}

class SimFile final : public BlockFile {
 public:
  SimFile(SimPoller& poller, SimDisk& disk) : poller_(poller), disk_(disk), limits_{disk.size_bytes(), 1, 512} {
    disk.open_ = true;
  }
  ~SimFile() override {
    *alive_ = false;
    disk_.open_ = false;
    poller_.forget(this);
  }
  const FileLimits& limits() const override { return limits_; }

  void submit(FileIo* io) override {
    SimWorld& world = poller_.node().world();
    const SimKnobs& knobs = world.knobs();
    const auto spread = static_cast<uint64_t>((knobs.disk_delay_max - knobs.disk_delay_min).ns + 1);
    const Duration delay =
        knobs.disk_delay_min + nanoseconds(static_cast<int64_t>(world.random().below(spread))) + disk_.extra_delay;
    // The transfer happens at a random moment of the request's life; a crash in between leaves either outcome.
    disk_.in_flight_.push_back(io);
    world.at(world.now() + delay, [this, io, alive = alive_, incarnation = poller_.node().incarnation()] {
      if (*alive && poller_.node().incarnation() == incarnation) perform(io);
    });
  }

 private:
  void perform(FileIo* io) {
    SimWorld& world = poller_.node().world();
    if (disk_.hang) {
      world.at(world.now() + milliseconds(1), [this, io, alive = alive_, incarnation = poller_.node().incarnation()] {
        if (*alive && poller_.node().incarnation() == incarnation) perform(io);
      });
      return;
    }
    std::erase(disk_.in_flight_, io);
    io->error = carry_out(*io);
    poller_.queue(io, this);
  }

  int carry_out(FileIo& io) {
    const bool moves = io.type == FileIo::Type::read || io.type == FileIo::Type::write;
    const uint64_t length = moves ? iovec_bytes(io.iov, io.iov_count) : io.length_bytes;
    if (io.type != FileIo::Type::flush && io.offset_bytes + length > disk_.size_bytes()) return EIO;
    switch (io.type) {
      case FileIo::Type::read: {
        if (disk_.fail_reads) return EIO;
        uint64_t at = io.offset_bytes;
        for (uint32_t i = 0; i < io.iov_count; i++) {
          std::copy_n(disk_.current_.begin() + static_cast<int64_t>(at), io.iov[i].length_bytes,
                      static_cast<uint8_t*>(io.iov[i].base));
          at += io.iov[i].length_bytes;
        }
        return 0;
      }
      case FileIo::Type::write:
        if (disk_.fail_writes) return EIO;
        disk_.write(io.offset_bytes, io.iov, io.iov_count, length, io.fua);
        return 0;
      case FileIo::Type::zero:
        if (disk_.fail_writes) return EIO;
        disk_.write(io.offset_bytes, nullptr, 0, length, false);
        return 0;
      case FileIo::Type::flush:
        if (disk_.fail_flushes) return EIO;
        disk_.flush();
        return 0;
    }
    return EIO;
  }

  SimPoller& poller_;
  SimDisk& disk_;
  FileLimits limits_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

Result<std::unique_ptr<BlockFile>> SimPoller::open(const FileOptions& options) {
  SimDisk& disk = node_.world().disk(node_.name(), options.path);
  if (options.create_bytes != 0) {
    if (disk.size_bytes() != 0) return Error{Errc::exists, options.path + ": exists"};
    disk.resize(options.create_bytes);
  }
  if (disk.size_bytes() == 0) return Error{Errc::not_found, options.path + ": no such file"};
  if (disk.open_) return Error{Errc::busy, options.path + ": in use"};
  return std::unique_ptr<BlockFile>(std::make_unique<SimFile>(*this, disk));
}

}  // namespace basalt::env
