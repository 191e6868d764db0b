// SPDX-License-Identifier: Apache-2.0
// NBD on the wire (the NBD protocol document, "fixed newstyle" negotiation, simple replies). Big-endian. Sans-IO:
// parsing and building only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace basalt::nbd {

constexpr uint64_t magic_init = 0x4e42444d41474943;    // "NBDMAGIC"
constexpr uint64_t magic_option = 0x49484156454f5054;  // "IHAVEOPT"
constexpr uint64_t magic_option_reply = 0x0003e889045565a9;
constexpr uint32_t magic_request = 0x25609513;
constexpr uint32_t magic_simple_reply = 0x67446698;

constexpr uint16_t handshake_fixed_newstyle = 1 << 0;
constexpr uint16_t handshake_no_zeroes = 1 << 1;

enum class Option : uint32_t { export_name = 1, abort = 2, list = 3, starttls = 5, info = 6, go = 7 };

constexpr uint32_t reply_ack = 1;
constexpr uint32_t reply_server = 2;
constexpr uint32_t reply_info = 3;
constexpr uint32_t reply_err_unsup = 0x80000001;
constexpr uint32_t reply_err_invalid = 0x80000003;
constexpr uint32_t reply_err_unknown = 0x80000006;
constexpr uint32_t reply_err_too_big = 0x80000009;

constexpr uint16_t info_export = 0;
constexpr uint16_t info_name = 1;
constexpr uint16_t info_block_size = 3;

constexpr uint16_t flag_has_flags = 1 << 0;
constexpr uint16_t flag_read_only = 1 << 1;
constexpr uint16_t flag_send_flush = 1 << 2;
constexpr uint16_t flag_send_fua = 1 << 3;
constexpr uint16_t flag_send_trim = 1 << 5;
constexpr uint16_t flag_send_write_zeroes = 1 << 6;
constexpr uint16_t flag_can_multi_conn = 1 << 8;

enum class Command : uint16_t { read = 0, write = 1, disconnect = 2, flush = 3, trim = 4, cache = 5, write_zeroes = 6 };
constexpr uint16_t command_flag_fua = 1 << 0;
constexpr uint16_t command_flag_no_hole = 1 << 1;
constexpr uint16_t command_flag_fast_zero = 1 << 4;

constexpr uint32_t error_perm = 1;
constexpr uint32_t error_io = 5;
constexpr uint32_t error_invalid = 22;
constexpr uint32_t error_no_space = 28;
constexpr uint32_t error_shutdown = 108;

constexpr size_t option_header_bytes = 16;
constexpr size_t request_header_bytes = 28;
constexpr size_t simple_reply_bytes = 16;
constexpr size_t name_bytes_max = 4096;
constexpr size_t option_data_bytes_max = 8192;

struct OptionHeader {
  uint32_t option;
  uint32_t length_bytes;
};
std::optional<OptionHeader> parse_option_header(std::span<const uint8_t, option_header_bytes> bytes);

struct Request {
  uint16_t flags;
  uint16_t type;
  uint64_t cookie;
  uint64_t offset_bytes;
  uint32_t length_bytes;
};
std::optional<Request> parse_request(std::span<const uint8_t, request_header_bytes> bytes);

// The data of NBD_OPT_INFO and NBD_OPT_GO: a name and the kinds of information asked for.
struct InfoRequest {
  std::string name;
  std::vector<uint16_t> kinds;
};
std::optional<InfoRequest> parse_info_request(std::span<const uint8_t> data);

struct ExportInfo {
  std::string name;
  uint64_t size_bytes;
  uint16_t flags;
  uint32_t block_bytes_min;
  uint32_t block_bytes_preferred;
  uint32_t block_bytes_max;
};

void append_greeting(std::vector<uint8_t>& out);
void append_option_reply(std::vector<uint8_t>& out, uint32_t option, uint32_t type, std::string_view data = {});
void append_export_info(std::vector<uint8_t>& out, uint32_t option, const ExportInfo& info, const InfoRequest& asked);
// The answer to NBD_OPT_EXPORT_NAME has no header.
void append_export_name_answer(std::vector<uint8_t>& out, const ExportInfo& info, bool no_zeroes);
void build_simple_reply(uint8_t* out, uint64_t cookie, uint32_t error);

}  // namespace basalt::nbd
