/* Timers: what Python sees of them, as of loop/timers.py. */
#include "speedups.h"

static int timers_traverse(PyObject *self, visitproc visit, void *arg) {
  vs_timers_t *timers = (vs_timers_t *) self;
  Py_ssize_t i;

  for (i = 0; i < vs_timers_pending(timers); i++) {
    int r = vs_handle_visit(vs_timers_at(timers, i), visit, arg);

    if (r != 0)
      return r;
  }
  return 0;
}

static int timers_clear(PyObject *self) {
  vs_timers_clear((vs_timers_t *) self);
  return 0;
}

static void timers_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  vs_timers_clear((vs_timers_t *) self);
  PyMem_Free(((vs_timers_t *) self)->list); /* of timers that were added meanwhile */
  PyMem_Free(((vs_timers_t *) self)->heap.entries);
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
  int r = vs_timers_next_when((vs_timers_t *) self, &when);

  (void) unused;
  if (r < 0)
    return NULL;
  if (r == 0)
    Py_RETURN_NONE;
  return PyFloat_FromDouble(when);
}

static PyObject *timers_sleep_time(PyObject *self, PyObject *clock) {
  double seconds;
  PyObject *now;
  int r = vs_timers_next_when((vs_timers_t *) self, &seconds);

  if (r <= 0)
    return r < 0 ? NULL : PyFloat_FromDouble(-1.0);
  now = PyObject_CallNoArgs(clock); /* not before: sorting takes a while */
  if (now == NULL)
    return NULL;
  seconds = PyFloat_AsDouble(now);
  Py_DECREF(now);
  if ((seconds == -1.0 && PyErr_Occurred()) ||
      vs_timers_sleep_time((vs_timers_t *) self, seconds, &seconds) < 0)
    return NULL;
  return PyFloat_FromDouble(seconds);
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
  vs_timers_clear((vs_timers_t *) self);
  Py_RETURN_NONE;
}

static PyObject *timers_scheduled(PyObject *self, void *unused) {
  vs_timers_t *timers = (vs_timers_t *) self;
  Py_ssize_t size = vs_timers_pending(timers), i;
  PyObject **copy = PyMem_New(PyObject *, (size_t) size + 1), *list;

  (void) unused;
  if (copy == NULL)
    return PyErr_NoMemory();
  /* Whatever is made from here on may start the garbage collector, which may change them. */
  for (i = 0; i < size; i++)
    copy[i] = Py_NewRef(vs_timers_at(timers, i));
  list = PyList_New(0);
  for (i = 0; i < size; i++) {
    if (list != NULL && PyList_Append(list, copy[i]) < 0)
      Py_CLEAR(list);
    vs_handle_drop(copy[i]);
  }
  PyMem_Free(copy);
  return list;
}

static PyObject *timers_pending(PyObject *self, void *unused) {
  (void) unused;
  return PyLong_FromSsize_t(vs_timers_pending((vs_timers_t *) self));
}

static PyMethodDef timers_methods[] = {
    {"add", timers_add, METH_O, NULL},
    {"cancelled", timers_cancelled, METH_O, NULL},
    {"compact", timers_compact, METH_O, NULL},
    {"next_when", timers_next_when, METH_NOARGS, NULL},
    {"sleep_time", timers_sleep_time, METH_O, NULL},
    {"pop_due", timers_pop_due, METH_VARARGS, NULL},
    {"clear", timers_clear_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef timers_getset[] = {
    {"pending", timers_pending, NULL, "How many there are, with those that are cancelled.", NULL},
    {"scheduled", timers_scheduled, NULL, "The same, in no order.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject vs_timers_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "veloop._speedups.Timers",
    .tp_doc = "The timers: see loop/timers.py.",
    .tp_basicsize = sizeof(vs_timers_t),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = timers_dealloc,
    .tp_traverse = timers_traverse,
    .tp_clear = timers_clear,
    .tp_methods = timers_methods,
    .tp_getset = timers_getset,
};
