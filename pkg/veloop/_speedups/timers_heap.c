/* A heap of timers, each with the number by which it is ordered and with the order of its making.
 * No code runs while it is being changed. */
#include "speedups.h"

enum { SMALLEST = 16 };

int vs_grow(void **items, Py_ssize_t *room, size_t each) {
  Py_ssize_t more = *room + *room / 8 + SMALLEST;
  void *grown = PyMem_Realloc(*items, (size_t) more * each);

  if (grown == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  *items = grown;
  *room = more;
  return 0;
}

void vs_shrink(void **items, Py_ssize_t *room, Py_ssize_t size, size_t each) {
  Py_ssize_t less = *room;
  void *shrunk;

  while (less > VS_SHRINK_FROM && size * 4 < less)
    less /= 2;
  if (less == *room)
    return;
  shrunk = PyMem_Realloc(*items, (size_t) less * each);
  if (shrunk != NULL) {
    *items = shrunk;
    *room = less;
  }
}

static inline int before(const vs_entry_t *a, const vs_entry_t *b) {
  return a->when < b->when || (a->when == b->when && a->order < b->order);
}

static void sift_up(vs_entry_t *entries, Py_ssize_t at) {
  vs_entry_t entry = entries[at];
  Py_ssize_t parent;

  for (; at > 0; at = parent) {
    parent = (at - 1) / 2;
    if (!before(&entry, &entries[parent]))
      break;
    entries[at] = entries[parent];
  }
  entries[at] = entry;
}

static void sift_down(vs_entry_t *entries, Py_ssize_t size, Py_ssize_t at) {
  vs_entry_t entry = entries[at];
  Py_ssize_t child;

  while ((child = 2 * at + 1) < size) {
    if (child + 1 < size && before(&entries[child + 1], &entries[child]))
      child++;
    if (!before(&entries[child], &entry))
      break;
    entries[at] = entries[child];
    at = child;
  }
  entries[at] = entry;
}

int vs_heap_push(vs_heap_t *heap, vs_entry_t entry) {
  if (heap->size == heap->room &&
      vs_grow((void **) &heap->entries, &heap->room, sizeof(entry)) < 0)
    return -1;
  heap->entries[heap->size] = entry;
  sift_up(heap->entries, heap->size++);
  return 0;
}

PyObject *vs_heap_pop(vs_heap_t *heap) {
  PyObject *timer = heap->entries[0].timer;

  heap->entries[0] = heap->entries[--heap->size];
  if (heap->size > 0)
    sift_down(heap->entries, heap->size, 0);
  vs_shrink((void **) &heap->entries, &heap->room, heap->size, sizeof(vs_entry_t));
  return timer;
}

void vs_heapify(vs_heap_t *heap) {
  Py_ssize_t i;

  for (i = heap->size / 2 - 1; i >= 0; i--)
    sift_down(heap->entries, heap->size, i);
  vs_shrink((void **) &heap->entries, &heap->room, heap->size, sizeof(vs_entry_t));
}

static int compare(const void *a, const void *b) {
  return before(a, b) ? -1 : 1;
}

void vs_sort_entries(vs_entry_t *entries, Py_ssize_t size) {
  qsort(entries, (size_t) size, sizeof(*entries), compare);
}
