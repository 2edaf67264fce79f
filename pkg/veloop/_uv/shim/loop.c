/* The loop: making and closing it, running it once, the owner check. */
#include "shim.h"

#ifdef _WIN32
#include <windows.h>
uint64_t vl_self(void) { return GetCurrentThreadId(); }
#else
#include <pthread.h>
uint64_t vl_self(void) { return (uint64_t) (uintptr_t) pthread_self(); }
#endif

static _Thread_local uint64_t refused_owner;

uint64_t vl_refused_owner(void) { return refused_owner; }

/* What owner is in a forked child: no thread, so that every guard refuses. */
#define INHERITED UINT64_MAX

int vl_refuse(vl_loop_t *loop) {
  uint64_t owner = atomic_load(&loop->owner);

  refused_owner = owner == INHERITED ? 0 : owner;
  return VL_EFOREIGN;
}

/* ------------------------------------------------------------------------------ running it */

enum {
  DEADLINE_MAX = 1 << 30, /* seconds; a sleep of decades need not be exact */
  GRAIN = 100000,         /* nanoseconds: timers that are due in one of these are woken for together */
};

/* When a sleep shall end. Each waking costs more than a timer does, so it comes at the end of a grain,
 * where libuv has whole milliseconds. */
static uint64_t deadline_of(double timeout) {
  uint64_t deadline = timeout < DEADLINE_MAX ? uv_hrtime() + (uint64_t) (timeout * 1e9) : 0;

  return deadline == 0 ? 0 : (deadline / GRAIN + 1) * GRAIN;
}

static void on_wakeup(uv_async_t *async) { (void) async; }
static void on_sleeper(uv_timer_t *timer) { (void) timer; }

int vl_loop_enter(vl_loop_t *loop) {
  uint64_t owner = 0;

  VL_GUARD(loop);
  /* An interrupt may have come between this and vl_loop_leave: then it is the caller's already. */
  if (!atomic_compare_exchange_strong(&loop->owner, &owner, vl_self()) && owner != vl_self())
    return vl_refuse(loop); /* two threads at once */
  return 0;
}

void vl_loop_leave(vl_loop_t *loop) {
  uint64_t me = vl_self();

  atomic_compare_exchange_strong(&loop->owner, &me, 0); /* it stays INHERITED */
}

int vl_loop_run(vl_loop_t *loop, double timeout, int64_t taken) {
  VL_GUARD(loop);
  if (loop->filled != taken)
    return loop->ring_len;
  if (loop->out_of_memory) { /* told after the records that there was memory for */
    loop->out_of_memory = 0;
    return UV_ENOMEM;
  }
  if (!loop->starved)
    loop->round++;
  loop->starved = 0;
  vl_port_most_events = loop->most_events = vl_most_events(loop);
  loop->ring_len = 0;
  loop->slab_used = 0;
  vl_port_poll_errno = 0;
  loop->runs++;
  vl_poll_end_rests(loop);
  if (timeout == 0.0) {
    uv_run(&loop->uv, UV_RUN_NOWAIT);
  } else {
    if (timeout > 0.0) {
      /* Rounded up, so that libuv's milliseconds do not wake us before it is time. */
      double ms = timeout * 1e3;
      uint64_t whole = (uint64_t) ms;

      vl_port_deadline = deadline_of(timeout);
      uv_update_time(&loop->uv);
      uv_timer_start(&loop->sleeper, on_sleeper, whole + ((double) whole < ms), 0);
    }
    uv_run(&loop->uv, UV_RUN_ONCE);
    vl_port_deadline = 0;
    if (timeout > 0.0)
      uv_timer_start(&loop->sleeper, on_sleeper, VL_IDLE, VL_IDLE);
  }
  if (loop->ring_len != 0)
    loop->filled++;
  else if (vl_port_poll_errno != 0)
    return uv_translate_sys_error(vl_port_poll_errno);
  return loop->ring_len;
}

/* May vl_loop_run with timeout 0 wait all the same? Not for sockets, see port.h, nor for what is
 * only watched. A listener takes no more than it was told of, see listener.c. But a pipe may be in
 * blocking mode, if another process that has it, too, wants it so. */
int vl_loop_may_wait(vl_loop_t *loop) { return VL_SOCKETS_MAY_WAIT || loop->pipes != 0; }

int vl_loop_wakeup(vl_loop_t *loop) {
  int r = 0;

  uv_mutex_lock(&loop->wakeup_lock);
  if (!loop->closed && atomic_load(&loop->owner) != INHERITED)
    r = uv_async_send(&loop->wakeup);
  uv_mutex_unlock(&loop->wakeup_lock);
  return r;
}

/* ----------------------------------------------------------------- making and closing it */

/* Loops that were closed while a thread of the pool was still busy with a request of theirs:
 * such a request cannot be taken back, and closing does not wait for it. */
static vl_loop_t *zombies;
static uv_mutex_t zombies_lock;
static uv_once_t zombies_once = UV_ONCE_INIT;

static void zombies_init(void) { uv_mutex_init(&zombies_lock); }

static void loop_release(vl_loop_t *loop) {
  vl_dns_free_all(loop);
  free(loop->polls);
  free(loop->ring);
  free(loop->slab);
  loop->polls = NULL;
  loop->ring = NULL;
  loop->slab = NULL;
}

/* -> 1 when libuv has let go of the loop. */
static int loop_finish(vl_loop_t *loop) {
  uv_run(&loop->uv, UV_RUN_NOWAIT);
  if (uv_loop_close(&loop->uv) != 0)
    return 0;
  loop_release(loop);
  return 1;
}

static void zombies_reap(void) {
  vl_loop_t **at, *loop;

  uv_once(&zombies_once, zombies_init);
  uv_mutex_lock(&zombies_lock);
  for (at = &zombies; (loop = *at) != NULL;) {
    if (!loop_finish(loop)) {
      at = &loop->next_zombie;
      continue;
    }
    *at = loop->next_zombie;
    loop->next_zombie = NULL;
    if (loop->state == RELEASED) {
      uv_mutex_destroy(&loop->wakeup_lock);
      free(loop);
    } else {
      loop->state = OWNED; /* vl_loop_free may take it now */
    }
  }
  uv_mutex_unlock(&zombies_lock);
}

vl_loop_t *vl_loop_new(int *status) {
  vl_loop_t *loop;
  unsigned occupied;

  zombies_reap();
  loop = calloc(1, sizeof(*loop));
  *status = UV_ENOMEM;
  if (loop == NULL)
    return NULL;
  loop->next_id = 1;
  loop->most_events = EVENTS_MAX;
  loop->slab = malloc(SLAB_SIZE);
  if (loop->slab == NULL || vl_ring_grow(loop) != 0)
    goto no_loop;
  *status = uv_mutex_init(&loop->wakeup_lock);
  if (*status != 0)
    goto no_loop;
  occupied = vl_port_occupy_stdio();
  *status = uv_loop_init(&loop->uv);
  if (*status == 0) {
    *status = uv_async_init(&loop->uv, &loop->wakeup, on_wakeup);
    if (*status != 0)
      uv_loop_close(&loop->uv);
  }
  vl_port_vacate_stdio(occupied);
  if (*status != 0)
    goto no_uv;
  loop->uv.data = loop;
  uv_timer_init(&loop->uv, &loop->sleeper);
  uv_timer_start(&loop->sleeper, on_sleeper, VL_IDLE, VL_IDLE);
  loop->wakeup.data = loop->sleeper.data = NULL; /* not a vl_handle_t */
  return loop;
no_uv:
  uv_mutex_destroy(&loop->wakeup_lock);
no_loop:
  loop_release(loop);
  free(loop);
  return NULL;
}

static void close_any(uv_handle_t *uv, void *unused) {
  (void) unused;
  if (uv_is_closing(uv))
    return;
  if (uv->data != NULL)
    vl_handle_close_unguarded(uv->data);
  else
    uv_close(uv, NULL);
}

/* ------------------------------------------------------------------------- after a fork */

/* The other threads are gone, with whatever locks they held and the requests they worked on. */
void vl_process_forked(void) {
  uv_once(&zombies_once, zombies_init);
  uv_mutex_init(&zombies_lock);
  zombies = NULL;
  vl_port_forked();
}

void vl_loop_forked(vl_loop_t *loop, int closing) {
  uint64_t owner = atomic_load(&loop->owner);

  loop->torn = closing || (owner != 0 && owner != vl_self());
  uv_mutex_init(&loop->wakeup_lock);
  atomic_store(&loop->owner, INHERITED);
}

/* Gives back the child's memory and descriptors. libuv's epoll is still the parent's: whatever
 * were done with it would be done to the parent's loop, so libuv gets a new one first. */
static int close_inherited(vl_loop_t *loop) {
  unsigned occupied;
  int i, r;

  if (loop->closed)
    return UV_EINVAL;
  loop->closed = 1;
  loop->state = ZOMBIE; /* but of no list */
  /* Torn, worked on by threads that are no more, or no descriptor to be had: left as it is. */
  if (loop->torn || loop->requests != NULL)
    return 0;
  occupied = vl_port_occupy_stdio();
  r = uv_loop_fork(&loop->uv);
  vl_port_vacate_stdio(occupied);
  if (r != 0)
    return 0;
  uv_walk(&loop->uv, close_any, NULL);
  for (i = 0; i < 3; i++)
    if (loop_finish(loop)) {
      loop->state = OWNED;
      break;
    }
  return 0;
}

int vl_loop_close(vl_loop_t *loop) {
  int i;

  if (atomic_load(&loop->owner) == INHERITED)
    return close_inherited(loop);
  VL_GUARD(loop);
  uv_walk(&loop->uv, close_any, NULL);
  vl_port_forget_epoll(uv_backend_fd(&loop->uv));
  vl_dns_cancel_all(loop);
  uv_mutex_lock(&loop->wakeup_lock);
  loop->closed = 1;
  uv_mutex_unlock(&loop->wakeup_lock);
  zombies_reap();
  /* Closing takes libuv two turns: one for the requests of a handle, one for the handle. */
  for (i = 0; i < 3 || (loop->requests == NULL && vl_port_cancelling(i)); i++)
    if (loop_finish(loop))
      return 0;
  uv_mutex_lock(&zombies_lock);
  loop->state = ZOMBIE;
  loop->next_zombie = zombies;
  zombies = loop;
  uv_mutex_unlock(&zombies_lock);
  return 0;
}

void vl_loop_free(vl_loop_t *loop) {
  int mine;

  if (!loop->closed)
    vl_loop_close(loop);
  uv_mutex_lock(&zombies_lock);
  mine = loop->state == OWNED;
  loop->state = RELEASED;
  uv_mutex_unlock(&zombies_lock);
  if (mine) {
    uv_mutex_destroy(&loop->wakeup_lock);
    free(loop);
  }
}
