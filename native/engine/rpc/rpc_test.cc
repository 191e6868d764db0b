// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "engine/bdev_registry.h"
#include "engine/rpc/dispatcher.h"
#include "engine/rpc/fields.h"
#include "engine/rpc/framer.h"

namespace basalt::rpc {
namespace {

JsonValue json(std::string_view text) {
  auto parsed = parse_json(text);
  EXPECT_TRUE(parsed.ok()) << text;
  return parsed.ok() ? std::move(*parsed) : JsonValue();
}

std::string problem_of(Fields& in) {
  auto error = in.error();
  return error ? error->message : "";
}

TEST(Json, KeepsAll64BitsOfIntegers) {
  EXPECT_EQ(json("18446744073709551615").natural(), UINT64_MAX);
  EXPECT_EQ(json("-9223372036854775808").negative(), INT64_MIN);
  EXPECT_EQ(json("[18446744073709551615,-1,\"a\\n\",null,true]").to_text(),
            "[18446744073709551615,-1,\"a\\n\",null,true]");
}

TEST(Json, RefusesWhatIsTooDeepTooLongOrBroken) {
  const std::string deepest = std::string(json_depth_max, '[') + std::string(json_depth_max, ']');
  EXPECT_TRUE(parse_json(deepest).ok());
  EXPECT_FALSE(parse_json("[" + deepest + "]").ok());
  EXPECT_FALSE(parse_json(std::string(100000, '[')).ok());
  EXPECT_FALSE(parse_json("\"" + std::string(json_bytes_max, 'x') + "\"").ok());
  for (const char* text : {"", "{", "{\"a\":}", "[1,]", "nul", "1 2", "\"\xff\""})
    EXPECT_FALSE(parse_json(text).ok()) << text;
}

TEST(Json, RefusesAZeroByteAndWhatHidesBehindIt) {
  EXPECT_FALSE(parse_json(std::string_view("{}\0{", 4)).ok());
  EXPECT_FALSE(parse_json(std::string_view("\0", 1)).ok());
}

TEST(Json, RefusesHalfOfASurrogatePair) {
  for (const char* text : {R"("\ude00")", R"(["a\ude00"])", R"({"\ude00":1})", R"("\ud83d")"})
    EXPECT_FALSE(parse_json(text).ok()) << text;
  EXPECT_EQ(json(R"("\ud83d\ude00")").string(), "\xf0\x9f\x98\x80");
}

TEST(Fields, NameTheFieldOfEachKindOfProblem) {
  const auto check = [](const char* text, auto read) {
    const JsonValue value = json(text);
    Fields in(value);
    read(in);
    return problem_of(in);
  };
  const auto natural = [](Fields& in) { in.natural("n", {.min = 1, .max = 9}); };
  EXPECT_EQ(check("{\"n\":5}", natural), "");
  EXPECT_EQ(check("{}", natural), "params.n: is missing");
  EXPECT_EQ(check("{\"n\":10}", natural), "params.n: must be an integer from 1 to 9, is 10");
  EXPECT_EQ(check("{\"n\":-1}", natural), "params.n: must be an integer from 1 to 9, is -1");
  EXPECT_EQ(check("{\"n\":1.5}", natural), "params.n: must be an integer from 1 to 9, is 1.5");
  EXPECT_EQ(check("{\"n\":\"5\"}", natural), "params.n: must be an integer from 1 to 9, is \"5\"");
  EXPECT_EQ(check("{\"n\":5,\"m\":1}", natural), "params.m: is not a parameter of this method");
  EXPECT_EQ(check("{\"n\":5,\"n\":6}", natural), "params.n: is given twice");
  EXPECT_EQ(check("[5]", natural), "params: must be an object of named parameters, is an array");
}

TEST(Fields, NeverShowWhatWasGivenAsASecret) {
  for (const char* text : {"{\"s\":20261121}", "{\"s\":[\"20261121\"]}", "{\"s\":\"\",\"t\":20261121}"}) {
    const JsonValue value = json(text);
    Fields in(value);
    in.secret("s");
    EXPECT_EQ(problem_of(in), "params.s: must be a string of 1 to 1024 bytes");
  }
  const JsonValue value = json("{\"s\":\"20261121\"}");
  Fields in(value);
  EXPECT_EQ(in.secret("s"), "20261121");
  EXPECT_EQ(problem_of(in), "");
}

TEST(Fields, ReadEpochsAsNumbersAndDecimalStrings) {
  const JsonValue value = json("{\"a\":7,\"b\":\"18446744073709551615\",\"c\":\"0\"}");
  Fields in(value);
  EXPECT_EQ(in.epoch("a"), 7u);
  EXPECT_EQ(in.epoch("b"), UINT64_MAX);
  in.epoch("c");
  EXPECT_NE(problem_of(in).find("params.c"), std::string::npos);
}

TEST(Framer, FindsTheSameValuesHoweverTheBytesAreSplit) {
  const std::string stream = " {\"a\":\"}\\\"{\"}\n[1,[2]]{}";
  for (size_t step = 1; step <= stream.size(); step++) {
    Framer framer;
    std::vector<std::string> found;
    for (size_t at = 0; at < stream.size(); at += step) {
      framer.push(std::string_view(stream).substr(at, step));
      for (std::string text; framer.next(&text);)
        found.push_back(text);
    }
    EXPECT_EQ(found, (std::vector<std::string>{"{\"a\":\"}\\\"{\"}", "[1,[2]]", "{}"})) << "step " << step;
    EXPECT_FALSE(framer.broken());
  }
}

TEST(Framer, GivesUpOnWhatIsNoRequest) {
  Framer words;
  std::string text;
  words.push("hello");
  EXPECT_FALSE(words.next(&text));
  EXPECT_TRUE(words.broken());
  Framer endless;
  endless.push("{\"" + std::string(json_bytes_max + 1, 'x'));
  EXPECT_FALSE(endless.next(&text));
  EXPECT_TRUE(endless.broken());
}

Task<RpcResult> echo(JsonValue params) {
  co_return params;
}

Task<void> call_into(Dispatcher* dispatcher, std::string method, std::optional<RpcResult>* out) {
  auto running = dispatcher->call(std::move(method), json("{\"x\":1}"));
  auto result = co_await running;
  out->emplace(std::move(result));
}

TEST(Dispatcher, RunsMethodsByNameAndRefusesOthers) {
  Dispatcher dispatcher;
  dispatcher.add("echo", echo);
  std::optional<RpcResult> known;
  spawn(call_into(&dispatcher, "echo", &known));
  ASSERT_TRUE(known && known->ok());
  EXPECT_EQ(known->value().to_text(), "{\"x\":1}");
  std::optional<RpcResult> unknown;
  spawn(call_into(&dispatcher, "other", &unknown));
  ASSERT_TRUE(unknown && !unknown->ok());
  EXPECT_EQ(unknown->error().code, code::method_not_found);
}

TEST(BdevRegistry, KeepsANameFromItsReservationOn) {
  BdevRegistry bdevs;
  EXPECT_TRUE(bdevs.reserve("a").ok());
  EXPECT_EQ(bdevs.reserve("a").error().code, Errc::exists);
  EXPECT_EQ(bdevs.claim("a", "user").error().code, Errc::busy);
  EXPECT_EQ(bdevs.find("b").error().code, Errc::not_found);
  bdevs.withdraw("a");
  EXPECT_TRUE(bdevs.empty());
}

}  // namespace
}  // namespace basalt::rpc
