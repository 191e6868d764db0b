// SPDX-License-Identifier: Apache-2.0
// Two ends of a TLS session with a wire in memory, and peers that the library drives without our rules.
#include "crypto/tls_session.h"

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <functional>
#include <random>
#include <vector>

#include "base/assert.h"

namespace basalt::crypto {
namespace {

using Step = TlsSession::Step;

SharedTlsPsk psk_of(Hash hash, uint8_t fill, std::string identity = "NVMe1R01 nqn.host nqn.volume AAAA") {
  auto psk = std::make_shared<TlsPsk>();
  psk->identity = std::move(identity);
  psk->hash = hash;
  psk->key = SecretBytes(digest_bytes(hash));
  std::fill_n(psk->key.data(), psk->key.size(), fill);
  return psk;
}

struct Pipe {
  std::deque<uint8_t> bytes;
  bool ended = false;
  size_t room_bytes = SIZE_MAX;
};

class PipeWire final : public TlsWire {
 public:
  PipeWire(Pipe& in, Pipe& out, size_t piece_bytes = SIZE_MAX) : in_(in), out_(out), piece_bytes_(piece_bytes) {}
  // Runs before each read; the last bytes stay back, so that what was read ends within a record.
  std::function<void()> before_read;
  size_t held_back_bytes = 0;
  Moved read(void* out, size_t room_bytes) override {
    if (before_read) before_read();
    const size_t there_bytes = in_.bytes.size() - std::min(in_.bytes.size(), held_back_bytes);
    const size_t take = std::min({room_bytes, there_bytes, piece_bytes_});
    if (take == 0) return {in_.ended ? State::closed : State::would_block};
    std::copy_n(in_.bytes.begin(), take, static_cast<uint8_t*>(out));
    in_.bytes.erase(in_.bytes.begin(), in_.bytes.begin() + static_cast<long>(take));
    return {State::done, take};
  }
  Moved write(const void* bytes, size_t length_bytes) override {
    const size_t room = out_.room_bytes - std::min(out_.room_bytes, out_.bytes.size());
    const size_t take = std::min({length_bytes, room, piece_bytes_});
    if (take == 0) return {State::would_block};
    const auto* from = static_cast<const uint8_t*>(bytes);
    out_.bytes.insert(out_.bytes.end(), from, from + take);
    return {State::done, take};
  }

 private:
  Pipe& in_;
  Pipe& out_;
  const size_t piece_bytes_;
};

class OneKey final : public TlsPskFinder {
 public:
  explicit OneKey(SharedTlsPsk psk) : psk_(std::move(psk)) {}
  SharedTlsPsk find(std::string_view identity) override { return identity == psk_->identity ? psk_ : nullptr; }

 private:
  SharedTlsPsk psk_;
};

std::unique_ptr<TlsContext> context_of(TlsContext::Role role) {
  auto made = TlsContext::make(role);
  BASALT_ASSERT(made.ok());
  return std::move(made).value();
}

struct World {
  explicit World(SharedTlsPsk at_server, size_t piece_bytes = SIZE_MAX)
      : finder(std::move(at_server)), server_wire(up, down, piece_bytes), client_wire(down, up, piece_bytes) {}
  Pipe up, down;
  OneKey finder;
  PipeWire server_wire, client_wire;
  std::unique_ptr<TlsContext> server_context = context_of(TlsContext::Role::server);
  std::unique_ptr<TlsContext> client_context = context_of(TlsContext::Role::client);
  TlsSession server{*server_context, server_wire, finder};
};

struct Both {
  Step client = Step::want_read;
  Step server = Step::want_read;
};
Both shake(TlsSession& client, TlsSession& server) {
  Both both;
  for (int i = 0; i < 100000; i++) {
    both.client = client.handshake();
    both.server = server.handshake();
    const auto over = [](Step step) { return step == Step::done || step == Step::failed; };
    if (over(both.client) && over(both.server)) break;
  }
  return both;
}

std::string read_all(TlsSession& session, size_t wanted, size_t piece = 100000) {
  std::string out;
  std::vector<char> buffer(piece);
  for (int i = 0; i < 1000000 && out.size() < wanted; i++) {
    size_t count = 0;
    const Step step = session.read(buffer.data(), buffer.size(), &count);
    out.append(buffer.data(), count);
    if (step != Step::done && session.wire_blocked()) break;
  }
  return out;
}
void write_all(TlsSession& session, std::string_view text) {
  while (!text.empty()) {
    size_t count = 0;
    ASSERT_EQ(session.write(text.data(), text.size(), &count), Step::done) << session.reason();
    text.remove_prefix(count);
  }
}

TEST(TlsSession, carries_data_both_ways_with_either_suite_and_any_cutting_of_the_wire) {
  for (const Hash hash : {Hash::sha256, Hash::sha384}) {
    for (const size_t piece : {size_t{1}, size_t{7}, SIZE_MAX}) {
      World world(psk_of(hash, 7), piece);
      TlsSession client(*world.client_context, world.client_wire, psk_of(hash, 7));
      const Both both = shake(client, world.server);
      ASSERT_EQ(both.client, Step::done) << client.reason();
      ASSERT_EQ(both.server, Step::done) << world.server.reason();
      std::string long_text(100000, 'x');
      for (size_t i = 0; i < long_text.size(); i++)
        long_text[i] = static_cast<char>('a' + i * 31 % 26);
      write_all(client, long_text);
      EXPECT_EQ(read_all(world.server, long_text.size(), 1000), long_text);
      write_all(world.server, "short");
      EXPECT_EQ(read_all(client, 5), "short");
    }
  }
}

TEST(TlsSession, works_with_an_identity_of_two_longest_names) {
  const auto psk = psk_of(Hash::sha384, 1, "NVMe1R02 " + std::string(223, 'h') + " " + std::string(223, 's') + " x");
  World world(psk);
  TlsSession client(*world.client_context, world.client_wire, psk);
  EXPECT_EQ(shake(client, world.server).client, Step::done);
}

TEST(TlsSession, refuses_a_wrong_key_and_both_sides_say_so) {
  World world(psk_of(Hash::sha256, 7));
  TlsSession client(*world.client_context, world.client_wire, psk_of(Hash::sha256, 8));
  const Both both = shake(client, world.server);
  EXPECT_EQ(both.server, Step::failed);
  EXPECT_EQ(world.server.failure(), TlsFailure::wrong_key) << world.server.reason();
  EXPECT_EQ(both.client, Step::failed);
  EXPECT_EQ(client.failure(), TlsFailure::refused);
  EXPECT_FALSE(client.established() || world.server.established());
}

TEST(TlsSession, refuses_an_unknown_identity_and_both_sides_say_so) {
  World world(psk_of(Hash::sha256, 7));
  TlsSession client(*world.client_context, world.client_wire, psk_of(Hash::sha256, 7, "another"));
  shake(client, world.server);
  EXPECT_EQ(world.server.failure(), TlsFailure::unknown_key) << world.server.reason();
  EXPECT_EQ(client.failure(), TlsFailure::refused);
  EXPECT_NE(client.reason().find("PSK identity"), std::string::npos) << client.reason();
}

TEST(TlsSession, refuses_plain_bytes_at_their_first_one) {
  World world(psk_of(Hash::sha256, 7));
  world.up.bytes = {0x00};  // as an NVMe/TCP ICReq begins
  EXPECT_EQ(world.server.handshake(), Step::failed);
  EXPECT_EQ(world.server.failure(), TlsFailure::no_tls);
  EXPECT_TRUE(world.down.bytes.empty());

  TlsSession client(*world.client_context, world.client_wire, psk_of(Hash::sha256, 7));
  EXPECT_EQ(client.handshake(), Step::want_read);
  world.down.bytes = {0x03};
  EXPECT_EQ(client.handshake(), Step::failed);
  EXPECT_EQ(client.failure(), TlsFailure::no_tls);
}

TEST(TlsSession, tells_an_orderly_end_from_a_cut) {
  World world(psk_of(Hash::sha256, 7));
  TlsSession client(*world.client_context, world.client_wire, psk_of(Hash::sha256, 7));
  shake(client, world.server);
  write_all(client, "last");
  client.say_goodbye();
  EXPECT_EQ(read_all(world.server, 4), "last");
  char byte = 0;
  size_t count = 0;
  EXPECT_EQ(world.server.read(&byte, 1, &count), Step::closed);
  world.down.ended = true;
  EXPECT_EQ(client.read(&byte, 1, &count), Step::failed);
  EXPECT_EQ(client.failure(), TlsFailure::wire);
}

TEST(TlsSession, waits_while_the_wire_takes_nothing) {
  World world(psk_of(Hash::sha256, 7));
  TlsSession client(*world.client_context, world.client_wire, psk_of(Hash::sha256, 7));
  shake(client, world.server);
  world.up.room_bytes = 10;
  const std::string text(1000, 't');
  size_t count = 0;
  ASSERT_EQ(client.write(text.data(), text.size(), &count), Step::want_write);
  world.up.room_bytes = SIZE_MAX;
  ASSERT_EQ(client.write(text.data(), text.size(), &count), Step::done);
  EXPECT_EQ(count, text.size());
  EXPECT_EQ(read_all(world.server, text.size()), text);
}

TEST(TlsSession, survives_damage_at_any_place_and_never_takes_it_for_data) {
  const uint64_t seed = std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; round++) {
    World world(psk_of(Hash::sha256, 7));
    TlsSession client(*world.client_context, world.client_wire, psk_of(Hash::sha256, 7));
    (void)client.handshake();
    const bool early = random() % 2 == 0;
    if (!early) {
      shake(client, world.server);
      write_all(client, "the data that is sent");
    }
    auto& bytes = world.up.bytes;
    size_t at = random() % bytes.size();
    if (at == 1 || at == 2) at = 0;  // the version in front of the first record means nothing (RFC 8446, 5.1)
    bytes[at] ^= static_cast<uint8_t>(1 + random() % 255);
    if (early) {
      Step step = Step::want_read;
      for (int i = 0; i < 20 && step != Step::failed; i++) {
        step = world.server.handshake();
        (void)client.handshake();
      }
      EXPECT_FALSE(world.server.established());
    } else {
      EXPECT_EQ(read_all(world.server, 1), "");
    }
  }
}

// ---- peers without our rules ---------------------------------------------------------------------------------------

// A client of the library's own, with memory BIOs.
class FreeClient {
 public:
  explicit FreeClient(World& world, SharedTlsPsk psk = nullptr) : world_(world), psk_(std::move(psk)) {
    context_ = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_psk_use_session_callback(
        context_, [](SSL* ssl, const EVP_MD*, const unsigned char** identity, size_t* length, SSL_SESSION** out) {
          const auto* self = static_cast<FreeClient*>(SSL_get_app_data(ssl));
          *out = nullptr;
          if (self->psk_ == nullptr) return 1;
          static constexpr uint8_t suites[2][2] = {{0x13, 1}, {0x13, 2}};
          *identity = reinterpret_cast<const unsigned char*>(self->psk_->identity.data());
          *length = self->psk_->identity.size();
          SSL_SESSION* session = SSL_SESSION_new();
          SSL_SESSION_set1_master_key(session, self->psk_->key.data(), self->psk_->key.size());
          SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, suites[self->psk_->hash == Hash::sha256 ? 0 : 1]));
          SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION);
          *out = session;
          return 1;
        });
    ssl_ = SSL_new(context_);
    SSL_set_app_data(ssl_, this);
    in_ = BIO_new(BIO_s_mem());
    out_ = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl_, in_, out_);
    SSL_set_connect_state(ssl_);
  }
  ~FreeClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    ERR_clear_error();
  }
  SSL* ssl() { return ssl_; }
  void pump() {
    std::vector<uint8_t> bytes(world_.down.bytes.begin(), world_.down.bytes.end());
    world_.down.bytes.clear();
    if (!bytes.empty()) BIO_write(in_, bytes.data(), static_cast<int>(bytes.size()));
    for (int length; (length = static_cast<int>(BIO_ctrl_pending(out_))) > 0;) {
      bytes.resize(static_cast<size_t>(length));
      BIO_read(out_, bytes.data(), length);
      world_.up.bytes.insert(world_.up.bytes.end(), bytes.begin(), bytes.end());
    }
  }
  bool shake() {
    bool both = false;
    for (int i = 0; i < 10 && !both; i++) {
      const bool mine = SSL_do_handshake(ssl_) == 1;
      pump();
      both = world_.server.handshake() == Step::done && mine;
      pump();
    }
    return both;
  }

 private:
  World& world_;
  SharedTlsPsk psk_;
  SSL_CTX* context_;
  SSL* ssl_;
  BIO* in_;
  BIO* out_;
};

TEST(TlsSession, takes_the_suite_of_the_key_from_a_client_that_offers_all) {
  for (const Hash hash : {Hash::sha256, Hash::sha384}) {
    World world(psk_of(hash, 7));
    FreeClient client(world, psk_of(hash, 7));
    ASSERT_TRUE(client.shake()) << world.server.reason();
    EXPECT_STREQ(SSL_get_cipher_name(client.ssl()),
                 hash == Hash::sha256 ? "TLS_AES_128_GCM_SHA256" : "TLS_AES_256_GCM_SHA384");
  }
}

TEST(TlsSession, refuses_clients_without_a_key_and_older_versions) {
  {
    World world(psk_of(Hash::sha256, 7));
    FreeClient client(world);
    EXPECT_FALSE(client.shake());
    EXPECT_EQ(world.server.failure(), TlsFailure::unknown_key);
  }
  World world(psk_of(Hash::sha256, 7));
  FreeClient client(world, psk_of(Hash::sha256, 7));
  SSL_set_max_proto_version(client.ssl(), TLS1_2_VERSION);
  EXPECT_FALSE(client.shake());
  EXPECT_EQ(world.server.failure(), TlsFailure::protocol) << world.server.reason();
}

TEST(TlsSession, needs_more_than_the_key_alone) {
  World world(psk_of(Hash::sha256, 7));
  FreeClient client(world, psk_of(Hash::sha256, 7));
  SSL_set1_groups_list(client.ssl(), "P-521");  // none of ours
  EXPECT_FALSE(client.shake());
  EXPECT_EQ(world.server.failure(), TlsFailure::protocol);
}

TEST(TlsSession, updates_its_keys_when_asked_and_not_for_ever) {
  World world(psk_of(Hash::sha256, 7));
  FreeClient client(world, psk_of(Hash::sha256, 7));
  ASSERT_TRUE(client.shake());
  const auto update = [&] {
    SSL_key_update(client.ssl(), SSL_KEY_UPDATE_REQUESTED);
    SSL_do_handshake(client.ssl());
    client.pump();
  };
  // With data in between: as often as the peer wants.
  std::string data(size_t{1} << 20, 'd');
  for (int i = 0; i < 200; i++) {
    update();
    if (i % 50 == 0) {
      SSL_write(client.ssl(), data.data(), static_cast<int>(data.size()));
      client.pump();
      ASSERT_EQ(read_all(world.server, data.size()).size(), data.size()) << world.server.reason();
    } else {
      EXPECT_EQ(read_all(world.server, 1), "");
    }
    char nothing;
    client.pump();
    EXPECT_LE(SSL_read(client.ssl(), &nothing, 1), 0);
    ASSERT_EQ(world.server.failure(), TlsFailure::none) << i;
  }
  // What the updated keys carry still arrives.
  write_all(world.server, "answer");
  client.pump();
  char answer[6];
  EXPECT_EQ(SSL_read(client.ssl(), answer, sizeof(answer)), 6);
  // Without: not long.
  for (int i = 0; i < 200; i++)
    update();
  EXPECT_EQ(read_all(world.server, 1), "");
  EXPECT_EQ(world.server.failure(), TlsFailure::flood);
  EXPECT_LT(world.down.bytes.size(), 16384u);
}

TEST(TlsSession, ends_a_flood_of_key_updates_that_never_lets_the_wire_run_dry) {
  World world(psk_of(Hash::sha256, 7));
  FreeClient client(world, psk_of(Hash::sha256, 7));
  ASSERT_TRUE(client.shake());
  int update_count = 0;
  world.server_wire.held_back_bytes = 24;  // the last record always ends inside its header
  world.server_wire.before_read = [&] {
    for (int i = 0; i < 5 && update_count < 20000; i++, update_count++) {
      SSL_key_update(client.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED);
      SSL_do_handshake(client.ssl());
      client.pump();
    }
  };
  char byte = 0;
  size_t count = 0;
  EXPECT_EQ(world.server.read(&byte, 1, &count), Step::failed);  // one call
  EXPECT_EQ(world.server.failure(), TlsFailure::flood) << world.server.reason();
  EXPECT_LE(update_count, 80);
}

TEST(TlsSession, ends_a_flood_of_key_updates_with_a_byte_behind_it) {
  World world(psk_of(Hash::sha256, 7));
  FreeClient client(world, psk_of(Hash::sha256, 7));
  ASSERT_TRUE(client.shake());
  for (int i = 0; i < 100; i++) {
    SSL_key_update(client.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED);
    SSL_do_handshake(client.ssl());
  }
  SSL_write(client.ssl(), "x", 1);
  client.pump();
  EXPECT_EQ(read_all(world.server, 1), "");
  EXPECT_EQ(world.server.failure(), TlsFailure::flood);
}

TEST(TlsSession, lets_a_quiet_peer_update_its_keys_for_ever) {
  World world(psk_of(Hash::sha256, 7));
  FreeClient client(world, psk_of(Hash::sha256, 7));
  ASSERT_TRUE(client.shake());
  for (int i = 0; i < 1000; i++) {
    SSL_key_update(client.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED);
    SSL_do_handshake(client.ssl());
    SSL_write(client.ssl(), "x", 1);
    client.pump();
    ASSERT_EQ(read_all(world.server, 1), "x") << i;
  }
}

TEST(TlsSession, a_second_client_hello_ends_it) {
  World world(psk_of(Hash::sha256, 7));
  FreeClient client(world, psk_of(Hash::sha256, 7));
  ASSERT_TRUE(client.shake());
  FreeClient second(world, psk_of(Hash::sha256, 7));
  (void)SSL_do_handshake(second.ssl());
  second.pump();
  EXPECT_EQ(read_all(world.server, 1), "");
  EXPECT_EQ(world.server.failure(), TlsFailure::protocol) << world.server.reason();
}

TEST(TlsSession, leaves_no_error_behind_in_the_thread) {
  World world(psk_of(Hash::sha256, 7));
  TlsSession client(*world.client_context, world.client_wire, psk_of(Hash::sha256, 8));
  shake(client, world.server);
  EXPECT_EQ(ERR_peek_error(), 0u);
}

}  // namespace
}  // namespace basalt::crypto
