// SPDX-License-Identifier: Apache-2.0
// Verdict: what the multipath host does with the status that ended a command.
#pragma once

#include "base/time.h"
#include "nvme/status.h"

namespace basalt::bdev {

enum class Verdict : uint8_t {
  done,
  up,         // unchanged, at once
  elsewhere,  // it is about the path: the command goes to another one, or here again when the path is right
  later       // it passes: again after a while, a few times, then up
};

// Of a status that a controller gave. Do Not Retry means that no other path will answer differently.
Verdict judge(nvme::Status status);

constexpr uint8_t later_count_max = 5;
constexpr Duration later_delay = milliseconds(10);  // doubled each time

}  // namespace basalt::bdev
