/* Signals: Python's C handler writes their numbers to one end of a pair; we read the other. */
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
  r = vl_handle_poll(loop, fd, &handle);
  if (r != 0)
    return r;
  r = uv_poll_start(&handle->uv.poll, UV_READABLE, on_signals);
  uv_unref(&handle->uv.handle);
  return r;
}
