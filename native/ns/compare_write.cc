// SPDX-License-Identifier: Apache-2.0
// Compare and Write as one step. It begins when nothing in flight touches its blocks; from then on what touches them is
// kept out until it has ended. Two that overlap run in the order of their arrival.
//
// It costs the others nothing while there is none. The gate is asked at its begin and again before its write: a
// takeover in between drains the read and refuses the write.
#include <cstring>

#include "ns/namespace.h"

namespace basalt::ns {
namespace {

bool overlap(const bdev::Io& a, const bdev::Io& b) {
  if (a.type == bdev::IoType::flush || b.type == bdev::IoType::flush) return false;
  return a.offset_blocks < b.offset_blocks + b.count_blocks && b.offset_blocks < a.offset_blocks + a.count_blocks;
}

bool is_as_expected(const CompareWrite& request) {
  const auto* read = static_cast<const char*>(request.io.iov[0].base);
  for (uint16_t i = 0; i < request.expected_count; i++) {
    const Iovec& piece = request.expected[i];
    if (std::memcmp(piece.base, read, piece.length_bytes) != 0) return false;
    read += piece.length_bytes;
  }
  return true;
}

CompareWrite* request_of(bdev::Io* io) {
  return static_cast<CompareWrite*>(io->context);
}

}  // namespace

void Namespace::compare_and_write(CompareWrite* request, Reactor& user) {
  BASALT_ASSERT(request->io.iov_count == 1);
  request->owner = request->io.owner = this;
  request->user = request->io.user = &user;
  request->fua = request->io.fua;
  request->running = false;
  request->run = [](Work* work) {
    auto* arrived = static_cast<CompareWrite*>(work);
    arrived->owner->begin(arrived);
  };
  if (&user == &home()) {
    begin(request);
  } else {
    home().post(request);
  }
}

void Namespace::begin(CompareWrite* request) {
  in_flight_count_++;
  compares_.push_back(request);
  run_compares();
}

// Of those that run, and of those that came before.
bool Namespace::must_wait(const CompareWrite& request) {
  bool waits = false;
  in_flight_.for_each([&](NsIo* io) { waits |= overlap(*io, request.io); });
  for (CompareWrite* earlier = compares_.front(); earlier != &request; earlier = compares_.next(earlier))
    waits |= overlap(earlier->io, request.io);
  return waits;
}

bool Namespace::is_kept_out(const NsIo& io) {
  for (CompareWrite* request = compares_.front(); request != nullptr; request = compares_.next(request)) {
    if (overlap(request->io, io)) return true;
  }
  return false;
}

void Namespace::run_compares() {
  CompareWrite* request = compares_.front();
  while (request != nullptr) {
    CompareWrite* following = compares_.next(request);
    if (!request->running && !must_wait(*request)) {
      NsIo& io = request->io;
      io.type = bdev::IoType::write;
      const nvme::Status status = judge(io.host, Access::write);
      if (!status.ok()) {
        end(request, status, nvme::status::failed_fused.dnr());
        return;  // it ran the others
      }
      request->running = true;
      io.type = bdev::IoType::read;
      io.fua = false;
      io.context = request;
      admit(&io, [](bdev::Io* done) {
        CompareWrite* read = request_of(done);
        read->owner->read_ended(read);
      });
    }
    request = following;
  }
}

void Namespace::read_ended(CompareWrite* request) {
  NsIo& io = request->io;
  Drain* drain = io.drain;
  device_ended(&io);
  io.type = bdev::IoType::write;
  nvme::Status compare = io.status;
  if (compare.ok() && !is_as_expected(*request)) compare = nvme::status::compare_failure.dnr();
  const nvme::Status gate = judge(io.host, Access::write);
  if (compare.ok() && gate.ok()) {
    io.fua = request->fua;
    io.iov = request->data;
    io.iov_count = request->data_count;
    admit(&io, [](bdev::Io* done) {
      CompareWrite* written = request_of(done);
      written->owner->write_ended(written);
    });
  }
  if (drain != nullptr && --drain->count == 0 && drain->waiter) std::exchange(drain->waiter, {}).resume();
  if (!compare.ok()) {
    end(request, compare, nvme::status::failed_fused.dnr());
  } else if (!gate.ok()) {
    end(request, gate, nvme::status::failed_fused.dnr());
  }
}

void Namespace::write_ended(CompareWrite* request) {
  Drain* drain = request->io.drain;
  device_ended(&request->io);
  if (drain != nullptr && --drain->count == 0 && drain->waiter) std::exchange(drain->waiter, {}).resume();
  end(request, nvme::status::success, request->io.status);
}

void Namespace::end(CompareWrite* request, nvme::Status compare, nvme::Status write) {
  compares_.remove(request);
  request->compare_status = compare;
  request->write_status = write;
  request->run = [](Work* work) {
    auto* ended = static_cast<CompareWrite*>(work);
    ended->done(ended);
  };
  if (request->user == &home()) {
    home().defer(request);
  } else {
    request->user->post(request);
  }
  // In the order of their arrival; what is still kept out comes back here.
  List<NsIo, &NsIo::flight_node> waited;
  waited.splice_back(kept_out_);
  while (NsIo* io = waited.pop_front())
    dispatch(io);
  run_compares();
  leave();
}

}  // namespace basalt::ns
