// SPDX-License-Identifier: Apache-2.0
// A killed process runs no destructors: what a simulated one owned is abandoned. LeakSanitizer is told so, for what was
// allocated below the simulation; leaks of anything else still fail the run.

extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
  return "leak:basalt::sim::\n";
}
