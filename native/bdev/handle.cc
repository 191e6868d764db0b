// SPDX-License-Identifier: Apache-2.0
#include "bdev/handle.h"

namespace basalt::bdev {
namespace {

// On the user's reactor again: give the Io back as it was submitted.
void arrive(Work* work) {
  Io* io = static_cast<Io*>(work);
  io->done = io->forwarded.done;
  io->done(io);
}

// On the home reactor: the bdev is done; travel back.
void forward_done(Io* io) {
  io->run = arrive;
  io->forwarded.reactor->post(io);
}

void submit_at_home(Work* work) {
  Io* io = static_cast<Io*>(work);
  static_cast<Bdev*>(io->forwarded.target)->submit(io);
}

}  // namespace

void Handle::forward(Io* io) const {
  // One hop only: parents hold Handles on their own children, so the fields are free here.
  io->forwarded = {io->done, user_, bdev_};
  io->done = forward_done;
  io->run = submit_at_home;
  bdev_->home().post(io);
}

}  // namespace basalt::bdev
