// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/bdev_params.h"

namespace basalt::rpc {
namespace {

constexpr uint64_t device_bytes_max = uint64_t{8} << 50;
static_assert(device_bytes_max == safe_integer_max + 1);

uint32_t check_block_size(Fields& in, uint64_t bytes) {
  if (bytes != 512 && bytes != 1024 && bytes != 2048 && bytes != 4096) {
    in.refuse("block_size", "must be 512, 1024, 2048 or 4096, is " + std::to_string(bytes));
    return 4096;
  }
  return static_cast<uint32_t>(bytes);
}

}  // namespace

uint32_t read_block_size(Fields& in, uint32_t otherwise) {
  return check_block_size(in, in.natural_or("block_size", otherwise));
}

Geometry read_geometry(Fields& in) {
  Geometry geometry;
  geometry.count_blocks = in.natural("num_blocks", {.min = 1});
  geometry.block_size_bytes = check_block_size(in, in.natural("block_size"));
  if (geometry.count_blocks > device_bytes_max / geometry.block_size_bytes) {
    in.refuse("num_blocks", "times block_size must be at most 8 PiB");
  }
  return geometry;
}

Task<RpcResult> delete_bdev(Engine& engine, JsonValue params, std::string product) {
  Fields in(params);
  std::string name = in.string("name");
  if (auto error = in.error()) co_return *error;
  auto destroying = engine.bdevs().destroy(std::move(name), std::move(product));
  auto destroyed = co_await destroying;
  if (!destroyed) co_return std::move(destroyed).error();
  co_return done();
}

}  // namespace basalt::rpc
