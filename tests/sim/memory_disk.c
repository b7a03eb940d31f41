/* memory_disk.c — the calls by which a store reaches its files, answered from memory.
 * Owns:   open, close, pread, pwrite, write, writev, lseek, ftruncate, fstat, mmap, munmap, msync,
 *         fsync, fdatasync, fcntl, flock and getpid, in front of those of the C library.
 * Holds:  a file is private memory at an address of its own, and every mapping of it is that
 *         address: what is written is seen by who has it mapped, as with a file.
 * Why:    getpid answers that of the first process: LMDB clears its readers by process, and a
 *         forked one goes on as the process that it was.
 * Not:    who forks, and why (tiny_search.cc).
 */
#define _GNU_SOURCE
#include "tests/sim/memory_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct file {
  dev_t device;
  ino_t inode;
  char* bytes; /* NULL: the slot is free */
  off_t size;
};

enum { kDescriptors = 1024 };

static int is_on;
static pid_t first_process;
static struct file files[CM_MEMORY_DISK_FILES];
static struct file* opened[kDescriptors]; /* by descriptor */
static off_t positions[kDescriptors];

static void give_up(const char* why) {
  fprintf(stderr, "memory disk: %s\n", why);
  abort();
}

void cm_memory_disk_on(void) {
  first_process = (pid_t)syscall(SYS_getpid);
  is_on = 1;
}

static struct file* file_of(int fd) { return fd >= 0 && fd < kDescriptors ? opened[fd] : NULL; }

static int is_ours(const char* path) {
  const size_t length = strlen(path);
  return length > 9 && (strcmp(path + length - 9, "/data.mdb") == 0 ||
                        strcmp(path + length - 9, "/lock.mdb") == 0);
}

static struct file* find(int fd) {
  struct stat info;
  struct file* unused = NULL;
  if (syscall(SYS_fstat, fd, &info) != 0) give_up("fstat");
  for (int index = 0; index < CM_MEMORY_DISK_FILES; ++index) {
    struct file* file = &files[index];
    if (file->bytes == NULL) {
      if (unused == NULL) unused = file;
    } else if (file->device == info.st_dev && file->inode == info.st_ino) {
      return file;
    }
  }
  if (unused == NULL) give_up("too many files");
  unused->bytes =
      (char*)syscall(SYS_mmap, NULL, (size_t)CM_MEMORY_DISK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L);
  if (unused->bytes == MAP_FAILED) give_up("no memory");
  unused->device = info.st_dev;
  unused->inode = info.st_ino;
  unused->size = 0;
  return unused;
}

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
    va_list rest;
    va_start(rest, flags);
    mode = va_arg(rest, mode_t);
    va_end(rest);
  }
  const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  if (fd < 0 || !is_on || !is_ours(path)) return fd;
  if (fd >= kDescriptors) give_up("too many descriptors");
  opened[fd] = find(fd);
  positions[fd] = 0;
  return fd;
}

int close(int fd) {
  if (file_of(fd) != NULL) opened[fd] = NULL;
  return (int)syscall(SYS_close, fd);
}

ssize_t pread(int fd, void* bytes, size_t size, off_t offset) {
  const struct file* file = file_of(fd);
  if (file == NULL) return syscall(SYS_pread64, fd, bytes, size, offset);
  if (offset >= file->size) return 0;
  if (size > (size_t)(file->size - offset)) size = (size_t)(file->size - offset);
  memcpy(bytes, file->bytes + offset, size);
  return (ssize_t)size;
}

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  struct file* file = file_of(fd);
  if (file == NULL) return syscall(SYS_pwrite64, fd, bytes, size, offset);
  const off_t end = offset + (off_t)size;
  if (end > CM_MEMORY_DISK_BYTES) give_up("a file is full");
  memcpy(file->bytes + offset, bytes, size);
  if (end > file->size) file->size = end;
  return (ssize_t)size;
}

ssize_t write(int fd, const void* bytes, size_t size) {
  if (file_of(fd) == NULL) return syscall(SYS_write, fd, bytes, size);
  positions[fd] += (off_t)size;
  return pwrite(fd, bytes, size, positions[fd] - (off_t)size);
}

ssize_t writev(int fd, const struct iovec* pieces, int count) {
  if (file_of(fd) == NULL) return syscall(SYS_writev, fd, pieces, count);
  ssize_t done = 0;
  for (int index = 0; index < count; ++index) {
    done += write(fd, pieces[index].iov_base, pieces[index].iov_len);
  }
  return done;
}

off_t lseek(int fd, off_t offset, int whence) {
  const struct file* file = file_of(fd);
  if (file == NULL) return syscall(SYS_lseek, fd, offset, whence);
  const off_t from = whence == SEEK_SET ? 0 : whence == SEEK_END ? file->size : positions[fd];
  return positions[fd] = from + offset;
}

int ftruncate(int fd, off_t size) {
  struct file* file = file_of(fd);
  if (file == NULL) return (int)syscall(SYS_ftruncate, fd, size);
  if (size > CM_MEMORY_DISK_BYTES) give_up("a file is full");
  if (size < file->size) memset(file->bytes + size, 0, (size_t)(file->size - size));
  file->size = size;
  return 0;
}

int fstat(int fd, struct stat* info) {
  const int result = (int)syscall(SYS_fstat, fd, info);
  const struct file* file = file_of(fd);
  if (result == 0 && file != NULL) info->st_size = file->size;
  return result;
}

/* What programs of an older C library, such as Debian's liblmdb, call instead. */
int __fxstat(int version, int fd, struct stat* info) {
  (void)version;
  return fstat(fd, info);
}

void* mmap(void* address, size_t size, int protection, int flags, int fd, off_t offset) {
  const struct file* file = (flags & MAP_ANONYMOUS) != 0 ? NULL : file_of(fd);
  if (file == NULL) {
    return (void*)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
  }
  if (size > CM_MEMORY_DISK_BYTES || offset != 0) give_up("a mapping that is not of the whole");
  return file->bytes;
}

static int is_mapping(const void* address) {
  for (int index = 0; index < CM_MEMORY_DISK_FILES; ++index) {
    if (files[index].bytes != NULL && files[index].bytes == address) return 1;
  }
  return 0;
}

int munmap(void* address, size_t size) {
  return is_mapping(address) ? 0 : (int)syscall(SYS_munmap, address, size);
}

int msync(void* address, size_t size, int flags) {
  return is_mapping(address) ? 0 : (int)syscall(SYS_msync, address, size, flags);
}

int fsync(int fd) { return file_of(fd) != NULL ? 0 : (int)syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return file_of(fd) != NULL ? 0 : (int)syscall(SYS_fdatasync, fd); }

int fcntl(int fd, int command, ...) {
  va_list rest;
  va_start(rest, command);
  void* const argument = va_arg(rest, void*);
  va_end(rest);
  if (file_of(fd) != NULL && (command == F_SETLK || command == F_SETLKW)) return 0;
  if (file_of(fd) != NULL && command == F_GETLK) {
    ((struct flock*)argument)->l_type = F_UNLCK;
    return 0;
  }
  return (int)syscall(SYS_fcntl, fd, command, argument);
}

int flock(int fd, int operation) { return is_on ? 0 : (int)syscall(SYS_flock, fd, operation); }

pid_t getpid(void) { return is_on ? first_process : (pid_t)syscall(SYS_getpid); }
