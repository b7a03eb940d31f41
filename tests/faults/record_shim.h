/* record_shim.h — who is told of each call.
 * Owns:   cm_record_set().
 * Not:    the calls (record_shim.c).
 */
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum cm_record_kind {
  CM_RECORD_OPEN, /* bytes: the path; size: O_DSYNC, if it was asked for */
  CM_RECORD_CLOSE,
  CM_RECORD_WRITE,
  CM_RECORD_WRITE_ON, /* a further piece of the write before it */
  CM_RECORD_SYNC,
  CM_RECORD_RESIZE, /* offset: the new size */
  CM_RECORD_UNKNOWN /* a way to a file that no model here covers */
};

typedef void (*cm_record_hook)(enum cm_record_kind kind, int fd, const void* bytes, size_t size,
                               long long offset);
/* NULL: nobody. */
void cm_record_set(cm_record_hook to);

#ifdef __cplusplus
}
#endif
