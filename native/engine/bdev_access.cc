// SPDX-License-Identifier: Apache-2.0
#include "engine/bdev_access.h"

#include <algorithm>

namespace basalt {

void BdevAccess::submit(Transfer* transfer) {
  transfer->access = this;
  transfer->run = [](Work* work) {
    auto* self = static_cast<Transfer*>(work);
    self->access->begin(self);
  };
  bdev_.home().post(transfer);
}

void BdevAccess::begin(Transfer* transfer) {
  transfer->status = nvme::status::success;
  transfer->started_bytes = 0;
  if (refusing_ || !gate_.enter()) {
    transfer->status = nvme::status::host_aborted;
    transfer->done(transfer);
    return;
  }
  feed(transfer);
}

// Keeps up to pieces_max Ios going; after an error no further ones start.
void BdevAccess::feed(Transfer* transfer) {
  const bool flush = transfer->type == Transfer::Type::flush;
  for (Transfer::Piece& piece : transfer->pieces) {
    const uint64_t left = transfer->length_bytes - transfer->started_bytes;
    if (!transfer->status.ok() || (left == 0 && !flush)) break;
    if (flush && transfer->started_bytes > 0) break;
    if (piece.busy) continue;
    const uint64_t take = std::min(left, bdev::io_bytes_max);
    piece.transfer = transfer;
    piece.busy = true;
    piece.iov = {transfer->memory + transfer->started_bytes, static_cast<size_t>(take)};
    piece.io.type = flush                                    ? bdev::IoType::flush
                    : transfer->type == Transfer::Type::read ? bdev::IoType::read
                                                             : bdev::IoType::write;
    piece.io.iov = flush ? nullptr : &piece.iov;
    piece.io.iov_count = flush ? 0 : 1;
    piece.io.offset_blocks = flush ? 0 : (transfer->offset_bytes + transfer->started_bytes) / info_.block_size_bytes;
    piece.io.count_blocks = static_cast<uint32_t>(take / info_.block_size_bytes);
    piece.io.context = &piece;
    piece.io.done = [](bdev::Io* io) {
      auto* ended = static_cast<Transfer::Piece*>(io->context);
      ended->transfer->access->piece_done(ended);
    };
    transfer->started_bytes += flush ? 1 : take;
    transfer->in_flight++;
    bdev_.submit(&piece.io);
  }
}

void BdevAccess::piece_done(Transfer::Piece* piece) {
  Transfer* transfer = piece->transfer;
  piece->busy = false;
  transfer->in_flight--;
  if (!piece->io.status.ok() && transfer->status.ok()) transfer->status = piece->io.status;
  feed(transfer);
  if (transfer->in_flight == 0) end(transfer);
}

void BdevAccess::end(Transfer* transfer) {
  transfer->done(transfer);
  gate_.leave();  // may resume drain(), after which this is gone
}

Task<void> BdevAccess::drain() {
  refusing_ = true;
  auto closing = gate_.close();
  co_await closing;
}

}  // namespace basalt
