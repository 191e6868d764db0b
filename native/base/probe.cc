// SPDX-License-Identifier: Apache-2.0
#include "base/probe.h"

#include "base/assert.h"

namespace basalt {
namespace {

constexpr const char* names[] = {
#define BASALT_MARK_NAME(name, text) #name,
    BASALT_MARKS(BASALT_MARK_NAME)
#undef BASALT_MARK_NAME
};
constexpr const char* texts[] = {
#define BASALT_MARK_TEXT(name, text) text,
    BASALT_MARKS(BASALT_MARK_TEXT)
#undef BASALT_MARK_TEXT
};

// Empty in every program but tests.
std::atomic<MarkTable*>& installed() {
  static std::atomic<MarkTable*> table{nullptr};
  return table;
}

}  // namespace

const char* mark_name(Mark mark) {
  return names[static_cast<size_t>(mark)];
}
const char* mark_text(Mark mark) {
  return texts[static_cast<size_t>(mark)];
}

void reach(Mark mark) {
  MarkTable* table = installed().load(std::memory_order_relaxed);
  if (table == nullptr) return;
  table->counts[static_cast<size_t>(mark)].fetch_add(1, std::memory_order_relaxed);
}

CountMarks::CountMarks(MarkTable& table) {
  BASALT_ASSERT(installed().exchange(&table) == nullptr);
}
CountMarks::~CountMarks() {
  installed().store(nullptr);
}
bool CountMarks::any() {
  return installed().load() != nullptr;
}

}  // namespace basalt
