/* add_reader and add_writer: watching descriptors that belong to somebody else.
 *
 * That somebody may close a descriptor without a word, and the kernel may give its number to
 * another file at once. So watches are kept by number, and whoever opens a descriptor for
 * libuv first has vl_poll_forget remove a watch of that number: if the kernel just handed
 * the number out, the watch cannot be of a living file. */
#include "shim.h"

#ifndef _WIN32
#include <fcntl.h>
#endif

static void on_poll(uv_poll_t *poll, int status, int events) {
  vl_handle_t *handle = poll->data;
  int told = 0;

  if (status < 0) {
    /* POLLERR: libuv stopped the watch. asyncio calls both callbacks, again and again until
     * they look at the error, so we go on. */
    told = handle->events;
    uv_poll_start(poll, handle->events, on_poll);
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

int64_t vl_poll_set(vl_loop_t *loop, int fd, int events) {
  vl_handle_t *handle;
  int r;

  VL_GUARD(loop);
  if (fd < 0)
    return UV_EBADF;
  if (events == 0) {
    vl_poll_forget(loop, fd);
    return 0;
  }
  handle = fd < loop->npolls ? loop->polls[fd] : NULL;
  if (handle == NULL) {
    r = poll_new(loop, fd, &handle);
    if (r != 0)
      return r;
  }
  handle->events = events;
  r = uv_poll_start(&handle->uv.poll, events, on_poll);
  if (r != 0) {
    vl_poll_forget(loop, fd);
    return r;
  }
  return handle->id;
}
