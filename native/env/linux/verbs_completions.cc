// SPDX-License-Identifier: Apache-2.0
#include "env/linux/verbs_completions.h"

#ifdef BASALT_HAS_VERBS

#include <algorithm>

namespace basalt::env {

bool VerbsCompletions::reserve(uint32_t entries, const VerbsReceiveQueue* shared, uint32_t shared_entries) {
  const bool known = shared == nullptr || std::any_of(shared_.begin(), shared_.end(),
                                                      [shared](const Shared& each) { return each.queue == shared; });
  const uint32_t wanted = entries + (known ? 0 : shared_entries);
  if (wanted > capacity_ - reserved_) return false;
  reserved_ += wanted;
  user_count_++;
  if (!known) shared_.push_back({shared, shared_entries});
  return true;
}

void VerbsCompletions::release(uint32_t entries) {
  reserved_ -= entries;
  user_count_--;
}

void VerbsCompletions::forget(const VerbsReceiveQueue* shared) {
  std::erase_if(shared_, [&](const Shared& each) {
    if (each.queue != shared) return false;
    reserved_ -= each.entries;
    return true;
  });
}

}  // namespace basalt::env
#endif
