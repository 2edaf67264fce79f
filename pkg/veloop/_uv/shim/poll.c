/* add_reader and add_writer: watching descriptors that belong to somebody else.
 *
 * That somebody may close a descriptor without a word, and the kernel may give its number to
 * another file at once. So watches are kept by number, and whoever opens a descriptor for
 * libuv first has vl_poll_forget remove a watch of that number: if the kernel just handed
 * the number out, the watch cannot be of a living file.
 *
 * libuv registers a watch with the kernel when it polls next. If the descriptor is closed before
 * that and its number goes to another file, it would be that file that is watched. So it is done
 * at once here: then the kernel forgets the watch with the file, and knows later whether the
 * number still means the file that was registered.
 *
 * What the sock_ methods wait for is told once. Such a watch then rests: it is closed by the second
 * poll after that, unless it was asked for again, as it is by who receives one message after the
 * other; that costs one epoll_ctl. While it rests the application may close the socket, and a copy
 * of it may live on, in a child say, where no epoll_ctl reaches it. So the kernel itself keeps silent
 * from the event on (EPOLLONESHOT). Where it does not, the watch is closed and never rests. */
#include "shim.h"

#ifndef _WIN32
#include <fcntl.h>
#endif

/* Polls that a watch rests for. One is not enough: if what a poll brought takes long, the next
 * comes before the tasks that it woke. */
enum { RESTS = 1 };

static void on_poll(uv_poll_t *poll, int status, int events);

#if defined(__linux__) && !defined(VL_SYSTEM_LIBUV)
#include <sys/epoll.h>

static int tell_epoll(vl_handle_t *handle, int op) {
  struct epoll_event event = {.data.fd = handle->fd};
  struct uv__queue *queue = &handle->uv.poll.io_watcher.watcher_queue;
  unsigned events = 0;

  /* The same bits as libuv's. */
  if (handle->events & UV_READABLE)
    events |= EPOLLIN;
  if (handle->events & UV_WRITABLE)
    events |= EPOLLOUT;
  event.events = events | (handle->once ? EPOLLONESHOT : 0);
  if (epoll_ctl(uv_backend_fd(&handle->loop->uv), op, handle->fd, &event) != 0)
    return uv_translate_sys_error(errno);
  /* As libuv leaves a watcher that it has registered: not in the queue of those to be told of. */
  handle->uv.poll.io_watcher.pevents = handle->uv.poll.io_watcher.events = events;
  queue->prev->next = queue->next;
  queue->next->prev = queue->prev;
  queue->next = queue->prev = queue;
  return 0;
}

static int poll_start(vl_handle_t *handle) {
  int r = uv_poll_start(&handle->uv.poll, handle->events, on_poll);

  /* What fails is left to libuv, and to the care that epoll.c takes of its failures. */
  handle->at_once = r == 0 && tell_epoll(handle, EPOLL_CTL_ADD) == 0;
  return r;
}

/* The first start of a watch. libuv has registered the descriptor on trial, to learn whether it can be
 * watched, and was kept from taking that back twice: now it is changed into what it shall be. */
static int poll_start_new(vl_handle_t *handle) {
  int r;

  vl_port_keeps_trial = 1;
  r = uv_poll_start(&handle->uv.poll, handle->events, on_poll);
  vl_port_keeps_trial = 0;
  if (r != 0)
    return r;
  handle->at_once = tell_epoll(handle, EPOLL_CTL_MOD) == 0;
  return handle->at_once ? 0 : poll_start(handle);
}

static int poll_init(vl_handle_t *handle, int fd) {
  int r;

  vl_port_keeps_trial = 1;
  r = uv_poll_init(&handle->loop->uv, &handle->uv.poll, fd);
  vl_port_keeps_trial = 0;
  if (r != 0 && r != UV_EEXIST) /* that comes before the trial */
    epoll_ctl(uv_backend_fd(&handle->loop->uv), EPOLL_CTL_DEL, fd, NULL);
  return r;
}

/* The events of a watch that there is already. -> a status if its file is no more. */
static int poll_change(vl_handle_t *handle) {
  return handle->at_once ? tell_epoll(handle, EPOLL_CTL_MOD) : poll_start(handle);
}
#else
static int poll_start(vl_handle_t *handle) {
  return uv_poll_start(&handle->uv.poll, handle->events, on_poll);
}

static int poll_start_new(vl_handle_t *handle) { return poll_start(handle); }
static int poll_change(vl_handle_t *handle) { return poll_start(handle); }

static int poll_init(vl_handle_t *handle, int fd) {
  return uv_poll_init_socket(&handle->loop->uv, &handle->uv.poll, fd);
}
#endif

/* Those that rest are in a list, the oldest first. */
static void rest(vl_handle_t *handle) {
  vl_loop_t *loop = handle->loop;

  handle->rests_since = loop->runs;
  handle->older = loop->newest;
  *(loop->newest == NULL ? &loop->oldest : &loop->newest->newer) = handle;
  loop->newest = handle;
  handle->rests = 1;
}

static void rest_no_more(vl_handle_t *handle) {
  vl_loop_t *loop = handle->loop;

  if (!handle->rests)
    return;
  *(handle->older == NULL ? &loop->oldest : &handle->older->newer) = handle->newer;
  *(handle->newer == NULL ? &loop->newest : &handle->newer->older) = handle->older;
  handle->older = handle->newer = NULL;
  handle->rests = 0;
}

void vl_poll_end_rests(vl_loop_t *loop) {
  while (loop->oldest != NULL && loop->runs - loop->oldest->rests_since > RESTS)
    vl_poll_forget(loop, loop->oldest->fd);
}

/* What of these events is so now. On Windows libuv asks for the next event as soon as one has come, that
 * is before Python has read or written anything; so what it has next may be long over. */
static int still_ready(vl_handle_t *handle, int events) {
#ifdef _WIN32
  SOCKET socket = (SOCKET) handle->fd;
  struct timeval now = {0, 0};
  fd_set in, out, failed;

  FD_ZERO(&in);
  FD_ZERO(&out);
  FD_ZERO(&failed);
  FD_SET(socket, &in);
  FD_SET(socket, &out);
  FD_SET(socket, &failed);
  if (select(0, &in, &out, &failed, &now) == SOCKET_ERROR)
    return events; /* whoever is told sees the error */
  return events & ((FD_ISSET(socket, &in) ? UV_READABLE : 0) |
                   (FD_ISSET(socket, &out) ? UV_WRITABLE : 0) |
                   (FD_ISSET(socket, &failed) ? UV_WRITABLE | UV_READABLE : 0));
#else
  (void) handle;
  return events;
#endif
}

static void on_once(vl_handle_t *handle, int told) {
  handle->events &= ~told;
  if (handle->events != 0 || handle->rests)
    return;
  if (handle->at_once)
    rest(handle);
  else
    vl_poll_forget(handle->loop, handle->fd); /* the kernel would go on */
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  vl_handle_t *handle = poll->data;
  int told = still_ready(handle, events & handle->events);

  if (status < 0) {
    /* POLLERR: libuv stopped the watch. asyncio calls both callbacks, again and again until
     * they look at the error, so we go on. */
    told = handle->events;
    handle->at_once = 0;
  }
  if (handle->once) {
    if (told)
      on_once(handle, told);
  } else if (status < 0) {
    poll_start(handle);
  }
  if (told)
    vl_emit(handle->loop, VL_POLL, handle->id, told, 0);
}

static int polls_reserve(vl_loop_t *loop, int fd) {
  vl_handle_t **polls;
  int n;

  if (fd < loop->npolls)
    return 0;
  n = (fd | 63) + 1;
  polls = realloc(loop->polls, (size_t) n * sizeof(*polls));
  if (polls == NULL)
    return UV_ENOMEM;
  memset(polls + loop->npolls, 0, (size_t) (n - loop->npolls) * sizeof(*polls));
  loop->polls = polls;
  loop->npolls = n;
  return 0;
}

static int poll_new(vl_loop_t *loop, int fd, vl_handle_t **into) {
  vl_handle_t *handle;
  int r;
#ifndef _WIN32
  int flags = fcntl(fd, F_GETFL);

  if (flags < 0)
    return uv_translate_sys_error(errno);
#endif
  r = polls_reserve(loop, fd);
  if (r != 0)
    return r;
  handle = vl_handle_alloc(loop, UV_POLL);
  if (handle == NULL)
    return UV_ENOMEM;
  r = poll_init(handle, fd);
  if (r != 0) {
    vl_handle_discard(handle);
    return r;
  }
#ifndef _WIN32
  if (!(flags & O_NONBLOCK))
    fcntl(fd, F_SETFL, flags); /* libuv made it non-blocking; it is not ours to change */
#endif
  handle->uv.poll.data = handle;
  handle->fd = fd;
  loop->polls[fd] = handle;
  *into = handle;
  return 0;
}

void vl_poll_forget(vl_loop_t *loop, int fd) {
  vl_handle_t *handle;

  if (fd < 0 || fd >= loop->npolls || (handle = loop->polls[fd]) == NULL)
    return;
  loop->polls[fd] = NULL;
  rest_no_more(handle);
  vl_handle_close_unguarded(handle);
}

int64_t vl_poll_set(vl_loop_t *loop, int fd, int events, int added, int once) {
  vl_handle_t *handle;
  int before, r;

  VL_GUARD(loop);
  if (fd < 0)
    return UV_EBADF;
  handle = fd < loop->npolls ? loop->polls[fd] : NULL;
  if (events != 0 && handle != NULL) {
    before = handle->events;
    rest_no_more(handle);
    handle->events = events;
    handle->once = once;
    r = poll_change(handle);
    if (r == 0 || (r == UV_EBADF && events == before)) /* asyncio does not ask the kernel then */
      return handle->id;
  }
  vl_poll_forget(loop, fd);
  if (events == 0 || added == 0)
    return 0;
  r = poll_new(loop, fd, &handle);
  if (r != 0)
    return r;
  handle->events = added;
  handle->once = once;
  r = poll_start_new(handle);
  if (r != 0) {
    vl_poll_forget(loop, fd);
    return r;
  }
  return handle->id;
}
