/* Scheduling: call_soon, call_later and their kin. */
#include "speedups.h"

/* Is `context` the only keyword, if any? *context stays NULL where it is not given, or None. */
static int take_context(PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                        PyObject **context) {
  PyObject *name;

  *context = NULL;
  if (names == NULL || PyTuple_GET_SIZE(names) == 0)
    return 1;
  name = PyTuple_GET_ITEM(names, 0);
  if (PyTuple_GET_SIZE(names) != 1 ||
      (name != vs.names.context && PyUnicode_Compare(name, vs.names.context) != 0))
    return 0;
  if (args[nargs] != Py_None)
    *context = args[nargs];
  return 1;
}

/* Does this thread run the loop? */
static int is_own_thread(PyObject *self) {
  PyObject *thread = SLOT(self, vs.core.thread_id);

  return thread != NULL && PyLong_Check(thread) &&
         PyLong_AsUnsignedLongMask(thread) == PyThread_get_thread_ident();
}

static PyObject *schedule(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *context) {
  PyObject *handle = vs_handle_new(args[0], args + 1, nargs - 1, self, context);
  PyObject *ready = SLOT(self, vs.core.ready);

  if (handle == NULL)
    return NULL;
  if (!vs_is_queue(ready)) {
    PyErr_SetString(PyExc_TypeError, "the loop's queue was replaced");
    Py_CLEAR(handle);
  } else if (vs_queue_append((vs_queue_t *) ready, handle) < 0) {
    Py_CLEAR(handle);
  }
  return handle;
}

PyObject *vs_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *names) {
  PyObject *context;

  if (nargs < 1 || !vs_is_plain(self) || !take_context(args, nargs, names, &context))
    return vs_original(CORE_CALL_SOON, self, args, nargs, names);
  return schedule(self, args, nargs, context);
}

#if PY_VERSION_HEX >= 0x030E0000

/* The handle has a lock: Python's business, for it costs less than waking the loop does. */
PyObject *vs_call_soon_threadsafe(PyObject *self, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *names) {
  return vs_original(CORE_CALL_SOON_THREADSAFE, self, args, nargs, names);
}

#else

PyObject *vs_call_soon_threadsafe(PyObject *self, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *names) {
  PyObject *context, *handle, *driver = SLOT(self, vs.core.driver), *address;
  vl_loop_t *loop;

  if (nargs < 1 || !vs_is_plain(self) || !take_context(args, nargs, names, &context) ||
      driver == NULL || Py_TYPE(driver) != vs.driver_type)
    return vs_original(CORE_CALL_SOON_THREADSAFE, self, args, nargs, names);
  address = SLOT(driver, vs.driver.address);
  loop = address == NULL ? NULL : PyLong_AsVoidPtr(address);
  if (loop == NULL) {
    if (!PyErr_Occurred())
      PyErr_SetString(PyExc_RuntimeError, "the loop has no address");
    return NULL;
  }
  /* The driver frees the loop: it must outlive the making of the handle. */
  Py_INCREF(driver);
  handle = schedule(self, args, nargs, context);
  /* In the loop's own thread the loop is awake, and looks at its queue before it sleeps (turn.c). */
  if (handle != NULL && !is_own_thread(self))
    vs.table->wakeup(loop);
  Py_DECREF(driver);
  return handle;
}

#endif

static PyObject *schedule_at(PyObject *self, PyObject *when, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *context) {
  PyObject *timer = vs_timer_new(when, args[1], args + 2, nargs - 2, self, context);
  PyObject *timers = Py_XNewRef(SLOT(self, vs.core.timers));

  if (timer == NULL) {
    Py_XDECREF(timers);
    return NULL;
  }
  if (!vs_is_timers(timers)) {
    PyErr_SetString(PyExc_TypeError, "the loop's timers were replaced");
    Py_CLEAR(timer);
  } else if (vs_timers_add((vs_timers_t *) timers, timer) < 0) {
    Py_CLEAR(timer);
  }
  Py_XDECREF(timers);
  return timer;
}

/* Is this a time that needs no further questions? */
static inline int is_time(PyObject *when) {
  return PyFloat_CheckExact(when) && PyFloat_AS_DOUBLE(when) == PyFloat_AS_DOUBLE(when);
}

PyObject *vs_call_at(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *names) {
  PyObject *context;

  if (nargs < 2 || !vs_is_plain(self) || !vs_is_timers(SLOT(self, vs.core.timers)) ||
      !is_time(args[0]) || !take_context(args, nargs, names, &context))
    return vs_original(CORE_CALL_AT, self, args, nargs, names);
  return schedule_at(self, args[0], args, nargs, context);
}

/* call_at() for a time that is no plain number: a clock of a kind of its own, or not a number. */
static PyObject *call_odd(PyObject *self, PyObject *when, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *names) {
  Py_ssize_t all = nargs + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
  PyObject **call = PyMem_New(PyObject *, (size_t) all), *timer;

  if (call == NULL)
    return PyErr_NoMemory();
  memcpy(call, args, (size_t) all * sizeof(*call));
  call[0] = when;
  timer = vs_original(CORE_CALL_AT, self, call, nargs, names);
  PyMem_Free(call);
  return timer;
}

PyObject *vs_call_later(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *names) {
  PyObject *context, *now, *when, *timer;

  if (nargs < 2 || !vs_is_plain(self) || !vs_is_timers(SLOT(self, vs.core.timers)) ||
      !(PyFloat_CheckExact(args[0]) || PyLong_CheckExact(args[0])) ||
      !take_context(args, nargs, names, &context))
    return vs_original(CORE_CALL_LATER, self, args, nargs, names);
  now = vs_time(self);
  if (now == NULL)
    return NULL;
  when = PyNumber_Add(now, args[0]);
  Py_DECREF(now);
  if (when == NULL)
    return NULL;
  if (is_time(when) && vs_is_plain(self))
    timer = schedule_at(self, when, args, nargs, context);
  else
    timer = call_odd(self, when, args, nargs, names);
  Py_DECREF(when);
  return timer;
}

/* Any thread may cancel, but only the loop's own may rebuild the heap under the loop. */
static int may_rebuild(PyObject *self) {
  return SLOT(self, vs.core.thread_id) == Py_None || is_own_thread(self);
}

PyObject *vs_timer_handle_cancelled(PyObject *self, PyObject *timer) {
  PyObject *timers = SLOT(self, vs.core.timers);
  int r;

  if (!vs_is_timers(timers) || !PyObject_TypeCheck(timer, vs.timer_type))
    return vs_original(CORE_TIMER_HANDLE_CANCELLED, self, &timer, 1, NULL);
  Py_INCREF(timers);
  r = vs_timers_cancelled((vs_timers_t *) timers, timer) && may_rebuild(self)
          ? vs_timers_compact((vs_timers_t *) timers, timer) : 0;
  Py_DECREF(timers);
  if (r < 0)
    return NULL;
  Py_RETURN_NONE;
}
