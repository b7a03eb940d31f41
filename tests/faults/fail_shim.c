/* fail_shim.c — the calls that may fail, in front of those of the C library.
 * Owns:   malloc and its kin, writes, syncs, open, mmap, accept.
 * Holds:  the real work is done by system calls and by the C library's own allocator under its
 *         other names, so that no look-up happens inside a call.
 * Why:    whatever can fail will fail somewhere; each place is met once, in order.
 * Not:    who arms it (fail_shim.h).
 */
#define _GNU_SOURCE
#include "tests/faults/fail_shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

extern void* __libc_malloc(size_t size);
extern void* __libc_calloc(size_t count, size_t size);
extern void* __libc_realloc(void* at, size_t size);
extern void* __libc_memalign(size_t align, size_t size);

static struct cm_fail_board own;
static struct cm_fail_board* board = &own;

void cm_fail_use(struct cm_fail_board* to) { board = to; }

__attribute__((constructor)) static void begin(void) {
  const char* path = getenv("CM_FAIL_BOARD");
  if (path == NULL) return;
  const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return;
  void* at = (void*)syscall(SYS_mmap, NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (at != MAP_FAILED) board = at;
}

/* Counts one call; whether it is the one. */
static int fails(enum cm_fail_kind kind) {
  if (board->kind != (uint32_t)kind) return 0;
  if (++board->count != board->nth) return 0;
  board->fired = 1;
  return 1;
}

void* malloc(size_t size) {
  if (fails(CM_FAIL_ALLOC)) {
    errno = ENOMEM;
    return NULL;
  }
  return __libc_malloc(size);
}

void* calloc(size_t count, size_t size) {
  if (fails(CM_FAIL_ALLOC)) {
    errno = ENOMEM;
    return NULL;
  }
  return __libc_calloc(count, size);
}

void* realloc(void* at, size_t size) {
  if (fails(CM_FAIL_ALLOC)) {
    errno = ENOMEM;
    return NULL;
  }
  return __libc_realloc(at, size);
}

int posix_memalign(void** to, size_t align, size_t size) {
  if (fails(CM_FAIL_ALLOC)) return ENOMEM;
  *to = __libc_memalign(align, size);
  return *to != NULL ? 0 : ENOMEM;
}

void* aligned_alloc(size_t align, size_t size) {
  if (fails(CM_FAIL_ALLOC)) {
    errno = ENOMEM;
    return NULL;
  }
  return __libc_memalign(align, size);
}

static int is_file(int fd) {
  struct stat info;
  return fd > STDERR_FILENO && syscall(SYS_fstat, fd, &info) == 0 && S_ISREG(info.st_mode);
}

/* Whether the call is to fail: 1 with errno set; 2: half of it is to be done. */
static int write_fails(int fd) {
  const uint32_t kind = board->kind;
  if (kind < CM_FAIL_WRITE_FULL || kind > CM_FAIL_WRITE_SHORT || !is_file(fd)) return 0;
  if (!fails((enum cm_fail_kind)kind)) return 0;
  if (kind == CM_FAIL_WRITE_SHORT) return 2;
  errno = kind == CM_FAIL_WRITE_IO ? EIO : ENOSPC;
  return 1;
}

ssize_t write(int fd, const void* bytes, size_t size) {
  const int verdict = write_fails(fd);
  if (verdict == 1) return -1;
  return syscall(SYS_write, fd, bytes, verdict == 2 ? (size + 1) / 2 : size);
}

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  const int verdict = write_fails(fd);
  if (verdict == 1) return -1;
  return syscall(SYS_pwrite64, fd, bytes, verdict == 2 ? (size + 1) / 2 : size, offset);
}

ssize_t writev(int fd, const struct iovec* pieces, int count) {
  const int verdict = write_fails(fd);
  if (verdict == 1) return -1;
  if (verdict == 2) return syscall(SYS_write, fd, pieces[0].iov_base, (pieces[0].iov_len + 1) / 2);
  return syscall(SYS_writev, fd, pieces, count);
}

ssize_t pwritev(int fd, const struct iovec* pieces, int count, off_t offset) {
  const int verdict = write_fails(fd);
  if (verdict == 1) return -1;
  if (verdict == 2) {
    return syscall(SYS_pwrite64, fd, pieces[0].iov_base, (pieces[0].iov_len + 1) / 2, offset);
  }
  return syscall(SYS_pwritev, fd, pieces, count, offset, 0);
}

static int sync_fails(void) {
  if (!fails(CM_FAIL_SYNC)) return 0;
  errno = EIO;
  return 1;
}

int fsync(int fd) { return sync_fails() ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_fails() ? -1 : (int)syscall(SYS_fdatasync, fd); }
int msync(void* at, size_t size, int flags) {
  return sync_fails() ? -1 : (int)syscall(SYS_msync, at, size, flags);
}

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(rest, int) : 0;
  va_end(rest);
  if (fails(CM_FAIL_OPEN)) {
    errno = EMFILE;
    return -1;
  }
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(rest, int) : 0;
  va_end(rest);
  if (fails(CM_FAIL_OPEN)) {
    errno = EMFILE;
    return -1;
  }
  return (int)syscall(SYS_openat, folder, path, flags, mode);
}

void* mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) {
  if (fails(CM_FAIL_MMAP)) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return (void*)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}

int accept4(int fd, struct sockaddr* address, socklen_t* size, int flags) {
  if (fails(CM_FAIL_ACCEPT)) {
    errno = EMFILE;
    return -1;
  }
  return (int)syscall(SYS_accept4, fd, address, size, flags);
}

int accept(int fd, struct sockaddr* address, socklen_t* size) {
  return accept4(fd, address, size, 0);
}
