// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/lvol.h"

#include <cstring>

#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {

Lvol::Lvol(LvStore& store, uint32_t id, std::string name, const Uuid& uuid, uint64_t count_blocks)
    : Bdev(store.reactor_), store_(store), id_(id), map_(store.layout_, store.pages_, store.planes_, id, count_blocks) {
  info_.name = std::move(name);
  info_.product = "lvol";
  info_.uuid = uuid;
  info_.block_size_bytes = lvs::block_bytes;
  info_.count_blocks = count_blocks;
  info_.volatile_cache = true;
  info_.memory_alignment_bytes = store.device_.handle().info().memory_alignment_bytes;
  page_.type = lvs::BlockType::lvol;
}

Lvol::~Lvol() {
  BASALT_ASSERT(!busy());
  if (page_.dirty_node.linked()) page_.dirty_node.unlink();
}

Task<Outcome> Lvol::close() {
  BASALT_ASSERT(op_count_ == 0);
  co_return success();
}

Task<Outcome> Lvol::set_attribute(std::string value) {
  if (value.size() > attribute_bytes_max) {
    co_return Error{Errc::invalid_argument, info_.name + ": an attribute has at most 1024 bytes"};
  }
  if (deleting_) co_return Error{Errc::closed, info_.name + ": being deleted"};
  control_count_++;
  lvs::Record record{.type = lvs::RecordType::attribute, .lvol_id = id_, .uuid = {}, .text = value};
  Outcome outcome = co_await store_.record_durably(record);
  control_count_--;
  co_return outcome;
}

uint64_t Lvol::allocated_bytes() const {
  return uint64_t{map_.mapped_count()} * store_.layout_.cluster_bytes;
}

void Lvol::write_page(uint8_t* block) const {
  auto& out = *reinterpret_cast<lvs::LvolPage*>(block);
  out.size_bytes = size_bytes();
  std::memcpy(out.uuid, info_.uuid.bytes.data(), 16);
  out.name_length_bytes = static_cast<uint16_t>(info_.name.size());
  out.attribute_length_bytes = static_cast<uint16_t>(attribute_.size());
  std::memcpy(out.name, info_.name.data(), info_.name.size());
  std::memcpy(out.attribute, attribute_.data(), attribute_.size());
}

}  // namespace basalt::bdev
