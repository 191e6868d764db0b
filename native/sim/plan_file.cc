// SPDX-License-Identifier: Apache-2.0
#include "sim/plan_file.h"

#include <rapidjson/document.h>
#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>

#include <algorithm>
#include <charconv>

namespace basalt::sim {
namespace {

using rapidjson::Value;

std::string text_of(const Value& value) {
  return {value.GetString(), value.GetStringLength()};
}

struct NumberField {
  const char* name;
  std::optional<uint64_t> Reduction::*field;
};
constexpr NumberField number_fields[] = {
    {"ops_max", &Reduction::ops_max},
    {"hosts", &Reduction::hosts},
    {"legs", &Reduction::legs},
    {"copies", &Reduction::copies},
    {"controllers", &Reduction::controllers},
    {"leg_blocks", &Reduction::leg_blocks},
    {"pause_ms_max", &Reduction::pause_ms_max},
};
struct ListField {
  const char* name;
  std::optional<std::vector<uint32_t>> Reduction::*field;
};
constexpr ListField list_fields[] = {{"steps", &Reduction::steps}, {"clients", &Reduction::clients}};

std::string read_list(const Value& value, std::optional<std::vector<uint32_t>>* out) {
  if (!value.IsArray()) return "a list of numbers";
  out->emplace();
  for (const Value& entry : value.GetArray()) {
    if (!entry.IsUint()) return "a list of numbers";
    (*out)->push_back(entry.GetUint());
  }
  return "";
}

std::string read_reduction(const Value& value, Reduction* out) {
  if (!value.IsObject()) return "reduction: an object";
  for (const auto& member : value.GetObject()) {
    const std::string name = text_of(member.name);
    bool known = false;
    for (const NumberField& field : number_fields) {
      if (name != field.name) continue;
      known = true;
      if (!member.value.IsUint64()) return "reduction." + name + ": a number";
      out->*field.field = member.value.GetUint64();
    }
    for (const ListField& field : list_fields) {
      if (name != field.name) continue;
      known = true;
      const std::string problem = read_list(member.value, &(out->*field.field));
      if (!problem.empty()) return "reduction." + name + ": " + problem;
    }
    if (!known) return "reduction." + name + ": unknown";
  }
  return "";
}

std::string read_bugs(const Value& value, PlantedBugs* out) {
  if (!value.IsArray()) return "bugs: a list of names";
  for (const Value& entry : value.GetArray()) {
    bool known = false;
    for (const BugName& bug : bug_names()) {
      if (!entry.IsString() || text_of(entry) != bug.name) continue;
      out->*bug.flag = known = true;
    }
    if (!known) return "bugs: a name that no planted bug has";
  }
  return "";
}

std::string read_seed(const Value& value, uint64_t* out) {
  if (!value.IsString()) return "seed: a string, 0x...";
  const std::string text = text_of(value);
  if (!text.starts_with("0x")) return "seed: a string, 0x...";
  const auto [at, error] = std::from_chars(text.data() + 2, text.data() + text.size(), *out, 16);
  return error == std::errc() && at == text.data() + text.size() ? "" : "seed: a string, 0x...";
}

std::string read_member(const std::string& name, const Value& value, PlanFile* out) {
  if (name == "seed") return read_seed(value, &out->options.seed);
  if (name == "reduction") return read_reduction(value, &out->options.reduction);
  if (name == "bugs") return read_bugs(value, &out->options.bugs);
  if (name != "suite" && name != "found" && name != "why") return name + ": unknown";
  if (!value.IsString()) return name + ": a string";
  if (name == "found") out->found = text_of(value);
  if (name == "why") out->why = text_of(value);
  if (name != "suite") return "";
  const auto suite = suite_from(text_of(value));
  if (!suite) return "suite: data, target, cluster or cluster-ts";
  out->options.suite = *suite;
  return "";
}

}  // namespace

const std::vector<BugName>& bug_names() {
  static const std::vector<Suite> both = {Suite::cluster, Suite::cluster_ts};
  static const std::vector<Suite> mirrors = {Suite::cluster, Suite::data};
  static const std::vector<BugName> names = {
      {"skip_fence", &PlantedBugs::skip_fence, both},
      {"promote_before_takeover", &PlantedBugs::promote_before_takeover, both},
      {"forget_epoch", &PlantedBugs::forget_epoch, both},
      {"shrink_without_consent", &PlantedBugs::shrink_without_consent, both},
      {"ignore_read_lease", &PlantedBugs::ignore_read_lease, both},
      {"ignore_leftover_lease", &PlantedBugs::ignore_leftover_lease, {Suite::cluster_ts}},
      {"resync_head_only", &PlantedBugs::resync_head_only, {Suite::cluster_ts}},
      {"read_unequal", &PlantedBugs::read_unequal},
      {"skip_marks", &PlantedBugs::skip_marks, mirrors},
      {"clear_before_flush", &PlantedBugs::clear_before_flush, mirrors},
      {"ignore_own_marks", &PlantedBugs::ignore_own_marks, mirrors},
      {"reuse_early", &PlantedBugs::reuse_early, {Suite::data}},
      {"reuse_unzeroed", &PlantedBugs::reuse_unzeroed, {Suite::data}},
      {"resend_at_once", &PlantedBugs::resend_at_once, {Suite::target}},
  };
  return names;
}

bool has_bug(Suite suite, const BugName& bug) {
  return std::find(bug.suites.begin(), bug.suites.end(), suite) != bug.suites.end();
}

Result<PlanFile> parse_plan(const std::string& text) {
  rapidjson::Document document;
  // Without recursion: deeply nested text must not be the end of the stack.
  document.Parse<rapidjson::kParseIterativeFlag>(text.data(), text.size());
  const auto invalid = [](const std::string& what) { return Error{Errc::invalid_argument, what}; };
  if (document.HasParseError() || !document.IsObject()) return invalid("not a JSON object");
  PlanFile plan;
  for (const char* needed : {"suite", "seed"}) {
    if (!document.HasMember(needed)) return invalid(std::string(needed) + ": missing");
  }
  for (const auto& member : document.GetObject()) {
    const std::string problem = read_member(text_of(member.name), member.value, &plan);
    if (!problem.empty()) return invalid(problem);
  }
  return plan;
}

std::string plan_text(const PlanFile& plan) {
  rapidjson::StringBuffer buffer;
  rapidjson::PrettyWriter<rapidjson::StringBuffer> out(buffer);
  out.SetIndent(' ', 2);
  out.SetFormatOptions(rapidjson::kFormatSingleLineArray);
  const auto text = [&](const char* name, const std::string& value) {
    out.Key(name);
    out.String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
  };
  out.StartObject();
  text("suite", suite_name(plan.options.suite));
  char seed[24];
  std::snprintf(seed, sizeof(seed), "0x%llx", static_cast<unsigned long long>(plan.options.seed));
  text("seed", seed);
  const Reduction& reduction = plan.options.reduction;
  if (reduction != Reduction{}) {
    out.Key("reduction");
    out.StartObject();
    for (const ListField& field : list_fields) {
      if (!(reduction.*field.field)) continue;
      out.Key(field.name);
      out.StartArray();
      for (const uint32_t value : *(reduction.*field.field))
        out.Uint(value);
      out.EndArray();
    }
    for (const NumberField& field : number_fields) {
      if (!(reduction.*field.field)) continue;
      out.Key(field.name);
      out.Uint64(*(reduction.*field.field));
    }
    out.EndObject();
  }
  bool any = false;
  for (const BugName& bug : bug_names())
    any |= plan.options.bugs.*bug.flag;
  if (any) {
    out.Key("bugs");
    out.StartArray();
    for (const BugName& bug : bug_names()) {
      if (plan.options.bugs.*bug.flag) out.String(bug.name);
    }
    out.EndArray();
  }
  if (!plan.found.empty()) text("found", plan.found);
  if (!plan.why.empty()) text("why", plan.why);
  out.EndObject();
  return std::string(buffer.GetString(), buffer.GetSize()) + "\n";
}

}  // namespace basalt::sim
