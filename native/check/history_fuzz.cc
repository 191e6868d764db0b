// SPDX-License-Identifier: Apache-2.0
// Any text as a history: refused with a line, or a history that is written and read again without a change, and that
// the checker judges.
#include <sstream>

#include "check/checker.h"
#include "check/history_file.h"
#include "testing/fuzz_target.h"

namespace basalt::check {
namespace {

using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

constexpr uint64_t blocks_judged_max = 2048;

std::string text_of(const History& history) {
  std::ostringstream out;
  write_history(history, out);
  return out.str();
}

void judge(const History& history) {
  uint64_t blocks = 0;
  for (const Op& op : history.ops)
    blocks += op.count_blocks;
  for (const Op& op : history.ops)
    BASALT_ASSERT(!describe(history, op).empty());
  if (blocks > blocks_judged_max || history.ops.size() > 64) return;
  const Verdict verdict = check(history, {.search_steps_max = 2000});
  if (!verdict.violation) return;
  BASALT_ASSERT(verdict.violation->rule[0] == 'R' && !verdict.violation->explanation.empty());
}

void run(std::span<const uint8_t> bytes) {
  std::istringstream in(std::string(bytes.begin(), bytes.end()));
  auto history = read_history(in);
  if (!history.ok()) {
    BASALT_ASSERT(history.error().code == Errc::invalid_argument && !history.error().message.empty());
    return;
  }
  const std::string text = text_of(*history);
  std::istringstream again(text);
  auto twice = read_history(again);
  BASALT_ASSERT(twice.ok() && twice->devices.size() == history->devices.size());
  for (size_t i = 0; i < history->devices.size(); i++)
    BASALT_ASSERT(twice->devices[i].name == history->devices[i].name);
  BASALT_ASSERT(text_of(*twice) == text);
  judge(*history);
}

std::vector<FuzzSeed> seeds() {
  const std::string head = R"({"history":1,"volume":"7","block_bytes":4096,"atomic_bytes":8192,"write_cache":true})"
                           "\n";
  const std::string write =
      R"({"op":"write","id":1,"client":3,"lba":17,"blocks":2,"inv":10,"end":20,"status":"ok","writer":3,"seq":9,"fua":true})"
      "\n";
  const std::string read =
      R"({"op":"read","client":1,"lba":17,"blocks":2,"inv":30,"end":40,"status":"ok","values":["w3#9","w3#9"]})"
      "\n";
  const std::string values = R"({"op":"read","client":1,"lba":16,"blocks":6,"inv":30,"end":40,"status":"ok",)"
                             R"("values":["zero","torn","garbage","w3#9@17:2","w3#9@17","w18446744073709551615#1"]})"
                             "\n";
  const std::string flush = R"({"op":"flush","client":3,"inv":21,"end":25,"status":"ok"})"
                            "\n";
  const std::string zero = R"({"op":"zero","client":3,"lba":0,"blocks":4,"inv":21,"status":"info"})"
                           "\n";
  const std::string snapshot = R"({"op":"snapshot","device":"s \"1\"\u0001","inv":26,"end":27,"status":"ok"})"
                               "\n";
  const std::string clone = R"({"op":"clone","device":"c","of":"s \"1\"\u0001"})"
                            "\n";
  const std::string clone_read =
      R"({"op":"read","client":1,"device":"c","lba":17,"blocks":1,"inv":50,"end":60,"status":"ok","values":["w3#9"]})"
      "\n";
  const std::string events = R"({"event":"power_cut","at":45})"
                             "\n"
                             R"({"event":"healed","at":70,"io_bound":5,"clean_bound":9})"
                             "\n"
                             R"({"event":"clean","at":75})"
                             "\n";
  const std::string images = R"({"image":"r0","leg":0,"first":17,"values":["w3#9@17","zero"]})"
                             "\n"
                             R"({"image":"r1","leg":0,"values":["w3#9@17","zero"]})"
                             "\n";
  const std::string sent = R"({"op":"write","id":1,"client":3,"lba":17,"blocks":2,"inv":9,"status":"sent",)"
                           R"("writer":3,"seq":9,"fua":true})"
                           "\n";
  const std::string texts[] = {
      head + sent + write + read,
      head + sent + read,
      head + sent + sent + write,
      head + sent + R"({"op":"write","id":1,"client":3,"lba":5,"blocks":2,"inv":10,"status":"info","seq":9})",
      head + sent + R"({"op":"write","id":2,"client":3,"lba":5,"blocks":2,"inv":10,"status":"info","seq":9})",
      head + write + write.substr(0, 40),
      head + sent + zero + R"({"op":"zero","id":1,"client":3,"lba":0,"blocks":4,"inv":21,"status":"sent"})",
      head + write + std::string("\0\0more", 6),
      head + write + std::string("\0\0\n", 3),
      head + write + std::string(2, '\0'),
      head + write + flush + read + events + images,
      head + write + snapshot + clone + clone_read + zero + events,
      head + write + values,
      head + write + write,
      head + write + "\n  \n" + R"({"op":"read","client":1,"lba":0,"blocks":1,"inv":1,"status":"fail"})",
      head + R"({"op":"clone","device":"c","of":"d"})" + "\n" +
          R"({"op":"snapshot","device":"d","of":"c","inv":1,"end":2,"status":"ok"})",
      head + R"({"op":"clone","device":"c"})",
      head + R"({"op":"clone","device":"c","of":"x"})",
      head + R"({"op":"snapshot","device":"","inv":1,"end":2,"status":"ok"})",
      head + snapshot + snapshot,
      head + R"({"op":"snapshot","device":"d","of":"s","inv":1,"end":2,"status":"ok"})" + "\n" +
          R"({"op":"snapshot","device":"s","inv":1,"end":2,"status":"ok"})",
      head + R"({"op":"flush","client":3,"device":"none","inv":21,"end":25,"status":"ok"})",
      head + R"({"op":"trim","client":3})",
      head + R"({"op":"write","client":1,"lba":0,"blocks":0,"inv":5,"end":4,"status":"maybe","writer":1,"seq":"x"})",
      head + R"({"op":"write","client":1,"lba":0,"blocks":1,"inv":5,"end":4,"status":"ok","seq":1})",
      head + R"({"op":"write","client":1,"lba":0,"blocks":1,"inv":5,"status":"ok","seq":1})",
      head + R"({"op":"read","client":1,"lba":0,"blocks":2,"inv":1,"end":2,"status":"ok","values":["zero"]})",
      head + R"({"op":"read","client":1,"lba":0,"blocks":1,"inv":1,"end":2,"status":"ok","values":["w1"]})",
      head + R"({"op":"read","client":1,"lba":0,"blocks":1,"inv":1,"end":2,"status":"ok","values":[1]})",
      head + R"({"op":"read","client":1,"lba":0,"blocks":1,"inv":1,"end":2,"status":"ok","values":1})",
      head + R"({"op":"flush","client":1,"inv":1,"end":2,"status":"ok","more":1})",
      head + R"({"op":"flush","client":1,"client":2,"inv":1,"end":2,"status":"ok"})",
      head + R"({"event":"healed","at":1})" + "\n" + R"({"event":"healed","at":2})",
      head + R"({"event":"rain","at":1})",
      head + R"({"image":"r","leg":0,"values":["x"]})",
      head + R"({"what":1})",
      head + head,
      R"({"history":2,"volume":1,"block_bytes":4096})",
      R"({"history":1,"volume":1,"block_bytes":100,"write_cache":1})",
      R"({"history":1,"volume":1,"block_bytes":512,"atomic_bytes":1000})",
      R"({"op":1})",
      R"([[[[[[[[[[]]]]]]]]]])",
      R"([1])",
      R"({"a":"\"{[")",
      "",
  };
  std::vector<FuzzSeed> out;
  for (const std::string& text : texts)
    out.push_back({std::to_string(out.size()), FuzzOutput().add(text).bytes()});
  return out;
}

BASALT_FUZZ_TARGET(history, run, seeds)

}  // namespace
}  // namespace basalt::check
