// SPDX-License-Identifier: Apache-2.0
// Trace: what happens in a cluster, as it happens, for people: virtual time, who, what. On stderr.
#pragma once

#include "sim/cluster.h"

namespace basalt::sim {

void trace_line(const env::SimWorld& world, const std::string& who, const std::string& what);

class Trace {
 public:
  explicit Trace(Cluster& cluster);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

 private:
  Cluster& cluster_;
};

}  // namespace basalt::sim
