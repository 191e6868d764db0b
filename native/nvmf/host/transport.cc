// SPDX-License-Identifier: Apache-2.0
#include "nvmf/host/transport.h"

#include <algorithm>
#include <cstring>

namespace basalt::nvmf {
namespace {

// What a queue keeps for commands that nobody waits for. With more of them it is of no use to anybody.
constexpr size_t disowned_max = 64;
constexpr size_t disowned_bytes_max = size_t{16} << 20;

void copy_data(const HostCommand& command, uint8_t* to) {
  uint64_t skip = command.iov_offset_bytes;
  size_t left = command.data_bytes;
  for (uint16_t i = 0; i < command.iov_count && left > 0; i++) {
    const Iovec& piece = command.iov[i];
    if (skip >= piece.length_bytes) {
      skip -= piece.length_bytes;
      continue;
    }
    const size_t take = std::min<size_t>(left, piece.length_bytes - skip);
    std::memcpy(to, static_cast<const uint8_t*>(piece.base) + skip, take);
    to += take;
    left -= take;
    skip = 0;
  }
}

}  // namespace

HostQueue::~HostQueue() {
  BASALT_ASSERT(outstanding_count_ == 0);
  reactor_.cancel(&age_timer_);
}

void HostQueue::submit(HostCommand* command) {
  command->submitted = reactor_.now();
  command->lost = false;
  command->completion = {};
  outstanding_count_++;
  BASALT_ASSERT(!drained_);  // closed but not drained: it is lost with the others
  if (command->unaged) {
    unaged_.push_back(command);
  } else {
    outstanding_.push_back(command);
    if (!age_timer_.armed() && !closed_) {
      age_timer_.queue = this;
      age_timer_.run = [](Work* work) { static_cast<AgeTimer*>(work)->queue->check_age(); };
      reactor_.arm(&age_timer_, command->submitted + timeout_);
    }
  }
  if (!closed_) start(command);
}

void HostQueue::set_timeout(Duration timeout) {
  timeout_ = timeout;
  if (!age_timer_.armed()) return;
  reactor_.arm(&age_timer_, reactor_.now());  // looks again
}

void HostQueue::check_age() {
  const HostCommand* oldest = outstanding_.front();
  if (oldest == nullptr || closed_) return;
  if (oldest->submitted + timeout_ > reactor_.now()) {
    reactor_.arm(&age_timer_, oldest->submitted + timeout_);
  } else if (owner_ != nullptr) {
    owner_->queue_timed_out(*this, *oldest);
  }
}

void HostQueue::complete(HostCommand* command) {
  BASALT_ASSERT(outstanding_count_ > 0);
  outstanding_count_--;
  command->node.unlink();
  command->done(command);
}

void HostQueue::close() {
  if (closed_) return;
  closed_ = true;
  reactor_.cancel(&age_timer_);
  end_connection();
}

void HostQueue::lose(Error reason) {
  if (closed_) return;
  close();
  if (owner_ != nullptr) owner_->queue_lost(*this, reason);
}

void HostQueue::end_as_lost(HostCommand* command) {
  if (command->wait_node.linked()) command->wait_node.unlink();
  command->lost = true;
  command->completion = {};
  command->set_status(nvme::status::host_path_error);
  complete(command);
}

// Stands in for a command whose submitter has gone.
struct HostQueue::Disowned : HostCommand {
  HostQueue* queue = nullptr;
  std::unique_ptr<uint8_t[]> bytes;
  Iovec piece;
};

bool HostQueue::disown(HostCommand* command) {
  if (closed_) return false;
  if (!command->wait_node.linked()) {
    const size_t bytes = command->data_bytes;
    if (disowned_count_ >= disowned_max || disowned_bytes_ + bytes > disowned_bytes_max) return false;
    auto stand_in = std::make_unique<Disowned>();
    stand_in->queue = this;
    stand_in->command = command->command;
    stand_in->direction = command->direction;
    stand_in->fuse = command->fuse;
    stand_in->unaged = true;
    stand_in->submitted = command->submitted;
    stand_in->data_bytes = command->data_bytes;
    if (bytes > 0) {
      stand_in->bytes = std::make_unique<uint8_t[]>(bytes);
      stand_in->piece = {stand_in->bytes.get(), bytes};
      stand_in->iov = &stand_in->piece;
      stand_in->iov_count = 1;
      if (command->direction == nvme::DataDirection::host_to_controller) {
        copy_data(*command, stand_in->bytes.get());
      }
    }
    stand_in->done = [](HostCommand* done) {
      const std::unique_ptr<Disowned> ended(static_cast<Disowned*>(done));
      ended->queue->disowned_count_--;
      ended->queue->disowned_bytes_ -= ended->data_bytes;
    };
    const Replaced replaced = replace(command, stand_in.get());
    if (replaced == Replaced::no) return false;
    if (replaced == Replaced::sent) {
      disowned_count_++;
      disowned_bytes_ += bytes;
      outstanding_count_++;
      unaged_.push_back(stand_in.release());
    }
  }
  end_as_lost(command);
  return true;
}

void HostQueue::all_lost() {
  BASALT_ASSERT(closed_ && !drained_);
  // A done handler may submit again: those are lost too, in this same loop.
  for (;;) {
    HostCommand* command = outstanding_.front();
    if (command == nullptr) command = unaged_.front();
    if (command == nullptr) break;
    end_as_lost(command);
  }
  drained_ = true;
  if (owner_ != nullptr) owner_->queue_drained(*this);
}

}  // namespace basalt::nvmf
