// SPDX-License-Identifier: Apache-2.0
// Histories as text: one JSON object per line, docs/history-format.md. Reading refuses whatever that page does not
// allow, and names the line and the field. What is written is read back the same.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "base/result.h"
#include "check/history.h"

namespace basalt::check {

struct HistoryReading {
  // How far behind the zero byte that ends a history there may be bytes: the rest of a write that was cut short. What
  // is there otherwise would be left out without a word, so it is refused.
  uint64_t cut_bytes_max = 0;
};
// What one write of a history may cover: whoever writes one keeps to it.
constexpr uint64_t history_write_bytes_max = 256 << 10;
// How far behind the end of a history is looked for what would be left out.
constexpr uint64_t history_behind_bytes = 16 << 20;

Result<History> read_history(std::istream& in, const HistoryReading& reading = {});
void write_history(const History& history, std::ostream& out);

// The same piece by piece, for a history that grows: its first line, an operation that ended, and a write or zeroing
// before it is sent (its `id` leads to its outcome).
void write_head(const History& history, std::ostream& out);
void write_operation(const History& history, const Op& op, std::ostream& out);
void write_announcement(const History& history, const Op& op, std::ostream& out);

// "w3#9", "zero", "torn", "garbage"; "w3#9@17" and "w3#9@17:2" when the stamp is not of `volume` and `lba`.
std::string value_text(const BlockValue& value, uint64_t volume, uint64_t lba);
// False: not a value.
bool parse_value(const std::string& text, uint64_t volume, uint64_t lba, BlockValue* out);

}  // namespace basalt::check
