// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/rpc_result.h"

namespace basalt::rpc {

int errc_to_code(Errc errc) {
  switch (errc) {
    case Errc::invalid_argument:
      return -22;
    case Errc::not_found:
      return -2;
    case Errc::exists:
      return -17;
    case Errc::busy:
      return -16;
    case Errc::no_space:
      return -28;
    case Errc::no_memory:
      return -12;
    case Errc::io:
      return -5;
    case Errc::permission:
      return -13;
    case Errc::unsupported:
      return -95;
    case Errc::corrupt:
      return -74;
    case Errc::fenced:
      return -116;
    case Errc::timed_out:
      return -110;
    case Errc::closed:
      return -108;
    case Errc::unreachable:
      return -111;
  }
  return -22;
}

}  // namespace basalt::rpc
