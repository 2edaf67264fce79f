/* What the accelerator's files share.
 *
 * The accelerator has no classes of its own beside Python's: its functions take the place of
 * methods of Core, handles, transports and streams, and read and write the same slots,
 * whose offsets install() looks up. What is rare they leave to the method they replaced.
 *
 * Two rules, for every function here. After whatever may run Python code (a call, a decref of an
 * object that may be the last one, an allocation that may start the garbage collector) slots are
 * read anew, and what is used further is owned. And no function leaves an object half changed
 * while such code runs.
 *
 * The GIL is kept for a run of libuv that does not sleep, for a write of at most 64 KiB, and for
 * a read of at most 256 KiB. None may wait, least of all for another thread of ours, which would
 * wait for the GIL:
 *   - sockets are read and written with MSG_DONTWAIT (_uv/shim/port.h), for O_NONBLOCK is of the
 *     open file, which other processes may have, and may have cleared;
 *   - of a listener that is in blocking mode only the connection that it was told of is taken;
 *   - what is only watched, and a process' end (a pidfd), is not touched; libuv's eventfd, and the
 *     pair of sockets for signals, nobody else has;
 *   - name resolution is done by libuv's threads, and its lock is never held for long;
 *   - pipes and ttys may be in blocking mode: with one of these the GIL is given away, as it is on
 *     other systems and with the system's libuv, where there is no port.h.
 * vl_loop_may_wait and vl_write_may_wait say which it is. What is left: another process that
 * takes, between libuv's poll and its accept, the connection from a listener in blocking mode. */
#ifndef VL_SPEEDUPS_H
#define VL_SPEEDUPS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../_uv/shim/table.h"
#include "../_uv/decl/event.h"

#ifdef Py_GIL_DISABLED
#error "the accelerator relies on the GIL"
#endif
#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#define Py_T_OBJECT_EX T_OBJECT_EX
#endif

/* -------------------------------------------------------------------------------- the state */

/* The methods that were replaced. */
enum {
  CORE_CALL_SOON,
  CORE_CALL_SOON_THREADSAFE,
  CORE_CALL_LATER,
  CORE_CALL_AT,
  CORE_TIMER_HANDLE_CANCELLED,
  CORE_TIME,
  CORE_GET_DEBUG,
  CORE_CREATE_FUTURE,
  CORE_CREATE_TASK,
  CORE_RUN_UNTIL_STOPPED,
  HANDLE_CANCEL,
  TIMER_CANCEL,
  STREAM_WRITE,
  STREAM_IS_CLOSING,
  READER_TAKE,
  READER_WAIT_FOR_DATA,
  PROTOCOL_HAND_OVER,
  DATAGRAM_SENDTO,
  METHODS
};

/* One for the process, not one for each interpreter: a method of a Python class is not told which
 * module it came from. install() refuses a second interpreter, which then stays pure. */
typedef struct {
  const vl_table_t *table;
  PyTypeObject *core_type, *handle_type, *timer_type, *driver_type, *stream_type, *reader_type,
      *protocol_type, *udp_type;
  PyObject *originals[METHODS];
  PyObject *on_event;  /* StreamTransport._on_event: who has it is served without calling it */
  PyObject *on_datagram; /* UdpTransport._on_event */
  PyObject *packed, *unpacked; /* datagram.packed, unpacked: an address to its sockaddr, and back */
  PyObject *sleep_time; /* Core._sleep_time: who has another decides how long to sleep */
  PyObject *run_all;   /* debug.run_all */
  PyObject *checkpoint, *give_way; /* gil.checkpoint, gil.give_way */
  PyObject *drop;      /* _uv.events.drop */
  PyObject *asyncio_dict; /* Future and Task may be replaced, too */
  PyObject *minus_one; /* what get_buffer() is asked for: any size */
  PyObject *zero, *no_bytes;
  PyObject *loop_name; /* ("loop",), which they are called with */
  PyObject *context_name; /* ("context",) */
  PyObject *resumed; /* stream_reader.RESUMED: the future that a resumed task is told of */
  PyObject *forget_awaiter; /* asyncio.future_discard_from_awaited_by, None before 3.14 */
  PyObject *time_dict; /* of the time module: tests replace its monotonic() */
  PyObject *monotonic; /* the one from the start */
  struct {
    Py_ssize_t closed, stopping, debug, ready, due, timers, driver, current_handle, thread_id,
        task_factory, nesting;
  } core;
  struct {
    Py_ssize_t callback, args, cancelled, loop, source_traceback, repr, context;
  } handle;
  struct {
    Py_ssize_t when, scheduled;
  } timer;
  struct {
    Py_ssize_t address, fresh, records, taken, targets, slab;
  } driver;
  struct {
    Py_ssize_t live, buffered, protocol, context, slab, refuse, resume, address, closing;
  } stream;
  struct {
    Py_ssize_t context, exception, future, head, paused, pos, searcher, waiter, wakeup;
  } reader;
  struct {
    Py_ssize_t hands_over, loop, reader_ref;
  } protocol;
  struct {
    Py_ssize_t address_size, conn_lost, connected, context, family, live, peer, pointer, protocol;
  } udp;
  struct {
    PyObject *context, *loop, *future, *task, *monotonic, *time, *take, *get_debug, *sleep_time,
        *timer_handle_cancelled,
        *callback_failed, *target_failed, *run_handle, *data_received, *protocol_failed,
        *after_write, *get_buffer, *buffer_updated, *feed, *hold,
        *remove_done_callback, *add_done_callback, *callbacks, *append, *maybe_pause, *resume_later,
        *self, *blocking, *datagram_received, *after_send, *received;
  } names;
} vs_state_t;

extern vs_state_t vs;

#define SLOT(object, offset) (*(PyObject **) ((char *) (object) + (offset)))

/* A slot may be NULL, for programs can delete it, and may hold anything, for they can assign to it:
 * whatever it should be, a bool say, its decref may run code. So: first vs_swap, then everything
 * else that changes, and the decref of what vs_swap gave last. */

/* Steals value. -> what was there, owned, or NULL. */
static inline PyObject *vs_swap(PyObject *object, Py_ssize_t offset, PyObject *value) {
  PyObject *old = SLOT(object, offset);

  SLOT(object, offset) = value;
  return old;
}

/* vs_swap, where it is the last thing to do. */
static inline void vs_set(PyObject *object, Py_ssize_t offset, PyObject *value) {
  PyObject *old = vs_swap(object, offset, value);

  Py_XDECREF(old);
}

/* Was this handle cancelled? Runs no code: what only its __bool__ could say is not taken for it. */
static inline int vs_is_cancelled(PyObject *handle) {
  PyObject *cancelled = SLOT(handle, vs.handle.cancelled);

  return cancelled == Py_True || (cancelled != NULL && PyLong_CheckExact(cancelled) &&
                                  PyObject_IsTrue(cancelled));
}

/* -------------------------------------------------------------------------------- exceptions */

/* The exception that is set, with its traceback; and set again, steals it. */
PyObject *vs_take_raised(void);
void vs_raise_again(PyObject *exc);

/* Does the exception that is set leave the loop? */
static inline int vs_leaves(void) {
  return PyErr_ExceptionMatches(PyExc_SystemExit) ||
         PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
}

/* object.name(*args) while the exception that is set is being handled, as in an except clause;
 * it is the argument `args[at]`. args has room for object in front. -> 0 or -1. */
int vs_call_handling(PyObject *name, PyObject **args, size_t nargs, size_t at);

/* The method that was replaced, called as if it had not been. */
PyObject *vs_original(int method, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *names);

/* ----------------------------------------------------------------------- queue.c: ready, due */

typedef struct {
  PyObject_HEAD
  PyObject **items;
  Py_ssize_t capacity, head, size; /* capacity is a power of two */
} vs_queue_t;

extern PyTypeObject vs_queue_type;
#define vs_is_queue(object) ((object) != NULL && Py_TYPE(object) == &vs_queue_type)

int vs_queue_append(vs_queue_t *queue, PyObject *item); /* -> 0 or -1 */
/* A new reference, for vs_handle_run or vs_handle_drop; NULL: empty. */
PyObject *vs_queue_pop(vs_queue_t *queue);

/* Open, not in debug mode, with our queue: else it is the Python method's business. */
static inline int vs_is_plain(PyObject *loop) {
  return SLOT(loop, vs.core.closed) == Py_False && SLOT(loop, vs.core.debug) == Py_False &&
         vs_is_queue(SLOT(loop, vs.core.ready));
}

#include "timers.h"

/* ------------------------------------------------------------------- records.c, handle.c ... */

/* The iterator in Driver.records. It has a copy of them: the ring is C's, and may move. */
typedef struct {
  PyObject_VAR_HEAD
  Py_ssize_t next;
  int64_t records[][4];
} vs_records_t;

extern PyTypeObject vs_records_type;

PyObject *vs_records_new(const int64_t *ring, Py_ssize_t n);

PyObject *vs_handle_new(PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *loop, PyObject *context);
PyObject *vs_timer_new(PyObject *when, PyObject *callback, PyObject *const *args,
                       Py_ssize_t nargs, PyObject *loop, PyObject *context);
/* What a queue or a heap does with a handle that it has: visit it for the garbage collector, give
 * it to somebody else, and let go of it. */
int vs_handle_visit(PyObject *handle, visitproc visit, void *arg);
void vs_handle_left(PyObject *handle);
void vs_handle_drop(PyObject *handle);
/* Runs it and lets go of it. -> 0, or -1 with an exception that leaves the loop. */
int vs_handle_run(PyObject *loop, PyObject *handle);
int vs_handle_run_in_python(PyObject *loop, PyObject *handle); /* by Core._run_handle */

typedef struct {
  PyObject *loop, *driver;
  vs_queue_t *ready, *due;
  vs_timers_t *timers;
  vl_loop_t *uv;
  double polled, waited, looked; /* when: I/O was looked for, without a wait, at the clock */
  double every; /* seconds from poll to poll while callbacks are ready */
  int stride; /* handles between two looks at the clock */
  int asks; /* a subclass decides how long to sleep (testing.py) */
} vs_run_t; /* a run of the loop */

int vs_call_void(PyObject *callable, PyObject *const *args, size_t nargs); /* -> 0 or -1 */
/* Calls the targets of records, and forgets these. -> 0, or -1 with an exception to leave by. */
int vs_dispatch_all(vs_run_t *run, PyObject *records);

double vs_clock(void); /* time.monotonic(), but never a replaced one */
PyObject *vs_time(PyObject *loop); /* loop.time() */

/* Gives the stream data that was read. -> 0, or -1 with an exception. */
int vs_stream_deliver(PyObject *stream, const char *data, Py_ssize_t size);
/* *status is set if reading failed. */
int vs_stream_receive(PyObject *stream, int64_t *status);
int vs_stream_feed(PyObject *stream, const char *data, Py_ssize_t size); /* a BufferedProtocol's */
int vs_stream_listens(PyObject *stream, PyObject *slab); /* may it be given? */

/* The same of a datagram, which lies ADDRESS_ROOM behind its sender's address. */
int vs_datagram_deliver(PyObject *transport, const char *raw, Py_ssize_t size);
int vs_datagram_listens(PyObject *transport);
/* context.run(protocol.name, first, second); second may be NULL */
PyObject *vs_call_in(PyObject *context, PyObject *protocol, PyObject *name, PyObject *first,
                     PyObject *second);
PyObject *vs_tell(PyObject *transport, PyObject *name, int64_t number); /* .name(number) -> None */

PyObject *vs_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *vs_call_soon_threadsafe(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *names);
PyObject *vs_call_later(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *vs_call_at(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *vs_timer_handle_cancelled(PyObject *self, PyObject *timer);

extern PyMethodDef vs_core_methods[], vs_handle_methods[], vs_timer_methods[],
    vs_stream_methods[], vs_reader_methods[], vs_protocol_methods[],
    vs_datagram_methods[];
extern PyTypeObject vs_wait_type;
PyObject *vs_run_until_stopped(PyObject *self, PyObject *unused);

/* methods.c: notes what the methods are now, by "Class.method" as well -> a dict; and replaces
 * them, all or none -> 0 or -1. */
PyObject *vs_find_originals(void);
int vs_put_methods(void);

#endif
