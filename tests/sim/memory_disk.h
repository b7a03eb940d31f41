/* memory_disk.h — files of LMDB that live in this process, and are forked with it.
 * Owns:   cm_memory_disk_on().
 * Holds:  linked into a program, memory_disk.c stands in front of the C library for what liblmdb
 *         and store/ do with files named data.mdb and lock.mdb; all other files pass through it.
 * Why:    a search that tries every choice of a state needs that state more than once. A forked
 *         process has it, stores and all, if nothing of it is on a disk.
 * Limits: CM_MEMORY_DISK_FILES files of at most CM_MEMORY_DISK_BYTES; kept until the process ends.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

enum { CM_MEMORY_DISK_FILES = 16, CM_MEMORY_DISK_BYTES = 256 << 20 };

/* From here on such files are opened in memory, empty at first, and locks on files are granted:
 * a forked process shares none with the others. */
void cm_memory_disk_on(void);

#ifdef __cplusplus
}
#endif
