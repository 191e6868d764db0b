// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_image.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace basalt::env {
namespace {

uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// 0 for zeroes: a page that was never written and one full of zeroes are the same contents.
uint64_t digest_of(const uint8_t* bytes, size_t length_bytes) {
  uint64_t lanes[4] = {1, 2, 3, 4};
  uint64_t any = 0;
  for (size_t at = 0; at < length_bytes; at += sizeof(lanes)) {
    uint64_t words[4];
    std::memcpy(words, bytes + at, sizeof(words));
    for (int i = 0; i < 4; i++) {
      any |= words[i];
      lanes[i] = (lanes[i] ^ words[i]) * 0x9fb21c651e98df25;
      lanes[i] ^= lanes[i] >> 29;
    }
  }
  if (any == 0) return 0;
  return mix(lanes[0] ^ mix(lanes[1] ^ mix(lanes[2] ^ mix(lanes[3]))));
}

}  // namespace

void SimImage::resize(uint64_t size_bytes) {
  if (size_bytes < size_bytes_) zero(size_bytes, size_bytes_ - size_bytes);
  size_bytes_ = size_bytes;
  const uint64_t pages = (size_bytes + page_bytes - 1) / page_bytes;
  chunks_.resize((pages + chunk_pages - 1) / chunk_pages);
}

const SimImage::Page* SimImage::page(uint64_t number) const {
  const auto& chunk = chunks_[number / chunk_pages];
  return chunk == nullptr ? nullptr : chunk->pages[number % chunk_pages].get();
}

std::shared_ptr<SimImage::Page>& SimImage::own_slot(uint64_t number) {
  std::shared_ptr<Chunk>& chunk = chunks_[number / chunk_pages];
  if (chunk == nullptr) {
    chunk = std::make_shared<Chunk>();
  } else if (chunk.use_count() > 1) {
    chunk = std::make_shared<Chunk>(*chunk);
  }
  chunk->digested = false;
  return chunk->pages[number % chunk_pages];
}

SimImage::Page& SimImage::own_page(uint64_t number) {
  std::shared_ptr<Page>& slot = own_slot(number);
  if (slot == nullptr) {
    slot = std::make_shared<Page>();
    slot->bytes.fill(0);
    allocated_pages_++;
  } else if (slot.use_count() > 1) {
    slot = std::make_shared<Page>(*slot);
  }
  slot->digested = false;
  return *slot;
}

void SimImage::read(uint64_t offset_bytes, void* out, size_t length_bytes) const {
  BASALT_ASSERT(offset_bytes + length_bytes <= size_bytes_);
  auto* to = static_cast<uint8_t*>(out);
  while (length_bytes > 0) {
    const uint64_t within = offset_bytes % page_bytes;
    const size_t take = std::min<uint64_t>(length_bytes, page_bytes - within);
    if (const Page* from = page(offset_bytes / page_bytes); from != nullptr) {
      std::memcpy(to, from->bytes.data() + within, take);
    } else {
      std::memset(to, 0, take);
    }
    to += take;
    offset_bytes += take;
    length_bytes -= take;
  }
}

void SimImage::write(uint64_t offset_bytes, const void* data, size_t length_bytes) {
  BASALT_ASSERT(offset_bytes + length_bytes <= size_bytes_);
  const auto* from = static_cast<const uint8_t*>(data);
  while (length_bytes > 0) {
    const uint64_t within = offset_bytes % page_bytes;
    const size_t take = std::min<uint64_t>(length_bytes, page_bytes - within);
    std::memcpy(own_page(offset_bytes / page_bytes).bytes.data() + within, from, take);
    from += take;
    offset_bytes += take;
    length_bytes -= take;
  }
}

void SimImage::zero(uint64_t offset_bytes, uint64_t length_bytes) {
  BASALT_ASSERT(offset_bytes + length_bytes <= size_bytes_);
  while (length_bytes > 0) {
    const uint64_t number = offset_bytes / page_bytes;
    const uint64_t within = offset_bytes % page_bytes;
    const uint64_t take = std::min<uint64_t>(length_bytes, page_bytes - within);
    if (page(number) != nullptr) {
      if (take == page_bytes) {
        own_slot(number).reset();
        allocated_pages_--;
      } else {
        std::memset(own_page(number).bytes.data() + within, 0, take);
      }
    }
    offset_bytes += take;
    length_bytes -= take;
  }
}

uint64_t SimImage::missing_pages(uint64_t offset_bytes, uint64_t length_bytes) const {
  uint64_t missing = 0;
  for (uint64_t number = offset_bytes / page_bytes; number * page_bytes < offset_bytes + length_bytes; number++)
    missing += page(number) == nullptr ? 1 : 0;
  return missing;
}

uint64_t SimImage::digest() const {
  uint64_t sum = mix(size_bytes_);
  for (size_t c = 0; c < chunks_.size(); c++) {
    const Chunk* chunk = chunks_[c].get();
    if (chunk == nullptr) continue;
    if (!chunk->digested) {
      chunk->digest = 0;
      for (size_t p = 0; p < chunk_pages; p++) {
        const Page* at = chunk->pages[p].get();
        if (at == nullptr) continue;
        if (!at->digested) {
          at->digest = digest_of(at->bytes.data(), page_bytes);
          at->digested = true;
        }
        if (at->digest != 0) chunk->digest += mix(at->digest + p);
      }
      chunk->digested = true;
    }
    if (chunk->digest != 0) sum += mix(chunk->digest ^ mix(c));
  }
  return sum;
}

}  // namespace basalt::env
