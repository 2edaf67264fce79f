/* Timers: loop/timers.py with a heap of numbers. The same laws: timers of the same time fire in
 * the order of their creation, a cancelled one goes when it comes to the top or when such are the
 * majority; here also at once if it is the last of the heap, as with a timeout that was not needed.
 *
 * No Python code runs while the heap is being changed, so any thread may cancel a timer. */
#include "speedups.h"

enum { COMPACT_FROM = 100, SMALLEST = 16 };

typedef struct vs_entry {
  double when;
  uint64_t order;
  PyObject *timer;
} entry_t;

static inline int before(const entry_t *a, const entry_t *b) {
  return a->when < b->when || (a->when == b->when && a->order < b->order);
}

static void sift_up(entry_t *heap, Py_ssize_t at) {
  entry_t entry = heap[at];
  Py_ssize_t parent;

  for (; at > 0; at = parent) {
    parent = (at - 1) / 2;
    if (!before(&entry, &heap[parent]))
      break;
    heap[at] = heap[parent];
  }
  heap[at] = entry;
}

static void sift_down(entry_t *heap, Py_ssize_t size, Py_ssize_t at) {
  entry_t entry = heap[at];
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

static void set_scheduled(PyObject *timer, PyObject *value) {
  vs_set(timer, vs.timer.scheduled, Py_NewRef(value)); /* the old one is a bool: nothing runs */
}

static inline int is_cancelled(PyObject *timer) {
  return SLOT(timer, vs.handle.cancelled) == Py_True;
}

/* -> the first timer, owned. */
static PyObject *pop(vs_timers_t *timers) {
  PyObject *timer = timers->heap[0].timer;

  timers->heap[0] = timers->heap[--timers->size];
  if (timers->size > 0)
    sift_down(timers->heap, timers->size, 0);
  set_scheduled(timer, Py_False);
  if (is_cancelled(timer))
    timers->cancelled--;
  return timer;
}

int vs_timers_add(vs_timers_t *timers, PyObject *timer) {
  PyObject *object = SLOT(timer, vs.timer.when);
  double when;
  entry_t *heap;
  Py_ssize_t capacity;

  if (object == NULL) {
    PyErr_SetString(PyExc_AttributeError, "_when");
    return -1;
  }
  when = PyFloat_AsDouble(object);
  if (when == -1.0 && PyErr_Occurred())
    return -1;
  if (timers->size == timers->capacity) {
    capacity = timers->capacity ? timers->capacity * 2 : SMALLEST;
    heap = PyMem_Realloc(timers->heap, (size_t) capacity * sizeof(*heap));
    if (heap == NULL) {
      PyErr_NoMemory();
      return -1;
    }
    timers->heap = heap;
    timers->capacity = capacity;
  }
  timers->heap[timers->size] = (entry_t){when, timers->next++, Py_NewRef(timer)};
  sift_up(timers->heap, timers->size++);
  set_scheduled(timer, Py_True);
  return 0;
}

int vs_timers_cancelled(vs_timers_t *timers, PyObject *timer) {
  if (SLOT(timer, vs.timer.scheduled) != Py_True)
    return 0;
  if (timers->size > 0 && timers->heap[timers->size - 1].timer == timer) {
    timers->size--;
    set_scheduled(timer, Py_False);
    vs_handle_drop(timer);
    return 0;
  }
  timers->cancelled++;
  return timers->cancelled > COMPACT_FROM && timers->cancelled * 2 > timers->size;
}

int vs_timers_compact(vs_timers_t *timers, PyObject *timer) {
  Py_ssize_t size = timers->size, live = 0, dead = 0, i;
  PyObject **gone = PyMem_New(PyObject *, (size_t) size + 1);
  entry_t *heap = timers->heap;

  if (gone == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  for (i = 0; i < size; i++) {
    if (heap[i].timer == timer || is_cancelled(heap[i].timer)) {
      set_scheduled(heap[i].timer, Py_False);
      gone[dead++] = heap[i].timer;
    } else {
      heap[live++] = heap[i];
    }
  }
  for (i = live / 2 - 1; i >= 0; i--)
    sift_down(heap, live, i);
  timers->size = live;
  timers->cancelled = 0;
  for (i = 0; i < dead; i++)
    vs_handle_drop(gone[i]);
  PyMem_Free(gone);
  return 0;
}

int vs_timers_next_when(vs_timers_t *timers, double *when) {
  while (timers->size > 0) {
    if (!is_cancelled(timers->heap[0].timer)) {
      *when = timers->heap[0].when;
      return 1;
    }
    vs_handle_drop(pop(timers));
  }
  return 0;
}

/* The numbers are equal as floats; but the time may be a fraction, and never is never. */
static int is_later(PyObject *timer, PyObject *now) {
  PyObject *when = Py_NewRef(SLOT(timer, vs.timer.when));
  int r = PyObject_RichCompareBool(when, now, Py_GT);

  Py_DECREF(when);
  return r;
}

int vs_timers_pop_due(vs_timers_t *timers, PyObject *now, vs_queue_t *due) {
  double limit = PyFloat_AsDouble(now);
  PyObject *timer;
  int r;

  if (limit == -1.0 && PyErr_Occurred())
    return -1;
  while (timers->size > 0 && !(timers->heap[0].when > limit)) {
    timer = timers->heap[0].timer;
    if (timers->heap[0].when == limit &&
        !(PyFloat_CheckExact(now) && PyFloat_CheckExact(SLOT(timer, vs.timer.when)))) {
      Py_INCREF(timer);
      r = is_later(timer, now);
      Py_DECREF(timer);
      if (r != 0)
        return r < 0 ? -1 : 0;
      if (timers->size == 0 || timers->heap[0].timer != timer)
        continue;
    }
    timer = pop(timers);
    if (is_cancelled(timer)) {
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

/* ------------------------------------------------------------------- what Python sees of it */

static int timers_traverse(PyObject *self, visitproc visit, void *arg) {
  vs_timers_t *timers = (vs_timers_t *) self;
  Py_ssize_t i;

  for (i = 0; i < timers->size; i++) {
    int r = vs_handle_visit(timers->heap[i].timer, visit, arg);

    if (r != 0)
      return r;
  }
  return 0;
}

static int timers_clear(PyObject *self) {
  vs_timers_t *timers = (vs_timers_t *) self;
  PyObject *timer;

  while (timers->size > 0) {
    timer = timers->heap[--timers->size].timer;
    set_scheduled(timer, Py_False);
    vs_handle_drop(timer);
  }
  timers->cancelled = 0;
  return 0;
}

static void timers_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  timers_clear(self);
  PyMem_Free(((vs_timers_t *) self)->heap);
  Py_TYPE(self)->tp_free(self);
}

static int check_timer(PyObject *timer) {
  if (vs.timer_type != NULL && PyObject_TypeCheck(timer, vs.timer_type))
    return 0;
  PyErr_Format(PyExc_TypeError, "a TimerHandle is needed, not %R", timer);
  return -1;
}

static PyObject *timers_add(PyObject *self, PyObject *timer) {
  if (check_timer(timer) < 0 || vs_timers_add((vs_timers_t *) self, timer) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *timers_cancelled(PyObject *self, PyObject *timer) {
  if (check_timer(timer) < 0)
    return NULL;
  return PyBool_FromLong(vs_timers_cancelled((vs_timers_t *) self, timer));
}

static PyObject *timers_compact(PyObject *self, PyObject *timer) {
  if (check_timer(timer) < 0 || vs_timers_compact((vs_timers_t *) self, timer) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *timers_next_when(PyObject *self, PyObject *unused) {
  double when;

  (void) unused;
  if (!vs_timers_next_when((vs_timers_t *) self, &when))
    Py_RETURN_NONE;
  return PyFloat_FromDouble(when);
}

static PyObject *timers_pop_due(PyObject *self, PyObject *args) {
  PyObject *now, *due;

  if (!PyArg_ParseTuple(args, "OO!", &now, &vs_queue_type, &due) ||
      vs_timers_pop_due((vs_timers_t *) self, now, (vs_queue_t *) due) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *timers_clear_method(PyObject *self, PyObject *unused) {
  (void) unused;
  timers_clear(self);
  Py_RETURN_NONE;
}

static PyObject *timers_heap(PyObject *self, void *unused) {
  vs_timers_t *timers = (vs_timers_t *) self;
  PyObject *list = PyList_New(0), *entry;
  Py_ssize_t i;
  int r;

  (void) unused;
  for (i = 0; list != NULL && i < timers->size; i++) {
    entry = Py_BuildValue("dKO", timers->heap[i].when, (unsigned long long) timers->heap[i].order,
                          timers->heap[i].timer);
    r = entry == NULL ? -1 : PyList_Append(list, entry);
    Py_XDECREF(entry);
    if (r < 0)
      Py_CLEAR(list);
  }
  return list;
}

static PyMethodDef timers_methods[] = {
    {"add", timers_add, METH_O, NULL},
    {"cancelled", timers_cancelled, METH_O, NULL},
    {"compact", timers_compact, METH_O, NULL},
    {"next_when", timers_next_when, METH_NOARGS, NULL},
    {"pop_due", timers_pop_due, METH_VARARGS, NULL},
    {"clear", timers_clear_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef timers_getset[] = {
    {"heap", timers_heap, NULL, "A copy of the heap, as loop/timers.py has it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject vs_timers_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "veloop._speedups.Timers",
    .tp_doc = "The timer heap: see loop/timers.py.",
    .tp_basicsize = sizeof(vs_timers_t),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = timers_dealloc,
    .tp_traverse = timers_traverse,
    .tp_clear = timers_clear,
    .tp_methods = timers_methods,
    .tp_getset = timers_getset,
};
