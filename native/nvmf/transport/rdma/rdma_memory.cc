// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/rdma/rdma_memory.h"

namespace basalt::nvmf {

RdmaMemory::Answer RdmaMemory::find(const void* base, size_t length_bytes, uint32_t* key) {
  if (arena_.unmap_count() != seen_unmap_count_) [[unlikely]]
    drop_unmapped();
  Mapping* mapping = known(base);
  if (mapping == nullptr) {
    Answer answer = Answer::foreign;
    mapping = add(base, &answer);
    if (mapping == nullptr) return answer;
  }
  const size_t offset = static_cast<size_t>(static_cast<const char*>(base) - static_cast<char*>(mapping->span.base));
  if (length_bytes > mapping->span.bytes - offset) return Answer::foreign;  // reaches over the end
  *key = mapping->region->key();
  return Answer::found;
}

RdmaMemory::Mapping* RdmaMemory::known(const void* base) {
  const auto found = by_slab_.find(slab_of(base));
  return found == by_slab_.end() ? nullptr : found->second;
}

RdmaMemory::Mapping* RdmaMemory::add(const void* base, Answer* answer) {
  const Arena::Found span = arena_.find(base);
  if (span.id == 0) return nullptr;
  auto region = device_.register_memory(span.base, span.bytes);
  if (!region) {
    *answer = Answer::refused;
    why_refused_ = region.error().message;
    return nullptr;
  }
  mappings_.push_back(std::make_unique<Mapping>(Mapping{span, std::move(region).value()}));
  Mapping* mapping = mappings_.back().get();
  for (size_t at = 0; at < span.bytes; at += Arena::slab_bytes)
    by_slab_[slab_of(static_cast<char*>(span.base) + at)] = mapping;
  return mapping;
}

void RdmaMemory::drop(size_t index) {
  const Arena::Found& span = mappings_[index]->span;
  for (size_t at = 0; at < span.bytes; at += Arena::slab_bytes)
    by_slab_.erase(slab_of(static_cast<char*>(span.base) + at));
  mappings_[index] = std::move(mappings_.back());
  mappings_.pop_back();
}

// Another mapping may have the address by now: its pages are others, so the key must not outlive the old one.
void RdmaMemory::drop_unmapped() {
  seen_unmap_count_ = arena_.unmap_count();
  for (size_t i = mappings_.size(); i > 0; i--) {
    const Arena::Found& span = mappings_[i - 1]->span;
    if (arena_.find(span.base).id != span.id) drop(i - 1);
  }
}

void RdmaMemory::forget(const void* base) {
  for (size_t i = 0; i < mappings_.size(); i++) {
    if (mappings_[i]->span.base == base) return drop(i);
  }
}

}  // namespace basalt::nvmf
