// SPDX-License-Identifier: Apache-2.0
// SpinTime: how long a reactor that has run out of work looks for more before it sleeps. Looking pays when work comes
// within the time that a wake-up costs: a few microseconds on bare metal, 100 and more where a halted processor is
// another hypervisor's business. The longest time must be above that: two reactors that wait for each other, each
// asleep by the time the other is awake, never find out that work would come soon. Those who want the processor
// meanwhile get it (Poller::give_way); when work keeps coming later than the longest time, looking is a waste and ends.
//
// So it follows what idle times have been: doubled by each that ended within the longest one, halved by each that did
// not. A reactor that slept at once still learns that work came soon, and begins to look again.
#pragma once

#include <algorithm>

#include "base/time.h"

namespace basalt {

class SpinTime {
 public:
  static constexpr Duration longest_default = microseconds(200);

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
