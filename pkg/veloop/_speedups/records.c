/* Records: the iterator in Driver.records, over what is left in the ring. */
#include "speedups.h"

static PyObject *records_next(PyObject *self) {
  vs_records_t *records = (vs_records_t *) self;
  const int64_t *at = records->at;

  if (records->left == 0)
    return NULL;
  records->at += 4;
  records->left--;
  return Py_BuildValue("LLLL", (long long) at[0], (long long) at[1], (long long) at[2],
                       (long long) at[3]);
}

PyTypeObject vs_records_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "veloop._speedups.Records",
    .tp_doc = "The records that are left of a run of libuv.",
    .tp_basicsize = sizeof(vs_records_t),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = records_next,
};
