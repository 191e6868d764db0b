// SPDX-License-Identifier: Apache-2.0
// The messages of NVMe in-band authentication (Base 2.x, 8.3.5; DH-HMAC-CHAP), read and written. Lengths that a message
// gives are checked against what came; a reader's spans point into the message.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "crypto/dh.h"
#include "crypto/digest.h"

namespace basalt::nvmf::auth {

using crypto::Bytes;
using Message = std::vector<uint8_t>;

// No message is longer; what may come in one Authentication Send, and what a host should offer to receive.
constexpr size_t message_bytes_max = 4096;

// Reason Code Explanation of AUTH_Failure1 and AUTH_Failure2.
enum class Reason : uint8_t {
  failed = 0x01,
  protocol_not_usable = 0x02,
  concatenation_mismatch = 0x03,
  hash_not_usable = 0x04,
  group_not_usable = 0x05,
  incorrect_payload = 0x06,
  incorrect_message = 0x07,
};
const char* to_string(Reason reason);  // for people

enum class HashId : uint8_t { sha256 = 0x01, sha384 = 0x02, sha512 = 0x03 };
enum class GroupId : uint8_t {
  none = 0x00,  // the NULL group: no Diffie-Hellman
  ffdhe2048 = 0x01,
  ffdhe3072 = 0x02,
  ffdhe4096 = 0x03,
  ffdhe6144 = 0x04,
  ffdhe8192 = 0x05,
};
const char* to_string(HashId id);   // "sha256", as in RPC parameters
const char* to_string(GroupId id);  // "null", "ffdhe2048"
crypto::Hash hash_of(HashId id);
size_t digest_bytes(HashId id);
std::optional<crypto::DhGroup> group_of(GroupId id);  // nothing: the NULL group
size_t dh_value_bytes(GroupId id);                    // 0: the NULL group

enum class MessageType : uint8_t { common = 0x00, dh_hmac_chap = 0x01 };
// AUTH_ID; the first three are common messages.
enum class MessageId : uint8_t {
  negotiate = 0x00,
  failure1 = 0xf0,
  failure2 = 0xf1,
  challenge = 0x01,
  reply = 0x02,
  success1 = 0x03,
  success2 = 0x04,
};

struct Header {
  uint8_t type = 0;
  uint8_t id = 0;
  uint16_t transaction = 0;
  bool is(MessageId wanted) const;  // of the right type, too
};
std::optional<Header> read_header(Bytes message);

struct Negotiate {
  uint16_t transaction = 0;
  std::vector<HashId> hashes;  // of those known here, in the host's order
  std::vector<GroupId> groups;
};
struct Challenge {
  uint16_t transaction = 0;
  HashId hash = HashId::sha256;
  GroupId group = GroupId::none;
  uint32_t sequence = 0;
  Bytes challenge;
  Bytes dh_value;
};
struct Reply {
  uint16_t transaction = 0;
  uint32_t sequence = 0;
  Bytes response;
  Bytes challenge;  // empty: the host does not ask the controller to authenticate
  Bytes dh_value;
};
struct Success1 {
  uint16_t transaction = 0;
  Bytes response;  // empty: not valid
};

template <class T>
using Read = std::variant<T, Reason>;

// The header has been judged by the caller: type, identifier, transaction.
Read<Negotiate> read_negotiate(Bytes message);
Read<Challenge> read_challenge(Bytes message);
Read<Reply> read_reply(Bytes message, HashId hash, GroupId group);
Read<Success1> read_success1(Bytes message, HashId hash);
// AUTH_Failure1 or 2; nothing when it is cut short or gives no known reason.
std::optional<Reason> read_failure(Bytes message);

Message write(const Negotiate& negotiate);
Message write(const Challenge& challenge);
Message write(const Reply& reply, HashId hash);
Message write(const Success1& success, HashId hash);
Message write_success2(uint16_t transaction);
Message write_failure(MessageId id, uint16_t transaction, Reason reason);

}  // namespace basalt::nvmf::auth
