// SPDX-License-Identifier: Apache-2.0
// Goal: what the reactors of an engine do at once is safe. Method: an engine with three reactors on threads of their
// own is its own host over TCP; threads of the test write and read bdevs without pause, while another changes what they
// stand on: sizes, snapshots, namespaces, paths, connections, the epoch. The data is checked here; ThreadSanitizer sees
// what two threads touch without order. Each test ends the engine while requests are in flight.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/assert.h"
#include "engine/local_engine.h"
#include "engine/rpc/json.h"
#include "testing/semaphore.h"

namespace basalt {
namespace {

constexpr auto patience = std::chrono::seconds(300);
constexpr unsigned rounds = 20;

// JSON with ' for ".
std::string json(std::string text) {
  std::replace(text.begin(), text.end(), '\'', '"');
  return text;
}

struct Call {
  std::string answer;
  testing::Semaphore answered;
};

// A thread that writes the first blocks of a bdev and reads them back, again and again.
class Load {
 public:
  Load(Engine& engine, const std::string& bdev) : name_(bdev) {
    engine.open_bdev(bdev, [this](Result<BdevAccess*> opened) {
      if (opened) access_ = *opened;
      ended_.release();
    });
    await(1);
    EXPECT_NE(access_, nullptr) << bdev << " cannot be opened";
    for (Slot& slot : slots_) {
      slot.memory.resize(piece_bytes);
      slot.context = this;
      slot.done = [](Transfer* transfer) { static_cast<Load*>(transfer->context)->ended_.release(); };
    }
    if (access_ != nullptr) thread_ = std::thread([this] { run(); });
  }
  ~Load() { EXPECT_FALSE(thread_.joinable()); }

  // Some more rounds have begun and ended since.
  void goes_on() {
    for (int i = 0; i < 2; i++)
      EXPECT_TRUE(round_.try_acquire_for(patience)) << name_ << " stands still";
  }
  // From now on requests may be refused as those of an old epoch are.
  void may_be_fenced() { fenced_.store(true); }
  void stop() {
    stopping_.store(true);
    if (thread_.joinable()) thread_.join();
  }
  // After stop(): requests that nobody waits for until await_last().
  void leave_in_flight() { submit(Transfer::Type::write, 0); }
  void await_last() { await(slots_.size()); }

 private:
  static constexpr size_t piece_bytes = 16 << 10;
  struct Slot : Transfer {
    std::vector<char> memory;
  };

  void run() {
    for (uint8_t fill = 1; !stopping_.load(); fill++) {
      exchange(Transfer::Type::write, fill);
      exchange(Transfer::Type::read, fill);
      round_.release();
    }
  }
  void exchange(Transfer::Type type, uint8_t fill) {
    submit(type, fill);
    await(slots_.size());
    for (const Slot& slot : slots_) {
      const nvme::Status status = slot.status;
      const bool refused = status.is(nvme::status::reservation_conflict) || status.is(nvme::status::ana_inaccessible);
      if (refused && fenced_.load()) continue;
      EXPECT_TRUE(status.ok()) << name_ << ": " << nvme::to_string(status);
      const char* memory = slot.memory.data();
      const bool same = memory[0] == static_cast<char>(fill) && std::memcmp(memory, memory + 1, piece_bytes - 1) == 0;
      EXPECT_TRUE(same || !status.ok()) << name_ << " read something else";
    }
  }
  void submit(Transfer::Type type, uint8_t fill) {
    for (size_t i = 0; i < slots_.size(); i++) {
      Slot& slot = slots_[i];
      slot.type = type;
      slot.offset_bytes = i * piece_bytes;
      slot.length_bytes = piece_bytes;
      slot.memory.assign(piece_bytes, type == Transfer::Type::write ? static_cast<char>(fill) : '\0');
      slot.Transfer::memory = slot.memory.data();
      access_->submit(&slot);
    }
  }
  void await(size_t count) {
    for (size_t i = 0; i < count; i++)
      BASALT_ASSERT(ended_.try_acquire_for(patience));
  }

  const std::string name_;
  BdevAccess* access_ = nullptr;
  std::array<Slot, 8> slots_;
  testing::Semaphore ended_;
  testing::Semaphore round_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> fenced_{false};
  std::thread thread_;
};

class EngineThreads : public ::testing::Test {
 protected:
  EngineThreads() : local_(config()) {
    char made[] = "/tmp/basalt-threads-XXXXXX";
    BASALT_ASSERT(mkdtemp(made) != nullptr);
    folder_ = made;
  }

  void SetUp() override {
    ASSERT_TRUE(local_.start().ok());
    call("bdev_aio_create", "{'name': 'base', 'filename': '" + folder_ +
                                "/base', 'create_bytes': 134217728, 'block_size': 4096, 'buffered': true}");
    call("bdev_lvol_create_lvstore", "{'bdev_name': 'base', 'lvs_name': 'lvs'}");
    call("nvmf_create_transport", "{'trtype': 'TCP'}");
  }

  void TearDown() override {
    for (const auto& load : loads_)
      load->stop();
    for (const auto& load : loads_)
      load->leave_in_flight();
    local_.begin_stop();
    EXPECT_TRUE(local_.finish_stop(seconds(100)));
    for (const auto& load : loads_)
      load->await_last();
    for (const auto& call : under_way_)
      EXPECT_TRUE(call->answered.try_acquire()) << "a call has no answer";
    unlink((folder_ + "/base").c_str());
    rmdir(folder_.c_str());
  }

  static EngineConfig config() {
    EngineConfig config;
    config.reactor_count = 3;
    return config;
  }

  std::shared_ptr<Call> begin_call(const std::string& method, const std::string& params) {
    const auto call = std::make_shared<Call>();
    local_.engine().call(method, json(params), [call](std::string answer) {
      call->answer = std::move(answer);
      call->answered.release();
    });
    return call;
  }
  // The result; null when it was refused.
  rpc::JsonValue call(const std::string& method, const std::string& params = "{}") {
    const auto call = begin_call(method, params);
    BASALT_ASSERT(call->answered.try_acquire_for(patience));
    const auto answer = rpc::parse_json(call->answer);
    BASALT_ASSERT(answer.ok());
    const rpc::JsonValue* result = answer->find("result");
    EXPECT_NE(result, nullptr) << method << ": " << call->answer;
    return result != nullptr ? *result : rpc::JsonValue();
  }

  // A subsystem with one namespace at a port of its own.
  std::string serve(const std::string& nqn, const std::string& bdev, bool one_writer) {
    call("nvmf_create_subsystem", "{'nqn': '" + nqn + "', 'serial_number': 'threads'}");
    call("nvmf_subsystem_add_host", "{'nqn': '" + nqn + "', 'host': '" + hostnqn + "'}");
    call("nvmf_subsystem_add_ns", "{'nqn': '" + nqn + "', 'namespace': {'bdev_name': '" + bdev +
                                      "', 'one_writer': " + (one_writer ? "true" : "false") + "}}");
    const auto bound =
        call("nvmf_subsystem_add_listener", "{'nqn': '" + nqn + "', 'listen_address': " + address("0") + "}");
    const rpc::JsonValue* port = bound.find("trsvcid");
    return port != nullptr ? port->string() : "";
  }
  static std::string address(const std::string& port) {
    return "{'trtype': 'TCP', 'traddr': '127.0.0.1', 'trsvcid': '" + port + "'}";
  }
  static std::string host(const std::string& name, const std::string& nqn, const std::string& port) {
    return "{'name': '" + name + "', 'trtype': 'TCP', 'traddr': '127.0.0.1', 'trsvcid': '" + port + "', 'subnqn': '" +
           nqn + "', 'hostnqn': '" + hostnqn + "', 'io_queue_count': 4, 'reconnect_delay_sec': 0}";
  }
  void take_over(const std::string& name, const std::string& nqn, const std::string& port, int epoch) {
    call("basalt_member_attach", "{'name': '" + name + "', 'traddr': '127.0.0.1', 'trsvcid': '" + port +
                                     "', 'subnqn': '" + nqn + "', 'hostnqn': '" + hostnqn +
                                     "', 'epoch': " + std::to_string(epoch) + ", 'timeout_ms': 60000}");
  }
  Load& load(const std::string& bdev) {
    loads_.push_back(std::make_unique<Load>(local_.engine(), bdev));
    return *loads_.back();
  }
  void all_go_on() {
    for (const auto& load : loads_)
      load->goes_on();
  }

  static constexpr char hostnqn[] = "nqn.2026-01.test:host";
  std::string folder_;
  LocalEngine local_;
  std::vector<std::unique_ptr<Load>> loads_;
  std::vector<std::shared_ptr<Call>> under_way_;  // they get an answer, whatever the engine does
};

TEST_F(EngineThreads, ServeHostsWhileWhatTheyUseIsChanged) {
  const std::string nqn = "nqn.2026-01.test:volume";
  const std::string about = "{'nqn': '" + nqn + "'";
  call("bdev_lvol_create", "{'lvs_name': 'lvs', 'lvol_name': 'volume', 'size_in_mib': 8, 'thin_provision': true}");
  call("bdev_malloc_create", "{'name': 'memory', 'num_blocks': 1024, 'block_size': 4096}");
  const std::string port = serve(nqn, "lvs/volume", false);
  call("nvmf_subsystem_add_ns", about + ", 'namespace': {'bdev_name': 'memory'}}");
  call("bdev_nvme_attach_controller", "{'name': 'host', 'trtype': 'TCP', 'traddr': '127.0.0.1', 'trsvcid': '" + port +
                                          "', 'subnqn': '" + nqn + "', 'hostnqn': '" + hostnqn +
                                          "', 'io_queue_count': 4, 'reconnect_delay_sec': 0}");
  call("bdev_null_create", "{'name': 'null', 'num_blocks': 1024, 'block_size': 4096}");
  load("hostn1");
  load("hostn2");
  for (unsigned round = 1; round <= rounds; round++) {
    const std::string number = std::to_string(round);
    all_go_on();
    call("bdev_lvol_resize", "{'name': 'lvs/volume', 'size_in_mib': " + std::to_string(8 + round) + "}");
    call("bdev_lvol_snapshot", "{'lvol_name': 'lvs/volume', 'snapshot_name': 's" + number + "'}");
    call("nvmf_subsystem_add_ns", about + ", 'namespace': {'bdev_name': 'null', 'nsid': 3}}");
    for (const char* method : {"framework_get_reactors", "bdev_get_iostat", "nvmf_get_subsystems",
                               "bdev_lvol_get_lvols", "bdev_nvme_get_controllers"})
      call(method);
    call("nvmf_subsystem_get_controllers", about + "}");
    call("nvmf_subsystem_remove_ns", about + ", 'nsid': 3}");
    for (const char* state : {"inaccessible", "optimized"})
      call("nvmf_subsystem_listener_set_ana_state",
           about + ", 'listen_address': " + address(port) + ", 'ana_state': '" + state + "'}");
    all_go_on();
    // Their connections end.
    for (const char* method : {"nvmf_subsystem_remove_host", "nvmf_subsystem_add_host"})
      call(method, about + ", 'host': '" + std::string(hostnqn) + "'}");
  }
  all_go_on();
}

TEST_F(EngineThreads, TakeReplicasOverWhileTheOldControllerWrites) {
  std::vector<std::string> ports;
  for (const std::string name : {"a", "b"}) {
    call("bdev_lvol_create", "{'lvs_name': 'lvs', 'lvol_name': '" + name + "', 'size_in_mib': 8}");
    ports.push_back(serve("nqn.2026-01.test:" + name, "lvs/" + name, true));
  }
  for (int epoch = 1; epoch <= 3; epoch++) {
    const std::string number = std::to_string(epoch);
    if (epoch > 1) all_go_on();
    for (const auto& load : loads_)
      load->may_be_fenced();
    take_over("a" + number, "nqn.2026-01.test:a", ports[0], epoch);
    take_over("b" + number, "nqn.2026-01.test:b", ports[1], epoch);
    for (const auto& load : loads_)
      load->stop();
    call("basalt_leg_create", "{'name': 'leg" + number + "', 'epoch': " + number + ", 'members': [{'name': 'a" +
                                  number + "', 'in_sync': true}, {'name': 'b" + number +
                                  "', 'in_sync': true}], 'all_dirty': " + (epoch > 1 ? "true" : "false") +
                                  ", 'lease_ms': 1000}");
    load("leg" + number).goes_on();
  }
}

class EngineThreadsAtStop : public EngineThreads, public ::testing::WithParamInterface<unsigned> {};

TEST_P(EngineThreadsAtStop, AnswerEveryCallThoughHostsAreConnecting) {
  const std::string nqn = "nqn.2026-01.test:volume";
  call("bdev_malloc_create", "{'name': 'memory', 'num_blocks': 1024, 'block_size': 4096}");
  const std::string port = serve(nqn, "memory", false);
  for (unsigned i = 0; i < 6; i++)
    under_way_.push_back(begin_call("bdev_nvme_attach_controller", host("host" + std::to_string(i), nqn, port)));
  for (unsigned i = 0; i < GetParam(); i++) {
    EXPECT_TRUE(under_way_.front()->answered.try_acquire_for(patience));
    under_way_.erase(under_way_.begin());
  }
}

INSTANTIATE_TEST_SUITE_P(Answered, EngineThreadsAtStop, ::testing::Range(0u, 6u));

}  // namespace
}  // namespace basalt
