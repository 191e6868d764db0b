// SPDX-License-Identifier: Apache-2.0
// Any bytes to a TLS session before and after its handshake: whoever does not know the key is never in, nothing that
// was changed on the way is taken for data, and what the session says stays small. The library's random numbers are its
// own, so that a run is not the same twice: what must hold, holds for all of them.
#include "crypto/tls_session.h"
#include "testing/fuzz_target.h"

namespace basalt::crypto {
namespace {

using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using Step = TlsSession::Step;

constexpr char fuzz_identity[] = "NVMe1R01 nqn.2026-01.test:host nqn.2026-01.test:volume AAAA";

SharedTlsPsk fuzz_psk(uint8_t fill) {
  auto psk = std::make_shared<TlsPsk>();
  psk->identity = fuzz_identity;
  psk->key = SecretBytes(32);
  std::fill_n(psk->key.data(), psk->key.size(), fill);
  return psk;
}

struct FuzzWire final : TlsWire {
  Moved read(void* out, size_t room_bytes) override {
    const size_t take = std::min(room_bytes, in.size());
    if (take == 0) return {ended ? State::closed : State::would_block};
    std::copy_n(in.begin(), take, static_cast<uint8_t*>(out));
    in.erase(in.begin(), in.begin() + static_cast<long>(take));
    return {State::done, take};
  }
  Moved write(const void* bytes, size_t length_bytes) override {
    const auto* from = static_cast<const uint8_t*>(bytes);
    out.insert(out.end(), from, from + length_bytes);
    return {State::done, length_bytes};
  }
  std::vector<uint8_t> in, out;
  bool ended = false;
};

struct FuzzKey final : TlsPskFinder {
  SharedTlsPsk find(std::string_view identity) override { return identity == psk->identity ? psk : nullptr; }
  SharedTlsPsk psk = fuzz_psk(7);
};

std::unique_ptr<TlsContext> fuzz_context(TlsContext::Role role) {
  auto made = TlsContext::make(role);
  BASALT_ASSERT(made.ok());
  return std::move(made).value();
}

// Strangers.
void server_hears(FuzzInput& input, const TlsContext& context) {
  FuzzWire wire;
  FuzzKey key;
  TlsSession session(context, wire, key);
  Step step = Step::want_read;
  while (!input.empty() && step != Step::failed) {
    const auto bytes = input.blob();
    wire.in.insert(wire.in.end(), bytes.begin(), bytes.end());
    step = session.handshake();
    BASALT_ASSERT(step != Step::done && !session.established());
  }
  wire.ended = true;
  BASALT_ASSERT(session.handshake() != Step::done);
  BASALT_ASSERT(wire.out.size() < 4096);
}

void client_hears(FuzzInput& input, const TlsContext& context) {
  FuzzWire wire;
  TlsSession session(context, wire, fuzz_psk(7));
  Step step = session.handshake();
  while (!input.empty() && step != Step::failed) {
    const auto bytes = input.blob();
    wire.in.insert(wire.in.end(), bytes.begin(), bytes.end());
    step = session.handshake();
    BASALT_ASSERT(step != Step::done && !session.established());
  }
  BASALT_ASSERT(wire.out.size() < 4096);
}

// Two sides with the same key, and somebody in the middle of what the client sends.
void somebody_between(FuzzInput& input, const TlsContext& server_context, const TlsContext& client_context) {
  FuzzWire up, down;  // each side's own
  FuzzKey key;
  TlsSession server(server_context, up, key);
  TlsSession client(client_context, down, fuzz_psk(7));
  const std::string sent(300, 'd');
  bool changed = false;
  for (int i = 0; i < 6; i++) {
    if (client.handshake() == Step::done && i >= 2) {
      size_t count = 0;
      (void)client.write(sent.data(), sent.size(), &count);
    }
    const auto before = down.out;
    input.patch(down.out);
    changed |= before != down.out;
    up.in.insert(up.in.end(), down.out.begin(), down.out.end());
    down.out.clear();
    if (server.handshake() == Step::done) {
      char got[1000];
      size_t count = 0;
      while (server.read(got, sizeof(got), &count) == Step::done)
        BASALT_ASSERT(std::string_view(got, count) == sent);
    }
    down.in.insert(down.in.end(), up.out.begin(), up.out.end());
    BASALT_ASSERT(up.out.size() < 16384);
    up.out.clear();
  }
  if (!changed) BASALT_ASSERT(server.established() && client.established());
}

void run(std::span<const uint8_t> bytes) {
  const auto server = fuzz_context(TlsContext::Role::server);
  const auto client = fuzz_context(TlsContext::Role::client);
  FuzzInput input(bytes);
  switch (input.u8() % 3) {
    case 0:
      return server_hears(input, *server);
    case 1:
      return client_hears(input, *client);
    default:
      return somebody_between(input, *server, *client);
  }
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  const auto context = fuzz_context(TlsContext::Role::client);
  FuzzWire wire;
  TlsSession client(*context, wire, fuzz_psk(8));
  (void)client.handshake();
  out.push_back({"hello-with-a-wrong-key", FuzzOutput().u8(0).blob(wire.out).bytes()});
  out.push_back({"two-hellos", FuzzOutput().u8(0).blob(wire.out).blob(wire.out).bytes()});
  const uint8_t plain[] = {0, 0, 128, 0, 128, 0, 0, 0};
  const uint8_t alert[] = {21, 3, 3, 0, 2, 2, 40};
  out.push_back({"plain-to-server", FuzzOutput().u8(0).blob(plain).bytes()});
  out.push_back({"plain-to-client", FuzzOutput().u8(1).blob(plain).bytes()});
  out.push_back({"alert-to-client", FuzzOutput().u8(1).blob(alert).bytes()});
  out.push_back({"untouched", FuzzOutput().u8(2).bytes()});
  const uint8_t value[] = {0xa5};
  for (const unsigned flight : {0u, 1u, 2u, 3u}) {
    FuzzOutput meddled;
    meddled.u8(2);
    for (unsigned before = 0; before < flight; before++)
      meddled.no_patch();
    out.push_back({"meddled-" + std::to_string(flight), meddled.patch_one(60, value).bytes()});
  }
  return out;
}

BASALT_FUZZ_TARGET(tls_session, run, seeds)

}  // namespace
}  // namespace basalt::crypto
