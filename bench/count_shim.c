/* count_shim.c — preloaded into a role: counts heap allocations and flushes of the whole process.
 * Owns:   a shared file of counters, named by CM_COUNT_FILE, that the bench reads at any time.
 * Not:    linked into anything; LD_PRELOAD only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct counts {
  uint64_t allocations;
  uint64_t flushes;
};

static struct counts g_own;
static struct counts* g_counts = &g_own;

/* glibc's own names for the allocator: nothing has to be looked up before the first call. */
extern void* __libc_malloc(size_t size);
extern void* __libc_calloc(size_t count, size_t size);
extern void* __libc_realloc(void* at, size_t size);

__attribute__((constructor)) static void map_counts(void) {
  const char* path = getenv("CM_COUNT_FILE");
  if (path == NULL) return;
  const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate(fd, sizeof(struct counts)) != 0) return;
  void* at = mmap(NULL, sizeof(struct counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (at != MAP_FAILED) g_counts = at;
}

void* malloc(size_t size) {
  ++g_counts->allocations;
  return __libc_malloc(size);
}

void* calloc(size_t count, size_t size) {
  ++g_counts->allocations;
  return __libc_calloc(count, size);
}

void* realloc(void* at, size_t size) {
  ++g_counts->allocations;
  return __libc_realloc(at, size);
}

int fdatasync(int fd) {
  static int (*next)(int);
  if (next == NULL) next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  ++g_counts->flushes;
  return next(fd);
}
