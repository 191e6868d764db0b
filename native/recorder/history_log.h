// SPDX-License-Identifier: Apache-2.0
// HistoryLog: the history of a run (docs/history-format.md) as it grows, in a regular file or on a raw disk, and the
// clock of its times.
// Thread: one reactor.
// Invariants: - what was added before saved() was asked for is in the file when saved() is through: a client that is
//               killed later leaves it there (`durable`: a machine that loses power does, too)
//             - lines reach the file in the order in which they were added; what a kill cuts short is no whole line,
//               and nobody has relied on it
//             - behind its end there are zeroes, or what is left of one write that a kill cut short; anything else
//               there, and nothing is begun or gone on with
//             - a run that goes on with a history begins later than every moment in it, whatever the machine's clock
//               did meanwhile, and uses no name of a write again
#pragma once

#include <coroutine>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/task.h"
#include "check/history.h"
#include "recorder/file_request.h"
#include "runtime/reactor.h"

namespace basalt::recorder {

struct HistoryLogOptions {
  std::string path;
  bool disk = false;     // a raw disk: a zero byte ends the history there
  bool resume = false;   // go on with what is there, otherwise nothing may be there
  bool durable = false;  // on stable media when saved
  uint64_t volume = 0;   // of the stamps; with `resume` the history has it
};

class HistoryLog {
 public:
  static Task<Result<std::unique_ptr<HistoryLog>>> open(Reactor& reactor, const HistoryLogOptions& options);

  // A moment of the history.
  int64_t now_ns() const { return (reactor_.env().now() - started_).ns + begins_ns_; }
  uint64_t volume() const { return history_.volume; }
  bool resumed() const { return resumed_; }
  uint64_t next_id() { return next_id_++; }
  uint64_t next_sequence(uint64_t writer) { return ++sequences_[writer]; }

  void announce(const check::Op& op);  // a write or zeroing, before it is sent
  void add(const check::Op& op);
  size_t unsaved_bytes() const { return added_.size(); }
  // False: the file failed; problem() says how, and nothing is saved any more.
  Task<bool> saved();
  const std::string& problem() const { return problem_; }

 private:
  HistoryLog(Reactor& reactor, const HistoryLogOptions& options, std::unique_ptr<env::BlockFile> file);
  Task<Outcome> load();
  Task<Result<std::string>> read_text();
  Task<Outcome> look_behind(uint64_t at, size_t length, uint64_t zero);
  Outcome go_on(const std::string& text);
  Task<Outcome> erase_left();
  void append(const std::string& text);
  Task<bool> write_out();
  std::string full_text() const;

  Reactor& reactor_;
  const HistoryLogOptions options_;
  const std::unique_ptr<env::BlockFile> file_;
  const uint64_t unit_bytes_;  // that the file is written in
  const Instant started_;
  check::History history_;  // its head alone
  bool resumed_ = false;
  int64_t begins_ns_ = 0;
  uint64_t next_id_ = 1;
  std::map<uint64_t, uint64_t> sequences_;  // the newest of each writer

  std::string added_;       // not yet given to the file
  uint64_t added_end_ = 0;  // since the beginning of the run
  uint64_t saved_end_ = 0;
  uint64_t end_bytes_ = 0;       // of the text in the file
  uint64_t left_end_bytes_ = 0;  // of what a kill left behind that, when it was opened; 0: nothing
  AlignedBuffer buffer_;         // begins at a whole unit of the file, with what the file holds of it
  bool writing_ = false;
  std::vector<std::coroutine_handle<>> waiters_;  // for the write under way
  std::string problem_;
};

}  // namespace basalt::recorder
