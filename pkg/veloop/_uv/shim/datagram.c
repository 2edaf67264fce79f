/* Datagrams of other families than the Internet's.
 *
 * uv_udp_t gives a sender's address without its length, so that Unix sockets' abstract names
 * could not be told, and it knows no other family at all; but asyncio takes whatever socket
 * receives messages: Unix, CAN, netlink, packet, vsock. The address formats of those only Python's
 * socket module knows. So their sockets are watched here and read and written there, as asyncio
 * does it. */
#include "shim.h"

static void on_ready(uv_poll_t *poll, int status, int events) {
  vl_handle_t *handle = poll->data;

  if (status < 0) { /* POLLERR, and libuv stopped: the next call on the socket has the error */
    events = handle->events;
    uv_poll_start(poll, handle->events, on_ready);
  }
  vl_emit(handle->loop, VL_POLL, handle->id, events, 0);
}

int64_t vl_datagram_watch(vl_loop_t *loop, int fd, vl_handle_t **into) {
  int r;

  VL_GUARD(loop);
  r = vl_handle_poll(loop, fd, into);
  return r == 0 ? (*into)->id : r;
}

int vl_datagram_watch_for(vl_handle_t *handle, int events) {
  VL_GUARD(handle->loop);
  handle->events = events;
  if (events == 0)
    return uv_poll_stop(&handle->uv.poll);
  return uv_poll_start(&handle->uv.poll, events, on_ready);
}
