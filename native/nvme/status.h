// SPDX-License-Identifier: Apache-2.0
// nvme::Status: the status field of an NVMe completion (NVMe Base, Completion Queue Entry: Status Field), the one error
// type of the data path. Travels unchanged from the layer that found the error to the host.
#pragma once

#include <cstdint>
#include <string>

namespace basalt::nvme {

enum class StatusType : uint8_t { generic = 0, command_specific = 1, media = 2, path = 3, vendor = 7 };

struct Status {
  // Bits 7:0 status code, 10:8 status code type, 12:11 command retry delay, 13 more, 14 do not retry
  // (that is, the status field without its phase tag).
  uint16_t value = 0;

  constexpr bool ok() const { return (value & 0x7ff) == 0; }
  constexpr uint8_t code() const { return static_cast<uint8_t>(value); }
  constexpr StatusType type() const { return static_cast<StatusType>(value >> 8 & 7); }
  constexpr bool do_not_retry() const { return (value & 0x4000) != 0; }
  constexpr Status dnr() const { return {static_cast<uint16_t>(value | 0x4000)}; }
  // Same type and code; ignores the retry bits.
  constexpr bool is(Status other) const { return (value & 0x7ff) == (other.value & 0x7ff); }
  constexpr bool operator==(const Status&) const = default;
};

constexpr Status make_status(StatusType type, uint8_t code) {
  return {static_cast<uint16_t>(static_cast<uint16_t>(type) << 8 | code)};
}

namespace status {
// Generic command status.
constexpr Status success = make_status(StatusType::generic, 0x00);
constexpr Status invalid_opcode = make_status(StatusType::generic, 0x01);
constexpr Status invalid_field = make_status(StatusType::generic, 0x02);
constexpr Status command_id_conflict = make_status(StatusType::generic, 0x03);
constexpr Status data_transfer_error = make_status(StatusType::generic, 0x04);
constexpr Status internal_error = make_status(StatusType::generic, 0x06);
constexpr Status abort_requested = make_status(StatusType::generic, 0x07);
constexpr Status aborted_sq_deletion = make_status(StatusType::generic, 0x08);
constexpr Status failed_fused = make_status(StatusType::generic, 0x09);
constexpr Status missing_fused = make_status(StatusType::generic, 0x0a);
constexpr Status invalid_namespace = make_status(StatusType::generic, 0x0b);
constexpr Status command_sequence_error = make_status(StatusType::generic, 0x0c);
constexpr Status invalid_sgl_segment = make_status(StatusType::generic, 0x0d);
constexpr Status invalid_sgl_count = make_status(StatusType::generic, 0x0e);
constexpr Status data_sgl_length_invalid = make_status(StatusType::generic, 0x0f);
constexpr Status sgl_type_invalid = make_status(StatusType::generic, 0x11);
constexpr Status atomic_write_unit_exceeded = make_status(StatusType::generic, 0x14);
constexpr Status sgl_offset_invalid = make_status(StatusType::generic, 0x16);
constexpr Status keep_alive_invalid = make_status(StatusType::generic, 0x19);
constexpr Status host_id_inconsistent = make_status(StatusType::generic, 0x18);
constexpr Status namespace_write_protected = make_status(StatusType::generic, 0x20);
constexpr Status command_interrupted = make_status(StatusType::generic, 0x21);
constexpr Status transient_transport_error = make_status(StatusType::generic, 0x22);
constexpr Status lba_out_of_range = make_status(StatusType::generic, 0x80);
constexpr Status capacity_exceeded = make_status(StatusType::generic, 0x81);
constexpr Status namespace_not_ready = make_status(StatusType::generic, 0x82);
constexpr Status reservation_conflict = make_status(StatusType::generic, 0x83);
// Command specific.
constexpr Status aer_limit_exceeded = make_status(StatusType::command_specific, 0x05);
constexpr Status controller_id_invalid = make_status(StatusType::command_specific, 0x1f);
constexpr Status cross_reset_in_progress = make_status(StatusType::command_specific, 0x3f);
constexpr Status cross_reset_log_full = make_status(StatusType::command_specific, 0x40);
constexpr Status cross_reset_limit_exceeded = make_status(StatusType::command_specific, 0x41);
constexpr Status connect_incompatible_format = make_status(StatusType::command_specific, 0x80);
constexpr Status connect_controller_busy = make_status(StatusType::command_specific, 0x81);
constexpr Status connect_invalid_parameters = make_status(StatusType::command_specific, 0x82);
constexpr Status connect_invalid_host = make_status(StatusType::command_specific, 0x84);
constexpr Status authentication_required = make_status(StatusType::command_specific, 0x91);
constexpr Status invalid_log_page = make_status(StatusType::command_specific, 0x09);
constexpr Status feature_not_saveable = make_status(StatusType::command_specific, 0x0d);
constexpr Status feature_not_changeable = make_status(StatusType::command_specific, 0x0e);
// Media and data integrity.
constexpr Status write_fault = make_status(StatusType::media, 0x80);
constexpr Status unrecovered_read_error = make_status(StatusType::media, 0x81);
constexpr Status compare_failure = make_status(StatusType::media, 0x85);
// Path related.
constexpr Status internal_path_error = make_status(StatusType::path, 0x00);
constexpr Status ana_persistent_loss = make_status(StatusType::path, 0x01);
constexpr Status ana_inaccessible = make_status(StatusType::path, 0x02);
constexpr Status ana_transition = make_status(StatusType::path, 0x03);
constexpr Status controller_path_error = make_status(StatusType::path, 0x60);
constexpr Status host_path_error = make_status(StatusType::path, 0x70);
constexpr Status host_aborted = make_status(StatusType::path, 0x71);
}  // namespace status

// "Reservation Conflict (0x083)": for logs and error texts.
std::string to_string(Status status);

}  // namespace basalt::nvme
