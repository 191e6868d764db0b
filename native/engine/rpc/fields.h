// SPDX-License-Identifier: Apache-2.0
// Fields: reads the parameters of one method from a JSON object, strictly. Getters return something usable even when
// the input is wrong; the first problem is kept, with the path of its field, and error() gives it - together with
// missing, doubled and unknown fields. Ask for every field that the method knows, then call error() once.
//
//   Fields in(params);
//   const uint64_t num_blocks = in.natural("num_blocks", {.min = 1});
//   if (auto error = in.error()) co_return *error;
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/uuid.h"
#include "engine/rpc/rpc_result.h"

namespace basalt::rpc {

constexpr uint64_t safe_integer_max = (uint64_t{1} << 53) - 1;

struct NaturalRange {
  uint64_t min = 0;
  uint64_t max = safe_integer_max;
};

class Fields {
 public:
  // `value` must outlive this. null counts as an empty object.
  explicit Fields(const JsonValue& value, std::string path = "params");

  bool has(std::string_view name);
  bool is_null(std::string_view name);

  std::string string(std::string_view name);  // 1..string_bytes_max bytes, no control characters
  std::string string_or(std::string_view name, std::string_view otherwise);
  // The same, but no error shows what was given.
  std::string secret(std::string_view name);
  std::string hex(std::string_view name, size_t bytes_max);  // 1..bytes_max bytes
  uint64_t natural(std::string_view name, NaturalRange range = {});
  uint64_t natural_or(std::string_view name, uint64_t otherwise, NaturalRange range = {});
  bool boolean(std::string_view name);
  bool boolean_or(std::string_view name, bool otherwise);
  std::optional<Uuid> uuid(std::string_view name);  // nothing when absent
  Uuid uuid_required(std::string_view name);
  uint64_t epoch(std::string_view name);  // 1..2^64-1: a decimal string, or a number
  std::optional<uint64_t> epoch_optional(std::string_view name);
  // One of `choices`; its index.
  size_t choice(std::string_view name, const std::vector<std::string_view>& choices);
  size_t choice_or(std::string_view name, size_t otherwise, const std::vector<std::string_view>& choices);
  std::vector<std::string> strings(std::string_view name, size_t count_min, size_t count_max);
  // A nested object, read with its own Fields; an empty one when it is missing or wrong.
  const JsonValue& object(std::string_view name);
  const std::vector<JsonValue>& objects(std::string_view name, size_t count_min, size_t count_max);
  std::string path_of(std::string_view name) const;

  // For what only the method can judge: "name", "must not contain a slash".
  void refuse(std::string_view name, std::string_view problem);
  // Takes over the problem of a nested Fields.
  void adopt(Fields& nested);

  std::optional<RpcError> error();

 private:
  static constexpr size_t string_bytes_max = 1024;
  const JsonValue* get(std::string_view name);
  const JsonValue* need(std::string_view name);
  std::string as_string(std::string_view name, const JsonValue& value);
  uint64_t as_natural(std::string_view name, const JsonValue& value, NaturalRange range);
  void wrong(std::string_view name, const JsonValue& value, std::string_view right);

  const JsonValue& value_;
  std::string path_;
  std::vector<std::string> known_;
  std::optional<std::string> problem_;
};

}  // namespace basalt::rpc
