/* fail_shim.h — the Nth call of a kind fails, once; before and after it all calls are made.
 * Owns:   struct cm_fail_board, by which a test arms the shim and learns what was counted.
 * Holds:  counts go on behind the failure. Writes count for regular files only, and not for the
 *         standard streams: what a socket does is the network's, and a lost log line is counted.
 * Not:    the calls (fail_shim.c); what has to hold behind a failure (nth_failure.cc,
 * nth_binary.py).
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum cm_fail_kind {
  CM_FAIL_NONE,
  CM_FAIL_ALLOC,       /* malloc, calloc, realloc, posix_memalign, aligned_alloc: ENOMEM */
  CM_FAIL_WRITE_FULL,  /* write, writev, pwrite, pwritev: ENOSPC */
  CM_FAIL_WRITE_IO,    /* the same calls: EIO */
  CM_FAIL_WRITE_SHORT, /* the same calls: half is written */
  CM_FAIL_SYNC,        /* fsync, fdatasync, msync: EIO */
  CM_FAIL_OPEN,        /* open, openat: EMFILE */
  CM_FAIL_MMAP,        /* ENOMEM */
  CM_FAIL_ACCEPT,      /* accept, accept4: EMFILE */
  CM_FAIL_KINDS
};

struct cm_fail_board {
  uint32_t kind;
  uint32_t fired; /* whether it has failed */
  uint64_t nth;   /* from 1 */
  uint64_t count; /* calls of the kind since it was armed */
};

/* Where this process's shim reads and counts. As a preloaded library it is the file that
 * CM_FAIL_BOARD names, mapped; else memory of its own, until a test gives it another. */
void cm_fail_use(struct cm_fail_board* board);

#ifdef __cplusplus
}
#endif
