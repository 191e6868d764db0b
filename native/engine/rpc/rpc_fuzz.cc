// SPDX-License-Identifier: Apache-2.0
// Any bytes to an engine's JSON-RPC socket, in a simulated world. What comes back is one JSON object per line with an
// id or an error; the engine answers a well-behaved client afterwards, and stops with everything that was made.
#include "engine/engine.h"
#include "engine/rpc/connection.h"
#include "env/sim/sim_world.h"
#include "testing/fuzz_target.h"

namespace basalt::rpc {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

constexpr uint8_t mode_leave = 1;  // without waiting for answers
constexpr uint8_t mode_deaf = 2;
// What was asked before it is answered before what comes behind it is sent. JSON has no such byte.
constexpr char pause = '\x1e';
constexpr unsigned pauses_max = 32;

class Client {
 public:
  Client(env::SimWorld& world, env::Poller& poller, const std::string& path) : world_(world) {
    auto connecting = poller.connect({env::Address::Family::unix_path, path, 0});
    BASALT_ASSERT(connecting.ok());
    socket_ = std::move(connecting).value();
    world_.run_for(milliseconds(1));
  }
  void send(std::string_view bytes) {
    for (int turn = 0; turn < 64 && !bytes.empty(); turn++) {
      const Iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
      const env::Transfer moved = socket_->try_send(&iov, 1);
      if (moved.state == env::Transfer::State::done) {
        bytes.remove_prefix(moved.count_bytes);
      } else if (moved.state == env::Transfer::State::would_block) {
        world_.run_for(microseconds(200));
        if (!deaf) receive();
      } else {
        return;
      }
    }
  }
  void receive() {
    char bytes[16384];
    const Iovec iov{bytes, sizeof(bytes)};
    for (;;) {
      const env::Transfer moved = socket_->try_recv(&iov, 1);
      if (moved.state != env::Transfer::State::done) return;
      received.append(bytes, moved.count_bytes);
    }
  }
  // Whole lines that came: each must be an answer or an event.
  void check() {
    for (size_t end; (end = received.find('\n')) != std::string::npos;) {
      auto parsed = parse_json(received.substr(0, end));
      BASALT_ASSERT(parsed.ok() && parsed->is(JsonValue::Kind::object) && parsed->find("jsonrpc") != nullptr);
      BASALT_ASSERT(parsed->find("result") != nullptr || parsed->find("error") != nullptr ||
                    parsed->find("method") != nullptr);
      received.erase(0, end + 1);
      line_count++;
    }
  }
  bool deaf = false;
  std::string received;
  size_t line_count = 0;

 private:
  env::SimWorld& world_;
  std::unique_ptr<env::StreamSocket> socket_;
};

void send_in_turn(env::SimWorld& world, Client& client, std::string_view text) {
  for (unsigned turn = 0; turn < pauses_max; turn++) {
    const size_t end = text.find(pause);
    client.send(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
    world.run_for(milliseconds(20));
    if (!client.deaf) client.receive();
  }
  client.send(text);
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  const uint8_t mode = input.u8();
  env::SimWorld world(1);
  env::SimNode& node = world.add_node("node");
  EngineConfig config;
  config.memory_bytes_max = size_t{256} << 20;
  config.rpc_path = "/run/engine";
  Engine engine(node, config);
  BASALT_ASSERT(engine.start().ok());
  {
    Client client(world, engine.management().poller(), config.rpc_path);
    client.deaf = (mode & mode_deaf) != 0;
    const auto rest = input.rest();
    send_in_turn(world, client, {reinterpret_cast<const char*>(rest.data()), rest.size()});
    if ((mode & mode_leave) == 0) world.run_for(seconds(1));
    client.receive();
    client.check();
  }
  {
    Client client(world, engine.management().poller(), config.rpc_path);
    client.send(R"({"jsonrpc":"2.0","id":1,"method":"rpc_get_methods"})");
    const bool answered = world.run_until(
        [&] {
          client.receive();
          client.check();
          return client.line_count > 0;
        },
        seconds(10));
    BASALT_ASSERT(answered);
  }
  bool stopped = false;
  engine.stop([&] { stopped = true; });
  const bool in_time = world.run_until([&] { return stopped; }, seconds(600));
  BASALT_ASSERT(in_time);
  engine.join();
}

std::string call(const std::string& method, const std::string& params) {
  return R"({"jsonrpc":"2.0","id":7,"method":")" + method + R"(","params":)" + params + "}\n";
}

// A subsystem with all that one can have, looked at again and again.
std::string subsystem_in_turn() {
  const std::string nqn = R"("nqn":"nqn.2026-01.test:vol")";
  const auto at = [](const char* trtype, const char* traddr) {
    return std::string(R"("listen_address":{"trtype":")") + trtype + R"(","traddr":")" + traddr +
           R"(","trsvcid":"4420"})";
  };
  const auto space = [&](const std::string& rest) {
    return call("nvmf_subsystem_add_ns", "{" + nqn + R"(,"namespace":{"bdev_name":"m0",)" + rest + "}}");
  };
  std::vector<std::string> turns = {
      call("bdev_malloc_create", R"({"name":"m0","num_blocks":64,"block_size":4096})"),
      call("nvmf_create_transport", R"({"trtype":"TCP"})"),
      call("nvmf_create_transport", R"({"trtype":"RDMA","trusted_network":true})"),
      call("nvmf_get_transports", "{}") + call("nvmf_get_transports", R"({"trtype":"LOOPBACK"})"),
      call("nvmf_create_subsystem", "{" + nqn + "}"),
      space(R"("nguid":"00000000000040008000000000000001")"),
      space(R"("nguid":"00000000-0000-4000-8000-000000000002")"),
      space(R"("nguid":"no")"),
      call("nvmf_subsystem_add_listener", "{" + nqn + "," + at("TCP", "127.0.0.1") + "}"),
      call("nvmf_subsystem_add_listener", "{" + nqn + "," + at("TCP", "10.0.0.1") + "}"),
      call("nvmf_subsystem_add_listener", "{" + nqn + "," + at("LOOPBACK", "here") + "}"),
      call("nvmf_subsystem_add_listener", "{" + nqn + "," + at("RDMA", "10.0.0.1") + "}"),
      call("nvmf_subsystem_add_listener", "{" + nqn + "," + at("rdma", "::1") + "}"),
      call("nvmf_subsystem_add_host", "{" + nqn + R"(,"host":"nqn.2026-01.test:host"})"),
  };
  for (const char* state : {"non_optimized", "change", "inaccessible", "optimized"}) {
    turns.push_back(call("nvmf_subsystem_listener_set_ana_state",
                         "{" + nqn + "," + at("TCP", "127.0.0.1") + R"(,"ana_state":")" + state + R"("})"));
    turns.push_back(call("nvmf_get_subsystems", "{}"));
  }
  turns.push_back(call("nvmf_subsystem_remove_listener", "{" + nqn + "," + at("TCP", "127.0.0.1") + "}"));
  turns.push_back(call("nvmf_subsystem_remove_host", "{" + nqn + R"(,"host":"nqn.2026-01.test:host"})"));
  turns.push_back(call("nvmf_subsystem_remove_ns", "{" + nqn + R"(,"nsid":1})"));
  turns.push_back(call("nvmf_delete_subsystem", "{" + nqn + "}"));
  std::string text;
  for (const std::string& turn : turns)
    text += turn + pause;
  return text;
}

std::vector<FuzzSeed> seeds() {
  const std::string uuid = "00000000-0000-4000-8000-000000000001";
  const std::string nqn = "nqn.2026-01.test:vol";
  const std::string tcp = R"({"trtype":"TCP","adrfam":"IPv4","traddr":"127.0.0.1","trsvcid":"4420"})";
  const std::string malloc_m0 = call("bdev_malloc_create", R"({"name":"m0","num_blocks":2048,"block_size":4096})");
  const std::string subsystem =
      call("nvmf_create_subsystem", R"({"nqn":")" + nqn + R"(","serial_number":"s","allow_any_host":true})");
  const std::pair<const char*, std::string> texts[] = {
      {"methods",
       call("rpc_get_methods", "{}") + call("spdk_get_version", "{}") + call("framework_get_reactors", "{}")},
      {"bdevs", malloc_m0 + call("bdev_null_create", R"({"name":"n0","num_blocks":64,"block_size":512})") +
                    call("bdev_get_bdevs", "{}") + call("bdev_get_bdevs", R"({"name":"m0"})") +
                    call("bdev_get_iostat", R"({"name":"m0"})") + call("bdev_malloc_delete", R"({"name":"m0"})") +
                    call("bdev_null_delete", R"({"name":"n0"})")},
      {"aio", call("bdev_aio_create", R"({"name":"a0","filename":"/disk","block_size":4096})") +
                  call("bdev_aio_delete", R"({"name":"a0"})")},
      {"error",
       malloc_m0 + call("bdev_error_create", R"({"base_name":"m0"})") +
           call("bdev_error_inject_error", R"({"name":"EE_m0","io_type":"write","error_type":"failure","num":1})") +
           call("bdev_error_delete", R"({"name":"EE_m0"})")},
      {"raid",
       malloc_m0 + call("bdev_malloc_create", R"({"name":"m1","num_blocks":2048,"block_size":4096})") +
           call("bdev_raid_create", R"({"name":"r0","raid_level":"0","strip_size_kb":64,"base_bdevs":["m0","m1"]})") +
           call("bdev_raid_get_bdevs", R"({"category":"all"})") + call("bdev_raid_delete", R"({"name":"r0"})")},
      {"lvol",
       malloc_m0 + call("bdev_lvol_create_lvstore", R"({"bdev_name":"m0","lvs_name":"s0","cluster_sz":65536})") +
           call("bdev_lvol_create", R"({"lvs_name":"s0","lvol_name":"l0","size_in_mib":1,"thin_provision":true})") +
           call("bdev_lvol_get_lvstores", "{}") + call("bdev_lvol_get_lvols", "{}") +
           call("bdev_lvol_delete", R"({"name":"s0/l0"})") + call("bdev_lvol_delete_lvstore", R"({"lvs_name":"s0"})")},
      {"nvmf",
       malloc_m0 + call("nvmf_create_transport", R"({"trtype":"TCP"})") + subsystem +
           call("nvmf_subsystem_add_ns", R"({"nqn":")" + nqn + R"(","namespace":{"nsid":1,"bdev_name":"m0"}})") +
           call("nvmf_subsystem_add_listener", R"({"nqn":")" + nqn + R"(","listen_address":)" + tcp + "}") +
           call("nvmf_subsystem_add_host", R"({"nqn":")" + nqn + R"(","host":"nqn.2026-01.test:host"})") +
           call("nvmf_subsystem_listener_set_ana_state",
                R"({"nqn":")" + nqn + R"(","listen_address":)" + tcp + R"(,"ana_state":"inaccessible"})") +
           call("nvmf_get_subsystems", "{}") + call("nvmf_subsystem_get_controllers", R"({"nqn":")" + nqn + R"("})") +
           call("bdev_nvme_attach_controller", R"({"name":"c0","trtype":"TCP","traddr":"127.0.0.1","trsvcid":"4420",)"
                                               R"("subnqn":")" +
                                                   nqn + R"(","hostnqn":"nqn.2026-01.test:host"})") +
           call("bdev_nvme_get_controllers", "{}") + call("bdev_nvme_detach_controller", R"({"name":"c0"})") +
           call("nvmf_subsystem_remove_ns", R"({"nqn":")" + nqn + R"(","nsid":1})") +
           call("nvmf_delete_subsystem", R"({"nqn":")" + nqn + R"("})")},
      {"nvmf-in-turn", subsystem_in_turn()},
      {"nbd", malloc_m0 + call("basalt_nbd_start", R"({"bdev_name":"m0","path":"/run/nbd0","export_name":"m0"})") +
                  call("basalt_nbd_stop", R"({"path":"/run/nbd0"})")},
      {"subscribe", call("basalt_subscribe", "{}") + malloc_m0},
      {"batch", "[" + call("rpc_get_methods", "{}") + "]"},
      {"wrong",
       R"({"jsonrpc":"1.0","id":1,"method":"x"}{"jsonrpc":"2.0","id":{},"method":"x"}{"jsonrpc":"2.0","method":1})"},
      {"parse", "{\"jsonrpc\":\"2.0\",]}"},
      {"words", "hello"},
      {"uuid",
       call("bdev_malloc_create", R"({"name":"m9","num_blocks":64,"block_size":512,"uuid":")" + uuid + R"("})")},
  };
  std::vector<FuzzSeed> out;
  for (const auto& [name, text] : texts)
    out.push_back({name, FuzzOutput().u8(0).add(text).bytes()});
  return out;
}

BASALT_FUZZ_TARGET(rpc, run, seeds)

}  // namespace
}  // namespace basalt::rpc
