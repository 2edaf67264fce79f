/* Pipes, and what is read and written like one. uv_pipe_t takes any descriptor on POSIX.
 *
 * libuv knows a descriptor by its number, with room for one watcher each. Programs want more: a
 * pty is both read and written, standard output and standard error may be the same. So each
 * handle has a number of its own; beyond 2, for libuv never closes the standard streams'. */
#include "shim.h"

#ifdef _WIN32

int64_t vl_pipe_open(vl_loop_t *loop, int fd, vl_handle_t **into) {
  (void) fd;
  (void) into;
  VL_GUARD(loop);
  return UV_ENOTSUP;
}

int vl_pipe_at_end(vl_handle_t *handle) {
  (void) handle;
  return 1;
}

#else

#include <fcntl.h>
#include <unistd.h>

/* libuv may still know a number whose descriptor was closed behind its back. Is it a watch's, the
 * watch gives way; is it a stream's, the number is passed over. */
static int open_copy(vl_handle_t *handle, int fd) {
  int copy = STDERR_FILENO;
  int r;

  do {
    copy = fcntl(fd, F_DUPFD_CLOEXEC, copy + 1);
    if (copy < 0)
      return uv_translate_sys_error(errno);
    vl_poll_forget(handle->loop, copy);
    r = uv_pipe_open(&handle->uv.pipe, copy);
    if (r != 0)
      close(copy);
  } while (r == UV_EEXIST);
  return r;
}

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
  r = open_copy(handle, fd);
  if (r != 0) {
    vl_handle_close_unguarded(handle);
    return r;
  }
  *into = handle;
  return handle->id;
}

/* libuv says UV_EOF also when it has seen a hang-up and nothing to read, without asking. But the
 * end of a pty is EIO, and a FIFO or a pty may have been opened again meanwhile. So we ask: what
 * is there is emitted, be it data, the end or an error. -> 0, or 1 when it is the end indeed. */
int vl_pipe_at_end(vl_handle_t *handle) {
  vl_loop_t *loop = handle->loop;
  char *room = vl_slab_room(loop, SLAB_READS, READ_MIN);
  ssize_t n = -1;

  errno = EAGAIN;
  if (room == NULL)
    loop->starved = 1; /* libuv will say so again in the next turn */
  else
    do
      n = read(vl_handle_fileno_unguarded(handle), room, READ_MIN);
    while (n < 0 && errno == EINTR);
  if (n == 0)
    return 1;
  if (n > 0)
    vl_emit(loop, VL_READ, handle->id, n, vl_slab_commit(loop, (size_t) n));
  else if (errno != EAGAIN && errno != EWOULDBLOCK) {
    vl_emit(loop, VL_READ, handle->id, uv_translate_sys_error(errno), 0);
    return 0;
  }
  vl_stream_read_on(handle);
  return 0;
}
#endif
