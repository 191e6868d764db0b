// SPDX-License-Identifier: Apache-2.0
// What a test waits with for another thread. The one of POSIX, since std::counting_semaphore of GCC 13 can sleep
// through a release: a test on Ubuntu 24.04 then stood still until its patience ended, five minutes, though all had
// happened.
#pragma once

#include <semaphore.h>

#include <cerrno>
#include <chrono>
#include <ctime>

#include "base/assert.h"

namespace basalt::testing {

class Semaphore {
 public:
  Semaphore() { BASALT_ASSERT(sem_init(&semaphore_, 0, 0) == 0); }
  ~Semaphore() { sem_destroy(&semaphore_); }
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

  void release() { BASALT_ASSERT(sem_post(&semaphore_) == 0); }
  bool try_acquire() { return sem_trywait(&semaphore_) == 0; }
  // False: not released within the time.
  bool try_acquire_for(std::chrono::seconds patience) {
    timespec end{};
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += patience.count();
    int result = 0;
    do {
      result = sem_timedwait(&semaphore_, &end);
    } while (result != 0 && errno == EINTR);
    return result == 0;
  }

 private:
  sem_t semaphore_{};
};

}  // namespace basalt::testing
