/* What the accelerator (_speedups/) calls, as a table: it is linked without us. Both sides are
 * compiled from this file; `size` and `version` tell when they were not compiled from the same. */
#ifndef VL_TABLE_H
#define VL_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "../decl/types.h"

enum { VL_TABLE_VERSION = 4 };

typedef struct vl_table {
  int64_t size; /* of this struct */
  int64_t version;
  int (*run)(vl_loop_t *loop, double timeout, int64_t taken);
  int (*wakeup)(vl_loop_t *loop);
  int64_t *(*ring)(vl_loop_t *loop);
  char *(*slab)(vl_loop_t *loop);
  int64_t (*write)(vl_handle_t *handle, const char *data, size_t size);
  /* Then the GIL is given away: for `run` with timeout 0, for `write` and `send`. */
  int (*loop_may_wait)(vl_loop_t *loop);
  int (*write_may_wait)(vl_handle_t *handle);
  int64_t (*send)(vl_handle_t *handle, const char *data, size_t size, const char *address);
  void (*announce)(vl_handle_t *handle);
  int64_t (*receive)(vl_handle_t *handle, char *data, size_t size);
} vl_table_t;

#endif
