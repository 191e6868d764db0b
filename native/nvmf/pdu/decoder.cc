// SPDX-License-Identifier: Apache-2.0
#include "nvmf/pdu/decoder.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace basalt::nvmf::pdu {
namespace {

// Offsets of fields, as termination requests report them.
constexpr uint32_t fei_type = 0;
constexpr uint32_t fei_flags = 1;
constexpr uint32_t fei_hlen = 2;
constexpr uint32_t fei_pdo = 3;
constexpr uint32_t fei_plen = 4;
constexpr uint32_t fei_pfv = 8;
constexpr uint32_t fei_pda = 10;
constexpr uint32_t fei_maxh2cdata = 12;
constexpr uint32_t fei_datal = 16;
constexpr uint8_t pda_max = 31;

// 0: no such type.
size_t header_bytes_of(Type type) {
  switch (type) {
    case Type::ic_request:
    case Type::ic_response:
      return sizeof(IcRequest);
    case Type::h2c_term_request:
    case Type::c2h_term_request:
      return sizeof(TermRequest);
    case Type::capsule_command:
      return sizeof(CapsuleCommand);
    case Type::capsule_response:
      return sizeof(CapsuleResponse);
    case Type::h2c_data:
    case Type::c2h_data:
      return sizeof(Data);
    case Type::r2t:
      return sizeof(R2t);
  }
  return 0;
}

bool is_ic(Type type) {
  return type == Type::ic_request || type == Type::ic_response;
}
bool is_term(Type type) {
  return type == Type::h2c_term_request || type == Type::c2h_term_request;
}
bool has_digests(Type type) {
  return !is_ic(type) && !is_term(type);
}

}  // namespace

bool Decoder::type_is_expected(Type type) const {
  if (role_ == Role::target) {
    return type == Type::ic_request || type == Type::h2c_term_request || type == Type::capsule_command ||
           type == Type::h2c_data;
  }
  return type == Type::ic_response || type == Type::c2h_term_request || type == Type::capsule_response ||
         type == Type::c2h_data || type == Type::r2t;
}

Event Decoder::push(std::span<const uint8_t>& input) {
  switch (state_) {
    case State::header:
      return push_header(input);
    case State::data_start:
    case State::data:
      return push_data(input);
    case State::data_digest:
      return push_data_digest(input);
    case State::ending:
      begin_next();
      return push_header(input);
    case State::failed:
      return Event::failed;
  }
  return Event::failed;
}

void Decoder::begin_next() {
  state_ = State::header;
  common_checked_ = false;
  header_used_ = 0;
  header_needed_ = common_header_bytes;
  pad_left_bytes_ = 0;
  data_bytes_ = data_left_bytes_ = 0;
  data_digest_follows_ = false;
  data_digest_ok_ = true;
  digest_used_ = 0;
  crc_ = 0;
  chunk_ = {};
}

Event Decoder::fail(Fes fes, uint32_t fei) {
  error_ = {fes, fei};
  state_ = State::failed;
  return Event::failed;
}

bool Decoder::take_header(std::span<const uint8_t>& input, size_t until) {
  const size_t take = std::min(input.size(), until - header_used_);
  std::memcpy(header_.data() + header_used_, input.data(), take);
  header_used_ = static_cast<uint16_t>(header_used_ + take);
  input = input.subspan(take);
  return header_used_ == until;
}

Event Decoder::push_header(std::span<const uint8_t>& input) {
  if (input.empty()) return Event::need_more;
  if (!common_checked_) {
    if (!take_header(input, common_header_bytes)) return Event::need_more;
    if (!check_common()) return Event::failed;
    common_checked_ = true;
  }
  if (!take_header(input, header_needed_)) return Event::need_more;
  if (!check_header_digest() || !check_header()) return Event::failed;
  if (is_ic(type())) initialized_ = true;
  data_left_bytes_ = data_bytes_;
  state_ = State::data_start;
  if (pad_left_bytes_ == 0) state_ = State::data;
  return Event::header;
}

// Everything that the first 8 bytes tell, before any more is taken in.
bool Decoder::check_common() {
  const CommonHeader header = common();
  const size_t header_bytes = header_bytes_of(header.type);
  const auto wrong = [this](Fes fes, uint32_t fei) {
    fail(fes, fei);
    return false;
  };
  if (header_bytes == 0 || !type_is_expected(header.type)) return wrong(Fes::invalid_header_field, fei_type);
  if (!is_term(header.type) && is_ic(header.type) == initialized_) return wrong(Fes::sequence_error, 0);
  // A target may end the connection instead of answering ICReq.
  if (is_term(header.type) && !initialized_ && role_ == Role::target) return wrong(Fes::sequence_error, 0);
  if (header.hlen != header_bytes) return wrong(Fes::invalid_header_field, fei_hlen);
  const bool header_digest = has_digests(header.type) && digests_.header;
  if (((header.flags & flag_header_digest) != 0) != header_digest) return wrong(Fes::invalid_header_field, fei_flags);
  header_needed_ = static_cast<uint16_t>(header_bytes + (header_digest ? digest_bytes : 0));
  if (header.plen < header_needed_) return wrong(Fes::invalid_header_field, fei_plen);

  if (is_ic(header.type) || header.type == Type::capsule_response || header.type == Type::r2t) {
    if (header.plen != header_needed_) return wrong(Fes::invalid_header_field, fei_plen);
    return true;
  }
  if (is_term(header.type)) {
    if (header.plen > sizeof(TermRequest) + term_data_bytes_max) return wrong(Fes::invalid_header_field, fei_plen);
    data_bytes_ = header.plen - sizeof(TermRequest);
    return true;
  }
  return check_layout(header, header_needed_, header.plen > header_needed_);
}

// PDO, PLEN and the data digest of the types that carry payload.
bool Decoder::check_layout(const CommonHeader& header, uint32_t header_bytes, bool has_data) {
  const auto wrong = [this](uint32_t fei) {
    fail(Fes::invalid_header_field, fei);
    return false;
  };
  if (!has_data) {
    if (header.type != Type::capsule_command) return wrong(fei_plen);
    if (header.pdo != 0) return wrong(fei_pdo);
    return true;
  }
  if (((header.flags & flag_data_digest) != 0) != digests_.data) return wrong(fei_flags);
  const uint32_t trailer_bytes = digests_.data ? digest_bytes : 0;
  if (header.pdo == 0) return wrong(fei_plen);  // no data, yet more bytes
  if (header.pdo < header_bytes || header.pdo % 4 != 0) return wrong(fei_pdo);
  if (header.pdo > header.plen) return wrong(fei_pdo);
  if (header.plen - header.pdo <= trailer_bytes) return wrong(fei_plen);
  data_bytes_ = header.plen - header.pdo - trailer_bytes;
  const bool capsule = header.type == Type::capsule_command;
  if (data_bytes_ > (capsule ? limits_.capsule_data_bytes_max : limits_.data_bytes_max)) {
    if (capsule) return wrong(fei_plen);
    fail(Fes::transfer_limit_exceeded, 0);
    return false;
  }
  pad_left_bytes_ = static_cast<uint16_t>(header.pdo - header_bytes);
  data_digest_follows_ = digests_.data;
  return true;
}

bool Decoder::check_header_digest() {
  const size_t header_bytes = common().hlen;
  if (header_needed_ == header_bytes) return true;
  if (load_le<uint32_t>(header_.data() + header_bytes) == crc32c(0, header_.data(), header_bytes)) return true;
  fail(Fes::header_digest_error, load_le<uint32_t>(header_.data() + header_bytes));
  return false;
}

bool Decoder::check_header() {
  const auto wrong = [this](Fes fes, uint32_t fei) {
    fail(fes, fei);
    return false;
  };
  switch (type()) {
    case Type::ic_request: {
      const auto ic = header<IcRequest>();
      if (ic.pfv != pdu_format_version) return wrong(Fes::invalid_header_field, fei_pfv);
      if (ic.hpda > pda_max) return wrong(Fes::invalid_header_field, fei_pda);
      return true;
    }
    case Type::ic_response: {
      const auto ic = header<IcResponse>();
      if (ic.pfv != pdu_format_version) return wrong(Fes::invalid_header_field, fei_pfv);
      if (ic.cpda > pda_max) return wrong(Fes::invalid_header_field, fei_pda);
      if (ic.maxh2cdata < max_h2c_data_bytes_min || ic.maxh2cdata % 4 != 0) {
        return wrong(Fes::invalid_header_field, fei_maxh2cdata);
      }
      return true;
    }
    case Type::h2c_data:
    case Type::c2h_data:
      return check_data(header<Data>());
    default:
      return true;
  }
}

bool Decoder::check_data(const Data& data) {
  Fes fes = Fes::none;
  uint32_t fei = 0;
  if (data.datal != data_bytes_) {
    fes = Fes::invalid_header_field;
    fei = fei_plen;
    // A length beyond what any transfer may have, rather than two fields that disagree.
    if (data.datal > limits_.data_bytes_max) fes = Fes::transfer_limit_exceeded, fei = 0;
    if (uint64_t{data.datao} + data.datal > UINT32_MAX) fes = Fes::transfer_out_of_range, fei = 0;
  } else if (data.datal % 4 != 0 && role_ == Role::target) {
    fes = Fes::invalid_header_field;
    fei = fei_datal;
  } else if (uint64_t{data.datao} + data.datal > UINT32_MAX) {
    fes = Fes::transfer_out_of_range;
  } else if ((data.common.flags & flag_success) != 0 &&
             (role_ == Role::target || (data.common.flags & flag_last) == 0)) {
    fes = Fes::invalid_header_field;
    fei = fei_flags;
  }
  if (fes == Fes::none) return true;
  fail(fes, fei);
  return false;
}

Event Decoder::push_data(std::span<const uint8_t>& input) {
  if (state_ == State::data_start) {
    const size_t skip = std::min<size_t>(input.size(), pad_left_bytes_);
    pad_left_bytes_ = static_cast<uint16_t>(pad_left_bytes_ - skip);
    input = input.subspan(skip);
    if (pad_left_bytes_ > 0) return Event::need_more;
    state_ = State::data;
  }
  if (data_left_bytes_ > 0) {
    if (input.empty()) return Event::need_more;
    const size_t take = std::min<size_t>(input.size(), data_left_bytes_);
    chunk_ = input.first(take);
    input = input.subspan(take);
    data_left_bytes_ -= static_cast<uint32_t>(take);
    if (data_digest_follows_) crc_ = crc32c(crc_, chunk_.data(), chunk_.size());
    return Event::data;
  }
  if (data_digest_follows_) {
    state_ = State::data_digest;
    return push_data_digest(input);
  }
  state_ = State::ending;
  return Event::complete;
}

void Decoder::took_data(const Iovec* iov, size_t count) {
  BASALT_ASSERT(state_ == State::data);
  for (size_t i = 0; i < count; i++) {
    BASALT_ASSERT(iov[i].length_bytes <= data_left_bytes_);
    data_left_bytes_ -= static_cast<uint32_t>(iov[i].length_bytes);
    if (data_digest_follows_) crc_ = crc32c(crc_, iov[i].base, iov[i].length_bytes);
  }
}

Event Decoder::push_data_digest(std::span<const uint8_t>& input) {
  if (input.empty()) return Event::need_more;
  const size_t take = std::min<size_t>(input.size(), digest_bytes - digest_used_);
  std::memcpy(digest_.data() + digest_used_, input.data(), take);
  digest_used_ = static_cast<uint8_t>(digest_used_ + take);
  input = input.subspan(take);
  if (digest_used_ < digest_bytes) return Event::need_more;
  data_digest_ok_ = load_le<uint32_t>(digest_.data()) == crc_;
  state_ = State::ending;
  return Event::complete;
}

}  // namespace basalt::nvmf::pdu
