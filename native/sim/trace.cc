// SPDX-License-Identifier: Apache-2.0
#include "sim/trace.h"

#include <cstdio>

namespace basalt::sim {

void trace_line(const env::SimWorld& world, const std::string& who, const std::string& what) {
  std::fprintf(stderr, "%12.6f  %-8s %s\n", static_cast<double>(world.now().ns) / 1e9, who.c_str(), what.c_str());
}

Trace::Trace(Cluster& cluster) : cluster_(cluster) {
  cluster_.store().on_change = [this](const Leadership& now) {
    std::string text = "epoch " + std::to_string(now.epoch) + " " +
                       (now.controller.empty() ? "nobody" : now.controller) + (now.clean ? " clean" : "");
    for (const auto& leg : now.legs) {
      text += " [";
      for (const InSyncMember& member : leg)
        text += (text.back() == '[' ? "" : " ") + member.replica;
      text += "]";
    }
    trace_line(cluster_.world(), "store", text);
  };
  for (size_t i = 0; i < cluster_.host_count(); i++) {
    SimHost& host = cluster_.host(i);
    host.on_trace = [this, &host](OpIndex index) {
      trace_line(cluster_.world(), host.name(), check::describe(check::History{}, cluster_.op(index)));
    };
  }
}

Trace::~Trace() {
  cluster_.store().on_change = {};
  for (size_t i = 0; i < cluster_.host_count(); i++)
    cluster_.host(i).on_trace = {};
}

}  // namespace basalt::sim
