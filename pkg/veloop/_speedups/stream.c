/* StreamTransport: what is written goes to the socket. */
#include "speedups.h"

/* Up to this many bytes are written with the GIL held, see speedups.h: giving it away means, where
 * other threads compute, to wait 5 ms for it after each message. */
enum { WRITE_MAX = 64 * 1024 };

static PyObject *python_write(PyObject *self, PyObject *data) {
  return vs_original(STREAM_WRITE, self, &data, 1, NULL);
}

PyObject *vs_tell(PyObject *transport, PyObject *name, int64_t number) {
  PyObject *argument = PyLong_FromLongLong(number), *result;

  if (argument == NULL)
    return NULL;
  result = PyObject_CallMethodOneArg(transport, name, argument);
  Py_DECREF(argument);
  if (result == NULL)
    return NULL;
  Py_DECREF(result);
  Py_RETURN_NONE;
}

/* vl_stream_write, and what write() does when not all went out. */
static PyObject *write_out(PyObject *self, vl_handle_t *handle, const char *data, Py_ssize_t size) {
  int64_t queued;

  if (size <= WRITE_MAX && !vs.table->write_may_wait(handle)) {
    queued = vs.table->write(handle, data, (size_t) size);
  } else {
    Py_BEGIN_ALLOW_THREADS
    queued = vs.table->write(handle, data, (size_t) size);
    Py_END_ALLOW_THREADS
  }
  if (queued == 0)
    Py_RETURN_NONE;
  return vs_tell(self, vs.names.after_write, queued);
}

static PyObject *stream_write(PyObject *self, PyObject *data) {
  PyObject *address = SLOT(self, vs.stream.address), *result;
  vl_handle_t *handle;
  Py_buffer view;

  if (SLOT(self, vs.stream.refuse) != Py_False || address == NULL || !PyLong_CheckExact(address))
    return python_write(self, data);
  handle = PyLong_AsVoidPtr(address);
  if (handle == NULL)
    return PyErr_Occurred() ? NULL : python_write(self, data);
  if (PyBytes_CheckExact(data)) {
    if (PyBytes_GET_SIZE(data) == 0)
      Py_RETURN_NONE;
    return write_out(self, handle, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
  }
  if (!PyByteArray_CheckExact(data) && !PyMemoryView_Check(data))
    return python_write(self, data);
  if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
    PyErr_Clear(); /* in pieces, or released: Python copes with it, or says what is wrong */
    return python_write(self, data);
  }
  if (view.len == 0)
    result = Py_NewRef(Py_None);
  else
    result = write_out(self, handle, view.buf, view.len);
  PyBuffer_Release(&view);
  return result;
}

static PyObject *stream_is_closing(PyObject *self, PyObject *unused) {
  PyObject *closing = SLOT(self, vs.stream.closing);

  (void) unused;
  if (closing == NULL)
    return vs_original(STREAM_IS_CLOSING, self, NULL, 0, NULL);
  return Py_NewRef(closing);
}

PyMethodDef vs_stream_methods[] = {
    {"write", stream_write, METH_O,
     "write($self, data, /)\n--\n\nSend bytes; what does not go out at once is copied and queued."},
    {"is_closing", stream_is_closing, METH_NOARGS,
     "is_closing($self, /)\n--\n\nReturn whether it is closed, or being closed."},
    {NULL, NULL, 0, NULL},
};
