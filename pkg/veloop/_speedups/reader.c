/* StreamReader: waiting for data, and taking it. */
#include "speedups.h"

/* ---------------------------------------------------------------------------------- waiting */

/* What a read awaits while nothing is there. The method in Python is a generator, this an iterator
 * that does the same in the same steps. */
typedef struct {
  PyObject_HEAD
  PyObject *reader, *waiter; /* NULL at the end */
  int waits;                 /* the waiter was given to the task */
} vs_wait_t;

/* The first step. -> the waiter, for the task to wait for */
static PyObject *begin(vs_wait_t *wait) {
  PyObject *reader = wait->reader, *waiter = wait->waiter;

  wait->waits = 1;
  vs_set(reader, vs.reader.waiter, Py_NewRef(waiter));
  if (PyObject_SetAttr(waiter, vs.names.blocking, Py_True) < 0)
    return NULL;
  return Py_NewRef(waiter);
}

/* Keeps the exception that is set. */
static void end(vs_wait_t *wait, int failed) {
  PyObject *reader = wait->reader, *waiter = wait->waiter;
  PyObject *exc = failed ? vs_take_raised() : NULL;

  wait->reader = wait->waiter = NULL;
  if (reader != NULL && wait->waits) {
    if (failed) {
      if (SLOT(reader, vs.reader.future) == waiter)
        vs_set(reader, vs.reader.future, Py_NewRef(Py_None));
      vs_set(reader, vs.reader.wakeup, Py_NewRef(Py_None));
      vs_set(reader, vs.reader.context, Py_NewRef(Py_None));
    }
    if (SLOT(reader, vs.reader.waiter) == waiter)
      vs_set(reader, vs.reader.waiter, Py_NewRef(Py_None));
  }
  Py_XDECREF(waiter);
  Py_XDECREF(reader);
  if (exc != NULL)
    vs_raise_again(exc);
}

/* -> what is yielded; NULL without an exception at the end */
static PyObject *wait_next(PyObject *self) {
  vs_wait_t *wait = (vs_wait_t *) self;
  PyObject *waiter;

  if (wait->reader == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    return NULL;
  }
  if (!wait->waits) {
    waiter = begin(wait);
    if (waiter == NULL)
      end(wait, 1);
    return waiter;
  }
  end(wait, 0);
  return NULL;
}

static PySendResult wait_am_send(PyObject *self, PyObject *value, PyObject **result) {
  (void) value;
  *result = wait_next(self);
  if (*result != NULL)
    return PYGEN_NEXT;
  if (PyErr_Occurred())
    return PYGEN_ERROR;
  *result = Py_NewRef(Py_None);
  return PYGEN_RETURN;
}

static PyObject *wait_send(PyObject *self, PyObject *value) {
  PyObject *result = wait_next(self);

  (void) value;
  if (result == NULL && !PyErr_Occurred())
    PyErr_SetNone(PyExc_StopIteration);
  return result;
}

/* throw(exception), or throw(type, value, traceback) */
static PyObject *wait_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  PyObject *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;

  if (nargs < 1 || nargs > 3) {
    PyErr_Format(PyExc_TypeError, "throw expected 1 to 3 arguments, got %zd", nargs);
    return NULL;
  }
  if (PyExceptionInstance_Check(args[0]))
    PyErr_SetObject((PyObject *) Py_TYPE(args[0]), args[0]);
  else if (PyExceptionClass_Check(args[0]))
    PyErr_SetObject(args[0], value);
  else
    PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
  end((vs_wait_t *) self, 1);
  return NULL;
}

static PyObject *wait_close(PyObject *self, PyObject *unused) {
  (void) unused;
  PyErr_SetNone(PyExc_GeneratorExit);
  end((vs_wait_t *) self, 1);
  PyErr_Clear();
  Py_RETURN_NONE;
}

static int wait_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(((vs_wait_t *) self)->reader);
  Py_VISIT(((vs_wait_t *) self)->waiter);
  return 0;
}

static void wait_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  Py_XDECREF(((vs_wait_t *) self)->reader);
  Py_XDECREF(((vs_wait_t *) self)->waiter);
  PyObject_GC_Del(self);
}

static PyMethodDef wait_methods[] = {
    {"send", wait_send, METH_O, "send($self, value, /)\n--\n\nAs a coroutine's."},
    {"throw", (PyCFunction) (void (*)(void)) wait_throw, METH_FASTCALL, "As a coroutine's."},
    {"close", wait_close, METH_NOARGS, "close($self, /)\n--\n\nAs a coroutine's."},
    {NULL, NULL, 0, NULL},
};

static PyObject *wait_self(PyObject *self) { return Py_NewRef(self); }

static PyAsyncMethods wait_async = {.am_await = wait_self, .am_send = wait_am_send};

PyTypeObject vs_wait_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "veloop._speedups.Wait",
    .tp_doc = "A StreamReader's wait for data.",
    .tp_basicsize = sizeof(vs_wait_t),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &wait_async,
    .tp_iter = wait_self,
    .tp_iternext = wait_next,
    .tp_methods = wait_methods,
    .tp_traverse = wait_traverse,
    .tp_dealloc = wait_dealloc,
};

/* Where the reader has a future for it, and there is nothing to say or to do before: it nearly
 * always is so from the second wait on. */
static PyObject *reader_wait_for_data(PyObject *self, PyObject *func_name) {
  PyObject *future = SLOT(self, vs.reader.future);
  vs_wait_t *wait;

  if (future == NULL || future == Py_None || SLOT(self, vs.reader.waiter) != Py_None ||
      SLOT(self, vs.reader.exception) != Py_None || SLOT(self, vs.reader.paused) != Py_False)
    return vs_original(READER_WAIT_FOR_DATA, self, &func_name, 1, NULL);
  wait = PyObject_GC_New(vs_wait_t, &vs_wait_type);
  if (wait == NULL)
    return NULL;
  wait->reader = Py_NewRef(self);
  wait->waiter = Py_NewRef(future);
  wait->waits = 0;
  PyObject_GC_Track(wait);
  return (PyObject *) wait;
}

/* ----------------------------------------------------------------------------------- taking */

static PyObject *reader_take(PyObject *self, PyObject *size) {
  PyObject *head = SLOT(self, vs.reader.head), *pos = SLOT(self, vs.reader.pos), *data, *rest;
  Py_ssize_t start = -1, n = -1, length = 0;

  if (head != NULL && PyBytes_CheckExact(head) && pos != NULL && PyLong_CheckExact(pos) &&
      PyLong_CheckExact(size) && SLOT(self, vs.reader.paused) == Py_False) {
    length = PyBytes_GET_SIZE(head);
    start = PyLong_AsSsize_t(pos);
    n = PyLong_AsSsize_t(size);
    PyErr_Clear(); /* -1 then */
  }
  if (start < 0 || n < 0 || start > length || n > length - start)
    return vs_original(READER_TAKE, self, &size, 1, NULL);
  data = n == length ? Py_NewRef(head)
                     : PyBytes_FromStringAndSize(PyBytes_AS_STRING(head) + start, n);
  if (data == NULL)
    return NULL;
  vs_set(self, vs.reader.searcher, Py_NewRef(Py_None));
  if (n == length - start) {
    vs_set(self, vs.reader.pos, Py_NewRef(vs.zero));
    vs_set(self, vs.reader.head, Py_NewRef(vs.no_bytes));
  } else {
    rest = PyLong_FromSsize_t(start + n);
    if (rest == NULL)
      Py_CLEAR(data);
    else
      vs_set(self, vs.reader.pos, rest);
  }
  return data;
}

PyMethodDef vs_reader_methods[] = {
    {"_take", reader_take, METH_O,
     "_take($self, size, /)\n--\n\n"
     "Remove that much, of at least as much, and let the transport read again if it may."},
    {"_wait_for_data", reader_wait_for_data, METH_O,
     "_wait_for_data($self, func_name, /)\n--\n\n"
     "Wait until something was fed: data, the end, or an exception, which is raised."},
    {NULL, NULL, 0, NULL},
};
