// SPDX-License-Identifier: Apache-2.0
#include "export/nbd/protocol.h"

#include <algorithm>

#include "base/bytes.h"

namespace basalt::nbd {
namespace {

void append_be16(std::vector<uint8_t>& out, uint16_t value) {
  out.resize(out.size() + 2);
  store_be16(out.data() + out.size() - 2, value);
}
void append_be32(std::vector<uint8_t>& out, uint32_t value) {
  out.resize(out.size() + 4);
  store_be32(out.data() + out.size() - 4, value);
}
void append_be64(std::vector<uint8_t>& out, uint64_t value) {
  out.resize(out.size() + 8);
  store_be64(out.data() + out.size() - 8, value);
}

std::string be16(uint16_t value) {
  std::string text(2, '\0');
  store_be16(text.data(), value);
  return text;
}
std::string be32(uint32_t value) {
  std::string text(4, '\0');
  store_be32(text.data(), value);
  return text;
}
std::string be64(uint64_t value) {
  std::string text(8, '\0');
  store_be64(text.data(), value);
  return text;
}

}  // namespace

std::optional<OptionHeader> parse_option_header(std::span<const uint8_t, option_header_bytes> bytes) {
  if (load_be64(bytes.data()) != magic_option) return std::nullopt;
  return OptionHeader{load_be32(bytes.data() + 8), load_be32(bytes.data() + 12)};
}

std::optional<Request> parse_request(std::span<const uint8_t, request_header_bytes> bytes) {
  if (load_be32(bytes.data()) != magic_request) return std::nullopt;
  return Request{load_be16(bytes.data() + 4), load_be16(bytes.data() + 6), load_be64(bytes.data() + 8),
                 load_be64(bytes.data() + 16), load_be32(bytes.data() + 24)};
}

std::optional<InfoRequest> parse_info_request(std::span<const uint8_t> data) {
  if (data.size() < 6) return std::nullopt;
  const uint32_t name_bytes = load_be32(data.data());
  if (name_bytes > name_bytes_max || name_bytes > data.size() - 6) return std::nullopt;
  InfoRequest request;
  request.name.assign(reinterpret_cast<const char*>(data.data()) + 4, name_bytes);
  const uint16_t count = load_be16(data.data() + 4 + name_bytes);
  if (data.size() != size_t{6} + name_bytes + size_t{2} * count) return std::nullopt;
  for (uint16_t i = 0; i < count; i++)
    request.kinds.push_back(load_be16(data.data() + 6 + name_bytes + size_t{2} * i));
  return request;
}

void append_greeting(std::vector<uint8_t>& out) {
  append_be64(out, magic_init);
  append_be64(out, magic_option);
  append_be16(out, handshake_fixed_newstyle | handshake_no_zeroes);
}

void append_option_reply(std::vector<uint8_t>& out, uint32_t option, uint32_t type, std::string_view data) {
  append_be64(out, magic_option_reply);
  append_be32(out, option);
  append_be32(out, type);
  append_be32(out, static_cast<uint32_t>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
}

void append_export_info(std::vector<uint8_t>& out, uint32_t option, const ExportInfo& info, const InfoRequest& asked) {
  const auto wants = [&](uint16_t kind) {
    return std::find(asked.kinds.begin(), asked.kinds.end(), kind) != asked.kinds.end();
  };
  append_option_reply(out, option, reply_info, be16(info_export) + be64(info.size_bytes) + be16(info.flags));
  if (wants(info_name)) append_option_reply(out, option, reply_info, be16(info_name) + info.name);
  // Unasked as well: the limits bind whoever connects.
  append_option_reply(out, option, reply_info,
                      be16(info_block_size) + be32(info.block_bytes_min) + be32(info.block_bytes_preferred) +
                          be32(info.block_bytes_max));
  append_option_reply(out, option, reply_ack);
}

void append_export_name_answer(std::vector<uint8_t>& out, const ExportInfo& info, bool no_zeroes) {
  append_be64(out, info.size_bytes);
  append_be16(out, info.flags);
  if (!no_zeroes) out.resize(out.size() + 124);
}

void build_simple_reply(uint8_t* out, uint64_t cookie, uint32_t error) {
  store_be32(out, magic_simple_reply);
  store_be32(out + 4, error);
  store_be64(out + 8, cookie);
}

}  // namespace basalt::nbd
