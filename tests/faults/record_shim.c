/* record_shim.c — what this program's libraries write to files, as they write it.
 * Owns:   the calls by which liblmdb reaches a file (write, writev, pwrite, pwritev, ftruncate,
 *         fallocate, msync, fsync, fdatasync, open, close), in front of those of the C library.
 * Holds:  each call is made first and told then, with what it really did: a short write is short.
 * Why:    a crash image is honest only if the stream is that of the real library.
 * Not:    which file matters, what a power failure does to it (recording.cc, images.cc).
 */
#define _GNU_SOURCE
#include "tests/faults/record_shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static cm_record_hook hook;

void cm_record_set(cm_record_hook to) { hook = to; }

static void* real(const char* name) { return dlsym(RTLD_NEXT, name); }

static void tell(enum cm_record_kind kind, int fd, const void* bytes, long size, long long offset) {
  const int kept = errno;
  if (hook != NULL && size >= 0) hook(kind, fd, bytes, (size_t)size, offset);
  errno = kept;
}

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  static ssize_t (*next)(int, const void*, size_t, off_t);
  if (next == NULL) *(void**)&next = real("pwrite");
  const ssize_t done = next(fd, bytes, size, offset);
  tell(CM_RECORD_WRITE, fd, bytes, done, offset);
  return done;
}

static void tell_pieces(int fd, const struct iovec* pieces, int count, ssize_t done,
                        long long offset) {
  for (int index = 0; index < count && done > 0; ++index) {
    const ssize_t size =
        (ssize_t)pieces[index].iov_len < done ? (ssize_t)pieces[index].iov_len : done;
    tell(index == 0 ? CM_RECORD_WRITE : CM_RECORD_WRITE_ON, fd, pieces[index].iov_base, size,
         offset);
    offset += size;
    done -= size;
  }
}

ssize_t pwritev(int fd, const struct iovec* pieces, int count, off_t offset) {
  static ssize_t (*next)(int, const struct iovec*, int, off_t);
  if (next == NULL) *(void**)&next = real("pwritev");
  const ssize_t done = next(fd, pieces, count, offset);
  tell_pieces(fd, pieces, count, done, offset);
  return done;
}

ssize_t write(int fd, const void* bytes, size_t size) {
  static ssize_t (*next)(int, const void*, size_t);
  if (next == NULL) *(void**)&next = real("write");
  const long long offset = hook != NULL ? lseek(fd, 0, SEEK_CUR) : 0;
  const ssize_t done = next(fd, bytes, size);
  if (offset >= 0) tell(CM_RECORD_WRITE, fd, bytes, done, offset);
  return done;
}

ssize_t writev(int fd, const struct iovec* pieces, int count) {
  static ssize_t (*next)(int, const struct iovec*, int);
  if (next == NULL) *(void**)&next = real("writev");
  const long long offset = hook != NULL ? lseek(fd, 0, SEEK_CUR) : 0;
  const ssize_t done = next(fd, pieces, count);
  if (offset >= 0) tell_pieces(fd, pieces, count, done, offset);
  return done;
}

int ftruncate(int fd, off_t size) {
  static int (*next)(int, off_t);
  if (next == NULL) *(void**)&next = real("ftruncate");
  const int code = next(fd, size);
  if (code == 0) tell(CM_RECORD_RESIZE, fd, NULL, 0, size);
  return code;
}

int fallocate(int fd, int mode, off_t offset, off_t size) {
  static int (*next)(int, int, off_t, off_t);
  if (next == NULL) *(void**)&next = real("fallocate");
  const int code = next(fd, mode, offset, size);
  if (code == 0) tell(CM_RECORD_UNKNOWN, fd, NULL, 0, offset);
  return code;
}

int msync(void* at, size_t size, int flags) {
  static int (*next)(void*, size_t, int);
  if (next == NULL) *(void**)&next = real("msync");
  const int code = next(at, size, flags);
  tell(CM_RECORD_UNKNOWN, -1, at, 0, 0);
  return code;
}

int fsync(int fd) {
  static int (*next)(int);
  if (next == NULL) *(void**)&next = real("fsync");
  const int code = next(fd);
  if (code == 0) tell(CM_RECORD_SYNC, fd, NULL, 0, 0);
  return code;
}

int fdatasync(int fd) {
  static int (*next)(int);
  if (next == NULL) *(void**)&next = real("fdatasync");
  const int code = next(fd);
  if (code == 0) tell(CM_RECORD_SYNC, fd, NULL, 0, 0);
  return code;
}

int open(const char* path, int flags, ...) {
  static int (*next)(const char*, int, ...);
  if (next == NULL) *(void**)&next = real("open");
  va_list rest;
  va_start(rest, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(rest, int) : 0;
  va_end(rest);
  const int fd = next(path, flags, mode);
  if (fd >= 0) tell(CM_RECORD_OPEN, fd, path, flags & O_DSYNC, 0);
  return fd;
}

int close(int fd) {
  static int (*next)(int);
  if (next == NULL) *(void**)&next = real("close");
  const int code = next(fd);
  tell(CM_RECORD_CLOSE, fd, NULL, 0, 0);
  return code;
}
