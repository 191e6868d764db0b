// SPDX-License-Identifier: Apache-2.0
#include "env/linux/poller.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "env/linux/block_file.h"
#include "env/linux/file_backend.h"
#include "env/linux/linux_rdma.h"
#include "env/linux/socket.h"

namespace basalt::env {
namespace {

constexpr int events_per_poll_max = 64;
constexpr unsigned hot_sockets_max = 8;
constexpr unsigned idle_tries_max = 64;     // silent tries after which a hot socket cools down
constexpr unsigned epoll_every_polls = 16;  // while hot sockets make progress, ask epoll only now and then

class LinuxPoller final : public Poller, public SocketPoller {
 public:
  LinuxPoller(Env& env, std::unique_ptr<FileBackend> files) : env_(env), files_(std::move(files)) {
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    add_eventfd(wake_fd_, &wake_fd_);
    add_eventfd(files_->event_fd(), nullptr);
  }
  ~LinuxPoller() override {
    rdma_.reset();
    BASALT_ASSERT(ready_.empty() && hot_.empty());
    close(wake_fd_);
    close(epoll_fd_);
  }

  size_t poll() override {
    progress_count_ = 0;
    size_t count = files_->poll();
    const size_t rdma_count = rdma_ == nullptr ? 0 : rdma_->poll();
    try_hot_sockets();
    if (progress_count_ + rdma_count == 0 || ++polls_since_epoll_ >= epoll_every_polls) {
      polls_since_epoll_ = 0;
      collect(0, nullptr);
    }
    count += rdma_count + run_ready();
    count += files_->poll();  // what this poll's work submitted goes to the kernel now
    return count + progress_count_;
  }

  void wait(Instant deadline) override {
    hot_.for_each([](Watched* watched) { watched->hot_node.unlink(); });
    hot_count_ = 0;
    if (!ready_.empty()) return;
    if (rdma_ != nullptr && !rdma_->prepare_sleep()) return;
    if (!files_->prepare_sleep()) {
      files_->finish_sleep();
      return;
    }
    const Instant now = env_.now();
    timespec until{};
    const bool forever = deadline == Instant::never();
    if (!forever) {
      const int64_t ns = deadline > now ? (deadline - now).ns : 0;
      until = {ns / 1'000'000'000, ns % 1'000'000'000};
    }
    collect(-1, forever ? nullptr : &until);
    files_->finish_sleep();
  }

  void wake() override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t put = write(wake_fd_, &one, sizeof(one));
  }

  void give_way() override { sched_yield(); }

  Result<std::unique_ptr<StreamListener>> listen(const Address& address) override {
    return listen_socket(*this, address);
  }
  Result<std::unique_ptr<StreamSocket>> connect(const Address& address) override {
    return connect_socket(*this, address);
  }
  std::unique_ptr<StreamSocket> adopt(std::unique_ptr<PendingSocket> pending) override {
    return adopt_socket(*this, std::move(pending));
  }
  Result<std::unique_ptr<BlockFile>> open(const FileOptions& options) override {
    return open_block_file(*files_, options);
  }
  // Asked again while there is none: an adapter may come.
  Rdma* rdma() override {
    if (rdma_ != nullptr) return rdma_.get();
    auto opened = open_linux_rdma(*this);
    if (!opened) {
      no_rdma_ = NoRdma(std::move(opened).error());
      return &no_rdma_;
    }
    rdma_ = std::move(opened).value();
    return rdma_.get();
  }
  std::string description() const override { return std::string("epoll + ") + files_->name(); }

  void watch(Watched& watched) override {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = &watched;
    BASALT_ASSERT(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, watched.fd(), &event) == 0);
  }
  void unwatch(Watched& watched) override {
    epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, watched.fd(), nullptr);
    for (int i = next_event_; i < event_count_; i++) {
      if (events_[i].data.ptr == &watched) events_[i].data.ptr = nullptr;
    }
    hot_count_ = 0;
    hot_.for_each([this](Watched*) { hot_count_++; });
  }
  void make_ready(Watched& watched) override {
    if (!watched.ready_node.linked()) ready_.push_back(&watched);
  }
  void make_hot(Watched& watched) override {
    watched.idle_tries = 0;
    if (watched.hot_node.linked() || hot_count_ >= hot_sockets_max) return;
    hot_.push_back(&watched);
    hot_count_++;
  }
  void note_progress() override { progress_count_++; }

 private:
  void add_eventfd(int fd, void* tag) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = tag;
    BASALT_ASSERT(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0);
  }

  void try_hot_sockets() {
    for (unsigned i = hot_count_; i > 0 && !hot_.empty(); i--) {
      Watched* watched = hot_.pop_front();
      if (++watched->idle_tries > idle_tries_max) {
        hot_count_--;
        continue;
      }
      hot_.push_back(watched);
      if (watched->read_armed()) watched->run_speculatively();
    }
  }

  void collect(int timeout_ms, const timespec* until) {
    event_count_ = timeout_ms == 0 ? epoll_wait(epoll_fd_, events_, events_per_poll_max, 0) : sleep_in_epoll(until);
    for (next_event_ = 0; next_event_ < event_count_;) {
      const epoll_event event = events_[next_event_++];
      if (event.data.ptr == nullptr) continue;
      if (event.data.ptr == &wake_fd_) {
        uint64_t count;
        [[maybe_unused]] const ssize_t got = read(wake_fd_, &count, sizeof(count));
        continue;
      }
      const bool broken = (event.events & (EPOLLERR | EPOLLHUP)) != 0;
      static_cast<Watched*>(event.data.ptr)
          ->on_events(broken || (event.events & (EPOLLIN | EPOLLRDHUP)) != 0, broken || (event.events & EPOLLOUT) != 0);
    }
    event_count_ = next_event_ = 0;
  }

  int sleep_in_epoll(const timespec* until) {
    const int count = epoll_pwait2(epoll_fd_, events_, events_per_poll_max, until, nullptr);
    if (count >= 0 || errno != ENOSYS) return count < 0 ? 0 : count;
    // Kernels before 5.11: whole milliseconds, rounded up.
    const int64_t ms = until == nullptr ? -1 : until->tv_sec * 1000 + (until->tv_nsec + 999'999) / 1'000'000;
    const int coarse = epoll_wait(epoll_fd_, events_, events_per_poll_max, static_cast<int>(ms));
    return coarse < 0 ? 0 : coarse;
  }

  size_t run_ready() {
    List<Watched, &Watched::ready_node> now;
    now.splice_back(ready_);
    size_t count = 0;
    while (Watched* watched = now.pop_front()) {
      watched->run_ready();
      count++;
    }
    return count;
  }

  Env& env_;
  std::unique_ptr<FileBackend> files_;
  std::unique_ptr<LinuxRdma> rdma_;  // from the first use of it
  NoRdma no_rdma_;
  int epoll_fd_;
  int wake_fd_;
  List<Watched, &Watched::ready_node> ready_;
  List<Watched, &Watched::hot_node> hot_;
  unsigned hot_count_ = 0;
  unsigned polls_since_epoll_ = 0;
  size_t progress_count_ = 0;
  epoll_event events_[events_per_poll_max];
  int event_count_ = 0;
  int next_event_ = 0;
};

}  // namespace

Result<std::unique_ptr<Poller>> make_linux_poller(Env& env, const PollerOptions& options) {
  std::unique_ptr<FileBackend> files;
  if (options.kind != PollerKind::epoll) files = make_uring_backend();
  if (files == nullptr && options.kind == PollerKind::io_uring) {
    return Error{Errc::unsupported, "io_uring is forbidden or too old here; use poller 'automatic' or 'epoll'"};
  }
  if (files == nullptr) files = make_thread_backend();
  return std::unique_ptr<Poller>(std::make_unique<LinuxPoller>(env, std::move(files)));
}

}  // namespace basalt::env
