/* StreamReaderProtocol: what was read is handed to the task that waits for it, which goes on.
 * The two _hand_over methods of streams.py and stream_reader.py in one. */
#include "speedups.h"

static int is_none(PyObject *object) { return object == NULL || object == Py_None; }

/* The reader, where all is as it nearly always is: owned, or NULL without an exception. */
static PyObject *reader_of(PyObject *protocol) {
  PyObject *loop = SLOT(protocol, vs.protocol.loop), *ref = SLOT(protocol, vs.protocol.reader_ref),
           *reader = NULL;

  if (SLOT(protocol, vs.protocol.hands_over) != Py_True || loop == NULL || ref == NULL ||
      !PyObject_TypeCheck(loop, vs.core_type) || SLOT(loop, vs.core.nesting) != Py_False ||
      !PyWeakref_CheckRefExact(ref))
    return NULL;
#if PY_VERSION_HEX >= 0x030D0000
  if (PyWeakref_GetRef(ref, &reader) < 0)
    PyErr_Clear();
#else
  reader = Py_NewRef(PyWeakref_GET_OBJECT(ref));
#endif
  if (reader != NULL && !PyObject_TypeCheck(reader, vs.reader_type))
    Py_CLEAR(reader);
  return reader;
}

/* Takes the task's wake-up off the future -> 1; 0 if others wait for that, too, or it has another
 * wake-up than the last time; -1 */
static int take_off(PyObject *waiter, PyObject *wakeup, PyObject *context) {
  PyObject *count = PyObject_CallMethodOneArg(waiter, vs.names.remove_done_callback, wakeup);
  PyObject *others, *call[3] = {waiter, wakeup, context}, *result;
  int r = count == NULL ? -1 : PyObject_IsTrue(count);

  Py_XDECREF(count);
  if (r <= 0)
    return r;
  others = PyObject_GetAttr(waiter, vs.names.callbacks);
  if (others == Py_None) {
    Py_DECREF(others);
    return 1;
  }
  r = others == NULL ? -1 : 0;
  Py_XDECREF(others);
  if (r == 0) {
    result = PyObject_VectorcallMethod(vs.names.add_done_callback, call, 2, vs.context_name);
    r = result == NULL ? -1 : 0;
    Py_XDECREF(result);
  }
  return r;
}

/* Behind what is unread. -> 0 or -1 */
static int append(PyObject *reader, PyObject *data) {
  PyObject *head = SLOT(reader, vs.reader.head), *result;

  if (head != NULL && PyBytes_CheckExact(head) && PyBytes_GET_SIZE(head) == 0) {
    vs_set(reader, vs.reader.head, Py_NewRef(data));
    return 0;
  }
  result = PyObject_CallMethodOneArg(reader, vs.names.append, data);
  if (result == NULL)
    return -1;
  Py_DECREF(result);
  return 0;
}

/* The task has run: keep its wake-up only if it waits again, else see whether all was read. Keeps
 * the exception that is set. -> 0 or -1 */
static int settle(PyObject *reader) {
  PyObject *head, *exc, *result;
  int unread;

  if (!is_none(SLOT(reader, vs.reader.waiter)))
    return 0;
  exc = PyErr_Occurred() ? vs_take_raised() : NULL;
  vs_set(reader, vs.reader.wakeup, Py_NewRef(Py_None));
  vs_set(reader, vs.reader.context, Py_NewRef(Py_None));
  head = SLOT(reader, vs.reader.head);
  unread = head != NULL && !(PyBytes_CheckExact(head) && PyBytes_GET_SIZE(head) == 0);
  result = unread ? PyObject_CallMethodNoArgs(reader, vs.names.maybe_pause) : Py_NewRef(Py_None);
  if (exc != NULL) {
    PyErr_Clear();
    vs_raise_again(exc);
  }
  if (result == NULL)
    return -1;
  Py_DECREF(result);
  return 0;
}

/* context.run(wakeup, RESUMED), or later if that context is entered already. -> 0 or -1 */
static int resume(PyObject *reader, PyObject *waiter, PyObject *wakeup, PyObject *context) {
  PyObject *call[4] = {reader, waiter, wakeup, context}, *result;

  if (PyContext_Enter(context) < 0) {
    PyErr_Clear();
    result = PyObject_VectorcallMethod(vs.names.resume_later, call, 4, NULL);
  } else {
    result = PyObject_CallOneArg(wakeup, vs.resumed);
    if (PyContext_Exit(context) < 0)
      Py_CLEAR(result);
  }
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

/* -> 1; 0: nothing has changed; -1 */
static int hand_over(PyObject *reader, PyObject *waiter, PyObject *wakeup, PyObject *context,
                     PyObject *data) {
  PyObject *task, *result;
  int r = take_off(waiter, wakeup, context);

  if (r <= 0)
    return r;
  if (append(reader, data) < 0)
    return -1;
  vs_set(reader, vs.reader.waiter, Py_NewRef(Py_None));
  if (vs.forget_awaiter != Py_None) {
    task = PyObject_GetAttr(wakeup, vs.names.self);
    result = task == NULL
                 ? NULL
                 : PyObject_CallFunctionObjArgs(vs.forget_awaiter, waiter, task, NULL);
    Py_XDECREF(task);
    if (result == NULL)
      return -1;
    Py_DECREF(result);
  }
  r = resume(reader, waiter, wakeup, context);
  return settle(reader) < 0 || r < 0 ? -1 : 1;
}

static PyObject *protocol_hand_over(PyObject *self, PyObject *data) {
  PyObject *reader = PyBytes_CheckExact(data) ? reader_of(self) : NULL;
  PyObject *waiter, *wakeup, *context;
  int r = 0;

  if (reader != NULL) {
    waiter = SLOT(reader, vs.reader.waiter);
    if (is_none(waiter)) {
      Py_DECREF(reader);
      Py_RETURN_FALSE;
    }
    wakeup = SLOT(reader, vs.reader.wakeup);
    context = SLOT(reader, vs.reader.context);
    if (waiter == SLOT(reader, vs.reader.future) && !is_none(wakeup) && context != NULL &&
        PyContext_CheckExact(context)) {
      Py_INCREF(waiter);
      Py_INCREF(wakeup);
      Py_INCREF(context);
      r = hand_over(reader, waiter, wakeup, context, data);
      Py_DECREF(waiter);
      Py_DECREF(wakeup);
      Py_DECREF(context);
    }
    Py_DECREF(reader);
  }
  if (r < 0)
    return NULL;
  if (r > 0)
    Py_RETURN_TRUE;
  return vs_original(PROTOCOL_HAND_OVER, self, &data, 1, NULL);
}

PyMethodDef vs_protocol_methods[] = {
    {"_hand_over", protocol_hand_over, METH_O,
     "_hand_over($self, data, /)\n--\n\nStreamReader._hand_over(), if there is a reader."},
    {NULL, NULL, 0, NULL},
};
