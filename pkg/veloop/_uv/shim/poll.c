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
 * number still means the file that was registered. */
#include "shim.h"

#ifndef _WIN32
#include <fcntl.h>
#endif

static void on_poll(uv_poll_t *poll, int status, int events);

#if defined(__linux__) && !defined(VL_SYSTEM_LIBUV)
#include <sys/epoll.h>

static int tell_epoll(vl_handle_t *handle, int op) {
  struct epoll_event event = {.data.fd = handle->fd};
  struct uv__queue *queue = &handle->uv.poll.io_watcher.watcher_queue;

  /* The same bits as libuv's. */
  if (handle->events & UV_READABLE)
    event.events |= EPOLLIN;
  if (handle->events & UV_WRITABLE)
    event.events |= EPOLLOUT;
  if (epoll_ctl(uv_backend_fd(&handle->loop->uv), op, handle->fd, &event) != 0)
    return uv_translate_sys_error(errno);
  /* As libuv leaves a watcher that it has registered: not in the queue of those to be told of. */
  handle->uv.poll.io_watcher.pevents = handle->uv.poll.io_watcher.events = event.events;
  queue->prev->next = queue->next;
  queue->next->prev = queue->prev;
  queue->next = queue->prev = queue;
  return 0;
}

static int poll_start(vl_handle_t *handle) {
  int r = uv_poll_start(&handle->uv.poll, handle->events, on_poll);

  /* What fails is left to libuv, and to the care that port.c takes of its failures. */
  handle->at_once = r == 0 && tell_epoll(handle, EPOLL_CTL_ADD) == 0;
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

static int poll_change(vl_handle_t *handle) { return poll_start(handle); }
#endif

static void on_poll(uv_poll_t *poll, int status, int events) {
  vl_handle_t *handle = poll->data;
  int told = 0;

  if (status < 0) {
    /* POLLERR: libuv stopped the watch. asyncio calls both callbacks, again and again until
     * they look at the error, so we go on. */
    told = handle->events;
    poll_start(handle);
  } else {
    told = events & handle->events;
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
  r = uv_poll_init_socket(&loop->uv, &handle->uv.poll, fd);
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
  vl_handle_close_unguarded(handle);
}

int64_t vl_poll_set(vl_loop_t *loop, int fd, int events, int added) {
  vl_handle_t *handle;
  int r;

  VL_GUARD(loop);
  if (fd < 0)
    return UV_EBADF;
  handle = fd < loop->npolls ? loop->polls[fd] : NULL;
  if (events != 0 && handle != NULL) {
    handle->events = events;
    if (poll_change(handle) == 0)
      return handle->id;
  }
  vl_poll_forget(loop, fd);
  if (events == 0 || added == 0)
    return 0;
  r = poll_new(loop, fd, &handle);
  if (r != 0)
    return r;
  handle->events = added;
  r = poll_start(handle);
  if (r != 0) {
    vl_poll_forget(loop, fd);
    return r;
  }
  return handle->id;
}
