/* The module: install() finds the slots of Python's classes and puts the methods in place. */
#include "speedups.h"

vs_state_t vs;

/* ------------------------------------------------------------------- looking things up */

static int mismatch(const char *what, const char *name) {
  if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_KeyError) ||
      PyErr_ExceptionMatches(PyExc_AttributeError))
    PyErr_Format(PyExc_ImportError, "the accelerator does not fit: %s %s", what, name);
  return -1;
}

/* The offset of a slot, which a base may have; it must hold an object. */
static int find_slot(PyTypeObject *type, const char *name, Py_ssize_t *offset) {
  PyObject *descr = PyObject_GetAttrString((PyObject *) type, name);
  PyMemberDef *member;
  int fits;

  if (descr == NULL)
    return mismatch("no slot", name);
  fits = Py_TYPE(descr) == &PyMemberDescr_Type &&
         PyType_IsSubtype(type, ((PyDescrObject *) descr)->d_type);
  if (fits) {
    member = ((PyMemberDescrObject *) descr)->d_member;
    fits = member->type == Py_T_OBJECT_EX && member->offset > 0 &&
           member->offset + (Py_ssize_t) sizeof(PyObject *) <= type->tp_basicsize;
    *offset = member->offset;
  }
  Py_DECREF(descr);
  return fits ? 0 : mismatch("no slot", name);
}

typedef struct {
  PyTypeObject **type;
  const char *name;
  Py_ssize_t *offset;
} slot_t;

static const slot_t slots[] = {
    {&vs.core_type, "_closed", &vs.core.closed},
    {&vs.core_type, "_stopping", &vs.core.stopping},
    {&vs.core_type, "_debug", &vs.core.debug},
    {&vs.core_type, "_ready", &vs.core.ready},
    {&vs.core_type, "_due", &vs.core.due},
    {&vs.core_type, "_timers", &vs.core.timers},
    {&vs.core_type, "_driver", &vs.core.driver},
    {&vs.core_type, "_current_handle", &vs.core.current_handle},
    {&vs.core_type, "_thread_id", &vs.core.thread_id},
    {&vs.core_type, "_task_factory", &vs.core.task_factory},
    {&vs.handle_type, "_callback", &vs.handle.callback},
    {&vs.handle_type, "_args", &vs.handle.args},
    {&vs.handle_type, "_cancelled", &vs.handle.cancelled},
    {&vs.handle_type, "_loop", &vs.handle.loop},
    {&vs.handle_type, "_source_traceback", &vs.handle.source_traceback},
    {&vs.handle_type, "_repr", &vs.handle.repr},
    {&vs.handle_type, "_context", &vs.handle.context},
    {&vs.timer_type, "_when", &vs.timer.when},
    {&vs.timer_type, "_scheduled", &vs.timer.scheduled},
    {&vs.driver_type, "address", &vs.driver.address},
    {&vs.driver_type, "records", &vs.driver.records},
    {&vs.driver_type, "taken", &vs.driver.taken},
    {&vs.driver_type, "targets", &vs.driver.targets},
    {&vs.driver_type, "slab", &vs.driver.slab},
    {&vs.stream_type, "_live", &vs.stream.live},
    {&vs.stream_type, "_buffered", &vs.stream.buffered},
    {&vs.stream_type, "_protocol", &vs.stream.protocol},
    {&vs.stream_type, "_context", &vs.stream.context},
    {&vs.stream_type, "_slab", &vs.stream.slab},
    {&vs.stream_type, "_refuse", &vs.stream.refuse},
    {&vs.stream_type, "_resume", &vs.stream.resume},
    {&vs.stream_type, "_address", &vs.stream.address},
};

/* A timer's slots that it shares with Handle must be at the same place. */
static int find_slots(void) {
  size_t i;
  Py_ssize_t offset;

  for (i = 0; i < sizeof(slots) / sizeof(*slots); i++) {
    if (find_slot(*slots[i].type, slots[i].name, slots[i].offset) < 0)
      return -1;
    if (slots[i].type == &vs.handle_type &&
        (find_slot(vs.timer_type, slots[i].name, &offset) < 0 || offset != *slots[i].offset))
      return mismatch("TimerHandle", slots[i].name);
  }
  return 0;
}

typedef struct {
  const char *text;
  PyObject **name;
} name_t;

static const name_t names[] = {
    {"context", &vs.names.context},
    {"loop", &vs.names.loop},
    {"Future", &vs.names.future},
    {"Task", &vs.names.task},
    {"monotonic", &vs.names.monotonic},
    {"time", &vs.names.time},
    {"take", &vs.names.take},
    {"get_debug", &vs.names.get_debug},
    {"_timer_handle_cancelled", &vs.names.timer_handle_cancelled},
    {"_sleep_time", &vs.names.sleep_time},
    {"_callback_failed", &vs.names.callback_failed},
    {"_target_failed", &vs.names.target_failed},
    {"_run_handle", &vs.names.run_handle},
    {"data_received", &vs.names.data_received},
    {"_protocol_failed", &vs.names.protocol_failed},
    {"_after_write", &vs.names.after_write},
    {"get_buffer", &vs.names.get_buffer},
    {"buffer_updated", &vs.names.buffer_updated},
    {"_feed", &vs.names.feed},
    {"_hold", &vs.names.hold},
};

static int make_names(void) {
  size_t i;

  for (i = 0; i < sizeof(names) / sizeof(*names); i++)
    if (*names[i].name == NULL &&
        (*names[i].name = PyUnicode_InternFromString(names[i].text)) == NULL)
      return -1;
  if (vs.loop_name == NULL)
    vs.loop_name = PyTuple_Pack(1, vs.names.loop);
  if (vs.minus_one == NULL)
    vs.minus_one = PyLong_FromLong(-1);
  return vs.loop_name == NULL || vs.minus_one == NULL ? -1 : 0;
}

/* ------------------------------------------------------------------ replacing the methods */

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
};
enum { REPLACED = sizeof(replaced) / sizeof(*replaced) };

/* Notes what the methods are now, by "Class.method" as well. -> a dict. */
static PyObject *find_originals(void) {
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

static int put_methods(void) {
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

/* -------------------------------------------------------------------------------- install() */

static int find_clock(void) {
  PyObject *module = PyImport_ImportModule("time");

  if (module == NULL)
    return -1;
  Py_XSETREF(vs.time_dict, Py_NewRef(PyModule_GetDict(module)));
  Py_XSETREF(vs.monotonic, PyObject_GetAttrString(module, "monotonic"));
  Py_DECREF(module);
  return vs.monotonic == NULL ? -1 : 0;
}

/* Keeps what install() was given; it is never given back. */
static PyTypeObject *keep(PyObject *type) { return (PyTypeObject *) Py_NewRef(type); }

PyDoc_STRVAR(install_doc,
             "install(table, Core, Handle, TimerHandle, Driver, StreamTransport, run_all, drop,\n"
             "        asyncio)\n--\n\n"
             "Put the functions of this module in the place of the classes' methods.\n\n"
             "Returns what they were before, by \"Class.method\". An ImportError says that this\n"
             "module and the classes do not fit; after any error nothing has changed. Once in a\n"
             "process.");

static PyObject *install(PyObject *module, PyObject *args, PyObject *keywords) {
  static char *known[] = {"table",           "Core",    "Handle", "TimerHandle", "Driver",
                          "StreamTransport", "run_all", "drop",   "asyncio",     NULL};
  PyObject *core, *handle, *timer, *driver, *stream, *run_all, *drop, *asyncio, *found;
  const vl_table_t *table;
  long long address;

  (void) module;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "LO!O!O!O!O!OOO!", known, &address,
                                   &PyType_Type, &core, &PyType_Type, &handle, &PyType_Type,
                                   &timer, &PyType_Type, &driver, &PyType_Type, &stream, &run_all,
                                   &drop, &PyModule_Type, &asyncio))
    return NULL;
  table = (const vl_table_t *) (intptr_t) address;
  if (vs.table != NULL) {
    PyErr_SetString(PyExc_ImportError, "the accelerator is in use already");
    return NULL;
  }
  if (table == NULL || table->version != VL_TABLE_VERSION ||
      table->size != (int64_t) sizeof(*table)) {
    PyErr_SetString(PyExc_ImportError, "the accelerator is not of the same build");
    return NULL;
  }
  vs.core_type = keep(core);
  vs.handle_type = keep(handle);
  vs.timer_type = keep(timer);
  vs.driver_type = keep(driver);
  vs.stream_type = keep(stream);
  vs.run_all = Py_NewRef(run_all);
  vs.drop = Py_NewRef(drop);
  vs.asyncio_dict = Py_NewRef(PyModule_GetDict(asyncio));
  vs.on_event = PyObject_GetAttrString(stream, "_on_event");
  vs.sleep_time = PyObject_GetAttrString(core, "_sleep_time");
  if (vs.on_event == NULL || vs.sleep_time == NULL || make_names() < 0 || find_clock() < 0 ||
      find_slots() < 0)
    return NULL;
  found = find_originals();
  if (found == NULL)
    return NULL;
  if (put_methods() < 0) {
    Py_DECREF(found);
    return NULL;
  }
  vs.table = table;
  return found;
}

static PyMethodDef functions[] = {
    {"install", (PyCFunction) (void (*)(void)) install, METH_VARARGS | METH_KEYWORDS, install_doc},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError, "the accelerator is for the main interpreter only");
    return -1;
  }
  if (PyType_Ready(&vs_queue_type) < 0 || PyType_Ready(&vs_timers_type) < 0 ||
      PyType_Ready(&vs_records_type) < 0)
    return -1;
  if (PyModule_AddObjectRef(module, "Queue", (PyObject *) &vs_queue_type) < 0 ||
      PyModule_AddObjectRef(module, "Timers", (PyObject *) &vs_timers_type) < 0)
    return -1;
  return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *) module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "veloop._speedups",
    .m_doc = "The accelerator: hot methods of veloop's classes in C. See docs/performance.md.",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__speedups(void) { return PyModuleDef_Init(&definition); }
