/* The timer heap: what loop/timers.py does, but all in one heap of numbers. The same laws: timers
 * of the same time fire in the order of their creation, a cancelled one goes when it comes to the top or when such are the
 * majority; here also at once if it is the last of the heap, as with a timeout that was not needed.
 *
 * No Python code runs while the heap is being changed, so any thread may cancel a timer. What a
 * function takes out of it, and what was a timer's `_scheduled`, is let go of at the end. */
#include "speedups.h"

enum { COMPACT_FROM = 100, SMALLEST = 16, SHRINK_FROM = 1024 };

static inline int before(const vs_entry_t *a, const vs_entry_t *b) {
  return a->when < b->when || (a->when == b->when && a->order < b->order);
}

static void sift_up(vs_entry_t *heap, Py_ssize_t at) {
  vs_entry_t entry = heap[at];
  Py_ssize_t parent;

  for (; at > 0; at = parent) {
    parent = (at - 1) / 2;
    if (!before(&entry, &heap[parent]))
      break;
    heap[at] = heap[parent];
  }
  heap[at] = entry;
}

static void sift_down(vs_entry_t *heap, Py_ssize_t size, Py_ssize_t at) {
  vs_entry_t entry = heap[at];
  Py_ssize_t child;

  while ((child = 2 * at + 1) < size) {
    if (child + 1 < size && before(&heap[child + 1], &heap[child]))
      child++;
    if (!before(&heap[child], &entry))
      break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = entry;
}

/* Gives memory back when three quarters of it are free. It is no harm if that should fail. */
static void shrink(vs_timers_t *timers) {
  Py_ssize_t capacity = timers->capacity;
  vs_entry_t *heap;

  while (capacity > SHRINK_FROM && timers->size * 4 < capacity)
    capacity /= 2;
  if (capacity == timers->capacity)
    return;
  heap = PyMem_Realloc(timers->heap, (size_t) capacity * sizeof(*heap));
  if (heap != NULL) {
    timers->heap = heap;
    timers->capacity = capacity;
  }
}

/* -> the first timer, owned. */
static PyObject *pop(vs_timers_t *timers) {
  PyObject *timer = timers->heap[0].timer;

  timers->heap[0] = timers->heap[--timers->size];
  if (timers->size > 0)
    sift_down(timers->heap, timers->size, 0);
  if (vs_is_cancelled(timer))
    timers->cancelled--;
  shrink(timers);
  vs_set(timer, vs.timer.scheduled, Py_NewRef(Py_False));
  return timer;
}

/* The number by which a timer is ordered. One that no float can hold is never, or long ago. -> 0 or
 * -1. */
static int get_when(PyObject *timer, double *when) {
  PyObject *object = Py_XNewRef(SLOT(timer, vs.timer.when));
  int overflow = 0;

  if (object == NULL) {
    PyErr_SetString(PyExc_AttributeError, "_when");
    return -1;
  }
  *when = PyFloat_AsDouble(object);
  if (*when == -1.0 && PyErr_ExceptionMatches(PyExc_OverflowError) && PyLong_Check(object)) {
    PyErr_Clear();
    PyLong_AsLongLongAndOverflow(object, &overflow);
    *when = overflow < 0 ? -Py_HUGE_VAL : Py_HUGE_VAL;
  }
  Py_DECREF(object);
  return *when == -1.0 && PyErr_Occurred() ? -1 : 0;
}

int vs_timers_add(vs_timers_t *timers, PyObject *timer) {
  double when;
  vs_entry_t *heap;
  Py_ssize_t capacity;

  if (get_when(timer, &when) < 0)
    return -1;
  if (timers->size == timers->capacity) {
    capacity = timers->capacity + timers->capacity / 4 + SMALLEST;
    heap = PyMem_Realloc(timers->heap, (size_t) capacity * sizeof(*heap));
    if (heap == NULL) {
      PyErr_NoMemory();
      return -1;
    }
    timers->heap = heap;
    timers->capacity = capacity;
  }
  timers->heap[timers->size] = (vs_entry_t){when, timers->next++, Py_NewRef(timer)};
  sift_up(timers->heap, timers->size++);
  vs_set(timer, vs.timer.scheduled, Py_NewRef(Py_True));
  return 0;
}

int vs_timers_cancelled(vs_timers_t *timers, PyObject *timer) {
  if (SLOT(timer, vs.timer.scheduled) != Py_True)
    return 0;
  if (timers->size > 0 && timers->heap[timers->size - 1].timer == timer) {
    timers->size--;
    shrink(timers);
    vs_set(timer, vs.timer.scheduled, Py_NewRef(Py_False));
    vs_handle_drop(timer);
    return 0;
  }
  timers->cancelled++;
  return timers->cancelled > COMPACT_FROM && timers->cancelled * 2 > timers->size;
}

int vs_timers_compact(vs_timers_t *timers, PyObject *timer) {
  Py_ssize_t size = timers->size, live = 0, dead = 0, i;
  PyObject **gone = PyMem_New(PyObject *, 2 * (size_t) size + 1), *one;
  vs_entry_t *heap = timers->heap;

  if (gone == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  for (i = 0; i < size; i++) {
    one = heap[i].timer;
    if (one == timer || vs_is_cancelled(one)) {
      gone[size + dead] = vs_swap(one, vs.timer.scheduled, Py_NewRef(Py_False));
      gone[dead++] = one;
    } else {
      heap[live++] = heap[i];
    }
  }
  for (i = live / 2 - 1; i >= 0; i--)
    sift_down(heap, live, i);
  timers->size = live;
  timers->cancelled = 0;
  shrink(timers);
  for (i = 0; i < dead; i++) {
    Py_XDECREF(gone[size + i]);
    vs_handle_drop(gone[i]);
  }
  PyMem_Free(gone);
  return 0;
}

void vs_timers_clear(vs_timers_t *timers) {
  vs_entry_t *heap = timers->heap;
  Py_ssize_t size = timers->size, i;

  timers->heap = NULL;
  timers->size = timers->capacity = timers->cancelled = 0;
  for (i = 0; i < size; i++) {
    vs_set(heap[i].timer, vs.timer.scheduled, Py_NewRef(Py_False));
    vs_handle_drop(heap[i].timer);
  }
  PyMem_Free(heap);
}

int vs_timers_next_when(vs_timers_t *timers, double *when) {
  while (timers->size > 0) {
    if (!vs_is_cancelled(timers->heap[0].timer)) {
      *when = timers->heap[0].when;
      return 1;
    }
    vs_handle_drop(pop(timers));
  }
  return 0;
}

/* The numbers are equal as floats; but the time may be a fraction, and never is never. */
static int is_later(PyObject *timer, PyObject *now) {
  PyObject *when = Py_XNewRef(SLOT(timer, vs.timer.when));
  int r;

  if (when == NULL || (PyFloat_CheckExact(when) && PyFloat_CheckExact(now)))
    r = 0;
  else
    r = PyObject_RichCompareBool(when, now, Py_GT);
  Py_XDECREF(when);
  return r;
}

int vs_timers_pop_due(vs_timers_t *timers, PyObject *now, vs_queue_t *due) {
  double limit = PyFloat_AsDouble(now);
  PyObject *timer;
  uint64_t order;
  int r;

  if (limit == -1.0 && PyErr_Occurred())
    return -1;
  while (timers->size > 0 && !(timers->heap[0].when > limit)) {
    if (timers->heap[0].when == limit) {
      timer = Py_NewRef(timers->heap[0].timer);
      order = timers->heap[0].order;
      r = is_later(timer, now);
      Py_DECREF(timer);
      if (r != 0)
        return r < 0 ? -1 : 0;
      if (timers->size == 0 || timers->heap[0].order != order)
        continue;
    }
    timer = pop(timers);
    if (vs_is_cancelled(timer)) {
      vs_handle_drop(timer);
    } else {
      r = vs_queue_append(due, timer);
      Py_DECREF(timer); /* the queue has it, or there is no memory */
      if (r < 0)
        return -1;
    }
  }
  return 0;
}
