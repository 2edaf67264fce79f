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
