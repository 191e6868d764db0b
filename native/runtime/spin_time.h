// SPDX-License-Identifier: Apache-2.0
// SpinTime: how long a reactor that has run out of work looks for more before it sleeps. Looking pays when work comes
// within that time: it saves a wake-up, which costs more than the few microseconds looked. When work keeps coming later
// than that, looking is a processor taken away from those that the work is waiting for.
//
// So it follows what idle times have been: doubled by each that ended within the longest one, halved by each that did
// not. A reactor that slept at once still learns that work came soon, and begins to look again.
#pragma once

#include <algorithm>

#include "base/time.h"

namespace basalt {

class SpinTime {
 public:
  explicit SpinTime(Duration longest) : longest_(longest), current_(longest) {}

  Duration current() const { return current_; }

  // From the last work to the next.
  void idle_lasted(Duration length) {
    if (length <= longest_) {
      current_ = std::min(longest_, std::max(current_ * 2, first_step));
    } else {
      current_ = current_ / 2;
      if (current_ < shortest) current_ = Duration{};
    }
  }

 private:
  static constexpr Duration first_step = microseconds(10);
  static constexpr Duration shortest = microseconds(2);

  Duration longest_;
  Duration current_;
};

}  // namespace basalt
