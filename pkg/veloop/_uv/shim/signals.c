/* Signals: forwarding what Python's C handler writes to the wakeup descriptor. */
#include "shim.h"

#ifdef _WIN32
#include <winsock2.h>
#else
#include <unistd.h>
#endif

static void on_signals(uv_poll_t *poll, int status, int events) {
  vl_loop_t *loop = poll->loop->data;
  vl_handle_t *handle = poll->data;
  char *room = vl_slab_room(loop, SLAB_SIZE, 256);
  long n;

  (void) events;
  if (status < 0 || room == NULL)
    return;
#ifdef _WIN32
  n = recv(handle->fd, room, 256, 0);
#else
  n = (long) read(handle->fd, room, 256);
#endif
  if (n > 0)
    vl_emit(loop, VL_SIGNAL, 0, n, vl_slab_commit(loop, (size_t) n));
}

int vl_signals_watch(vl_loop_t *loop, int fd) {
  vl_handle_t *handle;
  int r;

  VL_GUARD(loop);
  handle = vl_handle_alloc(loop, UV_POLL);
  if (handle == NULL)
    return UV_ENOMEM;
  vl_poll_forget(loop, fd);
  r = uv_poll_init_socket(&loop->uv, &handle->uv.poll, fd);
  if (r != 0) {
    vl_handle_discard(handle);
    return r;
  }
  handle->fd = fd;
  handle->uv.poll.data = handle;
  r = uv_poll_start(&handle->uv.poll, UV_READABLE, on_signals);
  uv_unref(&handle->uv.handle);
  return r;
}
