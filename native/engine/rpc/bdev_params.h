// SPDX-License-Identifier: Apache-2.0
// What the methods of several bdev types share.
#pragma once

#include <string>

#include "engine/engine.h"
#include "engine/rpc/fields.h"

namespace basalt::rpc {

struct Geometry {
  uint32_t block_size_bytes = 4096;
  uint64_t count_blocks = 0;
};

// num_blocks and block_size (512, 1024, 2048 or 4096); at most 8 PiB in all.
Geometry read_geometry(Fields& in);
uint32_t read_block_size(Fields& in, uint32_t otherwise);

// `{name}`: destroys the bdev when it is of that type and unused.
Task<RpcResult> delete_bdev(Engine& engine, JsonValue params, std::string product);

}  // namespace basalt::rpc
