// SPDX-License-Identifier: Apache-2.0
// The target over NVMe/TCP and raw hosts in front of it: in memory and virtual time (Wire::memory, transfers cut at
// random), or over loopback sockets of the machine (Wire::sockets). Two reactors, turned by the test's thread.
// When a test ends no connection and no buffer may be left.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

#include "bdev/malloc/malloc.h"
#include "env/linux/linux_env.h"
#include "nvmf/transport/memory_net_testing.h"
#include "nvmf/transport/tcp/raw_host_testing.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt::nvmf::testing {

inline constexpr char subnqn[] = "nqn.2024-01.io.basalt:vol1";
inline constexpr char hostnqn[] = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
inline constexpr uint32_t cc_enable = 0x00460001;

enum class Wire { memory, sockets };

inline uint64_t test_seed() {
  const char* text = std::getenv("BASALT_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : env::make_linux_env()->random_u64();
}

inline Bytes pattern(size_t length, uint8_t seed) {
  Bytes out(length);
  for (size_t i = 0; i < length; i++)
    out[i] = static_cast<uint8_t>(i * 31 + i / 256 + seed);
  return out;
}
inline Bytes with(Bytes bytes, size_t at, uint8_t value) {
  bytes[at] = value;
  return bytes;
}
inline Bytes with32(Bytes bytes, size_t at, uint32_t value) {
  store_le<uint32_t>(bytes.data() + at, value);
  return bytes;
}

// A bdev that keeps an attribute, holds requests back on demand, and can fail to store.
class GateBdev final : public bdev::Bdev {
 public:
  GateBdev(Reactor& home, std::unique_ptr<bdev::MallocBdev> under) : Bdev(home), under_(std::move(under)) {
    info_ = under_->info();
    info_.name = "gate";
  }
  void submit(bdev::Io* io) override {
    if ((hold && io->type == bdev::IoType::write) || hold_all) {
      held.push_back(io);
    } else {
      under_->submit(io);
    }
  }
  void release() {
    hold = hold_all = false;
    for (bdev::Io* io : held)
      under_->submit(io);
    held.clear();
  }
  Task<Outcome> close() override { return under_->close(); }
  Task<Outcome> set_attribute(std::string value) override {
    if (fail_attribute) co_return Error{Errc::io, "injected"};
    stored = std::move(value);
    co_return success();
  }
  std::string attribute() const override { return stored; }

  bool hold = false;      // writes
  bool hold_all = false;  // reads too
  bool fail_attribute = false;
  std::vector<bdev::Io*> held;
  std::string stored;

 private:
  std::unique_ptr<bdev::MallocBdev> under_;
};

class TcpTargetFixture : public ::testing::Test {
 protected:
  static constexpr uint64_t blocks = 4096;

  explicit TcpTargetFixture(Wire wire, TcpTargetOptions options = {}, const TargetLimits& limits = {},
                            bool compare_write = true)
      : wire_(wire), seed_(test_seed()), memory_(seed_), arena_(size_t{256} << 20) {
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
    if (wire == Wire::sockets) {
      machine_ = env::make_linux_env();
      options.connection.linger = milliseconds(20);  // each malformed PDU waits for it
    }
    for (unsigned i = 0; i < 2; i++) {
      // As few buffers as there can be: one slab for each size.
      reactors_.push_back(std::make_unique<Reactor>(env(), arena_, ReactorOptions{.index = i, .buffer_bytes_max = 1}));
      BASALT_ASSERT(reactors_.back()->init().ok());
      if (wire == Wire::memory) memory_.add(reactors_.back().get());
    }
    target_ = std::make_unique<Target>(std::vector<Reactor*>{reactors_[0].get(), reactors_[1].get()}, limits);
    auto transport = std::make_unique<TcpTargetTransport>(*target_, options);
    transport_ = transport.get();
    target_->add_transport(std::move(transport));
    bdev::MallocOptions disk{.name = "m0", .block_size_bytes = 4096, .count_blocks = blocks};
    disk.uuid.bytes[0] = 7;
    // Not the home reactor: every I/O travels.
    auto under = bdev::MallocBdev::create(*reactors_[1], disk);
    BASALT_ASSERT(under.ok());
    bdev_ = std::make_unique<GateBdev>(*reactors_[1], std::move(under).value());
    auto created =
        target_->create_subsystem({.nqn = subnqn, .serial_number = "serial0", .compare_write = compare_write});
    subsystem_ = created.value();
    BASALT_ASSERT(subsystem_->add_host(hostnqn).ok());
    auto address = run(subsystem_->add_listener({"TCP", "127.0.0.1", "0"}));
    BASALT_ASSERT(address.ok());
    address_ = *address;
  }

  ~TcpTargetFixture() override {
    hosts_.clear();
    run_void(target_->close());
    EXPECT_EQ(transport_->connection_count(), 0u);
    EXPECT_EQ(transport_->half_open_count(), 0u);
    expect_no_buffers();
    target_.reset();
    EXPECT_TRUE(run(close_bdev()).ok());
  }
  Task<Outcome> close_bdev() {
    auto there = hop(*reactors_[1]);
    co_await there;
    auto closed = co_await bdev_->close();
    co_return closed;
  }

  env::Env& env() { return machine_ != nullptr ? *machine_ : static_cast<env::Env&>(memory_); }
  Instant now() { return env().now(); }
  // Turns both reactors until `done`; virtual time passes quickly, the machine's has a short limit of its own.
  bool run_until(const std::function<bool()>& done, Duration limit = seconds(60)) {
    if (machine_ == nullptr) return memory_.run_until(done, limit);
    const Instant end = now() + std::min(limit, seconds(20));
    while (!done()) {
      if (now() > end) return false;
      bool busy = false;
      for (const auto& reactor : reactors_)
        busy |= reactor->turn();
      if (!busy) reactors_[0]->poller().wait(now() + microseconds(200));
    }
    return true;
  }
  void run_for(Duration duration) {
    const Instant end = now() + duration;
    if (machine_ == nullptr) return memory_.run_for(duration);
    run_until([&] { return now() >= end; });
  }
  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    spawn(store(std::move(task), &result));
    const bool ended = run_until([&] { return result.has_value(); });
    BASALT_ASSERT(ended);
    return std::move(*result);
  }
  void run_void(Task<void> task) {
    bool ended = false;
    spawn(note(std::move(task), &ended));
    const bool in_time = run_until([&] { return ended; });
    BASALT_ASSERT(in_time);
  }

  void add_namespace(bool one_writer = false) {
    auto nsid = run(subsystem_->add_namespace({.nsid = 1, .one_writer = one_writer}, bdev_.get()));
    ASSERT_TRUE(nsid.ok());
  }

  RawHost& dial() {
    env::Address address;
    address.host = "127.0.0.1";
    address.port = static_cast<uint16_t>(std::stoi(address_.trsvcid));
    auto socket = reactors_[0]->poller().connect(address);
    BASALT_ASSERT(socket.ok());
    struct Writable : Work {
      bool connected = false;
    } writable;
    writable.run = [](Work* work) { static_cast<Writable*>(work)->connected = true; };
    socket.value()->arm_writable(&writable);
    BASALT_ASSERT(run_until([&] { return writable.connected; }));
    hosts_.push_back(std::make_unique<RawHost>(
        std::move(socket).value(), [this](const std::function<bool()>& done) { return run_until(done, seconds(90)); }));
    return *hosts_.back();
  }
  struct Pair {
    RawHost* admin;
    RawHost* io;
    uint16_t cntlid;
    void drop() const {
      io->drop();
      admin->drop();
    }
  };
  // As far as Linux goes before its first I/O.
  Pair associate(uint16_t hostid = 1, pdu::Digests digests = {}, uint32_t kato_ms = 0) {
    RawHost& admin = dial();
    admin.initialize(digests);
    const auto connected = admin.connect(0, subnqn, hostnqn, hostid, 0xffff, kato_ms);
    EXPECT_TRUE(connected.came && connected.status.ok()) << to_string(connected.status);
    EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
    RawHost& io = dial();
    io.initialize(digests);
    const auto cntlid = static_cast<uint16_t>(connected.dw0);
    EXPECT_TRUE(io.connect(1, subnqn, hostnqn, hostid, cntlid).status.ok());
    return {&admin, &io, cntlid};
  }

  size_t buffers_in_use_count() const {
    size_t count = 0;
    for (const auto& reactor : reactors_)
      count += reactor->buffers().in_use_count();
    return count;
  }
  void expect_no_buffers() { EXPECT_EQ(buffers_in_use_count(), 0u); }
  // The connection ends with this termination request, or with none where the reaction may be a plain end.
  void expect_terminated(RawHost& host, pdu::Fes fes, std::optional<uint32_t> fei = std::nullopt) {
    std::optional<RawPdu> answer;
    do {
      answer = host.next();
      ASSERT_TRUE(answer.has_value()) << "no termination request came";
    } while (answer->type == pdu::Type::r2t || answer->type == pdu::Type::capsule_response);
    ASSERT_EQ(answer->type, pdu::Type::c2h_term_request);
    const auto term = answer->as<pdu::TermRequest>();
    EXPECT_EQ(term.fes, static_cast<uint16_t>(fes));
    if (fei) {
      EXPECT_EQ(term.fei_low, *fei);
    }
    EXPECT_TRUE(host.closes());
  }

  const Wire wire_;
  const uint64_t seed_;
  basalt::testing::MemoryNet memory_;
  std::unique_ptr<env::Env> machine_;
  Arena arena_;
  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::unique_ptr<GateBdev> bdev_;
  std::unique_ptr<Target> target_;
  TcpTargetTransport* transport_ = nullptr;
  Subsystem* subsystem_ = nullptr;
  ListenAddress address_;
  std::vector<std::unique_ptr<RawHost>> hosts_;

 private:
  template <class T>
  static Task<void> store(Task<T> task, std::optional<T>* result) {
    T value = co_await task;
    result->emplace(std::move(value));
  }
  static Task<void> note(Task<void> task, bool* ended) {
    co_await task;
    *ended = true;
  }
};

inline std::string wire_name(const ::testing::TestParamInfo<Wire>& info) {
  return info.param == Wire::memory ? "memory" : "sockets";
}

}  // namespace basalt::nvmf::testing
