/* Datagrams: receiving into the slab, in batches; sending at once, and libuv's queue for what
 * does not go out.
 * The Internet families alone: see datagram.c. */
#include "shim.h"

#ifndef _WIN32
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

enum {
  DATAGRAM_MAX = 64 * 1024, /* the piece that libuv cuts of a buffer for each datagram */
  ADDRESS_ROOM = 32,        /* ahead of each datagram in the slab */
  BATCH_MAX = 20,           /* libuv receives no more at once */
  COUNTS_AS = 8 * 1024,     /* the least that a datagram takes of a quota */
  HEADER = 8,               /* what asyncio adds to the size of a datagram in the queue */
  SIZE_MAX_INT = 1 << 30,   /* libuv's sizes are int */
};

static size_t address_size(const struct sockaddr *address) {
  return address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                        : sizeof(struct sockaddr_in);
}

/* -------------------------------------------------------------------------------- opening */

static void stand_by(vl_handle_t *handle);

/* libuv before 1.52 lets other sockets bind to the same address: not what asyncio does. */
static int open_alone(vl_handle_t *handle, int fd) {
#if UV_VERSION_HEX >= (1 << 16 | 52 << 8)
  return uv_udp_open_ex(&handle->uv.udp, fd, 0);
#else
  int reuse = 0, r;
  socklen_t size = sizeof(reuse);

  getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, (char *) &reuse, &size);
  r = uv_udp_open(&handle->uv.udp, fd);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, (const char *) &reuse, sizeof(reuse));
  return r;
#endif
}

static int open_copy(vl_handle_t *handle, int fd) {
  int copy = 0;
  int r;

  do {
    copy = vl_port_copy(fd, copy);
    if (copy < 0)
      return copy;
    r = open_alone(handle, copy);
    if (r != 0)
      vl_port_close_socket(copy);
  } while (r == UV_EEXIST);
  return r;
}

int64_t vl_udp_open(vl_loop_t *loop, int fd, int borrowed, vl_handle_t **into) {
  vl_handle_t *handle;
  int r;

  VL_GUARD(loop);
  handle = vl_handle_alloc(loop, UV_UDP);
  if (handle == NULL)
    return UV_ENOMEM;
  r = uv_udp_init_ex(&loop->uv, &handle->uv.udp, UV_UDP_RECVMMSG);
  if (r != 0) {
    vl_handle_discard(handle);
    return r;
  }
  handle->uv.udp.data = handle;
  stand_by(handle);
  handle->told = -1;
  vl_poll_forget(loop, fd);
#ifdef _WIN32
  r = borrowed ? open_copy(handle, fd) : open_alone(handle, fd);
#else
  /* The standard streams' numbers libuv never closes: its assertion would fail. */
  if ((borrowed && !VL_CAN_BORROW) || fd <= STDERR_FILENO)
    r = UV_EEXIST;
  else
    r = open_alone(handle, fd);
  if (r == 0) {
    handle->borrowed = borrowed;
  } else if (r == UV_EEXIST) { /* also a number that libuv still knows: see vl_tcp_adopt */
    r = open_copy(handle, fd);
    if (r == 0 && !borrowed)
      close(fd);
  }
#endif
  if (r != 0) {
    vl_handle_close_unguarded(handle);
    return r;
  }
  *into = handle;
  return handle->id;
}

/* ------------------------------------------------------------------------------ receiving */

/* libuv calls this until it gets no room, the socket is empty, or after 32 datagrams. Of these
 * calls a socket has a quota in a round (see stream.c), and none once a batch was not full:
 * that saves the system call which would find nothing.
 *
 * A batch needs 64 KiB for each of its datagrams, however small they turn out. So it is received
 * behind where it ends up, and what came is moved together: the room that was in between is free
 * for the next batch. Moving never reaches what is still to be moved, for ahead of the batch is
 * as much room as its addresses take. */
static void on_alloc(uv_handle_t *uv, size_t suggested, uv_buf_t *buf) {
  vl_handle_t *handle = uv->data;
  vl_loop_t *loop = handle->loop;
  char *room;
  size_t n = 1;

  (void) suggested;
  *buf = uv_buf_init(NULL, 0);
  if (handle->round != loop->round) {
    handle->round = loop->round;
    handle->quota = READ_MAX;
  }
  if (handle->quota <= 0)
    return;
  room = vl_slab_room(loop, SLAB_READS, ADDRESS_ROOM + DATAGRAM_MAX);
  if (room == NULL) {
    loop->starved = 1;
    return;
  }
  if (uv_udp_using_recvmmsg(&handle->uv.udp)) {
    n = (SLAB_READS - loop->slab_used) / (ADDRESS_ROOM + DATAGRAM_MAX);
    if (n > BATCH_MAX)
      n = BATCH_MAX;
  }
  handle->batch = (int) n;
  *buf = uv_buf_init(room + n * ADDRESS_ROOM, (unsigned int) (n * DATAGRAM_MAX));
}

static void on_datagram(uv_udp_t *udp, ssize_t nread, const uv_buf_t *buf,
                        const struct sockaddr *address, unsigned flags) {
  vl_handle_t *handle = udp->data;
  vl_loop_t *loop = handle->loop;
  char *room = loop->slab + loop->slab_used;

  if (flags & UV_UDP_MMSG_FREE) {
    if (handle->batch > 0)
      handle->quota = 0; /* the socket is empty */
    return;
  }
  /* From the error queue of a socket with IP_RECVERR. The socket itself has reported that error;
   * and libuv 1.52 loses its sign here, so that nread would be four gigabytes. */
  if (flags & UV_UDP_LINUX_RECVERR)
    return;
  if (nread < 0) {
    if (buf->base != NULL) /* else it is on_alloc's refusal */
      vl_emit(loop, VL_DATAGRAM, handle->id, nread, 0);
    return;
  }
  if (address == NULL)
    return; /* there was nothing */
  memmove(room + ADDRESS_ROOM, buf->base, (size_t) nread);
  memcpy(room, address, address_size(address));
  vl_emit(loop, VL_DATAGRAM, handle->id, nread,
          vl_slab_commit(loop, ADDRESS_ROOM + (size_t) nread));
  handle->batch--;
  handle->quota -= nread > COUNTS_AS ? (int) nread : COUNTS_AS;
}

static void no_room(uv_handle_t *uv, size_t suggested, uv_buf_t *buf) {
  (void) uv;
  (void) suggested;
  *buf = uv_buf_init(NULL, 0);
}

/* An error of the socket, an ICMP message's say, makes libuv look for more of it even where only
 * sending is under way, and it aborts if it has no functions for that. uv_udp_recv_stop takes them
 * away. These receive nothing: the next datagram of the queue is told the error. */
static void stand_by(vl_handle_t *handle) {
  handle->uv.udp.alloc_cb = no_room;
  handle->uv.udp.recv_cb = on_datagram;
}

int vl_udp_read_start(vl_handle_t *handle) {
  int r;

  VL_GUARD(handle->loop);
  r = uv_udp_recv_start(&handle->uv.udp, on_alloc, on_datagram);
  return r == UV_EALREADY ? 0 : r;
}

int vl_udp_read_stop(vl_handle_t *handle) {
  int r;

  VL_GUARD(handle->loop);
  r = uv_udp_recv_stop(&handle->uv.udp);
  stand_by(handle);
  return r;
}

/* -------------------------------------------------------------------------------- sending */

typedef struct {
  uv_udp_send_t request;
  size_t size;
  char data[];
} datagram_t;

/* With ENOBUFS asyncio drops the datagram and tells the protocol. libuv takes it for EAGAIN and
 * would try again, at once and for as long as it lasts, since the socket is writable. On Linux it
 * gets another number instead, from port.c; elsewhere errno still knows, of what was sent at once. */
static int true_status(int r) {
  if (r == -VL_PORT_ENOBUFS || (r == UV_EAGAIN && errno == ENOBUFS))
    return UV_ENOBUFS;
  return r;
}

/* One record in a turn says that something went out; each that could not be sent has its own. */
static void on_sent(uv_udp_send_t *request, int status) {
  datagram_t *datagram = (datagram_t *) request;
  vl_handle_t *handle = request->handle->data;
  vl_loop_t *loop = handle->loop;

  handle->waiting_size -= datagram->size + HEADER;
  free(datagram);
  if (uv_is_closing(&handle->uv.handle))
    return;
  if (status < 0 || handle->told != loop->filled) {
    handle->told = loop->filled;
    vl_emit(loop, VL_WRITE, handle->id, true_status(status), 0);
  }
}

/* libuv copies the address, and sends what is queued in batches. */
static int64_t enqueue(vl_handle_t *handle, const char *data, size_t size,
                       const struct sockaddr *address) {
  datagram_t *datagram = malloc(sizeof(*datagram) + size);
  uv_buf_t buf;
  int r;

  if (datagram == NULL)
    return UV_ENOMEM;
  datagram->size = size;
  memcpy(datagram->data, data, size);
  buf = uv_buf_init(datagram->data, (unsigned int) size);
  r = uv_udp_send(&datagram->request, &handle->uv.udp, &buf, 1, address, on_sent);
  if (r != 0) {
    free(datagram);
    return r;
  }
  handle->waiting_size += size + HEADER;
  return (int64_t) handle->waiting_size;
}

int64_t vl_udp_send(vl_handle_t *handle, const char *data, size_t size, const char *raw) {
  struct sockaddr_storage storage;
  const struct sockaddr *address = NULL;
  uv_buf_t buf = uv_buf_init((char *) data, (unsigned int) size);
  int r;

  VL_GUARD(handle->loop);
  if (size > SIZE_MAX_INT)
    return UV_EMSGSIZE;
  if (raw != NULL) {
    address = (const struct sockaddr *) &storage;
    memcpy(&storage, raw, address_size((const struct sockaddr *) raw));
  }
  errno = 0; /* while others wait nothing is tried */
  r = true_status(uv_udp_try_send(&handle->uv.udp, &buf, 1, address));
  if (r == UV_EAGAIN)
    return enqueue(handle, data, size, address);
  return r < 0 ? r : 0;
}

int64_t vl_udp_queued(vl_handle_t *handle) {
  VL_GUARD(handle->loop);
  return (int64_t) handle->waiting_size;
}
