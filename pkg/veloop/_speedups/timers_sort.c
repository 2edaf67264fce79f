/* The number by which a timer is ordered, and the list put into order: see loop/timers.py. */
#include "speedups.h"

#define EXACT 9007199254740992.0 /* up to here, 2**53, a float can hold each whole number */

double vs_timer_number(PyObject *timer) {
  PyObject *when = SLOT(timer, vs.timer.when);
  double value = -Py_HUGE_VAL;
  int overflow;

  if (when != NULL && PyFloat_Check(when)) {
    value = PyFloat_AS_DOUBLE(when);
  } else if (when != NULL && PyLong_CheckExact(when)) {
    /* Unlike PyLong_AsDouble it makes no exception, for which 3.11 may collect garbage. */
    value = (double) PyLong_AsLongLongAndOverflow(when, &overflow);
    if (overflow != 0)
      value = overflow < 0 ? -Py_HUGE_VAL : Py_HUGE_VAL;
  }
  return value == value ? value : -Py_HUGE_VAL;
}

int vs_timer_when(PyObject *timer, double *when) {
  PyObject *object = Py_XNewRef(SLOT(timer, vs.timer.when));
  int overflow = 0, is_odd;

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
  is_odd = !(PyFloat_Check(object) ||
             (PyLong_CheckExact(object) && *when < EXACT && *when > -EXACT)) ||
           *when != *when;
  if (*when != *when) /* which compares with nothing */
    *when = -Py_HUGE_VAL;
  Py_DECREF(object);
  return *when == -1.0 && PyErr_Occurred() ? -1 : is_odd;
}

static int is_sorted(const vs_timers_t *timers) {
  double last = -Py_HUGE_VAL, when;
  Py_ssize_t i;

  for (i = timers->head; i < timers->end; i++, last = when) {
    when = vs_timer_number(timers->list[i]);
    if (when < last)
      return 0;
  }
  return 1;
}

/* All timers in the order in which they fire. Of the same time, those of the heap were made before
 * the unsorted and after the sorted. -> entries for PyMem_Free, or NULL. */
static vs_entry_t *all_in_order(const vs_timers_t *timers) {
  const uint64_t from_heap = UINT64_C(1) << 61, unsorted = UINT64_C(1) << 62;
  vs_entry_t *entries = PyMem_New(vs_entry_t, (size_t) vs_timers_pending(timers) + 1), *entry;
  Py_ssize_t i;

  if (entries == NULL) {
    PyErr_NoMemory();
    return NULL;
  }
  entry = entries;
  for (i = timers->head; i < timers->end; i++)
    *entry++ = (vs_entry_t){vs_timer_number(timers->list[i]),
                            (uint64_t) i + (i < timers->middle ? 0 : unsorted), timers->list[i]};
  for (i = 0; i < timers->heap.size; i++, entry++) {
    *entry = timers->heap.entries[i];
    entry->order += from_heap;
  }
  vs_sort_entries(entries, entry - entries);
  return entries;
}

int vs_timers_sort(vs_timers_t *timers) {
  Py_ssize_t size = vs_timers_pending(timers), i;
  vs_entry_t *entries;

  if (timers->heap.size == 0 && is_sorted(timers)) {
    timers->middle = timers->end;
  } else {
    while (timers->room < size)
      if (vs_grow((void **) &timers->list, &timers->room, sizeof(*timers->list)) < 0)
        return -1;
    entries = all_in_order(timers);
    if (entries == NULL)
      return -1;
    for (i = 0; i < size; i++)
      timers->list[i] = entries[i].timer;
    PyMem_Free(entries);
    timers->head = timers->heap.size = 0;
    timers->middle = (size + 1) / 2;
    timers->end = size;
    vs_heapify(&timers->heap); /* gives its memory back */
  }
  timers->boundary = vs_timer_number(timers->list[timers->middle - 1]);
  return 0;
}

int vs_timers_be_odd(vs_timers_t *timers) {
  Py_ssize_t size = vs_timers_pending(timers), i;
  vs_entry_t *entries = all_in_order(timers);

  if (entries == NULL)
    return -1;
  for (i = 0; i < size; i++)
    entries[i].order = (uint64_t) i;
  PyMem_Free(timers->heap.entries);
  PyMem_Free(timers->list);
  timers->list = NULL;
  timers->head = timers->middle = timers->end = timers->room = 0;
  timers->heap = (vs_heap_t){entries, size, size + 1};
  timers->order = (uint64_t) size;
  timers->is_odd = 1;
  return 0;
}
