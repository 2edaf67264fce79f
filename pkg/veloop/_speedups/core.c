/* Methods of Core that are asked for all the time: the clock, the debug flag, futures and tasks. */
#include "speedups.h"

#include <time.h>

PyObject *vs_original(int method, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *names) {
  Py_ssize_t all = nargs + (names == NULL ? 0 : PyTuple_GET_SIZE(names)), i;
  PyObject *few[8], **call = few, *result;

  if (all + 1 > 8) {
    call = PyMem_New(PyObject *, (size_t) all + 1);
    if (call == NULL)
      return PyErr_NoMemory();
  }
  call[0] = self;
  for (i = 0; i < all; i++)
    call[i + 1] = args[i];
  result = PyObject_Vectorcall(vs.originals[method], call, (size_t) nargs + 1, names);
  if (call != few)
    PyMem_Free(call);
  return result;
}

/* ------------------------------------------------------------------------------------ clock */

#if PY_VERSION_HEX >= 0x030D0000
double vs_clock(void) {
  PyTime_t now;

  if (PyTime_MonotonicRaw(&now) < 0)
    return 0.0;
  return PyTime_AsSecondsDouble(now);
}
#elif defined(__linux__)
/* As time.monotonic() does it, to the last bit. */
double vs_clock(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  if (now.tv_nsec == 0)
    return (double) now.tv_sec;
  return (double) ((int64_t) now.tv_sec * 1000000000 + now.tv_nsec) / 1e9;
}
#else
extern int64_t _PyTime_GetMonotonicClock(void);
double vs_clock(void) { return (double) _PyTime_GetMonotonicClock() / 1e9; }
#endif

static PyObject *core_time(PyObject *self, PyObject *unused) {
  PyObject *monotonic = PyDict_GetItemWithError(vs.time_dict, vs.names.monotonic), *result;

  (void) self;
  (void) unused;
  if (monotonic == vs.monotonic)
    return PyFloat_FromDouble(vs_clock());
  if (monotonic == NULL) {
    if (!PyErr_Occurred())
      PyErr_SetObject(PyExc_AttributeError, vs.names.monotonic);
    return NULL;
  }
  Py_INCREF(monotonic);
  result = PyObject_CallNoArgs(monotonic);
  Py_DECREF(monotonic);
  return result;
}

PyObject *vs_time(PyObject *loop) { return PyObject_CallMethodNoArgs(loop, vs.names.time); }

/* ------------------------------------------------------------------------------- small ones */

/* asyncio.name(*args, **keywords) */
static PyObject *call_asyncio(PyObject *name, PyObject *const *args, size_t nargs,
                              PyObject *names) {
  PyObject *callable = PyDict_GetItemWithError(vs.asyncio_dict, name), *result;

  if (callable == NULL) {
    if (!PyErr_Occurred())
      PyErr_SetObject(PyExc_AttributeError, name);
    return NULL;
  }
  Py_INCREF(callable);
  result = PyObject_Vectorcall(callable, args, nargs, names);
  Py_DECREF(callable);
  return result;
}

static PyObject *core_get_debug(PyObject *self, PyObject *unused) {
  PyObject *debug = SLOT(self, vs.core.debug);

  (void) unused;
  if (debug == NULL)
    return vs_original(CORE_GET_DEBUG, self, NULL, 0, NULL);
  return Py_NewRef(debug);
}

static PyObject *core_create_future(PyObject *self, PyObject *unused) {
  (void) unused;
  return call_asyncio(vs.names.future, &self, 0, vs.loop_name);
}

/* Are these keywords of Task, and not the one that is ours to give? Before Python 3.12 Task has no
 * eager_start, which the Python method makes up for. */
static int are_for_task(PyObject *names) {
  Py_ssize_t i;

  for (i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
    PyObject *name = PyTuple_GET_ITEM(names, i);

    if (PyUnicode_Compare(name, vs.names.loop) == 0)
      return 0;
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_CompareWithASCIIString(name, "eager_start") == 0)
      return 0;
#endif
  }
  return 1;
}

/* In debug mode the Python method cuts itself out of the task's traceback. */
static PyObject *core_create_task(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *names) {
  Py_ssize_t n = names == NULL ? 0 : PyTuple_GET_SIZE(names), i;
  PyObject *call[8], *all, *task;

  if (nargs != 1 || n > 6 || !vs_is_plain(self) ||
      SLOT(self, vs.core.task_factory) != Py_None || !are_for_task(names))
    return vs_original(CORE_CREATE_TASK, self, args, nargs, names);
  all = n == 0 ? Py_NewRef(vs.loop_name) : PySequence_Concat(names, vs.loop_name);
  if (all == NULL)
    return NULL;
  for (i = 0; i <= n; i++)
    call[i] = args[i];
  call[n + 1] = self;
  task = call_asyncio(vs.names.task, call, 1, all);
  Py_DECREF(all);
  return task;
}

#define METHOD(name, function, flags, signature, text) \
  {name, (PyCFunction) (void (*)(void)) function, flags, name signature "\n--\n\n" text}
#if PY_VERSION_HEX >= 0x030E0000
#define CREATE_TASK_SIGNATURE "($self, coro, **kwargs)"
#else
#define CREATE_TASK_SIGNATURE "($self, coro, *, name=None, context=None, **kwargs)"
#endif
#define VECTOR METH_FASTCALL | METH_KEYWORDS

PyMethodDef vs_core_methods[] = {
    METHOD("call_soon", vs_call_soon, VECTOR, "($self, callback, *args, context=None)",
           "Call callback(*args) in the next turn."),
    METHOD("call_soon_threadsafe", vs_call_soon_threadsafe, VECTOR,
           "($self, callback, *args, context=None)",
           "call_soon() from any thread, and from signal handlers: wakes the loop."),
    METHOD("call_later", vs_call_later, VECTOR,
           "($self, delay, callback, *args, context=None)",
           "Call callback(*args) after `delay` seconds, never sooner."),
    METHOD("call_at", vs_call_at, VECTOR, "($self, when, callback, *args, context=None)",
           "Call callback(*args) when time() reaches `when`, never sooner."),
    METHOD("_timer_handle_cancelled", vs_timer_handle_cancelled, METH_O, "($self, timer, /)",
           "asyncio.TimerHandle.cancel() calls this."),
    METHOD("time", core_time, METH_NOARGS, "($self, /)",
           "The loop's clock: time.monotonic(), in seconds. Tests may replace this method."),
    METHOD("get_debug", core_get_debug, METH_NOARGS, "($self, /)",
           "Return whether the debug mode is on."),
    METHOD("create_future", core_create_future, METH_NOARGS, "($self, /)",
           "A new asyncio.Future of this loop."),
    METHOD("create_task", core_create_task, VECTOR, CREATE_TASK_SIGNATURE,
           "Run a coroutine in a new task; keywords go to the Task or the task factory."),
    METHOD("_run_until_stopped", vs_run_until_stopped, METH_NOARGS, "($self, /)",
           "Turn after turn."),
    {NULL, NULL, 0, NULL},
};
