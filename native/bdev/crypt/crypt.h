// SPDX-License-Identifier: Apache-2.0
// crypt: encryption at rest over any bdev. Each block is one data unit of AES-XTS, its number the tweak (decision 009).
//
// A block of the bdev below that holds nothing but zeroes was never written, or was unmapped or zeroed: it reads as
// zeroes. No data encrypts to that but one plaintext per key and block number, which nobody who lacks the key can name;
// a write of it is refused (internal_error), so that what was acknowledged is always what is read.
//
// Reads decrypt where the caller wants the data. Writes are encrypted on their way into a buffer of the reactor's pool:
// the caller's memory is read once and never changed. When the pool has none, writes wait in order; one of them at a
// time goes on in pieces through a small buffer of this bdev's own, since what would free the pool's buffers may be
// writes that wait here.
//
// Thread: the home reactor.
// Invariants: - nothing but ciphertext and zeroes goes below
//             - flush, write_zeroes, unmap, FUA and every status pass as they are
#pragma once

#include <array>
#include <memory>

#include "bdev/child_io.h"
#include "bdev/handle.h"
#include "crypto/xts.h"

namespace basalt::bdev {

struct CryptOptions {
  std::string name;
  Uuid uuid;
};

class CryptBdev final : public Bdev, private SizeWatcher {
 public:
  static constexpr size_t reserve_bytes = size_t{64} << 10;

  static Result<std::unique_ptr<CryptBdev>> create(Reactor& home, const CryptOptions& options, Handle base,
                                                   crypto::XtsCipher cipher);
  ~CryptBdev() override;
  void submit(Io* io) override;
  Task<Outcome> close() override;
  Instant last_success_sent() const override { return base_.bdev().last_success_sent(); }

  size_t waiting_count() const { return waiting_count_; }

 private:
  struct Write;
  struct Waiter : BufferWaiter {
    CryptBdev* bdev = nullptr;
  };
  CryptBdev(Reactor& home, Handle base, crypto::XtsCipher cipher);

  void size_changed(Bdev& base) override;
  void pass(Io* io);
  static void child_done(Io* child);
  bool decrypt(const Io& io);
  bool decrypt_unit(uint64_t unit, uint8_t* data);

  void start_waiting();
  Buffer* take_bounce(size_t bytes);
  void start(Io* io, Buffer* bounce);
  bool encrypt_part(Write& write);
  void next_part(Write* write);
  static void part_done(Io* child);
  void end(Write* write, nvme::Status status, bool inside_submit);

  Handle base_;
  crypto::XtsCipher cipher_;
  ChildIoPool children_{child_io_count_max};
  std::unique_ptr<Pool<Write>> writes_;
  List<Io, &Io::node> waiting_;  // writes without a buffer, oldest first
  size_t waiting_count_ = 0;
  Waiter waiter_;
  Buffer* reserve_ = nullptr;
  bool reserve_busy_ = false;
  alignas(64) std::array<uint8_t, 4096> scratch_;  // a unit whose memory is in several pieces
};

}  // namespace basalt::bdev
