// SPDX-License-Identifier: Apache-2.0
// Goal: the real env keeps the contract of env.h on both file backends. Method: real loopback sockets, real files in a
// temporary folder, a reactor on a thread of its own.
#include "env/linux/linux_env.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "runtime/reactor.h"

namespace basalt::env {
namespace {

class LinuxEnvTest : public ::testing::TestWithParam<PollerKind> {
 protected:
  void SetUp() override {
    char name[] = "/var/tmp/basalt-env-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder = name;
    auto made = env->make_poller({GetParam()});
    if (!made.ok() && GetParam() == PollerKind::io_uring) GTEST_SKIP() << made.error().message;
    ASSERT_TRUE(made.ok());
    poller = std::move(made).value();
  }
  void TearDown() override {
    poller.reset();
    const std::string command = "rm -rf " + folder;
    ASSERT_EQ(system(command.c_str()), 0);
  }
  template <class F>
  bool poll_until(F&& condition, Duration limit = seconds(10)) {
    const Instant end = env->now() + limit;
    while (!condition()) {
      if (env->now() > end) return false;
      if (poller->poll() == 0) poller->wait(env->now() + milliseconds(20));
    }
    return true;
  }
  int file_io(BlockFile& file, FileIo::Type type, uint64_t offset, void* data, uint64_t length, bool fua = false) {
    Iovec iov{data, length};
    FileIo io;
    io.type = type;
    io.fua = fua;
    io.offset_bytes = offset;
    io.length_bytes = length;
    io.iov = &iov;
    io.iov_count = data == nullptr ? 0 : 1;
    bool done = false;
    io.context = &done;
    io.run = [](Work* work) { *static_cast<bool*>(static_cast<FileIo*>(work)->context) = true; };
    file.submit(&io);
    EXPECT_FALSE(done) << "completed inside submit";
    EXPECT_TRUE(poll_until([&] { return done; }));
    return io.error;
  }

  std::unique_ptr<Env> env = make_linux_env();
  std::unique_ptr<Poller> poller;
  std::string folder;
};

INSTANTIATE_TEST_SUITE_P(Backends, LinuxEnvTest, ::testing::Values(PollerKind::io_uring, PollerKind::epoll),
                         [](const auto& info) { return info.param == PollerKind::epoll ? "threads" : "io_uring"; });

struct Flag : Work {
  bool set = false;
  Flag() {
    run = [](Work* work) { static_cast<Flag*>(work)->set = true; };
  }
};

TEST_P(LinuxEnvTest, BytesTravelOverLoopbackInOrder) {
  auto listener = poller->listen({Address::Family::ip, "127.0.0.1", 0});
  ASSERT_TRUE(listener.ok()) << listener.error().message;
  ASSERT_NE((*listener)->address().port, 0);
  Flag acceptable;
  (*listener)->arm_acceptable(&acceptable);
  auto client = poller->connect((*listener)->address());
  ASSERT_TRUE(client.ok());
  Flag connected;
  (*client)->arm_writable(&connected);
  ASSERT_TRUE(poll_until([&] { return acceptable.set && connected.set; }));
  ASSERT_TRUE((*client)->connect_result().ok());
  auto server = poller->adopt((*listener)->try_accept());

  std::vector<uint8_t> sent(8 << 20);
  env->random(sent.data(), sent.size());
  std::vector<uint8_t> received(sent.size());
  size_t sent_bytes = 0;
  size_t received_bytes = 0;
  Flag readable;
  Flag writable;
  ASSERT_TRUE(poll_until([&] {
    while (sent_bytes < sent.size()) {
      const Iovec iov{sent.data() + sent_bytes, sent.size() - sent_bytes};
      const Transfer moved = (*client)->try_send(&iov, 1);
      if (moved.state == Transfer::State::done) {
        sent_bytes += moved.count_bytes;
        continue;
      }
      EXPECT_EQ(moved.state, Transfer::State::would_block);
      (*client)->disarm();
      (*client)->arm_writable(&writable);
      break;
    }
    for (;;) {
      const Iovec iov{received.data() + received_bytes, received.size() - received_bytes};
      if (iov.length_bytes == 0) return true;
      const Transfer moved = server->try_recv(&iov, 1);
      if (moved.state != Transfer::State::done) break;
      received_bytes += moved.count_bytes;
    }
    server->disarm();
    server->arm_readable(&readable);
    return false;
  }));
  EXPECT_EQ(received, sent);
  client->reset();
  server->disarm();
  Flag ended;
  server->arm_readable(&ended);
  ASSERT_TRUE(poll_until([&] { return ended.set; }));
  char byte;
  const Iovec one{&byte, 1};
  EXPECT_EQ(server->try_recv(&one, 1).state, Transfer::State::closed);
}

TEST_P(LinuxEnvTest, ConnectingToNobodyIsUnreachable) {
  uint16_t free_port;
  {
    auto listener = poller->listen({Address::Family::ip, "127.0.0.1", 0});
    free_port = (*listener)->address().port;
  }
  auto client = poller->connect({Address::Family::ip, "127.0.0.1", free_port});
  if (!client.ok()) {
    EXPECT_EQ(client.error().code, Errc::unreachable);
    return;
  }
  Flag writable;
  (*client)->arm_writable(&writable);
  ASSERT_TRUE(poll_until([&] { return writable.set; }));
  EXPECT_EQ((*client)->connect_result().error().code, Errc::unreachable);
}

// No connection leads to a group of hosts: the kernel says so itself, as it does where there is no route.
TEST_P(LinuxEnvTest, ANetworkWithoutARouteIsNotAPeerThatRefuses) {
  auto client = poller->connect({Address::Family::ip, "224.0.0.1", 4420});
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.error().code, Errc::io) << client.error().message;
}

TEST_P(LinuxEnvTest, UnixSocketsAreForTheirUserAndStaleOnesAreReplaced) {
  const Address address{Address::Family::unix_path, folder + "/s", 0};
  auto listener = poller->listen(address);
  ASSERT_TRUE(listener.ok());
  struct stat info;
  ASSERT_EQ(stat(address.host.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(poller->listen(address).error().code, Errc::busy);
  // A killed process leaves its socket file behind.
  ASSERT_EQ(link(address.host.c_str(), (folder + "/stale").c_str()), 0);
  listener->reset();
  auto again = poller->listen({Address::Family::unix_path, folder + "/stale", 0});
  EXPECT_TRUE(again.ok()) << again.error().message;
}

// What a process of another user sees of a Unix socket.
enum Seen { seen_served = 10, seen_closed = 11, seen_no_way_in = 12, seen_error = 13 };

// In a child that is only forked: nothing but system calls.
[[noreturn]] void look_as(uid_t user, const sockaddr_un& address) {
  if (user != geteuid() &&
      (setgroups(0, nullptr) != 0 || setresgid(user, user, user) != 0 || setresuid(user, user, user) != 0)) {
    _exit(seen_error);
  }
  const int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    _exit(errno == EACCES ? seen_no_way_in : seen_error);
  }
  char byte = 0;
  const ssize_t got = read(client, &byte, 1);
  if (got == 1) _exit(seen_served);
  _exit(got == 0 || errno == ECONNRESET ? seen_closed : seen_error);
}

// The mode of the file is not all that there is: a descriptor of its folder, a mount or a copy of the mode may open a
// way.
TEST_P(LinuxEnvTest, UnixSocketsServeTheirOwnUserAndRootWhateverTheirMode) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  const std::string path = folder + "/s";
  auto listener = poller->listen({Address::Family::unix_path, path, 0});
  ASSERT_TRUE(listener.ok());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  ASSERT_EQ(chmod(folder.c_str(), 0755), 0);

  Flag acceptable;
  (*listener)->arm_acceptable(&acceptable);
  const auto seen_by = [&](uid_t user) {
    const pid_t child = fork();
    if (child == 0) look_as(user, address);
    std::unique_ptr<StreamSocket> served;
    int status = 0;
    const bool ended = poll_until([&] {
      if (acceptable.set) {
        acceptable.set = false;
        if (auto pending = (*listener)->try_accept()) {
          served = poller->adopt(std::move(pending));
          char greeting = 'x';
          const Iovec iov{&greeting, 1};
          EXPECT_EQ(served->try_send(&iov, 1).count_bytes, 1u);
        }
        (*listener)->arm_acceptable(&acceptable);
      }
      return waitpid(child, &status, WNOHANG) == child;
    });
    if (!ended) kill(child, SIGKILL);
    EXPECT_TRUE(ended);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  constexpr uid_t nobody = 65534;
  EXPECT_EQ(seen_by(nobody), seen_no_way_in);
  ASSERT_EQ(chmod(path.c_str(), 0777), 0);
  EXPECT_EQ(seen_by(nobody), seen_closed);
  EXPECT_EQ(seen_by(0), seen_served);
}

TEST_P(LinuxEnvTest, APortThatIsTakenIsBusy) {
  auto listener = poller->listen({Address::Family::ip, "127.0.0.1", 0});
  ASSERT_TRUE(listener.ok()) << listener.error().message;
  EXPECT_EQ(poller->listen((*listener)->address()).error().code, Errc::busy);
}

TEST_P(LinuxEnvTest, FilesKeepWhatWasWritten) {
  FileOptions options;
  options.path = folder + "/disk";
  options.create_bytes = 4 << 20;
  auto file = poller->open(options);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ((*file)->limits().size_bytes, 4u << 20);
  auto* data = static_cast<uint8_t*>(aligned_alloc(4096, 8192));
  std::memset(data, 0x5a, 8192);
  EXPECT_EQ(file_io(**file, FileIo::Type::write, 4096, data, 8192, true), 0);
  EXPECT_EQ(file_io(**file, FileIo::Type::flush, 0, nullptr, 0), 0);
  std::memset(data, 0, 8192);
  EXPECT_EQ(file_io(**file, FileIo::Type::read, 4096, data, 8192), 0);
  EXPECT_EQ(data[8191], 0x5a);
  EXPECT_EQ(file_io(**file, FileIo::Type::zero, 4096, nullptr, 4096), 0);
  EXPECT_EQ(file_io(**file, FileIo::Type::read, 4096, data, 8192), 0);
  EXPECT_EQ(data[0], 0);
  EXPECT_EQ(data[4096], 0x5a);
  EXPECT_NE(file_io(**file, FileIo::Type::read, 4 << 20, data, 4096), 0) << "behind the end";
  free(data);
}

// A request on a file in non-blocking mode ends with EAGAIN where io_uring would have to wait.
TEST_P(LinuxEnvTest, FilesAreInBlockingModeAndDirectUnlessBuffered) {
  for (const bool buffered : {false, true}) {
    FileOptions options;
    options.path = folder + (buffered ? "/buffered" : "/direct");
    options.create_bytes = 1 << 20;
    options.buffered = buffered;
    auto file = poller->open(options);
    if (!file.ok() && file.error().code == Errc::unsupported) GTEST_SKIP() << file.error().message;
    ASSERT_TRUE(file.ok()) << file.error().message;
    bool found = false;
    for (int fd = 0; fd < 1024; fd++) {
      char name[4096] = {};
      const std::string link = "/proc/self/fd/" + std::to_string(fd);
      if (readlink(link.c_str(), name, sizeof(name) - 1) <= 0 || options.path != name) continue;
      found = true;
      const int flags = fcntl(fd, F_GETFL);
      EXPECT_EQ(flags & O_NONBLOCK, 0);
      EXPECT_EQ((flags & O_DIRECT) != 0, !buffered);
    }
    EXPECT_TRUE(found);
  }
}

TEST_P(LinuxEnvTest, AFileInUseMissingOrTakenIsRefusedExactly) {
  FileOptions options;
  options.path = folder + "/disk";
  EXPECT_EQ(poller->open(options).error().code, Errc::not_found);
  options.create_bytes = 1 << 20;
  auto file = poller->open(options);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(poller->open(options).error().code, Errc::exists);
  options.create_bytes = 0;
  EXPECT_EQ(poller->open(options).error().code, Errc::busy);
  FileOptions directory;
  directory.path = folder;
  EXPECT_FALSE(poller->open(directory).ok());
}

// What a child has between fork and exec: the same open file under another descriptor.
TEST_P(LinuxEnvTest, AFileThatWasClosedCanBeOpenedAtOnceWhateverAForkedChildStillHolds) {
  FileOptions options;
  options.path = folder + "/disk";
  options.create_bytes = 1 << 20;
  auto file = poller->open(options);
  ASSERT_TRUE(file.ok());
  int held = -1;
  for (int fd = 0; fd < 1024 && held < 0; fd++) {
    char name[4096] = {};
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    if (readlink(link.c_str(), name, sizeof(name) - 1) > 0 && options.path == name) held = dup(fd);
  }
  ASSERT_GE(held, 0);
  options.create_bytes = 0;
  EXPECT_EQ(poller->open(options).error().code, Errc::busy);
  *file = nullptr;
  EXPECT_TRUE(poller->open(options).ok());
  close(held);
}

TEST_P(LinuxEnvTest, WakeEndsAWait) {
  std::thread other([&] {
    usleep(20'000);
    poller->wake();
  });
  const Instant before = env->now();
  poller->wait(env->now() + seconds(10));
  EXPECT_LT((env->now() - before).ns, seconds(9).ns);
  other.join();
}

TEST(LinuxReactor, MessagesTimersAndSleepWorkAcrossThreads) {
  auto env = make_linux_env();
  Arena arena(64 << 20);
  Reactor reactor(*env, arena, {});
  ASSERT_TRUE(reactor.init().ok());
  auto loop = env->start(reactor, {"reactor", -1});
  struct Message : Work {
    std::atomic<int> count{0};
    Reactor* reactor = nullptr;
    Timer timer;
  } message;
  message.reactor = &reactor;
  for (int i = 1; i <= 20; i++) {
    message.run = [](Work* work) { static_cast<Message*>(work)->count++; };
    reactor.post(&message);
    const Instant end = env->now() + seconds(10);
    while (message.count < i && env->now() < end)
      usleep(i % 2 == 0 ? 0 : 1000);
    ASSERT_EQ(message.count, i);
  }
  reactor.stop();
  loop.reset();
}

TEST(LinuxReactor, AnIdleReactorSleeps) {
  auto env = make_linux_env();
  Arena arena(64 << 20);
  Reactor reactor(*env, arena, {});
  ASSERT_TRUE(reactor.init().ok());
  auto loop = env->start(reactor, {"reactor", -1});
  rusage before;
  rusage after;
  getrusage(RUSAGE_SELF, &before);
  usleep(300'000);
  getrusage(RUSAGE_SELF, &after);
  const auto us = [](const rusage& usage) {
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000L + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
  };
  EXPECT_LT(us(after) - us(before), 100'000) << "CPU time of an idle third of a second";
  reactor.stop();
  loop.reset();
}

// A folder of its own for files with modes.
class SecretFile : public ::testing::Test {
 protected:
  SecretFile() { BASALT_ASSERT(mkdtemp(folder_) != nullptr); }
  ~SecretFile() override {
    for (const std::string& path : made_)
      unlink(path.c_str());
    rmdir(folder_);
  }
  std::string make(const std::string& name, const std::string& text, mode_t mode) {
    const std::string path = std::string(folder_) + "/" + name;
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
    BASALT_ASSERT(file >= 0 && write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    BASALT_ASSERT(fchmod(file, mode) == 0);
    close(file);
    made_.push_back(path);
    return path;
  }
  Errc refused(const std::string& path) {
    const auto read = make_linux_env()->read_secret_file(path);
    EXPECT_FALSE(read.ok()) << path;
    if (read.ok()) return Errc::io;
    EXPECT_EQ(read.error().message.find("canary"), std::string::npos);
    return read.error().code;
  }

  char folder_[32] = "/tmp/basalt-secret-XXXXXX";
  std::vector<std::string> made_;
};

TEST_F(SecretFile, IsReadWhenOnlyItsOwnerCan) {
  for (const mode_t mode : {0600, 0400, 0700}) {
    const auto read = make_linux_env()->read_secret_file(make(std::to_string(mode), "canary\n", mode));
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(read.value(), "canary\n");
  }
}

TEST_F(SecretFile, IsRefusedWhenOthersCouldReadIt) {
  for (const mode_t mode : {0640, 0604, 0660, 0601, 0620})
    EXPECT_EQ(refused(make(std::to_string(mode), "canary", mode)), Errc::permission);
}

TEST_F(SecretFile, IsARegularFileByItsOwnNameAndSmall) {
  const std::string good = make("good", "canary", 0600);
  const std::string link = std::string(folder_) + "/link";
  ASSERT_EQ(symlink(good.c_str(), link.c_str()), 0);
  made_.push_back(link);
  EXPECT_EQ(refused(link), Errc::permission);
  EXPECT_EQ(refused(folder_), Errc::permission);
  EXPECT_EQ(refused("/dev/null"), Errc::permission);
  EXPECT_EQ(refused(good + "x"), Errc::not_found);
  EXPECT_EQ(refused("relative"), Errc::invalid_argument);
  EXPECT_EQ(refused(""), Errc::invalid_argument);
  EXPECT_EQ(refused(make("empty", "", 0600)), Errc::invalid_argument);
  EXPECT_EQ(refused(make("large", std::string(4097, 'x'), 0600)), Errc::invalid_argument);
}

}  // namespace
}  // namespace basalt::env
