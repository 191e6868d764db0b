// SPDX-License-Identifier: Apache-2.0
// Where tests find golden images and corpora. The environment variable wins over the compiled-in folder, because the
// suite also runs as another user, in a copy of the tree.
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>

namespace basalt::testing {

// `relative` counts from the checkout: source_path("native/bdev/lvol/testdata/v1.img").
inline std::string source_path(std::string_view relative) {
  const char* chosen = std::getenv("BASALT_SOURCE_DIR");
#ifdef BASALT_SOURCE_DIR
  const char* built_in = BASALT_SOURCE_DIR;
#else
  const char* built_in = ".";
#endif
  return std::string(chosen != nullptr ? chosen : built_in).append("/").append(relative);
}

}  // namespace basalt::testing
