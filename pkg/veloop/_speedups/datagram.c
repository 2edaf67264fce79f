/* UdpTransport: datagrams that were received go to the protocol, others to the socket. */
#include "speedups.h"

enum { ADDRESS_ROOM = 32 /* in the slab, ahead of a datagram */, ADDRESS_MAX = 28, KNOWN = 1024 };

/* ---------------------------------------------------------------------------- the addresses */

/* A peer's address as Python has it and as the system has it. Programs mostly answer to the very
 * tuple that they were given, so that it is found by its identity: it is kept, and consists of
 * strings and numbers that do not change. Who comes to the same place is found no longer. */
typedef struct {
  PyObject *tuple;
  Py_ssize_t size;
  char raw[ADDRESS_MAX];
} peer_t;

static peer_t by_raw[KNOWN], by_tuple[KNOWN];

static peer_t *place_of_raw(const char *raw, Py_ssize_t size) {
  uint32_t hash = 2166136261u;
  Py_ssize_t i;

  for (i = 0; i < size; i++)
    hash = (hash ^ (unsigned char) raw[i]) * 16777619u;
  return &by_raw[(hash ^ hash >> 16) % KNOWN];
}

static peer_t *place_of_tuple(PyObject *tuple) {
  uintptr_t address = (uintptr_t) tuple;

  return &by_tuple[(address >> 4 ^ address >> 14) % KNOWN];
}

static void put(peer_t *peer, PyObject *tuple, const char *raw, Py_ssize_t size) {
  PyObject *old = peer->tuple;

  peer->tuple = Py_NewRef(tuple);
  peer->size = size;
  memcpy(peer->raw, raw, (size_t) size);
  Py_XDECREF(old);
}

/* The tuple for a sockaddr: a new reference. */
static PyObject *tuple_of(const char *raw, Py_ssize_t size) {
  peer_t *peer = place_of_raw(raw, size);
  PyObject *bytes, *tuple;
  char copy[ADDRESS_MAX];

  if (peer->tuple != NULL && peer->size == size && memcmp(peer->raw, raw, (size_t) size) == 0)
    return Py_NewRef(peer->tuple);
  memcpy(copy, raw, (size_t) size);
  bytes = PyBytes_FromStringAndSize(copy, size);
  tuple = bytes == NULL ? NULL : PyObject_CallOneArg(vs.unpacked, bytes);
  Py_XDECREF(bytes);
  if (tuple != NULL && PyTuple_CheckExact(tuple)) {
    put(peer, tuple, copy, size);
    put(place_of_tuple(tuple), tuple, copy, size);
  }
  return tuple;
}

static int never_changes(PyObject *tuple) {
  Py_ssize_t i;

  for (i = 0; i < PyTuple_GET_SIZE(tuple); i++)
    if (!PyUnicode_CheckExact(PyTuple_GET_ITEM(tuple, i)) &&
        !PyLong_CheckExact(PyTuple_GET_ITEM(tuple, i)))
      return 0;
  return 1;
}

/* The sockaddr for a tuple. -> 1; 0: the Python method has to see to it; -1 */
static int raw_of(PyObject *transport, PyObject *tuple, Py_ssize_t size, char *raw) {
  peer_t *peer = place_of_tuple(tuple);
  Py_ssize_t n = PyTuple_GET_SIZE(tuple), i;
  PyObject *call[5], *bytes;

  if (peer->tuple != tuple || peer->size != size) {
    if (n > 4 || !never_changes(tuple) || SLOT(transport, vs.udp.family) == NULL)
      return 0;
    call[0] = Py_NewRef(SLOT(transport, vs.udp.family));
    for (i = 0; i < n; i++)
      call[i + 1] = PyTuple_GET_ITEM(tuple, i);
    bytes = PyObject_Vectorcall(vs.packed, call, (size_t) n + 1, NULL);
    Py_DECREF(call[0]);
    if (bytes == NULL && !PyErr_ExceptionMatches(PyExc_Exception))
      return -1;
    PyErr_Clear();
    if (bytes == NULL)
      return 0;
    if (!PyBytes_CheckExact(bytes) || PyBytes_GET_SIZE(bytes) != size) {
      Py_DECREF(bytes);
      return 0;
    }
    put(peer, tuple, PyBytes_AS_STRING(bytes), size);
    Py_DECREF(bytes);
  }
  memcpy(raw, peer->raw, (size_t) size);
  return 1;
}

/* How large this transport's sockaddr are; 0: who knows. */
static Py_ssize_t size_of(PyObject *transport) {
  PyObject *number = SLOT(transport, vs.udp.address_size);
  Py_ssize_t size = number != NULL && PyLong_CheckExact(number) ? PyLong_AsSsize_t(number) : 0;

  PyErr_Clear();
  return size > 0 && size <= ADDRESS_MAX ? size : 0;
}

/* -------------------------------------------------------------------------------- receiving */

int vs_datagram_listens(PyObject *transport) {
  PyObject *context;

  if (!PyObject_TypeCheck(transport, vs.udp_type) || SLOT(transport, vs.udp.live) != Py_True ||
      SLOT(transport, vs.udp.protocol) == NULL || size_of(transport) == 0)
    return 0;
  context = SLOT(transport, vs.udp.context);
  return context != NULL && PyContext_CheckExact(context);
}

/* The exception is the protocol's. -> -1 if it leaves the loop, or if another does */
static int failed(PyObject *transport) {
  PyObject *protocol = Py_XNewRef(SLOT(transport, vs.udp.protocol)), *exc, *call[4];
  int r = -1;

  if (vs_leaves() || protocol == NULL) {
    Py_XDECREF(protocol);
    return -1;
  }
  exc = vs_take_raised();
  call[0] = transport;
  call[1] = PyObject_GetAttr(protocol, vs.names.datagram_received);
  if (call[1] == NULL) {
    Py_DECREF(exc); /* which is the same */
  } else {
    vs_raise_again(exc);
    r = vs_call_handling(vs.names.callback_failed, call, 3, 2);
    Py_DECREF(call[1]);
  }
  Py_DECREF(protocol);
  return r;
}

int vs_datagram_deliver(PyObject *transport, const char *raw, Py_ssize_t size) {
  PyObject *data = PyBytes_FromStringAndSize(raw + ADDRESS_ROOM, size), *result = NULL;
  PyObject *address = data == NULL ? NULL : tuple_of(raw, size_of(transport));

  if (address == NULL) {
    Py_XDECREF(data);
    return -1;
  }
  if (vs_datagram_listens(transport)) /* still: a new address is Python's work */
    result = vs_call_in(SLOT(transport, vs.udp.context), SLOT(transport, vs.udp.protocol),
                        vs.names.datagram_received, data, address);
  else
    result = PyObject_CallMethodObjArgs(transport, vs.names.received, data, address, NULL);
  Py_DECREF(data);
  Py_DECREF(address);
  if (result == NULL)
    return failed(transport);
  Py_DECREF(result);
  return 0;
}

/* ---------------------------------------------------------------------------------- sending */

static int64_t send_out(vl_handle_t *handle, PyObject *data, const char *raw) {
  const char *bytes = PyBytes_AS_STRING(data);
  size_t size = (size_t) PyBytes_GET_SIZE(data);
  int64_t queued;

  if (!vs.table->write_may_wait(handle))
    return vs.table->send(handle, bytes, size, raw);
  Py_BEGIN_ALLOW_THREADS
  queued = vs.table->send(handle, bytes, size, raw);
  Py_END_ALLOW_THREADS
  return queued;
}

/* What is sent to a numeric address, or to the one that it is connected to. -> 1; 0: Python's
 * business; -1 */
static int try_send(PyObject *self, PyObject *data, PyObject *addr, int64_t *queued) {
  PyObject *pointer;
  Py_ssize_t size = size_of(self);
  char raw[ADDRESS_MAX];
  int connected = SLOT(self, vs.udp.connected) == Py_True, r;
  vl_handle_t *handle;

  if (!PyBytes_CheckExact(data) || size == 0)
    return 0;
  if (connected) {
    if (addr != Py_None)
      return 0;
  } else {
    if (SLOT(self, vs.udp.peer) != Py_None || !PyTuple_CheckExact(addr))
      return 0;
    r = raw_of(self, addr, size, raw);
    if (r <= 0)
      return r;
  }
  /* Not before: Python has packed the address, and a finalizer may have closed the endpoint. */
  pointer = SLOT(self, vs.udp.pointer);
  if (SLOT(self, vs.udp.conn_lost) != vs.zero || pointer == NULL || !PyLong_CheckExact(pointer))
    return 0;
  handle = PyLong_AsVoidPtr(pointer);
  if (handle == NULL)
    return PyErr_Occurred() ? -1 : 0;
  *queued = send_out(handle, data, connected ? NULL : raw);
  return 1;
}

static PyObject *datagram_sendto(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *names) {
  int64_t queued;
  int r = 0;

  if (names == NULL && (nargs == 1 || nargs == 2))
    r = try_send(self, args[0], nargs == 2 ? args[1] : Py_None, &queued);
  if (r < 0)
    return NULL;
  if (r == 0)
    return vs_original(DATAGRAM_SENDTO, self, args, nargs, names);
  if (queued == 0)
    Py_RETURN_NONE;
  return vs_tell(self, vs.names.after_send, queued);
}

PyMethodDef vs_datagram_methods[] = {
    {"sendto", (PyCFunction) (void (*)(void)) datagram_sendto, METH_FASTCALL | METH_KEYWORDS,
     "sendto($self, data, addr=None)\n--\n\nSend a datagram; what does not go out is queued."},
    {NULL, NULL, 0, NULL},
};
