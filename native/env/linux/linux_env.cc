// SPDX-License-Identifier: Apache-2.0
#include "env/linux/linux_env.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "base/assert.h"
#include "env/linux/poller.h"

namespace basalt::env {
namespace {

int64_t read_clock_ns(clockid_t id) {
  timespec now;
  clock_gettime(id, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

class LoopThread final : public LoopHandle {
 public:
  LoopThread(Loop& loop, const LoopOptions& options) {
    // Signals belong to the process's main thread: block them while the new thread inherits the mask.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([&loop] { loop.run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(thread_.native_handle(), options.name.substr(0, 15).c_str());
    if (options.core >= 0) {
      cpu_set_t cores;
      CPU_ZERO(&cores);
      CPU_SET(static_cast<unsigned>(options.core), &cores);
      pthread_setaffinity_np(thread_.native_handle(), sizeof(cores), &cores);  // refused: run unpinned
    }
  }
  ~LoopThread() override { thread_.join(); }

 private:
  std::thread thread_;
};

constexpr size_t secret_file_bytes_max = 4096;

Error file_error(const std::string& path, int error) {
  const Errc code =
      error == ENOENT ? Errc::not_found : (error == EACCES || error == ELOOP ? Errc::permission : Errc::io);
  return {code, path + ": " + (error == ELOOP ? "is a symbolic link" : std::strerror(error))};
}

// What may be wrong with an open secret file; nullptr: nothing.
const char* unsafe(const struct stat& file) {
  if (!S_ISREG(file.st_mode)) return "is not a regular file";
  if (file.st_uid != geteuid() && file.st_uid != 0) return "belongs to another user";
  if ((file.st_mode & 077) != 0) return "must be accessible to its owner only (mode 0600)";
  return nullptr;
}

Result<std::string> read_secret(int file, const std::string& path) {
  struct stat about;
  if (fstat(file, &about) != 0) return file_error(path, errno);
  if (const char* problem = unsafe(about)) return Error{Errc::permission, path + ": " + problem};
  std::string text(secret_file_bytes_max + 1, '\0');
  size_t length = 0;
  while (length < text.size()) {
    const ssize_t got = read(file, text.data() + length, text.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return file_error(path, errno);
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  if (length == 0 || length > secret_file_bytes_max) {
    explicit_bzero(text.data(), text.size());
    return Error{Errc::invalid_argument, path + ": must hold 1 to 4096 bytes"};
  }
  text.resize(length);
  return text;
}

class LinuxEnv final : public Env {
 public:
  LinuxEnv() {
    rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
      files.rlim_cur = files.rlim_max;
      setrlimit(RLIMIT_NOFILE, &files);
    }
  }

  Instant now() const override { return {read_clock_ns(CLOCK_BOOTTIME)}; }
  int64_t wall_ms() const override { return read_clock_ns(CLOCK_REALTIME) / 1'000'000; }

  void random(void* out, size_t length_bytes) override {
    char* at = static_cast<char*>(out);
    while (length_bytes > 0) {
      const ssize_t got = getrandom(at, length_bytes, 0);
      if (got < 0) continue;  // interrupted
      at += got;
      length_bytes -= static_cast<size_t>(got);
    }
  }

  Result<std::unique_ptr<Poller>> make_poller(const PollerOptions& options) override {
    return make_linux_poller(*this, options);
  }

  std::unique_ptr<LoopHandle> start(Loop& loop, const LoopOptions& options) override {
    return std::make_unique<LoopThread>(loop, options);
  }

  Result<std::string> read_secret_file(const std::string& path) override {
    if (path.empty() || path[0] != '/') return Error{Errc::invalid_argument, path + ": must be an absolute path"};
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return file_error(path, errno);
    auto text = read_secret(file, path);
    close(file);
    return text;
  }
};

}  // namespace

std::unique_ptr<Env> make_linux_env() {
  return std::make_unique<LinuxEnv>();
}

}  // namespace basalt::env
