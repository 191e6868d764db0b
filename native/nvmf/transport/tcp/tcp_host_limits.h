// SPDX-License-Identifier: Apache-2.0
// Sizes of the TCP host queue.
#pragma once

#include <cstddef>
#include <cstdint>

namespace basalt::nvmf {

constexpr uint32_t tcp_host_data_bytes_max = 4u << 20;  // of one C2HData PDU; each is also held to its command's length
constexpr size_t tcp_host_input_bytes = 64 * 1024;
constexpr size_t tcp_host_batch_iov_max = 1020;
constexpr size_t tcp_host_direct_iov_max = 64;               // pieces of one receive in place
constexpr uint32_t tcp_host_admin_capsule_bytes_max = 8192;  // admin and Fabrics commands: given by the specification
constexpr size_t tcp_host_receive_turn_bytes_max = size_t{2} << 20;  // then others get their turn

}  // namespace basalt::nvmf
