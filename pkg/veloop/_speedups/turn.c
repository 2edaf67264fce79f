/* The turn: Core._run_until_stopped, which says what happens and why. */
#include "speedups.h"

/* While callbacks keep the loop busy it looks for I/O this often, as in turn.py. */
#define POLL_EVERY 25e-6
#define POLL_RARELY 10e-3
/* And where it gives the GIL up to look, this often for long enough, as in gil.py. */
#define GIVE_WAY_EVERY 5e-3
enum { STRIDE_MAX = 32 };

/* -------------------------------------------------------------------------------- the poll */

/* What Driver.take does. */
static int take_records(vs_run_t *run, int n, int64_t taken) {
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
  records = vs_swap(run->driver, vs.driver.records, records);
  vs_set(run->driver, vs.driver.taken, count);
  Py_XDECREF(records);
  return 0;
}

static int poll_io(vs_run_t *run, double timeout) {
  PyObject *count = SLOT(run->driver, vs.driver.taken);
  long long taken;
  int n;

  if (count == NULL || !PyLong_CheckExact(count)) {
    PyErr_SetString(PyExc_TypeError, "the driver's count was replaced");
    return -1;
  }
  taken = PyLong_AsLongLong(count);
  if (taken == -1 && PyErr_Occurred())
    return -1;
  if (SLOT(run->driver, vs.driver.fresh) != Py_False)
    vs_set(run->driver, vs.driver.fresh, Py_NewRef(Py_False));
  /* Looking takes no time, so the GIL is kept: speedups.h. */
  if (timeout == 0.0 && !vs.table->loop_may_wait(run->uv)) {
    n = vs.table->run(run->uv, 0.0, taken);
  } else {
    Py_BEGIN_ALLOW_THREADS
    n = vs.table->run(run->uv, timeout, taken);
    Py_END_ALLOW_THREADS
  }
  run->polled = run->looked = vs_clock();
  run->every = POLL_EVERY;
  if (timeout != 0.0)
    run->waited = run->polled;
  return n == 0 ? 0 : take_records(run, n, taken);
}

/* The loop is busy: let other threads have the GIL, as gil.py explains. */
static int give_way(vs_run_t *run) {
  if (!vs.table->loop_may_wait(run->uv))
    return vs_call_void(vs.checkpoint, NULL, 0);
  if (run->polled - run->waited < GIVE_WAY_EVERY)
    return 0;
  run->waited = run->polled;
  return vs_call_void(vs.give_way, NULL, 0);
}

/* Callbacks are ready. A poll that took long, for the GIL was given away, is repeated only after as
 * long again; but the process may have been stopped meanwhile. */
static int poll_busy(vs_run_t *run) {
  double began = run->looked, took;

  if (give_way(run) < 0 || poll_io(run, 0.0) < 0)
    return -1;
  took = run->polled - began;
  run->every = took < POLL_EVERY ? POLL_EVERY : took > POLL_RARELY ? POLL_RARELY : took;
  return 0;
}

/* Core._sleep_time() -> 0, or -1 with an exception. */
static int sleep_time(vs_run_t *run, double *seconds) {
  PyObject *number;
  int r = run->asks ? 1 : vs_timers_next_when(run->timers, seconds);

  if (r <= 0) {
    *seconds = -1.0;
    return r;
  }
  number = run->asks ? PyObject_CallMethodNoArgs(run->loop, vs.names.sleep_time)
                     : vs_time(run->loop); /* not before: sorting takes a while */
  if (number == NULL)
    return -1;
  *seconds = PyFloat_AsDouble(number);
  Py_DECREF(number);
  if (*seconds == -1.0 && PyErr_Occurred())
    return -1;
  return run->asks ? 0 : vs_timers_sleep_time(run->timers, *seconds, seconds);
}

/* -------------------------------------------------------------------------------- the turn */

/* -> 0 or 1, or -1 with an exception. */
static int is_set(PyObject *loop, Py_ssize_t offset) {
  PyObject *flag = SLOT(loop, offset);
  int r;

  if (flag == Py_False || flag == NULL)
    return 0;
  if (flag == Py_True)
    return 1;
  Py_INCREF(flag);
  r = PyObject_IsTrue(flag);
  Py_DECREF(flag);
  return r;
}

/* Looks for I/O in the midst of the callbacks that are ready, if they take long. The clock is
 * looked at after so many of them as take half of POLL_EVERY. The timers of this turn come before what
 * that brings, and before all that is added. -> 1 if there are records, or -1. */
static int look_between(vs_run_t *run) {
  double now, took;
  int otherwise;

  if (SLOT(run->driver, vs.driver.records) != Py_None || run->due->size > 0)
    return 0;
  now = vs_clock();
  took = now - run->looked;
  run->looked = now;
  if (took > POLL_EVERY && run->stride > 1)
    run->stride /= 2;
  else if (took < POLL_EVERY / 4 && run->stride < STRIDE_MAX)
    run->stride *= 2;
  if (now - run->polled <= run->every)
    return 0;
  /* What comes now is not for this turn, if that is the last, or began without debug mode. */
  otherwise = is_set(run->loop, vs.core.stopping);
  if (otherwise == 0)
    otherwise = is_set(run->loop, vs.core.debug);
  if (otherwise != 0)
    return otherwise < 0 ? -1 : 0;
  if (poll_busy(run) < 0)
    return -1;
  return SLOT(run->driver, vs.driver.records) != Py_None;
}

/* Runs what is ready: what was added before there were records, if there are. */
static int run_handles(vs_run_t *run) {
  Py_ssize_t n = run->ready->size;
  int left = run->stride, r;
  PyObject *handle;

  for (; n > 0; n--) {
    handle = vs_queue_pop(run->ready);
    if (handle == NULL)
      break; /* a nested run has run them */
    if (vs_handle_run(run->loop, handle) < 0)
      return -1;
    if (--left > 0)
      continue;
    r = look_between(run);
    if (r < 0)
      return -1;
    if (r > 0)
      n = run->ready->size + 1;
    left = run->stride;
  }
  return 0;
}

/* The debug mode may have been switched on in this turn: for these it holds. */
static int run_due(vs_run_t *run) {
  PyObject *timer;
  int r;

  while ((timer = vs_queue_pop(run->due)) != NULL) {
    if (SLOT(run->loop, vs.core.debug) == Py_False)
      r = vs_handle_run(run->loop, timer);
    else
      r = vs_handle_run_in_python(run->loop, timer);
    if (r < 0)
      return -1;
  }
  return 0;
}

static int turn(vs_run_t *run) {
  PyObject *records, *now;
  int stopping = is_set(run->loop, vs.core.stopping), looks, debug, r;
  double timeout = -1.0;

  if (stopping < 0)
    return -1;
  if (run->ready->size > 0 || run->due->size > 0 || stopping)
    timeout = 0.0;
  else if (vs_timers_pending(run->timers) > 0 && sleep_time(run, &timeout) < 0)
    return -1;
  if (run->ready->size > 0) /* a signal's handler, that ran in a method of the program's */
    timeout = 0.0;
  run->looked = timeout != 0.0 ? 0.0 : vs_clock();
  looks = timeout != 0.0 || run->looked - run->polled > run->every ||
          SLOT(run->driver, vs.driver.fresh) == Py_True;
  if (looks && SLOT(run->driver, vs.driver.records) == Py_None &&
      (timeout != 0.0 ? poll_io(run, timeout) : poll_busy(run)) < 0)
    return -1;
  if (PyErr_CheckSignals() < 0)
    return -1;
  if (vs_timers_pending(run->timers) > 0) {
    now = vs_time(run->loop);
    r = now == NULL ? -1 : vs_timers_pop_due(run->timers, now, run->due);
    Py_XDECREF(now);
    if (r < 0)
      return -1;
  }
  debug = is_set(run->loop, vs.core.debug);
  if (debug != 0)
    return debug < 0 || vs_call_void(vs.run_all, &run->loop, 1) < 0 ? -1 : 0;
  if (run_handles(run) < 0)
    return -1;
  records = SLOT(run->driver, vs.driver.records);
  if (records != NULL && records != Py_None) {
    Py_INCREF(records);
    r = vs_dispatch_all(run, records);
    Py_DECREF(records);
    if (r < 0)
      return -1;
  }
  return run_due(run);
}

/* Is everything of the kind that is known here? -> 0 if not, -1 with an exception. */
static int prepare(vs_run_t *run, PyObject *self) {
  PyObject *driver = SLOT(self, vs.core.driver), *ready = SLOT(self, vs.core.ready),
           *due = SLOT(self, vs.core.due), *timers = SLOT(self, vs.core.timers), *address,
           *sleep_time;

  if (driver == NULL || Py_TYPE(driver) != vs.driver_type || !vs_is_queue(ready) ||
      !vs_is_queue(due) || !vs_is_timers(timers))
    return 0;
  address = SLOT(driver, vs.driver.address);
  run->uv = address == NULL ? NULL : PyLong_AsVoidPtr(address);
  if (run->uv == NULL) {
    PyErr_Clear();
    return 0;
  }
  sleep_time = PyObject_GetAttr((PyObject *) Py_TYPE(self), vs.names.sleep_time);
  if (sleep_time == NULL)
    return -1;
  run->asks = sleep_time != vs.sleep_time;
  Py_DECREF(sleep_time);
  run->loop = self;
  run->driver = Py_NewRef(driver);
  run->ready = (vs_queue_t *) Py_NewRef(ready);
  run->due = (vs_queue_t *) Py_NewRef(due);
  run->timers = (vs_timers_t *) Py_NewRef(timers);
  run->stride = 1;
  run->every = POLL_EVERY;
  run->polled = run->waited = 0.0; /* the first turn looks for I/O, whatever is ready */
  return 1;
}

PyObject *vs_run_until_stopped(PyObject *self, PyObject *unused) {
  vs_run_t run;
  int r;

  (void) unused;
  r = prepare(&run, self);
  if (r < 0)
    return NULL;
  if (r == 0)
    return vs_original(CORE_RUN_UNTIL_STOPPED, self, NULL, 0, NULL);
  do {
    r = turn(&run);
    if (r == 0)
      r = is_set(self, vs.core.stopping);
  } while (r == 0);
  Py_DECREF(run.driver);
  Py_DECREF(run.ready);
  Py_DECREF(run.due);
  Py_DECREF(run.timers);
  if (r < 0)
    return NULL;
  Py_RETURN_NONE;
}
