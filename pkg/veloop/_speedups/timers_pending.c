/* The timers: what loop/timers.py does, by the same laws, which it explains. The list of those that
 * are sorted and of those that are not is one here, [head, middle) and [middle, end). And a
 * cancelled timer goes at once if it is the last of the list or heap, as with a timeout that was not
 * needed.
 *
 * No Python code runs while they are being changed, so any thread may cancel a timer. What a
 * function takes out, and what was a timer's `_scheduled`, is let go of at the end. */
#include "speedups.h"

enum { COMPACT_FROM = 100, HEAP_MAX = 64, CROWD = 32 };
#define TOGETHER 1e-3
#define LONGEST_SLEEP (24 * 3600.0)

static inline void set_scheduled(PyObject *timer, PyObject *value) {
  vs_set(timer, vs.timer.scheduled, Py_NewRef(value));
}

/* The list begins where its memory does. */
static void to_front(vs_timers_t *timers) {
  Py_ssize_t size = timers->end - timers->head;

  memmove(timers->list, timers->list + timers->head, (size_t) size * sizeof(*timers->list));
  timers->middle -= timers->head;
  timers->head = 0;
  timers->end = size;
}

static void shrink_list(vs_timers_t *timers) {
  if (timers->room <= VS_SHRINK_FROM || (timers->end - timers->head) * 4 >= timers->room)
    return;
  to_front(timers);
  vs_shrink((void **) &timers->list, &timers->room, timers->end, sizeof(*timers->list));
}

static int append(vs_timers_t *timers, PyObject *timer) {
  if (timers->end == timers->room) {
    if (timers->head > timers->room / 2)
      to_front(timers);
    else if (vs_grow((void **) &timers->list, &timers->room, sizeof(*timers->list)) < 0)
      return -1;
  }
  timers->list[timers->end++] = timer;
  return 0;
}

int vs_timers_add(vs_timers_t *timers, PyObject *timer) {
  double when;
  int is_odd = vs_timer_when(timer, &when), r;

  if (vs_timers_pending(timers) == 0) {
    timers->boundary = -Py_HUGE_VAL;
    timers->is_odd = 0;
  }
  if (is_odd < 0 || (is_odd && !timers->is_odd && vs_timers_be_odd(timers) < 0))
    return -1;
  if (!timers->is_odd && when >= timers->boundary)
    r = append(timers, timer);
  else
    r = vs_heap_push(&timers->heap, (vs_entry_t){when, timers->order++, timer});
  if (r < 0)
    return -1;
  Py_INCREF(timer);
  set_scheduled(timer, Py_True);
  return 0;
}

int vs_timers_cancelled(vs_timers_t *timers, PyObject *timer) {
  vs_heap_t *heap = &timers->heap;
  int has_gone = 1;

  if (SLOT(timer, vs.timer.scheduled) != Py_True)
    return 0;
  if (timers->end > timers->head && timers->list[timers->end - 1] == timer) {
    if (timers->middle == timers->end--)
      timers->middle--;
    shrink_list(timers);
  } else if (heap->size > 0 && heap->entries[heap->size - 1].timer == timer) {
    heap->size--;
    vs_shrink((void **) &heap->entries, &heap->room, heap->size, sizeof(vs_entry_t));
  } else {
    timers->cancelled++;
    has_gone = 0;
  }
  if (has_gone) {
    set_scheduled(timer, Py_False);
    vs_handle_drop(timer);
  }
  return timers->cancelled > COMPACT_FROM && timers->cancelled * 2 > vs_timers_pending(timers);
}

int vs_timers_compact(vs_timers_t *timers, PyObject *timer) {
  Py_ssize_t size = vs_timers_pending(timers), dead = 0, live = 0, middle = 0, i;
  PyObject **gone = PyMem_New(PyObject *, 2 * (size_t) size + 1), *one;
  vs_heap_t *heap = &timers->heap;

  if (gone == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  for (i = timers->head; i < timers->end; i++) {
    one = timers->list[i];
    if (one == timer || vs_is_cancelled(one))
      gone[dead++] = one;
    else
      timers->list[live++] = one;
    if (i < timers->middle)
      middle = live;
  }
  timers->head = 0;
  timers->middle = middle;
  timers->end = live;
  for (i = live = 0; i < heap->size; i++) {
    one = heap->entries[i].timer;
    if (one == timer || vs_is_cancelled(one))
      gone[dead++] = one;
    else
      heap->entries[live++] = heap->entries[i];
  }
  heap->size = live;
  timers->cancelled = 0;
  vs_heapify(heap);
  shrink_list(timers);
  for (i = 0; i < dead; i++)
    gone[size + i] = vs_swap(gone[i], vs.timer.scheduled, Py_NewRef(Py_False));
  for (i = 0; i < dead; i++) {
    Py_XDECREF(gone[size + i]);
    vs_handle_drop(gone[i]);
  }
  PyMem_Free(gone);
  return 0;
}

void vs_timers_clear(vs_timers_t *timers) {
  Py_ssize_t i, head = timers->head, end = timers->end;
  PyObject **list = timers->list, *timer;
  vs_heap_t heap = timers->heap;

  timers->list = NULL;
  timers->heap = (vs_heap_t){NULL, 0, 0};
  timers->head = timers->middle = timers->end = timers->room = timers->cancelled = 0;
  for (i = head; i < end + heap.size; i++) {
    timer = i < end ? list[i] : heap.entries[i - end].timer;
    set_scheduled(timer, Py_False);
    vs_handle_drop(timer);
  }
  timers->cancelled = 0; /* with those that what ran meanwhile has cancelled */
  PyMem_Free(list);
  PyMem_Free(heap.entries);
}

/* The earliest, borrowed. -> 1; 0: there is none; -1 */
static int get_first(vs_timers_t *timers, PyObject **timer, double *when) {
  const vs_heap_t *heap = &timers->heap;

  if (heap->size == 0 && timers->head == timers->middle) {
    if (timers->head == timers->end)
      return 0;
    if (vs_timers_sort(timers) < 0)
      return -1;
  }
  if (timers->head < timers->middle) {
    *timer = timers->list[timers->head];
    *when = vs_timer_number(*timer);
    if (heap->size == 0 || !(heap->entries[0].when < *when))
      return 1;
  }
  *timer = heap->entries[0].timer;
  *when = heap->entries[0].when;
  return 1;
}

/* What get_first gave is taken out, and owned. */
static void take(vs_timers_t *timers, PyObject *timer) {
  if (timers->head < timers->middle && timers->list[timers->head] == timer) {
    timers->head++;
    shrink_list(timers);
  } else {
    vs_heap_pop(&timers->heap);
  }
  if (vs_is_cancelled(timer))
    timers->cancelled--;
  set_scheduled(timer, Py_False);
}

int vs_timers_next_when(vs_timers_t *timers, double *when) {
  PyObject *timer;
  int r;

  while ((r = get_first(timers, &timer, when)) > 0 && vs_is_cancelled(timer)) {
    take(timers, timer);
    vs_handle_drop(timer);
  }
  return r;
}

int vs_timers_sleep_time(vs_timers_t *timers, double now, double *seconds) {
  double when;
  int r = vs_timers_next_when(timers, &when);

  *seconds = r > 0 ? when - now : -1.0;
  if (r <= 0)
    return r;
  if (!(*seconds > 0.0))
    *seconds = 0.0;
  else if (*seconds > LONGEST_SLEEP)
    *seconds = LONGEST_SLEEP;
  else if (*seconds < TOGETHER && timers->middle - timers->head >= CROWD &&
           vs_timer_number(timers->list[timers->head + CROWD - 1]) - now < TOGETHER)
    *seconds = TOGETHER;
  return 0;
}

/* The numbers are equal as floats; but the time may be a fraction, and never is never. */
static int is_later(PyObject *timer, PyObject *now) {
  PyObject *when = Py_XNewRef(SLOT(timer, vs.timer.when));
  int r = when == NULL ? 0 : PyObject_RichCompareBool(when, now, Py_GT);

  Py_XDECREF(when);
  return r;
}

/* Is it still the earliest, after code ran? -> or -1 */
static int is_first(vs_timers_t *timers, PyObject *timer) {
  PyObject *first;
  double when;
  int r = get_first(timers, &first, &when);

  return r > 0 ? first == timer : r;
}

int vs_timers_pop_due(vs_timers_t *timers, PyObject *now, vs_queue_t *due) {
  double limit = PyFloat_AsDouble(now), when;
  PyObject *timer;
  int r;

  if (limit == -1.0 && PyErr_Occurred())
    return -1;
  if (!timers->is_odd && timers->heap.size > HEAP_MAX &&
      timers->heap.size * 2 > vs_timers_pending(timers) && vs_timers_sort(timers) < 0)
    return -1;
  while ((r = get_first(timers, &timer, &when)) > 0 && !(when > limit)) {
    if (when == limit && (timers->is_odd || !PyFloat_CheckExact(now))) {
      Py_INCREF(timer);
      r = is_later(timer, now);
      if (r != 0) {
        Py_DECREF(timer);
        return r < 0 ? -1 : 0;
      }
      r = is_first(timers, timer);
      Py_DECREF(timer);
      if (r < 0)
        return -1;
      if (r == 0)
        continue;
    }
    take(timers, timer);
    if (vs_is_cancelled(timer)) {
      vs_handle_drop(timer);
    } else {
      r = vs_queue_append(due, timer);
      Py_DECREF(timer); /* the queue has it, or there is no memory */
      if (r < 0)
        return -1;
    }
  }
  return r;
}
