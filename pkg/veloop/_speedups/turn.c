/* The turn: Core._run_until_stopped, which says what happens and why. */
#include "speedups.h"

/* While callbacks keep the loop busy it looks for I/O this often, as in core.py. */
#define POLL_EVERY 100e-6
#define LONGEST_SLEEP (24 * 3600.0)
/* Looking takes no time, so the GIL is kept; but other threads must get it some time (seconds). */
#define RELEASE_EVERY 5e-3

typedef struct {
  PyObject *loop, *driver;
  vs_queue_t *ready, *due;
  vs_timers_t *timers;
  vl_loop_t *uv;
  double polled, released;
} run_t;

/* ----------------------------------------------------------------------------- the records */

static int call_void(PyObject *callable, PyObject *const *args, size_t nargs) {
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
    r = call_void(target, args, 3);
  Py_XDECREF(args[0]);
  Py_XDECREF(args[1]);
  Py_XDECREF(args[2]);
  return r;
}

static int serve(run_t *run, PyObject *target, const int64_t *record) {
  PyObject *stream;

  if (record[0] == VL_READ && record[2] > 0 && PyMethod_Check(target) &&
      PyMethod_GET_FUNCTION(target) == vs.on_event) {
    stream = PyMethod_GET_SELF(target);
    if (vs_stream_listens(stream, SLOT(run->driver, vs.driver.slab)))
      return vs_stream_deliver(stream, vs.table->slab(run->uv) + record[3],
                               (Py_ssize_t) record[2]);
  }
  return call_target(target, record);
}

/* -> 0, or -1 with an exception that leaves the loop. */
static int dispatch(run_t *run, const int64_t *record) {
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

static int dispatch_all(run_t *run, PyObject *object) {
  vs_records_t *records = (vs_records_t *) object;

  while (records->next < Py_SIZE(object))
    if (dispatch(run, records->records[records->next++]) < 0)
      return -1;
  /* A nested run may have gone on with these, and have got others. */
  if (SLOT(run->driver, vs.driver.records) == object)
    vs_set(run->driver, vs.driver.records, Py_NewRef(Py_None));
  return 0;
}

/* -------------------------------------------------------------------------------- the poll */

/* What Driver.take does. */
static int take(run_t *run, int n, int64_t taken) {
  PyObject *count, *result, *records;

  if (n < 0) { /* raises */
    count = PyLong_FromLong(n);
    if (count == NULL)
      return -1;
    result = PyObject_CallMethodOneArg(run->driver, vs.names.take, count);
    Py_DECREF(count);
    if (result == NULL)
      return -1;
    Py_DECREF(result);
    return 0;
  }
  count = PyLong_FromLongLong(taken + 1);
  records = vs_records_new(vs.table->ring(run->uv), n);
  if (count == NULL || records == NULL) {
    Py_XDECREF(count);
    Py_XDECREF(records);
    return -1;
  }
  vs_set(run->driver, vs.driver.records, records);
  vs_set(run->driver, vs.driver.taken, count);
  return 0;
}

static int poll(run_t *run, double timeout) {
  long long taken = PyLong_AsLongLong(SLOT(run->driver, vs.driver.taken));
  int n;

  if (taken == -1 && PyErr_Occurred())
    return -1;
  if (timeout == 0.0 && run->polled - run->released < RELEASE_EVERY) {
    n = vs.table->run(run->uv, 0.0, taken);
    run->polled = vs_clock();
  } else {
    Py_BEGIN_ALLOW_THREADS
    n = vs.table->run(run->uv, timeout, taken);
    Py_END_ALLOW_THREADS
    run->polled = run->released = vs_clock();
  }
  return n == 0 ? 0 : take(run, n, taken);
}

/* -> seconds until the next timer, negative without one; -2 with an exception. */
static double sleep_time(run_t *run) {
  PyObject *now;
  double when, seconds;

  if (!vs_timers_next_when(run->timers, &when))
    return -1.0;
  now = vs_time(run->loop);
  if (now == NULL)
    return -2.0;
  seconds = when - PyFloat_AsDouble(now);
  Py_DECREF(now);
  if (PyErr_Occurred())
    return -2.0;
  if (seconds > LONGEST_SLEEP)
    return LONGEST_SLEEP;
  return seconds > 0.0 ? seconds : 0.0;
}

/* -------------------------------------------------------------------------------- the turn */

static int run_handles(run_t *run) {
  Py_ssize_t n;
  PyObject *handle;

  for (n = run->ready->size; n > 0; n--) {
    handle = vs_queue_pop(run->ready);
    if (handle == NULL)
      break; /* a nested run has run them */
    if (vs_handle_run(run->loop, handle) < 0)
      return -1;
  }
  return 0;
}

static int run_due(run_t *run) {
  PyObject *timer;

  while ((timer = vs_queue_pop(run->due)) != NULL)
    if (vs_handle_run(run->loop, timer) < 0)
      return -1;
  return 0;
}

/* -> 1 to stop, -1 with an exception. */
static int is_set(PyObject *loop, Py_ssize_t offset) {
  PyObject *flag = SLOT(loop, offset);

  if (flag == Py_False)
    return 0;
  return flag == NULL ? 0 : PyObject_IsTrue(flag);
}

static int turn(run_t *run) {
  PyObject *records = SLOT(run->driver, vs.driver.records), *now;
  int stopping = is_set(run->loop, vs.core.stopping), debug, r;
  double timeout = -1.0;

  if (stopping < 0)
    return -1;
  if (run->ready->size > 0 || run->due->size > 0 || stopping)
    timeout = 0.0;
  else if (run->timers->size > 0)
    timeout = sleep_time(run);
  if (timeout == -2.0)
    return -1;
  if (records == Py_None && (timeout != 0.0 || vs_clock() - run->polled > POLL_EVERY) &&
      poll(run, timeout) < 0)
    return -1;
  if (PyErr_CheckSignals() < 0)
    return -1;
  if (run->timers->size > 0) {
    now = vs_time(run->loop);
    r = now == NULL ? -1 : vs_timers_pop_due(run->timers, now, run->due);
    Py_XDECREF(now);
    if (r < 0)
      return -1;
  }
  debug = is_set(run->loop, vs.core.debug);
  if (debug != 0)
    return debug < 0 || call_void(vs.run_all, &run->loop, 1) < 0 ? -1 : 0;
  if (run_handles(run) < 0)
    return -1;
  records = SLOT(run->driver, vs.driver.records);
  if (records != NULL && Py_TYPE(records) == &vs_records_type) {
    Py_INCREF(records);
    r = dispatch_all(run, records);
    Py_DECREF(records);
    if (r < 0)
      return -1;
  }
  return run_due(run);
}

/* Is everything of the kind that is known here? */
static int prepare(run_t *run, PyObject *self) {
  PyObject *driver = SLOT(self, vs.core.driver), *ready = SLOT(self, vs.core.ready),
           *due = SLOT(self, vs.core.due), *timers = SLOT(self, vs.core.timers), *address;

  if (driver == NULL || Py_TYPE(driver) != vs.driver_type || !vs_is_queue(ready) ||
      !vs_is_queue(due) || !vs_is_timers(timers))
    return 0;
  address = SLOT(driver, vs.driver.address);
  run->uv = address == NULL ? NULL : PyLong_AsVoidPtr(address);
  if (run->uv == NULL) {
    PyErr_Clear();
    return 0;
  }
  run->loop = self;
  run->driver = Py_NewRef(driver);
  run->ready = (vs_queue_t *) Py_NewRef(ready);
  run->due = (vs_queue_t *) Py_NewRef(due);
  run->timers = (vs_timers_t *) Py_NewRef(timers);
  run->polled = run->released = 0.0; /* the first turn looks for I/O, whatever is ready */
  return 1;
}

PyObject *vs_run_until_stopped(PyObject *self, PyObject *unused) {
  run_t run;
  PyObject *records;
  int r, pure = 0;

  (void) unused;
  if (!prepare(&run, self))
    return vs_original(CORE_RUN_UNTIL_STOPPED, self, NULL, 0, NULL);
  do {
    records = SLOT(run.driver, vs.driver.records);
    pure = records != Py_None && (records == NULL || Py_TYPE(records) != &vs_records_type);
    r = pure ? 0 : turn(&run);
    if (r == 0 && !pure)
      r = is_set(self, vs.core.stopping);
  } while (r == 0 && !pure);
  Py_DECREF(run.driver);
  Py_DECREF(run.ready);
  Py_DECREF(run.due);
  Py_DECREF(run.timers);
  if (r < 0)
    return NULL;
  if (pure) /* an iterator over records that is not ours: Python goes on */
    return vs_original(CORE_RUN_UNTIL_STOPPED, self, NULL, 0, NULL);
  Py_RETURN_NONE;
}
