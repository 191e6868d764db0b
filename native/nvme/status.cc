// SPDX-License-Identifier: Apache-2.0
#include "nvme/status.h"

#include <cstdio>

namespace basalt::nvme {
namespace {

struct Name {
  Status status;
  const char* text;
};

constexpr Name names[] = {
    {status::success, "Successful Completion"},
    {status::invalid_opcode, "Invalid Command Opcode"},
    {status::invalid_field, "Invalid Field in Command"},
    {status::command_id_conflict, "Command ID Conflict"},
    {status::data_transfer_error, "Data Transfer Error"},
    {status::internal_error, "Internal Error"},
    {status::abort_requested, "Command Abort Requested"},
    {status::aborted_sq_deletion, "Command Aborted due to SQ Deletion"},
    {status::failed_fused, "Command Aborted due to Failed Fused Command"},
    {status::missing_fused, "Command Aborted due to Missing Fused Command"},
    {status::invalid_namespace, "Invalid Namespace or Format"},
    {status::command_sequence_error, "Command Sequence Error"},
    {status::data_sgl_length_invalid, "Data SGL Length Invalid"},
    {status::sgl_type_invalid, "SGL Descriptor Type Invalid"},
    {status::namespace_write_protected, "Namespace is Write Protected"},
    {status::command_interrupted, "Command Interrupted"},
    {status::transient_transport_error, "Transient Transport Error"},
    {status::lba_out_of_range, "LBA Out of Range"},
    {status::capacity_exceeded, "Capacity Exceeded"},
    {status::namespace_not_ready, "Namespace Not Ready"},
    {status::reservation_conflict, "Reservation Conflict"},
    {status::controller_id_invalid, "Invalid Controller Identifier"},
    {status::cross_reset_in_progress, "Cross-Controller Reset in Progress"},
    {status::cross_reset_log_full, "Cross-Controller Reset Log Page Full"},
    {status::cross_reset_limit_exceeded, "Cross-Controller Reset Limit Exceeded"},
    {status::connect_invalid_parameters, "Connect Invalid Parameters"},
    {status::connect_invalid_host, "Connect Invalid Host"},
    {status::authentication_required, "Authentication Required"},
    {status::write_fault, "Write Fault"},
    {status::unrecovered_read_error, "Unrecovered Read Error"},
    {status::compare_failure, "Compare Failure"},
    {status::internal_path_error, "Internal Path Error"},
    {status::ana_persistent_loss, "Asymmetric Access Persistent Loss"},
    {status::ana_inaccessible, "Asymmetric Access Inaccessible"},
    {status::ana_transition, "Asymmetric Access Transition"},
    {status::controller_path_error, "Controller Pathing Error"},
    {status::host_path_error, "Host Pathing Error"},
    {status::host_aborted, "Command Aborted by Host"},
};

}  // namespace

std::string to_string(Status status) {
  const char* text = "Status";
  for (const Name& name : names) {
    if (name.status.is(status)) text = name.text;
  }
  char out[96];
  std::snprintf(out, sizeof(out), "%s (0x%03x%s)", text, status.value & 0x7ff, status.do_not_retry() ? ", DNR" : "");
  return out;
}

}  // namespace basalt::nvme
