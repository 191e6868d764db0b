// SPDX-License-Identifier: Apache-2.0
#include "crypto/tls_session.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/assert.h"

namespace basalt::crypto {
namespace {

constexpr size_t input_bytes_max = size_t{64} << 10;
// Messages of the handshake, after it, more than there were records with data.
constexpr uint32_t messages_without_data_max = 64;
constexpr unsigned identities_max = 16;  // of one client: each is looked up

constexpr uint8_t content_alert = 21;
constexpr uint8_t content_handshake = 22;
constexpr uint8_t alert_close_notify = 0;

const char* suite_name(Hash hash) {
  return hash == Hash::sha256 ? "TLS_AES_128_GCM_SHA256" : "TLS_AES_256_GCM_SHA384";
}

// The PSK as the library wants it: a session that could have been.
SSL_SESSION* session_of(SSL* ssl, const TlsPsk& psk) {
  const uint8_t suite[2] = {0x13, static_cast<uint8_t>(psk.hash == Hash::sha256 ? 1 : 2)};
  SSL_SESSION* session = SSL_SESSION_new();
  BASALT_ASSERT(session != nullptr);
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, suite);
  const bool ready = cipher != nullptr && SSL_SESSION_set1_master_key(session, psk.key.data(), psk.key.size()) == 1 &&
                     SSL_SESSION_set_cipher(session, cipher) == 1 &&
                     SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1;
  if (ready) return session;
  SSL_SESSION_free(session);
  return nullptr;
}

// Walks the pre_shared_key extension of a ClientHello: f(identity) until it returns true, for the first few of them.
template <class F>
bool any_identity(Bytes extension, F&& f) {
  const auto u16 = [](const uint8_t* at) { return size_t{at[0]} << 8 | at[1]; };
  if (extension.size() < 2 || u16(extension.data()) > extension.size() - 2) return false;
  Bytes left = extension.subspan(2, u16(extension.data()));
  constexpr size_t ticket_age_bytes = 4;
  for (unsigned i = 0; i < identities_max && left.size() >= 2; i++) {
    const size_t length = u16(left.data());
    if (length + 2 + ticket_age_bytes > left.size()) return false;
    const std::string_view identity(reinterpret_cast<const char*>(left.data() + 2), length);
    if (f(identity)) return true;
    left = left.subspan(length + 2 + ticket_age_bytes);
  }
  return false;
}

}  // namespace

struct TlsSession::Callbacks {
  static TlsSession* of(const SSL* ssl) { return static_cast<TlsSession*>(SSL_get_app_data(ssl)); }

  // Keys.
  static int use_session(SSL* ssl, const EVP_MD* digest, const unsigned char** identity, size_t* identity_bytes,
                         SSL_SESSION** out) {
    const TlsPsk& psk = *of(ssl)->psk_;
    *identity = reinterpret_cast<const unsigned char*>(psk.identity.data());
    *identity_bytes = psk.identity.size();
    *out = session_of(ssl, psk);
    return *out != nullptr ? 1 : 0;
  }
  // Before a suite is chosen: the key decides which one it has to be.
  static int client_hello(SSL* ssl, int* alert, void*) {
    TlsSession* self = of(ssl);
    self->psk_.reset();
    const unsigned char* extension = nullptr;
    size_t length = 0;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_psk, &extension, &length) == 1) {
      any_identity({extension, length}, [self](std::string_view identity) {
        self->psk_ = self->finder_->find(identity);
        return self->psk_ != nullptr;
      });
    }
    if (self->psk_ == nullptr) {
      // A client of older versions hears that it is one.
      if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_supported_versions, &extension, &length) != 1) {
        return SSL_CLIENT_HELLO_SUCCESS;
      }
      *alert = SSL_AD_UNKNOWN_PSK_IDENTITY;
      return SSL_CLIENT_HELLO_ERROR;
    }
    if (SSL_set_ciphersuites(ssl, suite_name(self->psk_->hash)) == 1) return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
  }
  static int find_session(SSL* ssl, const unsigned char* identity, size_t length, SSL_SESSION** out) {
    const TlsSession* self = of(ssl);
    *out = nullptr;
    if (self->psk_ == nullptr) return 1;
    const std::string_view asked(reinterpret_cast<const char*>(identity), length);
    if (asked == self->psk_->identity) *out = session_of(ssl, *self->psk_);
    return 1;
  }

  // What the peer sends besides data.
  static void message(int outgoing, int, int content, const void* bytes, size_t length, SSL* ssl, void*) {
    if (outgoing != 0) return;
    TlsSession* self = of(ssl);
    if (content == content_alert && length == 2) self->alert_ = static_cast<const uint8_t*>(bytes)[1];
    if (content == content_handshake && self->established_) self->messages_without_data_++;
  }

  // The wire as a BIO.
  static int create(BIO* bio) {
    BIO_set_init(bio, 1);
    return 1;
  }
  static long control(BIO* bio, int command, long, void*) {
    if (command == BIO_CTRL_FLUSH) return 1;
    if (command == BIO_CTRL_EOF) return static_cast<TlsSession*>(BIO_get_data(bio))->wire_ended_ ? 1 : 0;
    return 0;
  }
  static int read(BIO* bio, char* out, size_t room, size_t* count) {
    auto* self = static_cast<TlsSession*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    *count = 0;
    // The library goes on by itself for as long as the wire has more.
    if (self->flooded()) return 0;
    const TlsWire::Moved moved = self->wire_.read(out, room);
    if (moved.state == TlsWire::State::would_block) {
      self->wire_blocked_ = true;
      BIO_set_retry_read(bio);
      return 0;
    }
    if (moved.state != TlsWire::State::done || moved.count_bytes == 0) {
      self->wire_ended_ = true;
      return 0;
    }
    if (!self->first_byte_seen_) {
      self->first_byte_seen_ = true;
      if (!self->looks_like_tls(static_cast<uint8_t>(out[0]))) {
        (void)self->fail(TlsFailure::no_tls, "what came is not TLS");
        return 0;
      }
    }
    *count = moved.count_bytes;
    return 1;
  }
  static int write(BIO* bio, const char* bytes, size_t length, size_t* count) {
    auto* self = static_cast<TlsSession*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    *count = 0;
    const TlsWire::Moved moved = self->wire_.write(bytes, length);
    if (moved.state == TlsWire::State::would_block) {
      BIO_set_retry_write(bio);
      return 0;
    }
    if (moved.state != TlsWire::State::done || moved.count_bytes == 0) {
      self->wire_ended_ = true;
      return 0;
    }
    *count = moved.count_bytes;
    return 1;
  }
};

// ---- context -------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<TlsContext>> TlsContext::make(Role role) {
  std::unique_ptr<TlsContext> out(new TlsContext);
  out->context_ = SSL_CTX_new(role == Role::client ? TLS_client_method() : TLS_server_method());
  out->method_ = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "basalt wire");
  bool ready = out->context_ != nullptr && out->method_ != nullptr;
  if (ready) {
    using Callbacks = TlsSession::Callbacks;
    BIO_meth_set_create(out->method_, Callbacks::create);
    BIO_meth_set_ctrl(out->method_, Callbacks::control);
    BIO_meth_set_read_ex(out->method_, Callbacks::read);
    BIO_meth_set_write_ex(out->method_, Callbacks::write);
    SSL_CTX* context = out->context_;
    ready = SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
            SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
            SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256") == 1 &&
            SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384") == 1 && SSL_CTX_set_num_tickets(context, 0) == 1;
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    // Every call looks at one record; buffers go while nothing is in them.
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_mode(context,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, input_bytes_max);
    SSL_CTX_set_msg_callback(context, Callbacks::message);
    if (role == Role::client) {
      // A server that would rather show a certificate: there is nothing that it could be checked against.
      SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
      SSL_CTX_set_psk_use_session_callback(context, Callbacks::use_session);
    } else {
      SSL_CTX_set_psk_find_session_callback(context, Callbacks::find_session);
      SSL_CTX_set_client_hello_cb(context, Callbacks::client_hello, nullptr);
    }
  }
  ERR_clear_error();
  if (!ready) return Error{Errc::unsupported, "TLS 1.3: the OpenSSL of this process lacks what it needs"};
  return out;
}

TlsContext::~TlsContext() {
  SSL_CTX_free(context_);
  BIO_meth_free(method_);
}

// ---- session -------------------------------------------------------------------------------------------------------

TlsSession::TlsSession(const TlsContext& context, TlsWire& wire, SharedTlsPsk psk) : wire_(wire), client_(true) {
  psk_ = std::move(psk);
  ssl_ = SSL_new(context.context_);
  BASALT_ASSERT(ssl_ != nullptr && psk_ != nullptr);
  const int set = SSL_set_ciphersuites(ssl_, suite_name(psk_->hash));
  BASALT_ASSERT(set == 1);
  SSL_set_connect_state(ssl_);
  attach(context);
}

TlsSession::TlsSession(const TlsContext& context, TlsWire& wire, TlsPskFinder& finder) : wire_(wire), finder_(&finder) {
  ssl_ = SSL_new(context.context_);
  BASALT_ASSERT(ssl_ != nullptr);
  SSL_set_accept_state(ssl_);
  attach(context);
}

void TlsSession::attach(const TlsContext& context) {
  SSL_set_app_data(ssl_, this);
  BIO* bio = BIO_new(context.method_);
  BASALT_ASSERT(bio != nullptr);
  BIO_set_data(bio, this);
  SSL_set_bio(ssl_, bio, bio);
}

TlsSession::~TlsSession() {
  SSL_free(ssl_);
  ERR_clear_error();
}

bool TlsSession::looks_like_tls(uint8_t first_byte) const {
  return first_byte == content_handshake || (client_ && first_byte == content_alert);
}

TlsSession::Step TlsSession::fail(TlsFailure failure, std::string reason) {
  if (failure_ == TlsFailure::none) {
    failure_ = failure;
    reason_ = std::move(reason);
  }
  return Step::failed;
}

bool TlsSession::flooded() {
  if (messages_without_data_ <= messages_without_data_max) return false;
  (void)fail(TlsFailure::flood, "too many messages without data between them");
  return true;
}

// What became of a call that returned `result`, not 1.
TlsSession::Step TlsSession::ended(int result) {
  const int error = SSL_get_error(ssl_, result);
  const unsigned long code = ERR_peek_error();
  ERR_clear_error();
  if (failure_ != TlsFailure::none || flooded()) return Step::failed;
  switch (error) {
    case SSL_ERROR_WANT_READ:
      return Step::want_read;
    case SSL_ERROR_WANT_WRITE:
      return Step::want_write;
    case SSL_ERROR_ZERO_RETURN:
      return Step::closed;
    default:
      break;
  }
  if (alert_ && *alert_ != alert_close_notify) {
    return fail(TlsFailure::refused, std::string("the peer's alert: ") + SSL_alert_desc_string_long(*alert_));
  }
  if (wire_ended_) return fail(TlsFailure::wire, "the connection ended");
  if (!client_ && !established_ && first_byte_seen_) {
    const int why = ERR_GET_REASON(code);
    if (why == SSL_R_CALLBACK_FAILED) return fail(TlsFailure::unknown_key, "no such key");
    if (why == SSL_R_BINDER_DOES_NOT_VERIFY) return fail(TlsFailure::wrong_key, "the key is another one");
  }
  const char* text = ERR_reason_error_string(code);
  return fail(TlsFailure::protocol, text != nullptr ? text : "protocol error");
}

TlsSession::Step TlsSession::handshake() {
  if (failure_ != TlsFailure::none) return Step::failed;
  if (established_) return Step::done;
  wire_blocked_ = false;
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) return ended(result);
  // By the key, and by nothing else.
  if (SSL_session_reused(ssl_) != 1) return fail(TlsFailure::protocol, "the peer did not use the pre-shared key");
  established_ = true;
  return Step::done;
}

TlsSession::Step TlsSession::read(void* out, size_t room_bytes, size_t* count_bytes) {
  *count_bytes = 0;
  if (failure_ != TlsFailure::none) return Step::failed;
  BASALT_ASSERT(established_ && room_bytes > 0);
  wire_blocked_ = false;
  ERR_clear_error();
  const int result = SSL_read_ex(ssl_, out, room_bytes, count_bytes);
  if (result != 1) return ended(result);
  if (flooded()) {
    *count_bytes = 0;
    return Step::failed;
  }
  if (messages_without_data_ > 0) messages_without_data_--;
  return Step::done;
}

TlsSession::Step TlsSession::write(const void* bytes, size_t length_bytes, size_t* count_bytes) {
  *count_bytes = 0;
  if (failure_ != TlsFailure::none) return Step::failed;
  BASALT_ASSERT(established_ && length_bytes > 0);
  ERR_clear_error();
  const int result = SSL_write_ex(ssl_, bytes, length_bytes, count_bytes);
  return result == 1 ? Step::done : ended(result);
}

void TlsSession::say_goodbye() {
  if (!established_ || failure_ != TlsFailure::none) return;
  ERR_clear_error();
  (void)SSL_shutdown(ssl_);
  ERR_clear_error();
}

}  // namespace basalt::crypto
