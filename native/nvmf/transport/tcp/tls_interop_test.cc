// SPDX-License-Identifier: Apache-2.0
// TLS over sockets of the machine: our own host, and `openssl s_client` as a judge that is not ours.
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>

#include "crypto/hex_testing.h"
#include "nvmf/host/controller.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"
#include "nvmf/transport/tcp/tls_testing.h"

namespace basalt::nvmf {
namespace {

using namespace basalt::nvmf::testing;  // NOLINT
using crypto::to_hex;

TcpTargetOptions quick() {
  TcpTargetOptions options;
  options.connection.tls_timeout = milliseconds(500);
  options.connection.initialize_timeout = milliseconds(500);
  options.connection.connect_timeout = milliseconds(500);
  return options;
}

class TlsInterop : public TcpTargetFixture {
 protected:
  TlsInterop() : TcpTargetFixture(Wire::sockets, quick()) {
    add_namespace();
    HostKeys keys;
    keys.tls = tls_key_of(tls_text_256);
    BASALT_ASSERT(subsystem_->set_host_keys(hostnqn, keys).ok());
    auto bound = run(subsystem_->add_listener({"TCP", "127.0.0.1", "0", true}));
    BASALT_ASSERT(bound.ok());
    tls_address_ = *bound;
    psk_ = keys.tls->psk(hostnqn, subnqn);
  }
  // What it prints, standard error included; the reactors turn meanwhile.
  std::string shell(const std::string& command, int* status) {
    std::string out;
    std::atomic<bool> ended = false;
    std::thread runner([&] {
      FILE* pipe = popen(("(" + command + ") 2>&1").c_str(), "r");
      BASALT_ASSERT(pipe != nullptr);
      char buffer[4096];
      for (size_t count; (count = fread(buffer, 1, sizeof(buffer), pipe)) > 0;)
        out.append(buffer, count);
      *status = pclose(pipe);
      ended = true;
    });
    EXPECT_TRUE(run_until([&] { return ended.load(); }));
    runner.join();
    return out;
  }
  std::string s_client(const std::string& psk_hex, const std::string& identity, const std::string& more, int* status,
                       const std::string& input = "true") {
    return shell("(" + input + ") | timeout 10 openssl s_client -connect 127.0.0.1:" + tls_address_.trsvcid + " -psk " +
                     psk_hex + " -psk_identity '" + identity + "' " + more,
                 status);
  }
  ListenAddress tls_address_;
  crypto::SharedTlsPsk psk_;
};

TEST_F(TlsInterop, OpensslsClientGetsInWithTheKey) {
  int status = 0;
  const std::string out = s_client(to_hex(crypto::as_bytes(psk_->key)), psk_->identity, "-tls1_3", &status);
  EXPECT_EQ(status, 0) << out;
  EXPECT_NE(out.find("Reused, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256"), std::string::npos) << out;
  EXPECT_EQ(transport_->tls_established_count(), 1u);
}

TEST_F(TlsInterop, OpensslsClientHearsAnIcResp) {
  Bytes request(sizeof(pdu::IcRequest));
  pdu::encode_ic_request(request.data(), {}, 0);
  std::string escaped;
  for (const uint8_t byte : request) {
    char text[6];
    std::snprintf(text, sizeof(text), "\\%03o", byte);
    escaped += text;
  }
  int status = 0;
  const std::string out =
      s_client(to_hex(crypto::as_bytes(psk_->key)), psk_->identity, "-tls1_3 -quiet -no_ign_eof 2>/dev/null", &status,
               "printf '" + escaped + "'; sleep 1");
  ASSERT_EQ(out.size(), sizeof(pdu::IcResponse)) << out;
  EXPECT_EQ(out[0], 1);
}

TEST_F(TlsInterop, OpensslsClientFailsWithAWrongKeyAnotherNameOrAnOldVersion) {
  int status = 0;
  std::string wrong = to_hex(crypto::as_bytes(psk_->key));
  wrong[0] = wrong[0] == '0' ? '1' : '0';
  std::string out = s_client(wrong, psk_->identity, "-tls1_3", &status);
  EXPECT_NE(status, 0);
  EXPECT_EQ(out.find("Reused"), std::string::npos) << out;
  out = s_client(to_hex(crypto::as_bytes(psk_->key)), "Client_identity", "-tls1_3", &status);
  EXPECT_NE(status, 0);
  EXPECT_NE(out.find("alert number 115"), std::string::npos) << out;  // unknown_psk_identity
  out = s_client(to_hex(crypto::as_bytes(psk_->key)), psk_->identity, "-tls1_2", &status);
  EXPECT_NE(status, 0);
  EXPECT_NE(out.find("protocol version"), std::string::npos) << out;
  EXPECT_EQ(transport_->tls_established_count(), 0u);
  EXPECT_EQ(target_->tls_refusals().count(TlsRefusal::key), 2u);
  EXPECT_EQ(target_->tls_refusals().count(TlsRefusal::handshake), 1u);
  EXPECT_EQ(target_->tls_refusals().peers().size(), 1u);
}

TEST_F(TlsInterop, OurOwnHostWritesAndReads) {
  TcpHostTransport tcp;
  HostControllerOptions options;
  options.address = {tls_address_.traddr, tls_address_.trsvcid};
  options.subnqn = subnqn;
  options.hostnqn = hostnqn;
  options.hostid.bytes[0] = 1;
  options.authentication.tls = tls_key_of(tls_text_256);
  HostController controller(*reactors_[1], tcp, options, nullptr);
  const Outcome outcome = run(controller.connect());
  ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  Bytes data = pattern(size_t{256} * 4096, 3);
  Bytes back(data.size());
  for (const bool write : {true, false}) {
    HostController::Call call;
    call.command = RawHost::io_command(write ? nvme::NvmOpcode::write : nvme::NvmOpcode::read, 1, 5, 256);
    call.direction = write ? nvme::DataDirection::host_to_controller : nvme::DataDirection::controller_to_host;
    call.data = write ? data.data() : back.data();
    call.data_bytes = static_cast<uint32_t>(data.size());
    EXPECT_TRUE(run(controller.io_call(call)).status.ok());
  }
  EXPECT_EQ(back, data);
  run_void(controller.close());

  options.authentication.tls = tls_key_of(tls_text_other);
  HostController stranger(*reactors_[1], tcp, options, nullptr);
  const Outcome refused = run(stranger.connect());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::permission);
  EXPECT_NE(refused.error().message.find("refuses this host's key"), std::string::npos) << refused.error().message;
  run_void(stranger.close());
}

TEST_F(TlsInterop, PlaintextIsClosedAtItsFirstByte) {
  address_ = tls_address_;
  RawHost& host = dial();
  const Instant begun = now();
  host.send({0x00});
  EXPECT_TRUE(host.closes());
  EXPECT_LT(now() - begun, milliseconds(400));
  EXPECT_EQ(target_->tls_refusals().count(TlsRefusal::plaintext), 1u);
}

}  // namespace
}  // namespace basalt::nvmf
