/* TCP sockets: adopting a descriptor, connecting. */
#include "shim.h"

#ifndef _WIN32
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

static int open_copy(vl_handle_t *handle, int fd) {
  int copy = 0;
  int r;

  do {
    copy = vl_port_copy(fd, copy);
    if (copy < 0)
      return copy;
    r = uv_tcp_open(&handle->uv.tcp, (uv_os_sock_t) copy);
    if (r != 0)
      vl_port_close_socket(copy);
  } while (r == UV_EEXIST);
  return r;
}

/* Adopts a socket of any stream family: libuv's TCP handle only reads, writes and closes it.
 * The number may still be known to libuv although its descriptor was closed behind its back:
 *  - by a watch (add_reader) that was never removed: the watch gives way;
 *  - by a stream: then ours moves to another number. */
int64_t vl_tcp_adopt(vl_loop_t *loop, int fd, int borrowed, vl_handle_t **into) {
  vl_handle_t *handle;
  unsigned occupied;
  int r;

  handle = vl_handle_alloc(loop, UV_TCP);
  if (handle == NULL)
    return UV_ENOMEM;
  occupied = loop->streams++ == 0 ? vl_port_occupy_stdio() : 0; /* opens a reserve descriptor */
  r = uv_tcp_init(&loop->uv, &handle->uv.tcp);
  vl_port_vacate_stdio(occupied);
  if (r != 0) {
    vl_handle_discard(handle);
    return r;
  }
  handle->uv.tcp.data = handle;
  vl_poll_forget(loop, fd);
#ifdef _WIN32
  r = borrowed ? open_copy(handle, fd) : uv_tcp_open(&handle->uv.tcp, (uv_os_sock_t) fd);
#else
  if (borrowed && !VL_CAN_BORROW)
    r = open_copy(handle, fd);
  else if (fd <= STDERR_FILENO && !borrowed)
    r = UV_EEXIST; /* libuv never closes the standard streams' numbers, whatever they are now */
  else
    r = uv_tcp_open(&handle->uv.tcp, fd);
  if (r == UV_EEXIST && !borrowed) {
    r = open_copy(handle, fd);
    if (r == 0)
      close(fd);
  }
#endif
  if (r != 0) {
    vl_handle_close_unguarded(handle);
    return r;
  }
  handle->borrowed = borrowed && VL_CAN_BORROW;
  *into = handle;
  return handle->id;
}

int64_t vl_tcp_open(vl_loop_t *loop, int fd, int borrowed, vl_handle_t **handle) {
  VL_GUARD(loop);
  return vl_tcp_adopt(loop, fd, borrowed, handle);
}

static void on_connect(uv_connect_t *request, int status) {
  vl_handle_t *handle = request->handle->data;

  free(request);
  if (!uv_is_closing(&handle->uv.handle))
    vl_emit(handle->loop, VL_CONNECT, handle->id, status, 0);
}

int vl_tcp_connect(vl_handle_t *handle, const char *address) {
  struct sockaddr_storage storage;
  uv_connect_t *request;
  int r;

  VL_GUARD(handle->loop);
  memset(&storage, 0, sizeof(storage));
  memcpy(&storage, address, ((const struct sockaddr *) address)->sa_family == AF_INET6
                                ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
  request = malloc(sizeof(*request));
  if (request == NULL)
    return UV_ENOMEM;
  r = uv_tcp_connect(request, &handle->uv.tcp, (const struct sockaddr *) &storage, on_connect);
  if (r != 0)
    free(request);
  return r;
}

int vl_tcp_nodelay(vl_handle_t *handle) {
  VL_GUARD(handle->loop);
  return uv_tcp_nodelay(&handle->uv.tcp, 1);
}
