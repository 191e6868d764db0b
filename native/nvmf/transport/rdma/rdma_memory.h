// SPDX-License-Identifier: Apache-2.0
// RdmaMemory: the arena's memory as one device may use it on one reactor. Mappings are registered when they are first
// used, whole, and given back when the arena has unmapped them, or with this object.
//
// Thread: the reactor's. Memory of others (vectors, stacks) is never registered: it is copied through a pool buffer.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "env/rdma.h"
#include "memory/arena.h"

namespace basalt::nvmf {

class RdmaMemory {
 public:
  enum class Answer : uint8_t {
    found,
    foreign,  // not the arena's
    refused,  // the machine or the device does not let it be registered
  };

  RdmaMemory(Arena& arena, env::RdmaDevice& device) : arena_(arena), device_(device) {}
  RdmaMemory(const RdmaMemory&) = delete;
  RdmaMemory& operator=(const RdmaMemory&) = delete;

  // The key for [base, base + length).
  Answer find(const void* base, size_t length_bytes, uint32_t* key);
  // Before an unmap of what was registered here.
  void forget(const void* base);
  // After Answer::refused: the device's words.
  const std::string& why_refused() const { return why_refused_; }
  size_t region_count() const { return mappings_.size(); }
  env::RdmaDevice& device() const { return device_; }

 private:
  struct Mapping {
    Arena::Found span;
    std::unique_ptr<env::RdmaRegion> region;
  };
  Mapping* known(const void* base);
  Mapping* add(const void* base, Answer* answer);
  void drop_unmapped();
  void drop(size_t index);
  static uintptr_t slab_of(const void* base) { return reinterpret_cast<uintptr_t>(base) / Arena::slab_bytes; }

  Arena& arena_;
  env::RdmaDevice& device_;
  uint64_t seen_unmap_count_ = 0;
  std::string why_refused_;
  std::vector<std::unique_ptr<Mapping>> mappings_;
  std::unordered_map<uintptr_t, Mapping*> by_slab_;
};

}  // namespace basalt::nvmf
