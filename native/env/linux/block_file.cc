// SPDX-License-Identifier: Apache-2.0
#include "env/linux/block_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "base/bytes.h"

namespace basalt::env {
namespace {

Error file_error(const char* what, const std::string& path, int error) {
  Errc code = Errc::io;
  if (error == ENOENT) code = Errc::not_found;
  if (error == EEXIST) code = Errc::exists;
  if (error == EACCES || error == EPERM || error == EROFS) code = Errc::permission;
  if (error == EWOULDBLOCK || error == EBUSY) code = Errc::busy;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) code = Errc::no_space;
  if (error == EISDIR || error == ENOTDIR || error == ENAMETOOLONG || error == ELOOP) code = Errc::invalid_argument;
  return {code, path + ": " + what + ": " + std::strerror(error)};
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

class LinuxBlockFile final : public BlockFile {
 public:
  LinuxBlockFile(FileBackend& backend, Descriptor descriptor, const FileLimits& limits)
      : backend_(backend), descriptor_(std::move(descriptor)), limits_(limits) {}
  // Closing alone is not enough: a child that another thread has just forked keeps the lock until it calls exec.
  ~LinuxBlockFile() override { flock(descriptor_.fd(), LOCK_UN); }
  const FileLimits& limits() const override { return limits_; }
  void submit(FileIo* io) override { backend_.submit(descriptor_.fd(), io); }

 private:
  FileBackend& backend_;
  Descriptor descriptor_;
  FileLimits limits_;
};

// The file and its name are durable before anyone relies on them.
Outcome size_new_file(int fd, const FileOptions& options) {
  if (ftruncate(fd, static_cast<off_t>(options.create_bytes)) != 0 || fsync(fd) != 0) {
    const int error = errno;
    unlink(options.path.c_str());
    return file_error("set its size", options.path, error);
  }
  const size_t slash = options.path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : options.path.substr(0, slash + 1);
  const Descriptor parent(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.fd() < 0 || fsync(parent.fd()) != 0) return file_error("fsync of its folder", options.path, errno);
  return success();
}

Result<FileLimits> read_limits(int fd, const FileOptions& options) {
  struct stat info;
  if (fstat(fd, &info) != 0) return file_error("stat", options.path, errno);
  FileLimits limits{static_cast<uint64_t>(info.st_size), 512, 4096};
  if (S_ISBLK(info.st_mode)) {
    uint64_t size_bytes = 0;
    int sector_bytes = 512;
    if (ioctl(fd, BLKGETSIZE64, &size_bytes) != 0 || ioctl(fd, BLKSSZGET, &sector_bytes) != 0) {
      return file_error("read its geometry", options.path, errno);
    }
    limits = {size_bytes, static_cast<uint32_t>(sector_bytes), static_cast<uint32_t>(sector_bytes)};
  } else if (!S_ISREG(info.st_mode)) {
    return Error{Errc::invalid_argument, options.path + ": neither a regular file nor a block device"};
  }
#ifdef STATX_DIOALIGN
  struct statx extended {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) == 0 && (extended.stx_mask & STATX_DIOALIGN) != 0 &&
      extended.stx_dio_offset_align != 0) {
    limits.memory_alignment_bytes = extended.stx_dio_mem_align;
    limits.offset_alignment_bytes = extended.stx_dio_offset_align;
  }
#endif
  if (options.buffered) limits.memory_alignment_bytes = limits.offset_alignment_bytes = 1;
  return limits;
}

}  // namespace

Result<std::unique_ptr<BlockFile>> open_block_file(FileBackend& backend, const FileOptions& options) {
  int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (options.read_only ? O_RDONLY : O_RDWR);
  if (!options.buffered) flags |= O_DIRECT;
  if (options.create_bytes != 0) flags |= O_CREAT | O_EXCL;
  struct stat before;
  if (options.create_bytes == 0 && stat(options.path.c_str(), &before) == 0 && S_ISBLK(before.st_mode)) {
    flags = (flags & ~O_NOFOLLOW) | O_EXCL;  // device names are often links; O_EXCL: not mounted, not claimed
  }
  Descriptor descriptor(open(options.path.c_str(), flags, 0600));
  if (descriptor.fd() < 0) {
    if (errno == EINVAL && !options.buffered) {
      if (options.create_bytes != 0) unlink(options.path.c_str());
      return Error{Errc::unsupported,
                   options.path + ": its file system refuses O_DIRECT; ask for buffered mode by name"};
    }
    return file_error("open", options.path, errno);
  }
  // O_NONBLOCK was for the open alone, which must not hang on a FIFO: with it, io_uring answers EAGAIN instead of
  // waiting on file systems that cannot do without (overlays, network file systems).
  if (fcntl(descriptor.fd(), F_SETFL, flags & (O_DIRECT | O_RDWR)) != 0)
    return file_error("set its mode", options.path, errno);
  if (flock(descriptor.fd(), LOCK_EX | LOCK_NB) != 0)
    return file_error("lock (in use by another process)", options.path, errno);
  if (options.create_bytes != 0) {
    auto sized = size_new_file(descriptor.fd(), options);
    if (!sized) return std::move(sized).error();
  }
  auto limits = read_limits(descriptor.fd(), options);
  if (!limits) return std::move(limits).error();
  return std::unique_ptr<BlockFile>(std::make_unique<LinuxBlockFile>(backend, std::move(descriptor), *limits));
}

}  // namespace basalt::env
