/* Allocating and freeing handles. The close callback is the only place that frees one. */
#include "shim.h"

#include <stddef.h>
#ifndef _WIN32
#include <unistd.h>
#endif

static _Atomic int live;

int vl_live_handles(void) { return atomic_load(&live); }

vl_handle_t *vl_handle_alloc(vl_loop_t *loop, uv_handle_type type) {
  vl_handle_t *handle = calloc(1, offsetof(vl_handle_t, uv) + uv_handle_size(type));

  if (handle == NULL)
    return NULL;
  atomic_fetch_add(&live, 1);
  handle->loop = loop;
  handle->id = loop->next_id++;
  handle->fd = -1;
  return handle;
}

void vl_handle_discard(vl_handle_t *handle) {
  atomic_fetch_sub(&live, 1);
  free(handle);
}

static void on_close(uv_handle_t *uv) {
  vl_handle_t *handle = uv->data;

  if (uv->type == UV_NAMED_PIPE)
    handle->loop->pipes--;
  if (uv->type == UV_NAMED_PIPE || uv->type == UV_TCP)
    vl_stream_drop_queue(handle);
  vl_handle_discard(handle);
}

void vl_handle_close_unguarded(vl_handle_t *handle) {
  if (handle->borrowed)
    vl_port_borrowed_fd = vl_handle_fileno_unguarded(handle);
#ifdef _WIN32
  if (handle->wait != NULL)
    UnregisterWaitEx(handle->wait, INVALID_HANDLE_VALUE); /* when it is back nobody sends any more */
  /* libuv leaves its read to the end of the socket, which others may still have. */
  if (handle->uv.handle.type == UV_UDP)
    CancelIoEx((HANDLE) handle->uv.udp.socket, NULL);
#endif
  uv_close(&handle->uv.handle, on_close);
#ifndef _WIN32
  if (handle->owned)
    close(handle->fd);
#endif
  vl_port_borrowed_fd = -1;
}

int vl_handle_close(vl_handle_t *handle) {
  VL_GUARD(handle->loop);
  if (!uv_is_closing(&handle->uv.handle))
    vl_handle_close_unguarded(handle);
  return 0;
}

int vl_handle_fileno_unguarded(vl_handle_t *handle) {
  uv_os_fd_t fd;
  int r = uv_fileno(&handle->uv.handle, &fd);

  return r == 0 ? (int) (intptr_t) fd : r;
}

int64_t vl_handle_id(vl_handle_t *handle) { return handle->id; }

int vl_handle_poll(vl_loop_t *loop, int fd, vl_handle_t **into) {
  vl_handle_t *handle = vl_handle_alloc(loop, UV_POLL);
  int r;

  if (handle == NULL)
    return UV_ENOMEM;
  vl_poll_forget(loop, fd);
  r = uv_poll_init_socket(&loop->uv, &handle->uv.poll, fd);
  if (r != 0) {
    vl_handle_discard(handle);
    return r;
  }
  handle->uv.poll.data = handle;
  handle->fd = fd;
  *into = handle;
  return 0;
}
