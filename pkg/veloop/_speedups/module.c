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
    {&vs.core_type, "_nesting", &vs.core.nesting},
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
    {&vs.driver_type, "fresh", &vs.driver.fresh},
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
    {&vs.stream_type, "_closing", &vs.stream.closing},
    {&vs.reader_type, "_context", &vs.reader.context},
    {&vs.reader_type, "_exception", &vs.reader.exception},
    {&vs.reader_type, "_future", &vs.reader.future},
    {&vs.reader_type, "_head", &vs.reader.head},
    {&vs.reader_type, "_paused", &vs.reader.paused},
    {&vs.reader_type, "_pos", &vs.reader.pos},
    {&vs.reader_type, "_searcher", &vs.reader.searcher},
    {&vs.reader_type, "_waiter", &vs.reader.waiter},
    {&vs.reader_type, "_wakeup", &vs.reader.wakeup},
    {&vs.protocol_type, "_hands_over", &vs.protocol.hands_over},
    {&vs.protocol_type, "_loop", &vs.protocol.loop},
    {&vs.protocol_type, "_stream_reader_wr", &vs.protocol.reader_ref},
    {&vs.udp_type, "_address_size", &vs.udp.address_size},
    {&vs.udp_type, "_conn_lost", &vs.udp.conn_lost},
    {&vs.udp_type, "_connected", &vs.udp.connected},
    {&vs.udp_type, "_context", &vs.udp.context},
    {&vs.udp_type, "_family", &vs.udp.family},
    {&vs.udp_type, "_live", &vs.udp.live},
    {&vs.udp_type, "_address", &vs.udp.peer},
    {&vs.udp_type, "_pointer", &vs.udp.pointer},
    {&vs.udp_type, "_protocol", &vs.udp.protocol},
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
    {"remove_done_callback", &vs.names.remove_done_callback},
    {"add_done_callback", &vs.names.add_done_callback},
    {"_callbacks", &vs.names.callbacks},
    {"_append", &vs.names.append},
    {"_maybe_pause_transport", &vs.names.maybe_pause},
    {"_resume_later", &vs.names.resume_later},
    {"__self__", &vs.names.self},
    {"_asyncio_future_blocking", &vs.names.blocking},
    {"datagram_received", &vs.names.datagram_received},
    {"_after_send", &vs.names.after_send},
    {"_received", &vs.names.received},
};

static int make_names(void) {
  size_t i;

  for (i = 0; i < sizeof(names) / sizeof(*names); i++)
    if (*names[i].name == NULL &&
        (*names[i].name = PyUnicode_InternFromString(names[i].text)) == NULL)
      return -1;
  if (vs.loop_name == NULL)
    vs.loop_name = PyTuple_Pack(1, vs.names.loop);
  if (vs.context_name == NULL)
    vs.context_name = PyTuple_Pack(1, vs.names.context);
  if (vs.minus_one == NULL)
    vs.minus_one = PyLong_FromLong(-1);
  if (vs.zero == NULL)
    vs.zero = PyLong_FromLong(0);
  if (vs.no_bytes == NULL)
    vs.no_bytes = PyBytes_FromStringAndSize(NULL, 0);
  return vs.loop_name == NULL || vs.context_name == NULL || vs.minus_one == NULL ||
                 vs.zero == NULL || vs.no_bytes == NULL
             ? -1
             : 0;
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
             "install(table, Core, Handle, TimerHandle, Driver, StreamTransport, StreamReader,\n"
             "        StreamReaderProtocol, resumed, UdpTransport, packed, unpacked, run_all, gil,\n"
             "        drop, asyncio)\n--\n\n"
             "Put the functions of this module in the place of the classes' methods.\n\n"
             "Returns what they were before, by \"Class.method\". An ImportError says that this\n"
             "module and the classes do not fit; after any error nothing has changed. Once in a\n"
             "process.");

static PyObject *install(PyObject *module, PyObject *args, PyObject *keywords) {
  static char *known[] = {
      "table",        "Core",         "Handle",   "TimerHandle", "Driver", "StreamTransport",
      "StreamReader", "StreamReaderProtocol",     "resumed",     "UdpTransport",
      "packed",       "unpacked",     "run_all",  "gil",         "drop",   "asyncio", NULL};
  PyObject *core, *handle, *timer, *driver, *stream, *reader, *protocol, *resumed, *udp, *packed,
      *unpacked, *run_all, *gil, *drop, *asyncio, *found;
  const vl_table_t *table;
  long long address;

  (void) module;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "LO!O!O!O!O!O!O!OO!OOOO!OO!", known, &address,
                                   &PyType_Type, &core, &PyType_Type, &handle, &PyType_Type,
                                   &timer, &PyType_Type, &driver, &PyType_Type, &stream,
                                   &PyType_Type, &reader, &PyType_Type, &protocol, &resumed,
                                   &PyType_Type, &udp, &packed, &unpacked, &run_all,
                                   &PyModule_Type, &gil, &drop, &PyModule_Type, &asyncio))
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
  vs.reader_type = keep(reader);
  vs.protocol_type = keep(protocol);
  vs.resumed = Py_NewRef(resumed);
  vs.udp_type = keep(udp);
  vs.packed = Py_NewRef(packed);
  vs.unpacked = Py_NewRef(unpacked);
  vs.run_all = Py_NewRef(run_all);
  vs.drop = Py_NewRef(drop);
  vs.asyncio_dict = Py_NewRef(PyModule_GetDict(asyncio));
  vs.forget_awaiter = PyDict_GetItemString(vs.asyncio_dict, "future_discard_from_awaited_by");
  vs.forget_awaiter = Py_NewRef(vs.forget_awaiter == NULL ? Py_None : vs.forget_awaiter);
  vs.on_event = PyObject_GetAttrString(stream, "_on_event");
  vs.on_datagram = PyObject_GetAttrString(udp, "_on_event");
  vs.sleep_time = PyObject_GetAttrString(core, "_sleep_time");
  vs.checkpoint = PyObject_GetAttrString(gil, "checkpoint");
  vs.give_way = PyObject_GetAttrString(gil, "give_way");
  if (vs.on_event == NULL || vs.on_datagram == NULL || vs.sleep_time == NULL ||
      vs.checkpoint == NULL || vs.give_way == NULL || make_names() < 0 || find_clock() < 0 ||
      find_slots() < 0)
    return NULL;
  found = vs_find_originals();
  if (found != NULL && vs_put_methods() < 0)
    Py_CLEAR(found);
  if (found != NULL)
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
      PyType_Ready(&vs_records_type) < 0 || PyType_Ready(&vs_wait_type) < 0)
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
