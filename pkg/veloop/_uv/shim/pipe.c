/* Pipes, and what is read and written like one. uv_pipe_t takes any descriptor on POSIX.
 *
 * libuv knows a descriptor by its number, with room for one watcher each. Programs want more: a
 * pty is both read and written, standard output and standard error may be the same. So each
 * handle has a number of its own; beyond 2, for libuv never closes the standard streams'. */
#include "shim.h"

#ifdef _WIN32
#include <io.h>

/* fd is a HANDLE, which like a SOCKET is a small number. libuv wants a descriptor of the C library, and
 * closes the handle with it. It never closes 0, 1 and 2 (programs without a console have these to
 * give away), and has a copy of what is under them. */
static int open_copy(vl_handle_t *handle, int fd) {
  HANDLE self = GetCurrentProcess(), copy;
  int file, r;

  if (!DuplicateHandle(self, (HANDLE) (intptr_t) fd, self, &copy, 0, FALSE, DUPLICATE_SAME_ACCESS))
    return uv_translate_sys_error(GetLastError());
  file = uv_open_osfhandle(copy);
  if (file < 0) {
    CloseHandle(copy);
    return UV_EMFILE;
  }
  r = uv_pipe_open(&handle->uv.pipe, file);
  if (r != 0 || file <= 2)
    _close(file);
  return r;
}

/* A writer is told by libuv, if it reads from the same pipe. */
int64_t vl_pipe_watch(vl_loop_t *loop, int fd, vl_handle_t **into) {
  (void) fd;
  (void) into;
  VL_GUARD(loop);
  return UV_ENOTSUP;
}

#else

#include <fcntl.h>
#include <unistd.h>

static int open_copy(vl_handle_t *handle, int fd) {
  int copy = 0;
  int r;

  do {
    copy = vl_port_copy(fd, copy);
    if (copy < 0)
      return copy;
    r = uv_pipe_open(&handle->uv.pipe, copy);
    if (r != 0)
      close(copy);
  } while (r == UV_EEXIST);
  return r;
}
#endif

int64_t vl_pipe_open(vl_loop_t *loop, int fd, vl_handle_t **into) {
  vl_handle_t *handle;
  unsigned occupied;
  int r;

  VL_GUARD(loop);
  handle = vl_handle_alloc(loop, UV_NAMED_PIPE);
  if (handle == NULL)
    return UV_ENOMEM;
  occupied = loop->streams++ == 0 ? vl_port_occupy_stdio() : 0; /* opens a reserve descriptor */
  r = uv_pipe_init(&loop->uv, &handle->uv.pipe, 0);
  vl_port_vacate_stdio(occupied);
  if (r != 0) {
    vl_handle_discard(handle);
    return r;
  }
  handle->uv.pipe.data = handle;
  loop->pipes++; /* until it is freed */
  r = open_copy(handle, fd);
  if (r != 0) {
    vl_handle_close_unguarded(handle);
    return r;
  }
  *into = handle;
  return handle->id;
}

#ifndef _WIN32
/* Other systems show libuv a hang-up only together with something to read; there, as for asyncio
 * everywhere, something to read is taken for a hang-up. */
#ifdef __linux__
enum { HANGUP = UV_DISCONNECT };
#else
enum { HANGUP = UV_DISCONNECT | UV_READABLE };
#endif

static void on_hangup(uv_poll_t *poll, int status, int events) {
  vl_handle_t *handle = poll->data;

  (void) status;
  (void) events;
  uv_poll_stop(poll); /* it would be told in every turn */
  vl_emit(handle->loop, VL_POLL, handle->id, 0, 0);
}

int64_t vl_pipe_watch(vl_loop_t *loop, int fd, vl_handle_t **into) {
  vl_handle_t *handle;
  int copy = 0;
  int r;

  VL_GUARD(loop);
  handle = vl_handle_alloc(loop, UV_POLL);
  if (handle == NULL)
    return UV_ENOMEM;
  do {
    copy = vl_port_copy(fd, copy);
    r = copy < 0 ? copy : uv_poll_init(&loop->uv, &handle->uv.poll, copy);
    if (copy >= 0 && r != 0)
      close(copy);
  } while (r == UV_EEXIST);
  if (r != 0) {
    vl_handle_discard(handle);
    return r;
  }
  handle->uv.poll.data = handle;
  handle->fd = copy;
  handle->owned = 1;
  r = uv_poll_start(&handle->uv.poll, HANGUP, on_hangup);
  if (r != 0) {
    vl_handle_close_unguarded(handle);
    return r;
  }
  *into = handle;
  return handle->id;
}
#endif
