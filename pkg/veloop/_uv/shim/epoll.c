/* port.h: what libuv's calls of epoll do. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* syscall */
#endif
#include "shim.h"

#ifdef __linux__
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Registrations that failed for want of memory, or of the user's epoll quota. libuv believes in them,
 * so they are tried again and again while it waits. Any thread may have one, they are few and rare. */
enum { RETRY_AFTER = 50 }; /* milliseconds */

static struct failed {
  int epoll_fd, fd;
  struct epoll_event event;
} *failed;
static int nfailed, failed_cap;
static _Atomic int any_failed;
static uv_mutex_t failed_lock;
static uv_once_t failed_once = UV_ONCE_INIT;

static void failed_init(void) { uv_mutex_init(&failed_lock); }

/* Without memory for that either, the descriptor is lost. */
static void remember(int epoll_fd, int fd, const struct epoll_event *event) {
  struct failed *grown;

  if (nfailed == failed_cap) {
    grown = realloc(failed, (size_t) (failed_cap + 64) * sizeof(*failed));
    if (grown == NULL)
      return;
    failed = grown;
    failed_cap += 64;
  }
  failed[nfailed].epoll_fd = epoll_fd;
  failed[nfailed].fd = fd;
  failed[nfailed++].event = *event;
  atomic_store(&any_failed, 1);
}

/* Those of one epoll, all of them (fd -1) or one descriptor's, are of no interest any more. */
static void forget(int epoll_fd, int fd) {
  int i;

  for (i = nfailed - 1; i >= 0; i--)
    if (failed[i].epoll_fd == epoll_fd && (fd == -1 || failed[i].fd == fd))
      failed[i] = failed[--nfailed];
  atomic_store(&any_failed, nfailed != 0);
}

void vl_port_forget_epoll(int epoll_fd) {
  if (!atomic_load(&any_failed))
    return;
  uv_mutex_lock(&failed_lock);
  forget(epoll_fd, -1);
  uv_mutex_unlock(&failed_lock);
}

/* In a forked child: nothing is known of the parent's epolls, and nobody holds the lock. */
void vl_port_epoll_forked(void) {
  uv_once(&failed_once, failed_init);
  uv_mutex_init(&failed_lock);
  nfailed = 0;
  atomic_store(&any_failed, 0);
}

/* -> how many registrations are still missing. */
static int retry(int epoll_fd) {
  int i, left = 0;

  uv_mutex_lock(&failed_lock);
  for (i = nfailed - 1; i >= 0; i--) {
    if (failed[i].epoll_fd != epoll_fd)
      continue;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, failed[i].fd, &failed[i].event) == 0 ||
        (errno != ENOMEM && errno != ENOSPC))
      failed[i] = failed[--nfailed];
    else
      left++;
  }
  atomic_store(&any_failed, nfailed != 0);
  uv_mutex_unlock(&failed_lock);
  return left;
}

/* libuv asserts that waiting never fails. It does when the application has closed the descriptor of
 * the epoll; then libuv is told that nothing happened, and vl_loop_run the truth. Nothing may
 * happen only while libuv has a timer; our loops always have one of VL_IDLE milliseconds. */
_Thread_local int vl_port_poll_errno;

/* When the poll that vl_loop_run is about to make shall end: by uv_hrtime(), 0: when libuv says, which
 * counts in whole milliseconds. */
_Thread_local uint64_t vl_port_deadline;

/* How many events the poll may bring, see event.c. */
_Thread_local int vl_port_most_events = EVENTS_MAX;

/* Linux 5.11 has a call for that; sandboxes may refuse what they do not know. */
#ifdef SYS_epoll_pwait2
static _Atomic int no_pwait2;

static int wait_until(uint64_t deadline, int epoll_fd, struct epoll_event *events, int max,
                      int timeout, const sigset_t *mask) {
  uint64_t now = uv_hrtime(), left = deadline > now ? deadline - now : 0;
  struct timespec limit;
  int n;

  if (left < (uint64_t) timeout * 1000000 && !atomic_load(&no_pwait2)) {
    limit.tv_sec = (time_t) (left / 1000000000);
    limit.tv_nsec = (long) (left % 1000000000);
    n = (int) syscall(SYS_epoll_pwait2, epoll_fd, events, max, &limit, mask, _NSIG / 8);
    if (n != -1 || (errno != ENOSYS && errno != EPERM))
      return n;
    atomic_store(&no_pwait2, 1);
  }
  return epoll_pwait(epoll_fd, events, max, timeout, mask);
}
#else
#define wait_until(deadline, ...) epoll_pwait(__VA_ARGS__)
#endif

static int wait_for(int epoll_fd, struct epoll_event *events, int max, int timeout,
                    const sigset_t *mask) {
  int n;

  if (max > vl_port_most_events)
    max = vl_port_most_events;
  if (timeout > 0 && vl_port_deadline != 0) {
    n = wait_until(vl_port_deadline, epoll_fd, events, max, timeout, mask);
  } else {
    if (timeout > VL_IDLE / 2)
      timeout = -1; /* the kernel need not set up a timer of its own */
    n = epoll_pwait(epoll_fd, events, max, timeout, mask);
  }
  if (n == -1 && errno != EINTR) {
    vl_port_poll_errno = errno;
    return 0;
  }
  return n;
}

int vl_port_epoll_pwait(int epoll_fd, struct epoll_event *events, int max, int timeout,
                        const sigset_t *mask) {
  int n, part;

  while (atomic_load(&any_failed) && retry(epoll_fd) != 0) {
    part = timeout < 0 || timeout > RETRY_AFTER ? RETRY_AFTER : timeout;
    n = wait_for(epoll_fd, events, max, part, mask);
    if (n != 0 || part == timeout || vl_port_poll_errno != 0)
      return n;
    if (timeout > 0)
      timeout -= part;
  }
  return wait_for(epoll_fd, events, max, timeout, mask);
}

/* Set by poll.c while libuv makes a watch: what it registers on trial may stay, to be changed. */
_Thread_local int vl_port_keeps_trial;

int vl_port_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event) {
  int r, known = 0;

  if (vl_port_keeps_trial && op == EPOLL_CTL_DEL)
    return 0;
  r = epoll_ctl(epoll_fd, op, fd, event);
  /* uv_poll_init registers a descriptor on trial, to learn whether it can be polled. Only
   * that call wants the error; it is recognised by its event data being -1. */
  if (op == EPOLL_CTL_ADD && event->data.fd == -1)
    return r;
  if (atomic_load(&any_failed) || (r != 0 && (errno == ENOMEM || errno == ENOSPC))) {
    int number = r == 0 ? 0 : errno;

    uv_once(&failed_once, failed_init);
    uv_mutex_lock(&failed_lock);
    known = nfailed;
    forget(epoll_fd, fd);
    known -= nfailed;
    /* A change of what was never registered registers it. */
    if (op != EPOLL_CTL_DEL && (number == ENOMEM || number == ENOSPC || (known && number == ENOENT)))
      remember(epoll_fd, fd, event);
    uv_mutex_unlock(&failed_lock);
    errno = number;
  }
  return r == 0 || errno == EEXIST ? r : 0;
}
#else
_Thread_local int vl_port_poll_errno;
_Thread_local uint64_t vl_port_deadline;
_Thread_local int vl_port_most_events;
void vl_port_forget_epoll(int epoll_fd) { (void) epoll_fd; }
void vl_port_epoll_forked(void) {}
#endif
