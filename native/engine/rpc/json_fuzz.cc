// SPDX-License-Identifier: Apache-2.0
// Any bytes as JSON: refused, or a value that is written and read again without a change; and through the framer, where
// the cuts must not matter.
#include "engine/rpc/fields.h"
#include "engine/rpc/framer.h"
#include "testing/fuzz_target.h"

namespace basalt::rpc {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

unsigned depth_of(const JsonValue& value) {
  unsigned deepest = 0;
  for (const JsonValue& item : value.items())
    deepest = std::max(deepest, depth_of(item));
  for (const auto& [name, member] : value.members())
    deepest = std::max(deepest, depth_of(member));
  const bool nests = value.is(JsonValue::Kind::array) || value.is(JsonValue::Kind::object);
  return deepest + (nests ? 1 : 0);
}

// Numbers with a fraction are refused wherever one is read: the parser's last digit of them does not matter.
bool has_real(const JsonValue& value) {
  const auto member_has = [](const auto& member) { return has_real(member.second); };
  return value.is(JsonValue::Kind::real) || std::any_of(value.items().begin(), value.items().end(), has_real) ||
         std::any_of(value.members().begin(), value.members().end(), member_has);
}

void read_fields(const JsonValue& value) {
  Fields in(value);
  (void)in.has("name");
  (void)in.is_null("name");
  (void)in.string("name");
  (void)in.string_or("alias", "none");
  (void)in.natural("num_blocks", {.min = 1});
  (void)in.natural_or("block_size", 512, {.max = 4096});
  (void)in.boolean("force");
  (void)in.boolean_or("clear", true);
  (void)in.uuid("uuid");
  (void)in.uuid_required("id");
  (void)in.epoch("epoch");
  (void)in.epoch_optional("old_epoch");
  (void)in.choice("mode", {"a", "b"});
  (void)in.choice_or("level", 0, {"0", "1"});
  (void)in.strings("names", 1, 3);
  Fields nested(in.object("address"), in.path_of("address"));
  (void)nested.string("traddr");
  in.adopt(nested);
  for (const JsonValue& item : in.objects("list", 0, 2)) {
    Fields of_item(item, in.path_of("list"));
    (void)of_item.natural("n");
    in.adopt(of_item);
  }
  const auto error = in.error();
  BASALT_ASSERT(!error || !error->message.empty());
}

std::vector<std::string> frames(const std::string& stream, size_t step, bool* broken) {
  Framer framer;
  std::vector<std::string> out;
  for (size_t at = 0; at < stream.size(); at += step) {
    framer.push(std::string_view(stream).substr(at, step));
    for (std::string text; framer.next(&text);)
      out.push_back(text);
  }
  *broken = framer.broken();
  BASALT_ASSERT(!*broken || framer.reason()[0] != '\0');
  return out;
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  const size_t step = 1 + input.u8();
  const auto rest = input.rest();
  const std::string text(rest.begin(), rest.end());
  auto parsed = parse_json(text);
  if (parsed.ok()) {
    BASALT_ASSERT(depth_of(parsed.value()) <= json_depth_max);
    const std::string written = parsed.value().to_text();
    auto again = parse_json(written);
    BASALT_ASSERT(again.ok() && (has_real(parsed.value()) || again.value().to_text() == written));
    read_fields(parsed.value());
    (void)json_kind_name(parsed.value());
  } else {
    BASALT_ASSERT(!parsed.error().message.empty());
  }
  bool broken_whole = false;
  bool broken_cut = false;
  const auto whole = frames(text, std::max<size_t>(text.size(), 1), &broken_whole);
  const auto cut = frames(text, step, &broken_cut);
  BASALT_ASSERT(whole == cut && broken_whole == broken_cut);
}

std::vector<FuzzSeed> seeds() {
  const char* texts[] = {
      R"({"name":"m0","num_blocks":8,"block_size":512,"force":true,"uuid":"00000000-0000-0000-0000-000000000001"})",
      R"({"id":"00000000-0000-0000-0000-000000000001","epoch":"18446744073709551615","old_epoch":7,"mode":"a"})",
      R"({"names":["a","b"],"address":{"traddr":"127.0.0.1"},"list":[{"n":1},{"n":2}],"level":"1"})",
      R"([1,-1,1.5e3,"a\n\u00e9\ud83d\ude00",null,true,false,{},[]])",
      R"({"a":"}\"{"} [1,[2]] {} )",
      R"({"epoch":18446744073709551615,"n":-9223372036854775808,"name":1e400})",
      R"([[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]])",
      "hello",
      "{",
  };
  std::vector<FuzzSeed> out;
  for (const char* text : texts)
    out.push_back({std::to_string(out.size()), FuzzOutput().u8(2).add(std::string(text)).bytes()});
  return out;
}

BASALT_FUZZ_TARGET(json, run, seeds)

}  // namespace
}  // namespace basalt::rpc
