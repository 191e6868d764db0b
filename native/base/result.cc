// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

namespace basalt {

const char* errc_name(Errc code) {
  switch (code) {
    case Errc::invalid_argument:
      return "invalid_argument";
    case Errc::not_found:
      return "not_found";
    case Errc::exists:
      return "exists";
    case Errc::busy:
      return "busy";
    case Errc::no_space:
      return "no_space";
    case Errc::no_memory:
      return "no_memory";
    case Errc::io:
      return "io";
    case Errc::permission:
      return "permission";
    case Errc::unsupported:
      return "unsupported";
    case Errc::corrupt:
      return "corrupt";
    case Errc::fenced:
      return "fenced";
    case Errc::timed_out:
      return "timed_out";
    case Errc::closed:
      return "closed";
    case Errc::unreachable:
      return "unreachable";
  }
  return "unknown";
}

}  // namespace basalt
