/* Replacing methods of Python's classes, all or none. */
#include "speedups.h"

typedef struct {
  PyTypeObject **type;
  PyMethodDef *methods;
  int first; /* of METHODS, which are in the order of the tables */
} replaced_t;

static const replaced_t replaced[] = {
    {&vs.core_type, vs_core_methods, CORE_CALL_SOON},
    {&vs.handle_type, vs_handle_methods, HANDLE_CANCEL},
    {&vs.timer_type, vs_timer_methods, TIMER_CANCEL},
    {&vs.stream_type, vs_stream_methods, STREAM_WRITE},
    {&vs.reader_type, vs_reader_methods, READER_TAKE},
    {&vs.protocol_type, vs_protocol_methods, PROTOCOL_HAND_OVER},
    {&vs.udp_type, vs_datagram_methods, DATAGRAM_SENDTO},
};
enum { REPLACED = sizeof(replaced) / sizeof(*replaced) };

PyObject *vs_find_originals(void) {
  PyObject *found = PyDict_New(), *original, *name;
  PyMethodDef *def;
  size_t i;
  int r;

  for (i = 0; found != NULL && i < REPLACED; i++) {
    for (def = replaced[i].methods; found != NULL && def->ml_name != NULL; def++) {
      original = PyObject_GetAttrString((PyObject *) *replaced[i].type, def->ml_name);
      name = PyUnicode_FromFormat("%s.%s", (*replaced[i].type)->tp_name, def->ml_name);
      r = original == NULL || name == NULL ? -1 : PyDict_SetItem(found, name, original);
      Py_XDECREF(name);
      Py_XSETREF(vs.originals[replaced[i].first + (def - replaced[i].methods)], original);
      if (r < 0)
        Py_CLEAR(found);
    }
  }
  return found;
}

static int put(PyTypeObject *type, PyMethodDef *def) {
  PyObject *descr = PyDescr_NewMethod(type, def);
  int r = descr == NULL ? -1 : PyObject_SetAttrString((PyObject *) type, def->ml_name, descr);

  Py_XDECREF(descr);
  return r;
}

/* A method that was put in place goes; what was there before comes back. */
static void put_back(PyTypeObject *type, const char *name, PyObject *original) {
  PyObject *inherited = PyObject_GetAttrString((PyObject *) type->tp_base, name);

  PyErr_Clear();
  if (PyObject_SetAttrString((PyObject *) type, name,
                             inherited == original ? NULL : original) < 0)
    PyErr_WriteUnraisable((PyObject *) type);
  Py_XDECREF(inherited);
}

/* The first n of all methods. */
static void put_methods_back(int n) {
  PyObject *exc = vs_take_raised();
  PyMethodDef *def;
  size_t i;

  for (i = 0; i < REPLACED; i++)
    for (def = replaced[i].methods; n > 0 && def->ml_name != NULL; def++, n--)
      put_back(*replaced[i].type, def->ml_name,
               vs.originals[replaced[i].first + (def - replaced[i].methods)]);
  vs_raise_again(exc);
}

int vs_put_methods(void) {
  PyMethodDef *def;
  size_t i;
  int n = 0;

  for (i = 0; i < REPLACED; i++) {
    for (def = replaced[i].methods; def->ml_name != NULL; def++, n++) {
      if (put(*replaced[i].type, def) < 0) {
        put_methods_back(n);
        return -1;
      }
    }
  }
  return 0;
}
