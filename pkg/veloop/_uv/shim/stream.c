/* Streams: reading into the slab; writing at once, and a queue for what does not go out. */
#include "shim.h"

#ifdef __linux__
#include <sys/socket.h>
#endif

enum {
  CHUNK_MIN = 16 * 1024, /* small writes share a chunk */
  CHUNK_MAX = 1 << 30,   /* libuv counts what it wrote in an int */
  VECTOR = 64,           /* chunks handed to libuv at once */
};

/* ---------------------------------------------------------------------------------- reading */

/* A stream is read once in a round. A round ends with a turn in which nobody lacked room in
 * the slab: so one stream with much to say cannot keep the others from being read.
 * Without room libuv reports UV_ENOBUFS; the socket stays readable for the next turn. */
static void on_alloc(uv_handle_t *uv, size_t suggested, uv_buf_t *buf) {
  vl_handle_t *handle = uv->data;
  vl_loop_t *loop = handle->loop;
  char *room = NULL;
  size_t left = 0;

  (void) suggested;
  if (handle->announces == 1 && handle->round != loop->round) {
    handle->announces = 0;
    handle->round = loop->round;
    vl_emit(loop, VL_READ, handle->id, 0, 0);
  } else if (handle->round != loop->round) {
    room = vl_slab_room(loop, SLAB_READS, READ_MIN);
    if (room == NULL)
      loop->starved = 1;
    else
      left = SLAB_READS - loop->slab_used;
  }
  *buf = uv_buf_init(room, (unsigned int) (left < READ_MAX ? left : READ_MAX));
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf) {
  vl_handle_t *handle = stream->data;
  vl_loop_t *loop = handle->loop;

  if (nread > 0) {
    handle->round = loop->round;
    vl_emit(loop, VL_READ, handle->id, nread, vl_slab_commit(loop, (size_t) nread));
  } else if (nread < 0 && (nread != UV_ENOBUFS || buf->base != NULL)) {
    /* ENOBUFS without a buffer is only that on_alloc had no room. */
    vl_emit(loop, VL_READ, handle->id, nread, 0);
  }
}

int vl_stream_read_start(vl_handle_t *handle) {
  int r;

  VL_GUARD(handle->loop);
  r = uv_read_start(&handle->uv.stream, on_alloc, on_read);
  return r == UV_EALREADY ? 0 : r;
}

int vl_stream_read_stop(vl_handle_t *handle) {
  VL_GUARD(handle->loop);
  return uv_read_stop(&handle->uv.stream);
}

/* Where a large message is likely, the accelerator wants it in the object that the protocol gets,
 * for the copy from the slab costs as much as anything else. So the next read is only announced. If
 * nobody makes use of that, the one after it goes into the slab as ever. */
void vl_stream_announce(vl_handle_t *handle) {
#ifdef __linux__
  if (handle->announces == 0)
    handle->announces = 1;
#else
  (void) handle;
#endif
}

/* The end of the stream is left to libuv, which comes across it next; an error the socket tells once. */
int64_t vl_stream_receive(vl_handle_t *handle, char *data, size_t size) {
  VL_GUARD(handle->loop);
#ifdef __linux__
  ssize_t n = recv(vl_handle_fileno_unguarded(handle), data, size, MSG_DONTWAIT);

  if (n < 0 && errno == ENOTSOCK)
    handle->announces = -1; /* a pipe: a read of it might wait */
  return n >= 0 ? n : errno == EAGAIN || errno == ENOTSOCK ? 0 : uv_translate_sys_error(errno);
#else
  (void) data, (void) size;
  return 0;
#endif
}

/* ---------------------------------------------------------------------------------- writing */

static void chunks_free(chunk_t *chunk) {
  chunk_t *next;

  for (; chunk != NULL; chunk = next) {
    next = chunk->next;
    free(chunk);
  }
}

void vl_stream_drop_queue(vl_handle_t *handle) {
  chunks_free(handle->waiting);
  handle->waiting = handle->waiting_last = NULL;
  handle->waiting_size = 0;
}

static int enqueue(vl_handle_t *handle, const char *data, size_t size) {
  chunk_t *last;
  size_t part, cap;

  for (; size > 0; data += part, size -= part) {
    part = size < PIECE_MAX ? size : PIECE_MAX;
    last = handle->waiting_last;
    if (last == NULL || last->cap - last->len < part) {
      cap = part < CHUNK_MIN ? CHUNK_MIN : part;
      last = malloc(sizeof(*last) + cap);
      if (last == NULL)
        return UV_ENOMEM;
      last->next = NULL;
      last->len = 0;
      last->cap = cap;
      if (handle->waiting_last != NULL)
        handle->waiting_last->next = last;
      else
        handle->waiting = last;
      handle->waiting_last = last;
    }
    memcpy(last->data + last->len, data, part);
    last->len += part;
    handle->waiting_size += part;
  }
  return 0;
}

static void on_shutdown(uv_shutdown_t *request, int status) {
  (void) status;
  free(request);
}

static int shutdown_now(vl_handle_t *handle) {
  uv_shutdown_t *request = malloc(sizeof(*request));
  int r;

  if (request == NULL)
    return UV_ENOMEM;
  r = uv_shutdown(request, &handle->uv.stream, on_shutdown);
  if (r != 0)
    free(request);
  return r;
}

static void on_write(uv_write_t *request, int status);

/* Hands the waiting chunks to libuv, as many as go at once; one request at a time, so
 * that what is written meanwhile goes out in the next one together. */
static int submit(vl_handle_t *handle) {
  uv_buf_t bufs[VECTOR];
  chunk_t *chunk;
  size_t size = 0;
  unsigned int n = 0;
  int r;

  if (handle->write == NULL) {
    handle->write = malloc(sizeof(*handle->write));
    if (handle->write == NULL)
      return UV_ENOMEM;
  }
  for (chunk = handle->waiting;; chunk = chunk->next) {
    bufs[n++] = uv_buf_init(chunk->data, (unsigned int) chunk->len);
    size += chunk->len;
    if (chunk->next == NULL || n == VECTOR || size >= PIECE_MAX)
      break;
  }
  r = uv_write(handle->write, &handle->uv.stream, bufs, n, on_write);
  if (r != 0)
    return r;
  handle->flying = handle->waiting;
  handle->flying_size = size;
  handle->waiting = chunk->next;
  if (chunk->next == NULL)
    handle->waiting_last = NULL;
  chunk->next = NULL;
  handle->waiting_size -= size;
  return 0;
}

static void on_write(uv_write_t *request, int status) {
  vl_handle_t *handle = request->handle->data;

  chunks_free(handle->flying);
  handle->flying = NULL;
  handle->flying_size = 0;
  if (uv_is_closing(&handle->uv.handle)) {
    free(handle->write);
    handle->write = NULL;
    return;
  }
  if (status == 0 && handle->waiting != NULL)
    status = submit(handle);
  if (status != 0)
    vl_stream_drop_queue(handle);
  if (handle->flying == NULL) {
    free(handle->write);
    handle->write = NULL;
    if (handle->shutting && status == 0)
      shutdown_now(handle);
  }
  /* How much is queued is asked by vl_stream_queued: it may be more until this is read. */
  vl_emit(handle->loop, VL_WRITE, handle->id, status, 0);
}

/* Queues what is left of the vector after the first done bytes. */
static int64_t queue_rest(vl_handle_t *handle, char **data, size_t *sizes, int count,
                          size_t done) {
  int i, r;

  for (i = 0; i < count; i++) {
    if (done >= sizes[i]) {
      done -= sizes[i];
      continue;
    }
    r = enqueue(handle, data[i] + done, sizes[i] - done);
    if (r != 0)
      return r;
    done = 0;
  }
  if (handle->flying == NULL) {
    r = submit(handle);
    if (r != 0)
      return r;
  }
  return (int64_t) (handle->waiting_size + handle->flying_size);
}

int64_t vl_stream_write(vl_handle_t *handle, const char *data, size_t size) {
  char *start = (char *) data;
  uv_buf_t buf = uv_buf_init(start, (unsigned int) size);
  int done = 0;

  VL_GUARD(handle->loop);
  if (size > CHUNK_MAX)
    return vl_stream_writev(handle, &start, &size, 1);
  if (handle->flying == NULL) {
    done = uv_try_write(&handle->uv.stream, &buf, 1);
    if (done == (int) size)
      return 0;
    if (done == UV_EAGAIN)
      done = 0;
    else if (done < 0)
      return done;
  }
  return queue_rest(handle, &start, &size, 1, (size_t) done);
}

int64_t vl_stream_writev(vl_handle_t *handle, char **data, size_t *sizes, int count) {
  uv_buf_t bufs[VECTOR];
  size_t total = 0;
  int done = 0, i;

  VL_GUARD(handle->loop);
  if (handle->flying == NULL) {
    for (i = 0; i < count && i < VECTOR && sizes[i] <= CHUNK_MAX; i++) {
      bufs[i] = uv_buf_init(data[i], (unsigned int) sizes[i]);
      total += sizes[i];
    }
    if (i > 0) {
      done = uv_try_write(&handle->uv.stream, bufs, (unsigned int) i);
      if (done == UV_EAGAIN)
        done = 0;
      else if (done < 0)
        return done;
      if (i == count && (size_t) done == total)
        return 0;
    }
  }
  return queue_rest(handle, data, sizes, count, (size_t) done);
}

/* May a write wait? Then the accelerator gives the GIL away. */
int vl_write_may_wait(vl_handle_t *handle) {
  uv_handle_type type = handle->uv.handle.type;

  return VL_SOCKETS_MAY_WAIT || (type != UV_TCP && type != UV_UDP);
}

int64_t vl_stream_queued(vl_handle_t *handle) {
  VL_GUARD(handle->loop);
  return (int64_t) (handle->waiting_size + uv_stream_get_write_queue_size(&handle->uv.stream));
}

int vl_stream_shutdown(vl_handle_t *handle) {
  VL_GUARD(handle->loop);
  if (handle->flying == NULL)
    return shutdown_now(handle);
  handle->shutting = 1;
  return 0;
}
