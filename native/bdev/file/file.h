// SPDX-License-Identifier: Apache-2.0
// file: a regular file or block device through env (O_DIRECT). Flush reaches stable media; unmap and write-zeroes
// deallocate where the file can. Pieces of memory that the device cannot take as they lie go through a bounce buffer.
#pragma once

#include <memory>

#include "base/pool.h"
#include "bdev/bdev.h"

namespace basalt::bdev {

struct FileBdevOptions {
  std::string name;
  Uuid uuid;
  std::string path;
  uint32_t block_size_bytes = 4096;
  uint64_t create_bytes = 0;  // not 0: the file is made, with this size, and must not exist
  bool read_only = false;
  bool buffered = false;  // page cache, where O_DIRECT is refused
};

class FileBdev final : public Bdev {
 public:
  // On the home reactor (opening blocks it: a management operation).
  static Result<std::unique_ptr<FileBdev>> open(Reactor& home, const FileBdevOptions& options);
  ~FileBdev() override;
  void submit(Io* io) override;
  Task<Outcome> close() override;

 private:
  struct Op;
  using Bdev::Bdev;
  bool aligned(const Io& io) const;
  void start(Op* op);
  void start_bounced(Op* op);
  void finish(Op* op);
  static void file_done(Work* work);

  std::unique_ptr<env::BlockFile> file_;
  std::unique_ptr<Pool<Op>> ops_;
};

}  // namespace basalt::bdev
