/* The timers of the accelerator: a list and a heap, as in loop/timers.py. Part of speedups.h. */
#ifndef VL_SPEEDUPS_TIMERS_H
#define VL_SPEEDUPS_TIMERS_H

typedef struct {
  double when;
  uint64_t order;
  PyObject *timer;
} vs_entry_t;

typedef struct {
  vs_entry_t *entries;
  Py_ssize_t size, room;
} vs_heap_t;

/* ------------------------------------------------------------------- timers_heap.c: the heap */

enum { VS_SHRINK_FROM = 1024 }; /* fewer are not worth it */

/* Room for more items, of so many bytes each -> 0 or -1; and three quarters that are free given
 * back, which may fail and does no harm. */
int vs_grow(void **items, Py_ssize_t *room, size_t each);
void vs_shrink(void **items, Py_ssize_t *room, Py_ssize_t size, size_t each);

int vs_heap_push(vs_heap_t *heap, vs_entry_t entry); /* -> 0 or -1 */
PyObject *vs_heap_pop(vs_heap_t *heap); /* -> the first timer, owned */
void vs_heapify(vs_heap_t *heap); /* after anything else was done with the entries */
void vs_sort_entries(vs_entry_t *entries, Py_ssize_t size);

/* ----------------------------------------------------------------- timers_sort.c: their order */

typedef struct {
  PyObject_HEAD
  PyObject **list; /* sorted: [head, middle), due before the boundary; unsorted: [middle, end) */
  Py_ssize_t head, middle, end, room, cancelled;
  double boundary;
  vs_heap_t heap;
  uint64_t order;
  int is_odd; /* there are times that only Python can compare: all are in the heap */
} vs_timers_t;

extern PyTypeObject vs_timers_type;
#define vs_is_timers(object) ((object) != NULL && Py_TYPE(object) == &vs_timers_type)

static inline Py_ssize_t vs_timers_pending(const vs_timers_t *timers) {
  return timers->end - timers->head + timers->heap.size;
}

/* The i-th, in no order. */
static inline PyObject *vs_timers_at(const vs_timers_t *timers, Py_ssize_t i) {
  Py_ssize_t listed = timers->end - timers->head;

  return i < listed ? timers->list[timers->head + i] : timers->heap.entries[i - listed].timer;
}

/* The number by which a timer is ordered: its `_when`. If a program made no number of that, the timer
 * fires when its turn comes. */
double vs_timer_number(PyObject *timer);
/* The same for one that is new, in *when. What no float can hold is never, or long ago. -> 1 if only
 * Python can compare it, 0, or -1. */
int vs_timer_when(PyObject *timer, double *when);
/* All get into the list, sorted; the boundary comes behind them, or into their middle if they were not in
 * order. -> 0 or -1. */
int vs_timers_sort(vs_timers_t *timers);
int vs_timers_be_odd(vs_timers_t *timers); /* -> 0 or -1 */

/* -------------------------------------------------- timers_pending.c, timers.c: what they are for */

int vs_timers_add(vs_timers_t *timers, PyObject *timer);
int vs_timers_cancelled(vs_timers_t *timers, PyObject *timer);
int vs_timers_compact(vs_timers_t *timers, PyObject *timer);
void vs_timers_clear(vs_timers_t *timers);
int vs_timers_next_when(vs_timers_t *timers, double *when); /* -> 1, 0: there is none, or -1 */
int vs_timers_sleep_time(vs_timers_t *timers, double now, double *seconds); /* -> 0 or -1 */
int vs_timers_pop_due(vs_timers_t *timers, PyObject *now, vs_queue_t *due);

#endif
