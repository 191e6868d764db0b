// SPDX-License-Identifier: Apache-2.0
// Any text as the plan of a run: refused, or a plan that is written and read again without a change.
#include "sim/plan_file.h"
#include "testing/fuzz_target.h"

namespace basalt::sim {
namespace {

using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

void run(std::span<const uint8_t> bytes) {
  auto plan = parse_plan(std::string(bytes.begin(), bytes.end()));
  if (!plan.ok()) {
    BASALT_ASSERT(plan.error().code == Errc::invalid_argument && !plan.error().message.empty());
    return;
  }
  const std::string text = plan_text(*plan);
  auto again = parse_plan(text);
  BASALT_ASSERT(again.ok() && again->found == plan->found && again->why == plan->why);
  BASALT_ASSERT(again->options.seed == plan->options.seed && again->options.suite == plan->options.suite &&
                again->options.reduction == plan->options.reduction && plan_text(*again) == text);
}

std::vector<FuzzSeed> seeds() {
  const char* texts[] = {
      R"({"suite":"cluster","seed":"0x1f3a","reduction":{"steps":[3,7],"clients":[1,2],"hosts":1,"ops_max":9,"legs":1,)"
      R"("copies":2,"controllers":1,"leg_blocks":64},"bugs":["skip_fence","read_unequal"],"found":"R2: \u0000","why":"\n"})",
      R"({"suite":"data","seed":"0xffffffffffffffff"})",
      R"({"suite":"target","seed":"0x0"})",
      R"({"suite":"other","seed":"0x0"})",
      R"({"suite":1,"seed":"0x0"})",
      R"({"suite":"data","seed":7})",
      R"({"suite":"data","seed":"7"})",
      R"({"suite":"data","seed":"0x1g"})",
      R"({"suite":"data","seed":"0x1","reduction":1})",
      R"({"suite":"data","seed":"0x1","reduction":{"hosts":"1"}})",
      R"({"suite":"data","seed":"0x1","reduction":{"steps":1}})",
      R"({"suite":"data","seed":"0x1","reduction":{"steps":[-1]}})",
      R"({"suite":"data","seed":"0x1","reduction":{"other":1}})",
      R"({"suite":"data","seed":"0x1","bugs":["none"]})",
      R"({"suite":"data","seed":"0x1","bugs":1})",
      R"({"suite":"data","seed":"0x1","more":1})",
      R"({"seed":"0x1"})",
      R"({"suite":"data"})",
      "[]",
      "{",
  };
  std::vector<FuzzSeed> out;
  for (const char* text : texts)
    out.push_back({std::to_string(out.size()), FuzzOutput().add(std::string(text)).bytes()});
  return out;
}

BASALT_FUZZ_TARGET(plan, run, seeds)

}  // namespace
}  // namespace basalt::sim
