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
  void join_flush(Op* op);
  void start_flush();
  static void file_done(Work* work);
  static void flush_done(Work* work);

  std::unique_ptr<env::BlockFile> file_;
  std::unique_ptr<Pool<Op>> ops_;
  // One flush at a time: the kernel tells an error to one of several fdatasync calls only. Those that arrive meanwhile
  // share the next one. After a failure nothing is known to be on stable media any more, so all later ones fail too.
  env::FileIo flush_io_;
  bool flushing_ = false;
  bool flush_failed_ = false;
  WorkQueue flushes_joined_;   // their flush is at the kernel
  WorkQueue flushes_waiting_;  // for the next one
};

}  // namespace basalt::bdev
