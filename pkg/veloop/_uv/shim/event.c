/* What the callbacks of a turn leave for Python: records in the ring, bytes in the slab. */
#include "shim.h"

int vl_ring_grow(vl_loop_t *loop) {
  int cap = loop->ring_cap ? loop->ring_cap * 2 : 256;
  int64_t *ring = realloc(loop->ring, (size_t) cap * RECORD * sizeof(*ring));

  if (ring == NULL)
    return UV_ENOMEM;
  loop->ring = ring;
  loop->ring_cap = cap;
  return 0;
}

void vl_emit(vl_loop_t *loop, int kind, int64_t id, int64_t a, int64_t b) {
  int64_t *record;

  if (loop->closed)
    return;
  if (loop->ring_len == loop->ring_cap && vl_ring_grow(loop) != 0) {
    loop->out_of_memory = 1;
    return;
  }
  record = loop->ring + (size_t) loop->ring_len++ * RECORD;
  record[0] = kind;
  record[1] = id;
  record[2] = a;
  record[3] = b;
}

char *vl_slab_room(vl_loop_t *loop, size_t end, size_t least) {
  return loop->slab_used + least > end ? NULL : loop->slab + loop->slab_used;
}

int64_t vl_slab_commit(vl_loop_t *loop, size_t size) {
  int64_t offset = (int64_t) loop->slab_used;

  loop->slab_used += (size + 15) & ~(size_t) 15; /* the next read starts aligned */
  if (loop->slab_used > SLAB_SIZE)
    loop->slab_used = SLAB_SIZE;
  return offset;
}

int64_t *vl_loop_ring(vl_loop_t *loop) { return loop->ring; }
int vl_loop_ring_capacity(vl_loop_t *loop) { return loop->ring_cap; }
char *vl_loop_slab(vl_loop_t *loop) { return loop->slab; }
size_t vl_loop_slab_size(vl_loop_t *loop) { (void) loop; return SLAB_SIZE; }

/* What the reads of a poll bring should fit into the caches and into the slab: else large messages are
 * copied from main memory, some are cut where the slab ends, and all who got no room are reported again.
 * So if those of the last run were large, the next poll brings fewer events; the kernel goes on from
 * there in the one after it. And where polls follow one another quickly each brings few. */
int vl_most_events(vl_loop_t *loop) {
  uint64_t last = uv_now(&loop->uv);
  size_t limit, most, fitting;

  uv_update_time(&loop->uv);
  if (loop->ring_len == 0)
    return loop->most_events;
  limit = uv_now(&loop->uv) - last < POLLS_APART ? EVENTS_NEAR : EVENTS_MAX;
  most = limit == EVENTS_MAX ? EVENTS_MAX : 2 * (size_t) loop->most_events;
  if (loop->slab_used != 0) {
    fitting = TURN_BYTES * (size_t) loop->ring_len / loop->slab_used;
    if (most > fitting)
      most = fitting;
  }
  return most < 1 ? 1 : most > limit ? (int) limit : (int) most;
}
