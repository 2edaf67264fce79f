/* StreamTransport: what was read goes to the protocol. */
#include "speedups.h"

/* After a message of this size the next one is read without a copy; as many at once as asyncio does. */
enum { LARGE = 16 * 1024, RECEIVE_MAX = 256 * 1024 };

int vs_stream_listens(PyObject *stream, PyObject *slab) {
  PyObject *context, *buffered;

  if (!PyObject_TypeCheck(stream, vs.stream_type) || SLOT(stream, vs.stream.live) != Py_True ||
      SLOT(stream, vs.stream.protocol) == NULL)
    return 0;
  /* A protocol that is given views instead of bytes is none of ours. */
  buffered = SLOT(stream, vs.stream.buffered);
  if (buffered != Py_True && (buffered != Py_False || SLOT(stream, vs.stream.slab) != slab))
    return 0;
  context = SLOT(stream, vs.stream.context);
  return context != NULL && PyContext_CheckExact(context);
}

PyObject *vs_call_in(PyObject *context, PyObject *protocol, PyObject *name, PyObject *first,
                     PyObject *second) {
  PyObject *call[3] = {protocol, first, second}, *result = NULL;

  if (protocol == NULL || context == NULL) {
    PyErr_SetString(PyExc_AttributeError, "the transport's protocol or context was deleted");
    return NULL;
  }
  Py_INCREF(protocol);
  Py_INCREF(context);
  if (PyContext_Enter(context) == 0) {
    result = PyObject_VectorcallMethod(name, call, second == NULL ? 2 : 3, NULL);
    if (PyContext_Exit(context) < 0)
      Py_CLEAR(result);
  }
  Py_DECREF(protocol);
  Py_DECREF(context);
  return result;
}

static PyObject *call_protocol(PyObject *stream, PyObject *name, PyObject *argument) {
  return vs_call_in(SLOT(stream, vs.stream.context), SLOT(stream, vs.stream.protocol), name,
                    argument, NULL);
}

/* An exception of the protocol's is set. -> -1 if it leaves the loop, or if another does. */
static int failed(PyObject *stream, PyObject *name) {
  PyObject *call[3] = {stream, NULL, name};

  if (vs_leaves())
    return -1;
  return vs_call_handling(vs.names.protocol_failed, call, 3, 1);
}

/* A protocol of our streams is asked first whether a task waits for just this. */
static PyObject *offer(PyObject *stream, PyObject *bytes) {
  PyObject *resume = SLOT(stream, vs.stream.resume), *result;

  if (resume == NULL || resume == Py_None)
    return Py_NewRef(Py_False);
  Py_INCREF(resume);
  result = PyObject_CallOneArg(resume, bytes);
  Py_DECREF(resume);
  return result;
}

/* Gives it to the protocol. */
static int give(PyObject *stream, PyObject *bytes) {
  PyObject *result = bytes == NULL ? NULL : offer(stream, bytes);

  if (result == Py_False)
    Py_SETREF(result, call_protocol(stream, vs.names.data_received, bytes));
  Py_XDECREF(bytes);
  if (result == NULL)
    return failed(stream, vs.names.data_received);
  Py_DECREF(result);
  return 0;
}

static vl_handle_t *handle_of(PyObject *stream) {
  PyObject *address = SLOT(stream, vs.stream.address);

  return address == NULL || !PyLong_CheckExact(address) ? NULL : PyLong_AsVoidPtr(address);
}

int vs_stream_deliver(PyObject *stream, const char *data, Py_ssize_t size) {
  vl_handle_t *handle;

  if (SLOT(stream, vs.stream.buffered) == Py_True)
    return vs_stream_feed(stream, data, size);
  if (size >= LARGE && (handle = handle_of(stream)) != NULL)
    vs.table->announce(handle);
  return give(stream, PyBytes_FromStringAndSize(data, size));
}

/* glibc has the system make, and clear, the memory for each object of this size, until one was freed. */
static void get_used_to_large(void) {
  static int done;

  if (!done)
    PyMem_RawFree(PyMem_RawMalloc(RECEIVE_MAX + 4096));
  done = 1;
}

/* There is something to read, of one whose last message was large: into the bytes themselves. */
int vs_stream_receive(PyObject *stream, int64_t *status) {
  vl_handle_t *handle = handle_of(stream);
  PyObject *bytes;
  Py_ssize_t n;

  if (handle == NULL || SLOT(stream, vs.stream.buffered) == Py_True)
    return 0;
  get_used_to_large();
  bytes = PyBytes_FromStringAndSize(NULL, RECEIVE_MAX);
  if (bytes == NULL) {
    PyErr_Clear(); /* there may be memory for less: it is read in the next turn */
    return 0;
  }
  n = (Py_ssize_t) vs.table->receive(handle, PyBytes_AS_STRING(bytes), RECEIVE_MAX);
  if (n <= 0) {
    *status = n;
    Py_DECREF(bytes);
    return 0;
  }
  if (n >= LARGE)
    vs.table->announce(handle);
  if (n < RECEIVE_MAX)
    _PyBytes_Resize(&bytes, n);
  return give(stream, bytes);
}

/* stream.name(bytes): for what is left over and is therefore copied. -> 0 or -1. */
static int pass_on(PyObject *stream, PyObject *name, const char *data, Py_ssize_t size) {
  PyObject *bytes = PyBytes_FromStringAndSize(data, size), *result = NULL, *view;

  if (bytes != NULL && name == vs.names.feed) {
    view = PyMemoryView_FromObject(bytes);
    Py_SETREF(bytes, view);
  }
  if (bytes != NULL)
    result = PyObject_CallMethodOneArg(stream, name, bytes);
  Py_XDECREF(bytes);
  if (result == NULL)
    return -1;
  Py_DECREF(result);
  return 0;
}

/* An interrupt: what was not given to the protocol yet is kept for the next run. */
static int interrupted(PyObject *stream, const char *data, Py_ssize_t size) {
  PyObject *exc;

  if (size > 0) {
    exc = vs_take_raised();
    if (pass_on(stream, vs.names.hold, data, size) < 0)
      Py_DECREF(exc);
    else
      vs_raise_again(exc);
  }
  return -1;
}

/* Is there room in it? Else an exception is set. */
static int check_buffer(const Py_buffer *view) {
  if (view->len == 0)
    PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
  else if (view->readonly)
    PyErr_SetString(PyExc_TypeError, "cannot modify read-only memory");
  else
    return 1;
  return 0;
}

/* Copies the beginning of data into a memoryview, where it is bytes, or can be seen as bytes. */
static Py_ssize_t copy_into(PyObject *memory, const char *data, Py_ssize_t size) {
  Py_buffer view;

  if (PyObject_GetBuffer(memory, &view, PyBUF_FULL_RO) < 0) /* released */
    return -1;
  if (size > view.len)
    size = view.len;
  if (view.ndim == 1 && strcmp(view.format, "B") == 0) {
    if (!check_buffer(&view) || PyBuffer_FromContiguous(&view, data, size, 'C') < 0)
      size = -1;
  } else if (!PyBuffer_IsContiguous(&view, 'C')) {
    PyErr_SetString(PyExc_TypeError, "memoryview: casts are restricted to C-contiguous views");
    size = -1;
  } else if (check_buffer(&view)) {
    memcpy(view.buf, data, (size_t) size);
  } else {
    size = -1;
  }
  PyBuffer_Release(&view);
  return size;
}

/* Copies the beginning of data into the protocol's next buffer. -> how much, or -1. */
static Py_ssize_t fill_buffer(PyObject *stream, const char *data, Py_ssize_t size) {
  PyObject *buffer = call_protocol(stream, vs.names.get_buffer, vs.minus_one), *memory;

  if (buffer == NULL)
    return -1;
  memory = PyMemoryView_Check(buffer) ? Py_NewRef(buffer) : PyMemoryView_FromObject(buffer);
  Py_DECREF(buffer);
  if (memory == NULL)
    return -1;
  size = copy_into(memory, data, size);
  Py_DECREF(memory);
  return size;
}

/* The first piece for a BufferedProtocol, nearly always the only one. */
int vs_stream_feed(PyObject *stream, const char *data, Py_ssize_t size) {
  Py_ssize_t n = fill_buffer(stream, data, size);
  PyObject *rest = NULL, *count, *result;
  int r = 0;

  if (n < 0)
    return vs_leaves() ? interrupted(stream, data, size) : failed(stream, vs.names.get_buffer);
  if (n < size) { /* a copy: a nested run would fill the slab anew */
    rest = PyBytes_FromStringAndSize(data + n, size - n);
    if (rest == NULL)
      return failed(stream, vs.names.buffer_updated);
  }
  count = PyLong_FromSsize_t(n);
  result = count == NULL ? NULL : call_protocol(stream, vs.names.buffer_updated, count);
  Py_XDECREF(count);
  if (result == NULL) {
    if (vs_leaves() && rest != NULL)
      r = interrupted(stream, PyBytes_AS_STRING(rest), size - n);
    else
      r = failed(stream, vs.names.buffer_updated);
  } else {
    Py_DECREF(result);
    if (rest != NULL)
      r = pass_on(stream, vs.names.feed, PyBytes_AS_STRING(rest), size - n);
  }
  Py_XDECREF(rest);
  return r;
}
