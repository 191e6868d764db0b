// SPDX-License-Identifier: Apache-2.0
// The one-writer gate as it is kept in a bdev's attribute: 48 bytes, little-endian.
//
//   0  magic "BASGATE1"   8  highest epoch   16  holder host identifier (zero: nobody)   32  holder's key
//   40 reserved, zero     44 CRC32C of bytes 0..43
//
// Behind it, where who drove the replica has left a note (ns::Namespace::write_note):
//
//  48  magic "BASNOTE1"  56  length of the note, 1 to 944   60  CRC32C of bytes 48..59 and of the note   64  the note
//
// An attribute that is empty was never set (epoch 0, nobody). Anything else that does not check is an error, never
// epoch 0: a gate that cannot be read stays shut. Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "ns/reservation.h"

namespace basalt::ns {

std::string encode_gate(const GateRecord& record, std::string_view note = {});
Result<GateRecord> decode_gate(std::string_view attribute);

// Empty: there is none.
Result<std::string> decode_note(std::string_view attribute);

// The highest epoch that ever was accepted, of a bdev's attribute(): for operations beside I/O (bdev_lvol_delete) that
// an older epoch must not do.
Result<uint64_t> highest_epoch(std::string_view attribute);

}  // namespace basalt::ns
