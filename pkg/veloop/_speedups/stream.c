/* StreamTransport: what was read goes to the protocol, what is written to the socket. */
#include "speedups.h"

/* Up to this many bytes are written with the GIL held: the socket does not block, and giving the
 * GIL away means, where other threads compute, to wait 5 ms for it after each message. */
enum { WRITE_MAX = 64 * 1024 };

int vs_stream_listens(PyObject *stream, PyObject *slab) {
  PyObject *context;

  if (!PyObject_TypeCheck(stream, vs.stream_type) ||
      SLOT(stream, vs.stream.live) != Py_True || SLOT(stream, vs.stream.buffered) != Py_False ||
      SLOT(stream, vs.stream.slab) != slab || SLOT(stream, vs.stream.protocol) == NULL)
    return 0;
  context = SLOT(stream, vs.stream.context);
  return context != NULL && PyContext_CheckExact(context);
}

int vs_stream_deliver(PyObject *stream, const char *data, Py_ssize_t size) {
  PyObject *bytes = PyBytes_FromStringAndSize(data, size), *context, *call[3], *result = NULL;

  if (bytes != NULL) {
    context = Py_NewRef(SLOT(stream, vs.stream.context));
    call[0] = Py_NewRef(SLOT(stream, vs.stream.protocol));
    call[1] = bytes;
    if (PyContext_Enter(context) == 0) {
      result = PyObject_VectorcallMethod(vs.names.data_received, call, 2, NULL);
      if (PyContext_Exit(context) < 0)
        Py_CLEAR(result);
    }
    Py_DECREF(call[0]);
    Py_DECREF(bytes);
    Py_DECREF(context);
  }
  if (result != NULL) {
    Py_DECREF(result);
    return 0;
  }
  if (vs_leaves())
    return -1;
  call[0] = stream;
  call[2] = vs.names.data_received;
  return vs_call_handling(vs.names.protocol_failed, call, 3, 1);
}

static PyObject *stream_write(PyObject *self, PyObject *data) {
  PyObject *address = SLOT(self, vs.stream.address), *count, *result;
  vl_handle_t *handle;
  int64_t queued;
  Py_ssize_t size;

  if (!PyBytes_CheckExact(data) || SLOT(self, vs.stream.refuse) != Py_False || address == NULL ||
      !PyLong_CheckExact(address))
    return vs_original(STREAM_WRITE, self, &data, 1, NULL);
  size = PyBytes_GET_SIZE(data);
  if (size == 0)
    Py_RETURN_NONE;
  handle = PyLong_AsVoidPtr(address);
  if (handle == NULL)
    return PyErr_Occurred() ? NULL : vs_original(STREAM_WRITE, self, &data, 1, NULL);
  if (size <= WRITE_MAX) {
    queued = vs.table->write(handle, PyBytes_AS_STRING(data), (size_t) size);
  } else {
    Py_INCREF(data);
    Py_BEGIN_ALLOW_THREADS
    queued = vs.table->write(handle, PyBytes_AS_STRING(data), (size_t) size);
    Py_END_ALLOW_THREADS
    Py_DECREF(data);
  }
  if (queued == 0)
    Py_RETURN_NONE;
  count = PyLong_FromLongLong(queued);
  if (count == NULL)
    return NULL;
  result = PyObject_CallMethodOneArg(self, vs.names.after_write, count);
  Py_DECREF(count);
  if (result == NULL)
    return NULL;
  Py_DECREF(result);
  Py_RETURN_NONE;
}

PyMethodDef vs_stream_methods[] = {
    {"write", stream_write, METH_O,
     "write($self, data, /)\n--\n\nSend bytes; what does not go out at once is copied and queued."},
    {NULL, NULL, 0, NULL},
};
