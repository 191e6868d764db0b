// SPDX-License-Identifier: Apache-2.0
#include "nvmf/auth/message.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace basalt::nvmf::auth {
namespace {

constexpr size_t header_bytes = 16;  // of every DH-HMAC-CHAP message, in front of what varies
constexpr size_t negotiate_bytes = 8;
constexpr size_t descriptor_bytes = 64;
constexpr size_t failure_bytes = 8;
constexpr uint8_t protocol_dh_hmac_chap = 0x01;
constexpr size_t list_offset = 4;  // in a descriptor: hashes, and DH groups 30 bytes further on
constexpr size_t list_entries_max = 30;
constexpr uint8_t reason_code_failed = 0x01;

std::optional<HashId> known_hash(uint8_t id) {
  if (id < 1 || id > 3) return std::nullopt;
  return static_cast<HashId>(id);
}
std::optional<GroupId> known_group(uint8_t id) {
  if (id > 5) return std::nullopt;
  return static_cast<GroupId>(id);
}

bool is_common(MessageId id) {
  return id == MessageId::negotiate || id == MessageId::failure1 || id == MessageId::failure2;
}

Message begin(MessageId id, uint16_t transaction, size_t length_bytes) {
  Message out(length_bytes, 0);
  out[0] = static_cast<uint8_t>(is_common(id) ? MessageType::common : MessageType::dh_hmac_chap);
  out[1] = static_cast<uint8_t>(id);
  store_le<uint16_t>(out.data() + 4, transaction);
  return out;
}

void put(Message& out, size_t at, Bytes bytes) {
  if (!bytes.empty()) std::memcpy(out.data() + at, bytes.data(), bytes.size());
}

}  // namespace

const char* to_string(Reason reason) {
  switch (reason) {
    case Reason::failed:
      return "authentication failed";
    case Reason::protocol_not_usable:
      return "authentication protocol not usable";
    case Reason::concatenation_mismatch:
      return "secure channel concatenation mismatch";
    case Reason::hash_not_usable:
      return "hash function not usable";
    case Reason::group_not_usable:
      return "DH group not usable";
    case Reason::incorrect_payload:
      return "incorrect payload";
    case Reason::incorrect_message:
      return "incorrect protocol message";
  }
  return "unknown reason";
}

const char* to_string(HashId id) {
  constexpr const char* names[] = {"sha256", "sha384", "sha512"};
  return names[static_cast<size_t>(id) - 1];
}

const char* to_string(GroupId id) {
  constexpr const char* names[] = {"null", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"};
  return names[static_cast<size_t>(id)];
}

crypto::Hash hash_of(HashId id) {
  return static_cast<crypto::Hash>(static_cast<uint8_t>(id) - 1);
}

size_t digest_bytes(HashId id) {
  return crypto::digest_bytes(hash_of(id));
}

std::optional<crypto::DhGroup> group_of(GroupId id) {
  if (id == GroupId::none) return std::nullopt;
  return static_cast<crypto::DhGroup>(static_cast<uint8_t>(id) - 1);
}

size_t dh_value_bytes(GroupId id) {
  const auto group = group_of(id);
  return group ? crypto::dh_value_bytes(*group) : 0;
}

bool Header::is(MessageId wanted) const {
  const MessageType right = is_common(wanted) ? MessageType::common : MessageType::dh_hmac_chap;
  return type == static_cast<uint8_t>(right) && id == static_cast<uint8_t>(wanted);
}

std::optional<Header> read_header(Bytes message) {
  if (message.size() < failure_bytes) return std::nullopt;  // the shortest message there is
  return Header{message[0], message[1], load_le<uint16_t>(message.data() + 4)};
}

Read<Negotiate> read_negotiate(Bytes message) {
  if (message.size() < negotiate_bytes) return Reason::incorrect_payload;
  const size_t count = message[7];
  if (count == 0 || message.size() < negotiate_bytes + count * descriptor_bytes) return Reason::incorrect_payload;
  if (message[6] != 0) return Reason::concatenation_mismatch;  // SC_C: no TLS key may come out of this
  Negotiate out;
  out.transaction = load_le<uint16_t>(message.data() + 4);
  for (size_t i = 0; i < count; i++) {
    const uint8_t* descriptor = message.data() + negotiate_bytes + i * descriptor_bytes;
    if (descriptor[0] != protocol_dh_hmac_chap) continue;
    const size_t hash_count = descriptor[2];
    const size_t group_count = descriptor[3];
    if (hash_count > list_entries_max || group_count > list_entries_max) return Reason::incorrect_payload;
    for (size_t h = 0; h < hash_count; h++) {
      if (const auto id = known_hash(descriptor[list_offset + h])) out.hashes.push_back(*id);
    }
    for (size_t g = 0; g < group_count; g++) {
      if (const auto id = known_group(descriptor[list_offset + list_entries_max + g])) out.groups.push_back(*id);
    }
    return out;
  }
  return Reason::protocol_not_usable;
}

Read<Challenge> read_challenge(Bytes message) {
  if (message.size() < header_bytes) return Reason::incorrect_payload;
  const auto hash = known_hash(message[8]);
  if (!hash) return Reason::hash_not_usable;
  const auto group = known_group(message[9]);
  if (!group) return Reason::group_not_usable;
  const size_t hash_bytes = message[6];
  const size_t value_bytes = load_le<uint16_t>(message.data() + 10);
  if (hash_bytes != digest_bytes(*hash) || value_bytes != dh_value_bytes(*group) ||
      message.size() < header_bytes + hash_bytes + value_bytes) {
    return Reason::incorrect_payload;
  }
  Challenge out;
  out.transaction = load_le<uint16_t>(message.data() + 4);
  out.hash = *hash;
  out.group = *group;
  out.sequence = load_le<uint32_t>(message.data() + 12);
  out.challenge = message.subspan(header_bytes, hash_bytes);
  out.dh_value = message.subspan(header_bytes + hash_bytes, value_bytes);
  return out;
}

Read<Reply> read_reply(Bytes message, HashId hash, GroupId group) {
  if (message.size() < header_bytes) return Reason::incorrect_payload;
  const size_t hash_bytes = message[6];
  const uint8_t challenge_valid = message[8];
  const size_t value_bytes = load_le<uint16_t>(message.data() + 10);
  if (hash_bytes != digest_bytes(hash) || value_bytes != dh_value_bytes(group) || challenge_valid > 1 ||
      message.size() < header_bytes + 2 * hash_bytes + value_bytes) {
    return Reason::incorrect_payload;
  }
  Reply out;
  out.transaction = load_le<uint16_t>(message.data() + 4);
  out.sequence = load_le<uint32_t>(message.data() + 12);
  out.response = message.subspan(header_bytes, hash_bytes);
  if (challenge_valid == 1) out.challenge = message.subspan(header_bytes + hash_bytes, hash_bytes);
  out.dh_value = message.subspan(header_bytes + 2 * hash_bytes, value_bytes);
  return out;
}

Read<Success1> read_success1(Bytes message, HashId hash) {
  if (message.size() < header_bytes) return Reason::incorrect_payload;
  const size_t hash_bytes = message[6];
  const uint8_t response_valid = message[8];
  if (hash_bytes != digest_bytes(hash) || response_valid > 1) return Reason::incorrect_payload;
  Success1 out;
  out.transaction = load_le<uint16_t>(message.data() + 4);
  if (response_valid == 1) {
    if (message.size() < header_bytes + hash_bytes) return Reason::incorrect_payload;
    out.response = message.subspan(header_bytes, hash_bytes);
  }
  return out;
}

std::optional<Reason> read_failure(Bytes message) {
  if (message.size() < failure_bytes || message[7] < 1 || message[7] > 7) return std::nullopt;
  return static_cast<Reason>(message[7]);
}

Message write(const Negotiate& negotiate) {
  Message out = begin(MessageId::negotiate, negotiate.transaction, negotiate_bytes + descriptor_bytes);
  out[7] = 1;
  uint8_t* descriptor = out.data() + negotiate_bytes;
  descriptor[0] = protocol_dh_hmac_chap;
  descriptor[2] = static_cast<uint8_t>(std::min(negotiate.hashes.size(), list_entries_max));
  descriptor[3] = static_cast<uint8_t>(std::min(negotiate.groups.size(), list_entries_max));
  for (size_t i = 0; i < descriptor[2]; i++)
    descriptor[list_offset + i] = static_cast<uint8_t>(negotiate.hashes[i]);
  for (size_t i = 0; i < descriptor[3]; i++)
    descriptor[list_offset + list_entries_max + i] = static_cast<uint8_t>(negotiate.groups[i]);
  return out;
}

Message write(const Challenge& challenge) {
  Message out = begin(MessageId::challenge, challenge.transaction,
                      header_bytes + challenge.challenge.size() + challenge.dh_value.size());
  out[6] = static_cast<uint8_t>(challenge.challenge.size());
  out[8] = static_cast<uint8_t>(challenge.hash);
  out[9] = static_cast<uint8_t>(challenge.group);
  store_le<uint16_t>(out.data() + 10, static_cast<uint16_t>(challenge.dh_value.size()));
  store_le<uint32_t>(out.data() + 12, challenge.sequence);
  put(out, header_bytes, challenge.challenge);
  put(out, header_bytes + challenge.challenge.size(), challenge.dh_value);
  return out;
}

Message write(const Reply& reply, HashId hash) {
  const size_t hash_bytes = digest_bytes(hash);
  Message out = begin(MessageId::reply, reply.transaction, header_bytes + 2 * hash_bytes + reply.dh_value.size());
  out[6] = static_cast<uint8_t>(hash_bytes);
  out[8] = reply.challenge.empty() ? 0 : 1;
  store_le<uint16_t>(out.data() + 10, static_cast<uint16_t>(reply.dh_value.size()));
  store_le<uint32_t>(out.data() + 12, reply.sequence);
  put(out, header_bytes, reply.response);
  put(out, header_bytes + hash_bytes, reply.challenge);
  put(out, header_bytes + 2 * hash_bytes, reply.dh_value);
  return out;
}

// The response's place is there when it is not valid, too: all zeroes.
Message write(const Success1& success, HashId hash) {
  const size_t hash_bytes = digest_bytes(hash);
  Message out = begin(MessageId::success1, success.transaction, header_bytes + hash_bytes);
  out[6] = static_cast<uint8_t>(hash_bytes);
  out[8] = success.response.empty() ? 0 : 1;
  put(out, header_bytes, success.response);
  return out;
}

Message write_success2(uint16_t transaction) {
  return begin(MessageId::success2, transaction, header_bytes);
}

Message write_failure(MessageId id, uint16_t transaction, Reason reason) {
  Message out = begin(id, transaction, failure_bytes);
  out[6] = reason_code_failed;
  out[7] = static_cast<uint8_t>(reason);
  return out;
}

}  // namespace basalt::nvmf::auth
