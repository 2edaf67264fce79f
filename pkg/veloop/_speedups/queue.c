/* Queue: what is ready, and what is due. As much of collections.deque as the loop uses, for the
 * loop in C to take from without a call. */
#include "speedups.h"

enum { SMALLEST = 64, KEPT = 1024 };

static int resize(vs_queue_t *queue, Py_ssize_t capacity) {
  PyObject **items = PyMem_New(PyObject *, (size_t) capacity);
  Py_ssize_t i;

  if (items == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  for (i = 0; i < queue->size; i++)
    items[i] = queue->items[(queue->head + i) & (queue->capacity - 1)];
  PyMem_Free(queue->items);
  queue->items = items;
  queue->capacity = capacity;
  queue->head = 0;
  return 0;
}

int vs_queue_append(vs_queue_t *queue, PyObject *item) {
  if (queue->size == queue->capacity &&
      resize(queue, queue->capacity ? queue->capacity * 2 : SMALLEST) < 0)
    return -1;
  queue->items[(queue->head + queue->size++) & (queue->capacity - 1)] = Py_NewRef(item);
  return 0;
}

PyObject *vs_queue_pop(vs_queue_t *queue) {
  PyObject *item;

  if (queue->size == 0)
    return NULL;
  item = queue->items[queue->head];
  queue->head = (queue->head + 1) & (queue->capacity - 1);
  if (--queue->size == 0 && queue->capacity > KEPT) {
    /* A burst is over. It is no harm if there should be no memory to give memory back. */
    PyMem_Free(queue->items);
    queue->items = NULL;
    queue->capacity = queue->head = 0;
  }
  return item;
}

static int queue_clear(PyObject *self) {
  PyObject *item;

  while ((item = vs_queue_pop((vs_queue_t *) self)) != NULL)
    vs_handle_drop(item);
  return 0;
}

static int queue_traverse(PyObject *self, visitproc visit, void *arg) {
  vs_queue_t *queue = (vs_queue_t *) self;
  Py_ssize_t i;

  for (i = 0; i < queue->size; i++) {
    int r = vs_handle_visit(queue->items[(queue->head + i) & (queue->capacity - 1)], visit, arg);

    if (r != 0)
      return r;
  }
  return 0;
}

static void queue_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  queue_clear(self);
  PyMem_Free(((vs_queue_t *) self)->items);
  Py_TYPE(self)->tp_free(self);
}

static Py_ssize_t queue_length(PyObject *self) { return ((vs_queue_t *) self)->size; }

/* Over what is in it now: a deque would not allow to append meanwhile. */
static PyObject *queue_iter(PyObject *self) {
  vs_queue_t *queue = (vs_queue_t *) self;
  PyObject *list = PyList_New(0), *iterator;
  Py_ssize_t i;

  if (list == NULL)
    return NULL;
  for (i = 0; i < queue->size; i++) {
    if (PyList_Append(list, queue->items[(queue->head + i) & (queue->capacity - 1)]) < 0) {
      Py_DECREF(list);
      return NULL;
    }
  }
  iterator = PyObject_GetIter(list);
  Py_DECREF(list);
  return iterator;
}

static PyObject *queue_append(PyObject *self, PyObject *item) {
  if (vs_queue_append((vs_queue_t *) self, item) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *queue_extend(PyObject *self, PyObject *items) {
  PyObject *iterator = PyObject_GetIter(items), *item;
  int r;

  if (iterator == NULL)
    return NULL;
  while ((item = PyIter_Next(iterator)) != NULL) {
    r = vs_queue_append((vs_queue_t *) self, item);
    Py_DECREF(item);
    if (r < 0)
      break;
  }
  Py_DECREF(iterator);
  if (PyErr_Occurred())
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *queue_popleft(PyObject *self, PyObject *unused) {
  PyObject *item = vs_queue_pop((vs_queue_t *) self);

  (void) unused;
  if (item == NULL)
    PyErr_SetString(PyExc_IndexError, "pop from an empty queue");
  else
    vs_handle_left(item);
  return item;
}

static PyObject *queue_clear_method(PyObject *self, PyObject *unused) {
  (void) unused;
  queue_clear(self);
  Py_RETURN_NONE;
}

static PyMethodDef queue_methods[] = {
    {"append", queue_append, METH_O, "Add an item at the end."},
    {"extend", queue_extend, METH_O, "Add the items of an iterable at the end."},
    {"popleft", queue_popleft, METH_NOARGS, "Remove and return the first item."},
    {"clear", queue_clear_method, METH_NOARGS, "Remove all items."},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods queue_as_sequence = {.sq_length = queue_length};

PyTypeObject vs_queue_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "veloop._speedups.Queue",
    .tp_doc = "A queue of handles: as much of collections.deque as the loop uses.",
    .tp_basicsize = sizeof(vs_queue_t),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = queue_dealloc,
    .tp_traverse = queue_traverse,
    .tp_clear = queue_clear,
    .tp_as_sequence = &queue_as_sequence,
    .tp_iter = queue_iter,
    .tp_methods = queue_methods,
};
