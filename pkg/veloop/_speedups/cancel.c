/* Cancelling a handle or a timer. */
#include "speedups.h"

/* What asyncio.Handle.cancel() does. */
static PyObject *cancel_any(PyObject *self, int original) {
  PyObject *loop = SLOT(self, vs.handle.loop), *debug, *repr;
  int is_debug;

  if (vs_is_cancelled(self))
    Py_RETURN_NONE;
  if (loop == NULL)
    return vs_original(original, self, NULL, 0, NULL);
  Py_INCREF(loop);
  vs_set(self, vs.handle.cancelled, Py_NewRef(Py_True));
  debug = PyObject_CallMethodNoArgs(loop, vs.names.get_debug);
  Py_DECREF(loop);
  if (debug == NULL)
    return NULL;
  is_debug = PyObject_IsTrue(debug);
  Py_DECREF(debug);
  if (is_debug < 0)
    return NULL;
  if (is_debug) { /* while it can still be said what it was */
    repr = PyObject_Repr(self);
    if (repr == NULL)
      return NULL;
    vs_set(self, vs.handle.repr, repr);
  }
  vs_set(self, vs.handle.callback, Py_NewRef(Py_None));
  vs_set(self, vs.handle.args, Py_NewRef(Py_None));
  Py_RETURN_NONE;
}

static PyObject *handle_cancel(PyObject *self, PyObject *unused) {
  (void) unused;
  return cancel_any(self, HANDLE_CANCEL);
}

static PyObject *timer_cancel(PyObject *self, PyObject *unused) {
  PyObject *loop = SLOT(self, vs.handle.loop), *result;

  (void) unused;
  if (loop != NULL && !vs_is_cancelled(self)) {
    Py_INCREF(loop);
    result = PyObject_CallMethodOneArg(loop, vs.names.timer_handle_cancelled, self);
    Py_DECREF(loop);
    if (result == NULL)
      return NULL;
    Py_DECREF(result);
  }
  return cancel_any(self, TIMER_CANCEL);
}

PyMethodDef vs_handle_methods[] = {
    {"cancel", handle_cancel, METH_NOARGS, "cancel($self, /)\n--\n\nDo not call the callback."},
    {NULL, NULL, 0, NULL},
};

PyMethodDef vs_timer_methods[] = {
    {"cancel", timer_cancel, METH_NOARGS, "cancel($self, /)\n--\n\nDo not call the callback."},
    {NULL, NULL, 0, NULL},
};
