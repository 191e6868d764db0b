// SPDX-License-Identifier: Apache-2.0
// SimImage: the bytes of a simulated disk, shared between copies until one of them is written to: ten thousand crash
// states of one disk cost what they differ in. Never-written pages take no memory and read as zeroes.
// Thread: copies share pages without locks; all copies of one image belong to one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace basalt::env {

class SimImage {
 public:
  static constexpr size_t page_bytes = 4096;
  explicit SimImage(uint64_t size_bytes = 0) { resize(size_bytes); }

  void resize(uint64_t size_bytes);
  uint64_t size_bytes() const { return size_bytes_; }
  void read(uint64_t offset_bytes, void* out, size_t length_bytes) const;
  void write(uint64_t offset_bytes, const void* data, size_t length_bytes);
  void zero(uint64_t offset_bytes, uint64_t length_bytes);  // whole pages are given back

  uint64_t allocated_bytes() const { return allocated_pages_ * page_bytes; }
  // How many pages a write to the range would have to allocate.
  uint64_t missing_pages(uint64_t offset_bytes, uint64_t length_bytes) const;
  // The same for equal contents; each page is digested once, however many images share it.
  uint64_t digest() const;

 private:
  static constexpr size_t chunk_pages = 64;
  struct Page {
    std::array<uint8_t, page_bytes> bytes;
    mutable uint64_t digest = 0;
    mutable bool digested = false;
  };
  struct Chunk {
    std::array<std::shared_ptr<Page>, chunk_pages> pages;
    mutable uint64_t digest = 0;
    mutable bool digested = false;
  };
  const Page* page(uint64_t number) const;
  std::shared_ptr<Page>& own_slot(uint64_t number);  // in a chunk of this image alone
  Page& own_page(uint64_t number);

  uint64_t size_bytes_ = 0;
  uint64_t allocated_pages_ = 0;
  std::vector<std::shared_ptr<Chunk>> chunks_;
};

}  // namespace basalt::env
