/* Records: the iterator in Driver.records, over what is left of a run of libuv. */
#include "speedups.h"

PyObject *vs_records_new(const int64_t *ring, Py_ssize_t n) {
  vs_records_t *records = PyObject_NewVar(vs_records_t, &vs_records_type, n);

  if (records != NULL) {
    records->next = 0;
    memcpy(records->records, ring, (size_t) n * sizeof(*records->records));
  }
  return (PyObject *) records;
}

static PyObject *records_next(PyObject *self) {
  vs_records_t *records = (vs_records_t *) self;
  const int64_t *record;

  if (records->next == Py_SIZE(self))
    return NULL;
  record = records->records[records->next++];
  return Py_BuildValue("LLLL", (long long) record[0], (long long) record[1],
                       (long long) record[2], (long long) record[3]);
}

PyTypeObject vs_records_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "veloop._speedups.Records",
    .tp_doc = "The records that are left of a run of libuv.",
    .tp_basicsize = offsetof(vs_records_t, records),
    .tp_itemsize = sizeof(int64_t[4]),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = records_next,
};

/* ------------------------------------------------------------------------- telling of them */

int vs_call_void(PyObject *callable, PyObject *const *args, size_t nargs) {
  PyObject *result = PyObject_Vectorcall(callable, args, nargs, NULL);

  if (result == NULL)
    return -1;
  Py_DECREF(result);
  return 0;
}

/* target(kind, a, b), or drop(kind, a, b) */
static int call_target(PyObject *target, const int64_t *record) {
  PyObject *args[3] = {PyLong_FromLongLong(record[0]), PyLong_FromLongLong(record[2]),
                       PyLong_FromLongLong(record[3])};
  int r = -1;

  if (args[0] != NULL && args[1] != NULL && args[2] != NULL)
    r = vs_call_void(target, args, 3);
  Py_XDECREF(args[0]);
  Py_XDECREF(args[1]);
  Py_XDECREF(args[2]);
  return r;
}

static int receive(PyObject *target, PyObject *stream, const int64_t *record) {
  int64_t failed[4] = {record[0], record[1], 0, 0};
  int r = vs_stream_receive(stream, &failed[2]);

  return failed[2] == 0 ? r : call_target(target, failed);
}

static int serve(vs_run_t *run, PyObject *target, const int64_t *record) {
  PyObject *function, *transport;

  if (record[2] >= 0 && PyMethod_Check(target)) {
    function = PyMethod_GET_FUNCTION(target);
    transport = PyMethod_GET_SELF(target);
    if (record[0] == VL_READ && function == vs.on_event &&
        vs_stream_listens(transport, SLOT(run->driver, vs.driver.slab)))
      return record[2] == 0 ? receive(target, transport, record)
                            : vs_stream_deliver(transport, vs.table->slab(run->uv) + record[3],
                                                (Py_ssize_t) record[2]);
    if (record[0] == VL_DATAGRAM && function == vs.on_datagram && vs_datagram_listens(transport))
      return vs_datagram_deliver(transport, vs.table->slab(run->uv) + record[3],
                                 (Py_ssize_t) record[2]);
  }
  return call_target(target, record);
}

/* -> 0, or -1 with an exception that leaves the loop. */
static int dispatch(vs_run_t *run, const int64_t *record) {
  PyObject *targets = SLOT(run->driver, vs.driver.targets), *key, *target, *call[3];
  int r;

  if (targets == NULL || !PyDict_Check(targets)) {
    PyErr_SetString(PyExc_TypeError, "the driver's targets were replaced");
    return -1;
  }
  key = PyLong_FromLongLong(record[1]);
  if (key == NULL)
    return -1;
  target = Py_XNewRef(PyDict_GetItemWithError(targets, key));
  Py_DECREF(key);
  if (target == NULL)
    return PyErr_Occurred() ? -1 : call_target(vs.drop, record);
  r = serve(run, target, record);
  if (r < 0 && !vs_leaves()) {
    call[0] = run->loop;
    call[1] = target;
    r = vs_call_handling(vs.names.target_failed, call, 3, 2);
  }
  Py_DECREF(target);
  return r;
}

/* An iterator that Driver.take made, where Python took them: in a run ahead of the turn, say. */
static int next_of(PyObject *iterator, int64_t *record) {
  PyObject *item = PyIter_Next(iterator), *number;
  int i;

  if (item == NULL)
    return PyErr_Occurred() ? -1 : 0;
  for (i = 0; i < 4; i++) {
    number = PySequence_GetItem(item, i);
    record[i] = number == NULL ? -1 : PyLong_AsLongLong(number);
    Py_XDECREF(number);
    if (record[i] == -1 && PyErr_Occurred())
      break;
  }
  Py_DECREF(item);
  return i < 4 ? -1 : 1;
}

/* An interrupt that came meanwhile would be raised by the target's first line: the record would be
 * gone, and some things are told once. */
int vs_dispatch_all(vs_run_t *run, PyObject *object) {
  vs_records_t *records = (vs_records_t *) object;
  int64_t record[4];
  int r;

  if (Py_TYPE(object) == &vs_records_type) {
    while (records->next < Py_SIZE(object))
      if (PyErr_CheckSignals() < 0 || dispatch(run, records->records[records->next++]) < 0)
        return -1;
  } else {
    while ((r = PyErr_CheckSignals() < 0 ? -1 : next_of(object, record)) != 0)
      if (r < 0 || dispatch(run, record) < 0)
        return -1;
  }
  /* A nested run may have gone on with these, and have got others. */
  if (SLOT(run->driver, vs.driver.records) == object)
    vs_set(run->driver, vs.driver.records, Py_NewRef(Py_None));
  return 0;
}
