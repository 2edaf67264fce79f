/* Accepting connections, by a watch of the listening socket.
 *
 * Not by uv_listen: that takes one connection a turn, and when descriptors run out it drops
 * the clients that wait (its reserve descriptor exists for that). We take a batch, and on
 * EMFILE we pause and tell Python, as asyncio does, so that they wait and are served later.
 * The listening socket itself stays Python's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif
#include "shim.h"

#ifdef _WIN32
#define close(fd) closesocket((SOCKET) (fd))
#else
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

/* Errors in a row after which the listening socket is taken for what is broken. */
enum { FAILURES_MAX = 64 };

/* For each connection the slab gets: the size of the peer's address and of our own, a byte
 * each; the one and the other; the descriptor, which vl_tcp_adopt may yet have moved. */
enum { ADDRESSES_MAX = 2 + 2 * sizeof(struct sockaddr_storage) + sizeof(int32_t) };

/* A connection that no child inherits. -> its descriptor, or a status. */
static int accept_alone(int listener, struct sockaddr_storage *peer, socklen_t *size) {
  struct sockaddr *address = (struct sockaddr *) peer;
  int fd;

#ifdef _WIN32
  /* A SOCKET is a small number, whatever its type says: libuv and Python rely on it, too. */
  fd = (int) accept((SOCKET) listener, address, size);
  if (fd == (int) INVALID_SOCKET)
    return uv_translate_sys_error(WSAGetLastError());
  SetHandleInformation((HANDLE) (intptr_t) fd, HANDLE_FLAG_INHERIT, 0);
#else
  do {
#ifdef __linux__
    fd = accept4(listener, address, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    fd = accept(listener, address, size);
#endif
  } while (fd < 0 && errno == EINTR);
  if (fd < 0)
    return uv_translate_sys_error(errno);
#ifndef __linux__
  fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
#endif
  return fd;
}

static int accept_one(int listener, char *addresses, size_t *size) {
  struct sockaddr_storage peer, own;
  socklen_t peer_size = sizeof(peer), own_size = sizeof(own);
  int fd, one = 1;

  memset(&own, 0, sizeof(own));
  fd = accept_alone(listener, &peer, &peer_size);
  if (fd < 0)
    return fd;
  if (getsockname(fd, (struct sockaddr *) &own, &own_size) != 0)
    own_size = 0;
  if (own.ss_family != AF_UNIX)
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, (const char *) &one, sizeof(one));
  addresses[0] = (char) peer_size;
  addresses[1] = (char) own_size;
  memcpy(addresses + 2, &peer, peer_size);
  memcpy(addresses + 2 + peer_size, &own, own_size);
  *size = 2 + peer_size + own_size;
  return fd;
}

/* From accept(2), "Error handling": "Linux accept() (and accept4()) passes already-pending network
 * errors on the new socket as an error code". That connection is gone; the next one is waiting. */
static int is_of_the_connection(int status) {
  switch (status) {
  case UV_ECONNABORTED:
  case UV_ECONNRESET: /* Windows, for the same */
  case UV_EHOSTDOWN:
  case UV_EHOSTUNREACH:
  case UV_ENETDOWN:
  case UV_ENETUNREACH:
  case UV_ENONET:
  case UV_ENOPROTOOPT:
  case UV_ENOTSUP: /* Linux: EOPNOTSUPP */
  case UV_EPERM: /* a firewall's rule */
  case UV_EPROTO:
    return 1;
  default:
    return 0;
  }
}

static void report(vl_handle_t *listener, int64_t a, int64_t b) {
  listener->told_of++;
  vl_emit(listener->loop, VL_ACCEPT, listener->id, a, b);
}

/* How many connections may be taken. Where another process that has the socket wants it in
 * blocking mode, the first is there, but a second one we might wait for. */
static int batch_of(vl_handle_t *listener) {
#ifndef _WIN32
  if (!(fcntl(listener->fd, F_GETFL) & O_NONBLOCK))
    return 1;
#endif
  return listener->batch;
}

static void on_acceptable(uv_poll_t *poll, int status, int events) {
  vl_handle_t *listener = poll->data, *handle = NULL;
  vl_loop_t *loop = listener->loop;
  char *addresses;
  size_t size = 0;
  int32_t fd32;
  int i, fd, batch = batch_of(listener);
  int64_t r;

  (void) events;
  if (status < 0)
    uv_poll_start(poll, UV_READABLE, on_acceptable); /* libuv stops a watch that had POLLERR */
  for (i = 0; i < batch; i++) {
    addresses = vl_slab_room(loop, SLAB_SIZE, ADDRESSES_MAX);
    if (addresses == NULL)
      return;
    fd = accept_one(listener->fd, addresses, &size);
    if (fd == UV_EAGAIN) {
      listener->failures = 0;
      return;
    }
    if (is_of_the_connection(fd) && ++listener->failures < FAILURES_MAX) {
      if (fd != UV_ECONNABORTED && fd != UV_ECONNRESET) /* the client's, who changed its mind */
        report(listener, fd, 0);
      continue;
    }
    r = fd;
    if (fd >= 0) {
      r = vl_tcp_adopt(loop, fd, 0, &handle);
      if (r < 0)
        close(fd);
    }
    if (r < 0) {
      uv_poll_stop(poll); /* until vl_listener_resume */
      report(listener, r, 1);
      return;
    }
    listener->failures = 0;
    fd32 = (int32_t) vl_handle_fileno_unguarded(handle);
    memcpy(addresses + size, &fd32, sizeof(fd32));
    report(listener, (int64_t) (intptr_t) handle, vl_slab_commit(loop, size + sizeof(fd32)));
  }
}

int64_t vl_listener_open(vl_loop_t *loop, int fd, int batch, vl_handle_t **into) {
  vl_handle_t *handle;
  int r;

  VL_GUARD(loop);
  r = vl_handle_poll(loop, fd, &handle);
  if (r != 0)
    return r;
  handle->batch = batch;
  r = uv_poll_start(&handle->uv.poll, UV_READABLE, on_acceptable);
  if (r != 0) {
    vl_handle_close_unguarded(handle);
    return r;
  }
  *into = handle;
  return handle->id;
}

int vl_listener_resume(vl_handle_t *handle) {
  VL_GUARD(handle->loop);
  handle->failures = 0;
  return uv_poll_start(&handle->uv.poll, UV_READABLE, on_acceptable);
}

int64_t vl_listener_close(vl_handle_t *handle) {
  VL_GUARD(handle->loop);
  vl_handle_close_unguarded(handle);
  return handle->told_of;
}
