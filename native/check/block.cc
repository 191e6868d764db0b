// SPDX-License-Identifier: Apache-2.0
#include "check/block.h"

#include <algorithm>
#include <cstdio>

#include "check/block_set.h"

namespace basalt::check {

std::string seconds_text(int64_t ns) {
  if (ns == never_ns) return "never";
  char text[32];
  std::snprintf(text, sizeof(text), "%.6f", static_cast<double>(ns) / 1e9);
  return text;
}

std::string describe(const History& history, const Op& op) {
  static constexpr const char* types[] = {"read", "write", "flush", "zero"};
  static constexpr const char* states[] = {"ok", "refused", "unknown"};
  std::string text = "[" + seconds_text(op.invoked_ns) + " .. " + seconds_text(op.completed_ns) + "] ";
  if (op.client == snapshot_client) {
    return text + "snapshot " + history.devices[op.id].name + " of block " + std::to_string(op.lba) + ": " +
           op.values[0].to_string();
  }
  text += "client " + std::to_string(op.client) + " " + types[static_cast<size_t>(op.type)];
  if (op.type != OpType::flush) text += " " + std::to_string(op.lba) + "+" + std::to_string(op.count_blocks);
  if (op.type == OpType::write) text += " w" + std::to_string(op.writer) + "#" + std::to_string(op.sequence);
  if (op.fua) text += " fua";
  if (op.device != 0) text += " on " + history.devices[op.device].name;
  text += std::string(": ") + states[static_cast<size_t>(op.status)];
  for (const BlockValue& value : op.values)
    text += " " + value.to_string();
  return text;
}

Violation make_violation(const History& history, const char* rule, const std::string& what,
                         std::vector<const Op*> proof, uint64_t lba) {
  Violation out{rule, std::string(rule) + ": block " + std::to_string(lba) + ": " + what, lba};
  std::sort(proof.begin(), proof.end(), [](const Op* one, const Op* other) {
    return std::pair(one->invoked_ns, one) < std::pair(other->invoked_ns, other);
  });
  proof.erase(std::unique(proof.begin(), proof.end()), proof.end());
  for (const Op* op : proof)
    out.explanation += "\n  " + describe(history, *op);
  return out;
}

Violation Block::violation(const char* rule, const std::string& what, std::vector<const Op*> proof) const {
  return make_violation(history(), rule, what, std::move(proof), lba_);
}

BlockSet::BlockSet(const History& whole) : history(whole), devices(whole.devices.size()) {
  for (uint32_t i = 0; i < devices.size(); i++) {
    devices[i].history = &history;
    devices[i].device = i;
    devices[i].flushed_until_ns.assign(history.power_cuts.size(), always_ns);
  }
  for (const Op& op : history.ops) {
    DeviceFacts& device = devices[op.device];
    if (op.type == OpType::flush) {
      if (op.status != OpStatus::ok) continue;
      device.flushes.push_back(&op);
      for (size_t i = 0; i < history.power_cuts.size(); i++) {
        if (op.completed_ns > history.power_cuts[i].at_ns) continue;
        device.flushed_until_ns[i] = std::max(device.flushed_until_ns[i], op.invoked_ns);
      }
      continue;
    }
    if (op.type == OpType::read && op.status != OpStatus::ok) continue;
    for (uint32_t i = 0; i < op.count_blocks; i++)
      at({op.device, op.lba + i}).add(op, op.type == OpType::read ? op.values[i] : BlockValue{});
  }
}

}  // namespace basalt::check
