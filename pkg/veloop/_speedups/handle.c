/* Handles: made and run. They are instances of Python's classes, of events.py.
 *
 * One that ran and that nobody else holds is kept for the next call_soon(): making and freeing an
 * instance of a Python class costs more than all the rest of it.
 *
 * The garbage collector does not know of a handle until it has left the queue or the heap, and
 * then only if somebody else has it: tens of thousands of them, visited again and again, cost
 * more than running them. The queue or heap is alive, so what is in it is not garbage. When that
 * is garbage itself, it answers for those that it alone has (vs_handle_visit). Others are held
 * from elsewhere, which keeps what they refer to alive; that it does so for ever, if this is
 * only by a cycle of a loop that was never closed, is the price. */
#include "speedups.h"

enum { KEPT = 1024 };

typedef struct {
  PyObject *items[KEPT];
  int size;
} kept_t;

static kept_t kept_handles, kept_timers;

/* An instance whose slots are all empty. */
static PyObject *reuse(kept_t *kept, PyTypeObject *type) {
  PyObject *handle;

  if (kept->size > 0)
    return kept->items[--kept->size];
  handle = type->tp_alloc(type, 0);
  if (handle != NULL)
    PyObject_GC_UnTrack(handle);
  return handle;
}

static inline int is_ours(PyObject *handle) {
  return Py_TYPE(handle) == vs.handle_type || Py_TYPE(handle) == vs.timer_type;
}

int vs_handle_visit(PyObject *handle, visitproc visit, void *arg) {
  if (Py_REFCNT(handle) == 1 && is_ours(handle) && !PyObject_GC_IsTracked(handle)) {
    Py_VISIT(SLOT(handle, vs.handle.callback));
    Py_VISIT(SLOT(handle, vs.handle.args));
    Py_VISIT(SLOT(handle, vs.handle.loop));
    Py_VISIT(SLOT(handle, vs.handle.context));
    Py_VISIT(SLOT(handle, vs.handle.repr));
    Py_VISIT(SLOT(handle, vs.handle.source_traceback));
  } else {
    Py_VISIT(handle);
  }
  return 0;
}

void vs_handle_left(PyObject *handle) {
  if (is_ours(handle) && !PyObject_GC_IsTracked(handle))
    PyObject_GC_Track(handle);
}

void vs_handle_drop(PyObject *handle) {
  if (Py_REFCNT(handle) > 1)
    vs_handle_left(handle);
  Py_DECREF(handle);
}

/* All slots of a handle; the last two are a timer's. */
enum { HANDLE_SLOTS = 7, TIMER_SLOTS = 9 };
static const Py_ssize_t *const offsets[TIMER_SLOTS] = {
    &vs.handle.callback, &vs.handle.args,      &vs.handle.loop,
    &vs.handle.context,  &vs.handle.cancelled, &vs.handle.repr,
    &vs.handle.source_traceback, &vs.timer.when, &vs.timer.scheduled,
};

/* As vs_handle_drop, but keeps it if it can. */
static void give_back(PyObject *handle) {
  PyTypeObject *type = Py_TYPE(handle);
  int is_timer = type == vs.timer_type, slots = is_timer ? TIMER_SLOTS : HANDLE_SLOTS, i;
  kept_t *kept = is_timer ? &kept_timers : &kept_handles;
  PyObject *old[TIMER_SLOTS];

  if (Py_REFCNT(handle) != 1 || kept->size == KEPT || !is_ours(handle) ||
      SLOT(handle, type->tp_weaklistoffset) != NULL) {
    vs_handle_drop(handle);
    return;
  }
  PyObject_GC_UnTrack(handle);
  for (i = 0; i < slots; i++)
    old[i] = vs_swap(handle, *offsets[i], NULL);
  kept->items[kept->size++] = handle;
  for (i = 0; i < slots; i++)
    Py_XDECREF(old[i]);
}

/* Fills what Handle.__init__ fills. -> 0 or -1. */
static int fill_slots(PyObject *handle, PyObject *callback, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *loop, PyObject *context) {
  PyObject *tuple = PyTuple_New(nargs);
  Py_ssize_t i;

  if (tuple == NULL)
    return -1;
  for (i = 0; i < nargs; i++)
    PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
  context = context == NULL ? PyContext_CopyCurrent() : Py_NewRef(context);
  if (context == NULL) {
    Py_DECREF(tuple);
    return -1;
  }
  SLOT(handle, vs.handle.context) = context;
  SLOT(handle, vs.handle.loop) = Py_NewRef(loop);
  SLOT(handle, vs.handle.callback) = Py_NewRef(callback);
  SLOT(handle, vs.handle.args) = tuple;
  SLOT(handle, vs.handle.cancelled) = Py_NewRef(Py_False);
  SLOT(handle, vs.handle.repr) = Py_NewRef(Py_None);
  SLOT(handle, vs.handle.source_traceback) = Py_NewRef(Py_None);
  return 0;
}

PyObject *vs_handle_new(PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *loop, PyObject *context) {
  PyObject *handle = reuse(&kept_handles, vs.handle_type);

  if (handle != NULL && fill_slots(handle, callback, args, nargs, loop, context) < 0)
    Py_CLEAR(handle);
  return handle;
}

PyObject *vs_timer_new(PyObject *when, PyObject *callback, PyObject *const *args,
                       Py_ssize_t nargs, PyObject *loop, PyObject *context) {
  PyObject *handle = reuse(&kept_timers, vs.timer_type);

  if (handle == NULL)
    return NULL;
  SLOT(handle, vs.timer.when) = Py_NewRef(when);
  SLOT(handle, vs.timer.scheduled) = Py_NewRef(Py_False);
  if (fill_slots(handle, callback, args, nargs, loop, context) < 0)
    Py_CLEAR(handle);
  return handle;
}

/* ------------------------------------------------------------------------------- running it */

PyObject *vs_take_raised(void) {
#if PY_VERSION_HEX >= 0x030C0000
  return PyErr_GetRaisedException();
#else
  PyObject *type, *exc, *traceback;

  PyErr_Fetch(&type, &exc, &traceback);
  PyErr_NormalizeException(&type, &exc, &traceback);
  if (traceback != NULL)
    PyException_SetTraceback(exc, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return exc;
#endif
}

void vs_raise_again(PyObject *exc) {
#if PY_VERSION_HEX >= 0x030C0000
  PyErr_SetRaisedException(exc);
#else
  PyErr_Restore(Py_NewRef((PyObject *) Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#endif
}

int vs_call_handling(PyObject *name, PyObject **args, size_t nargs, size_t at) {
  PyObject *exc = vs_take_raised(), *handled = PyErr_GetHandledException(), *result;

  PyErr_SetHandledException(exc);
  args[at] = exc;
  result = PyObject_VectorcallMethod(name, args, nargs, NULL);
  PyErr_SetHandledException(handled);
  Py_XDECREF(handled);
  Py_DECREF(exc);
  if (result == NULL)
    return -1;
  Py_DECREF(result);
  return 0;
}

/* context.run(callback, *args) */
static PyObject *run_in(PyObject *context, PyObject *callback, PyObject *args) {
  PyObject *result;

  if (PyContext_Enter(context) < 0)
    return NULL;
  result = PyObject_Vectorcall(callback, ((PyTupleObject *) args)->ob_item,
                               (size_t) PyTuple_GET_SIZE(args), NULL);
  if (PyContext_Exit(context) < 0)
    Py_CLEAR(result);
  return result;
}

int vs_handle_run_in_python(PyObject *loop, PyObject *handle) {
  PyObject *result;

  vs_handle_left(handle);
  result = PyObject_CallMethodOneArg(loop, vs.names.run_handle, handle);
  Py_DECREF(handle);
  if (result == NULL)
    return -1;
  Py_DECREF(result);
  return 0;
}

int vs_handle_run(PyObject *loop, PyObject *handle) {
  PyObject *context, *callback, *args, *result, *call[3];

  if (!is_ours(handle)) /* something that a program put into the queue itself */
    return vs_handle_run_in_python(loop, handle);
  if (vs_is_cancelled(handle)) {
    give_back(handle);
    return 0;
  }
  context = SLOT(handle, vs.handle.context);
  callback = SLOT(handle, vs.handle.callback);
  args = SLOT(handle, vs.handle.args);
  if (SLOT(handle, vs.handle.cancelled) != Py_False || context == NULL || callback == NULL ||
      args == NULL || !PyContext_CheckExact(context) || !PyTuple_CheckExact(args))
    return vs_handle_run_in_python(loop, handle);
  Py_INCREF(context);
  Py_INCREF(callback);
  Py_INCREF(args);
  /* nesting.py asks what is running: there is no frame of ours to find it in. */
  vs_set(loop, vs.core.current_handle, Py_NewRef(handle));
  result = run_in(context, callback, args);
  Py_DECREF(context);
  Py_DECREF(callback);
  Py_DECREF(args);
  if (result == NULL) {
    vs_set(loop, vs.core.current_handle, Py_NewRef(Py_None));
    call[0] = loop;
    call[1] = handle;
    if (vs_leaves() || vs_call_handling(vs.names.callback_failed, call, 3, 2) < 0) {
      vs_handle_drop(handle);
      return -1;
    }
  } else {
    Py_DECREF(result);
    vs_set(loop, vs.core.current_handle, Py_NewRef(Py_None));
  }
  give_back(handle);
  return 0;
}
