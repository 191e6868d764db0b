// SPDX-License-Identifier: Apache-2.0
// basalt_check [--cut-short] FILE...: judges histories (docs/history-format.md); "-" is the standard input. Exit codes:
// 0 nothing is wrong, 1 a violation, 2 a file that is no history or wrong usage; the highest of all files counts.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>

#include "check/checker.h"
#include "check/history_file.h"

namespace {

using namespace basalt::check;

int judge(const std::string& path, const HistoryReading& reading) {
  std::ifstream file;
  if (path != "-") {
    file.open(path);
    if (!file) {
      std::fprintf(stderr, "%s: cannot be opened\n", path.c_str());
      return 2;
    }
  }
  auto history = read_history(path == "-" ? std::cin : file, reading);
  if (!history.ok()) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), history.error().message.c_str());
    return 2;
  }
  const Verdict verdict = check(history.value());
  const size_t devices = history.value().devices.size();
  std::printf("%s: %zu operations, %zu device%s: %s\n", path.c_str(), history.value().ops.size(), devices,
              devices == 1 ? "" : "s", verdict.violation ? "violation" : "nothing is wrong");
  if (verdict.undecided_count > 0) {
    std::printf("  %llu of %llu blocks were too large for the exact search: only the rules judged them\n",
                static_cast<unsigned long long>(verdict.undecided_count),
                static_cast<unsigned long long>(verdict.block_count));
  }
  if (verdict.violation) std::printf("%s\n", verdict.violation->explanation.c_str());
  return verdict.violation ? 1 : 0;
}

}  // namespace

int main(int count, char** texts) {
  HistoryReading reading;
  int first = 1;
  if (count > 1 && std::string(texts[1]) == "--cut-short") {
    reading.cut_bytes_max = history_write_bytes_max;
    first = 2;
  }
  if (count <= first || std::string(texts[first]).starts_with("--")) {
    std::fprintf(stderr,
                 "usage: basalt_check [--cut-short] FILE...   (docs/history-format.md; - is the standard input)\n");
    return 2;
  }
  int code = 0;
  for (int i = first; i < count; i++)
    code = std::max(code, judge(texts[i], reading));
  return code;
}
