// SPDX-License-Identifier: Apache-2.0
#include "env/rdma.h"

namespace basalt::env {

const char* rdma_status_name(RdmaStatus status) {
  switch (status) {
    case RdmaStatus::success:
      return "success";
    case RdmaStatus::flushed:
      return "flushed";
    case RdmaStatus::local_error:
      return "local error";
    case RdmaStatus::remote_access_error:
      return "remote access error";
    case RdmaStatus::remote_error:
      return "remote error";
    case RdmaStatus::retry_exceeded:
      return "the peer does not answer";
    case RdmaStatus::receiver_not_ready:
      return "the peer posts no receives";
  }
  return "?";
}

}  // namespace basalt::env
