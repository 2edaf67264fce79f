/* The floor: an echo server straight on libuv, without Python. What a loop on libuv costs above
 * this is its own. It does what the Python loops do: reads into one reused buffer, tries to write
 * at once, queues only the rest. Usage: libuv_echo [LIFETIME_SECONDS]; prints "port N".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

struct pending {
  uv_write_t req;
  char data[];
};

static char slab[256 * 1024];   /* as large as the read buffers of asyncio and uvloop */

static void check(int status, const char *what) {
  if (status >= 0) return;
  fprintf(stderr, "libuv_echo: %s: %s\n", what, uv_strerror(status));
  exit(1);
}

static void on_closed(uv_handle_t *handle) {
  free(handle);
}

static void on_written(uv_write_t *req, int status) {
  (void)status;   /* a broken connection is also reported to on_read */
  free(req);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
  (void)handle;
  (void)suggested;
  *buf = uv_buf_init(slab, sizeof slab);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf) {
  if (count < 0) {
    uv_close((uv_handle_t *)stream, on_closed);
    return;
  }
  uv_buf_t out = uv_buf_init(buf->base, (unsigned)count);
  int sent = count ? uv_try_write(stream, &out, 1) : 0;
  if (sent == UV_EAGAIN) sent = 0;
  if (sent < 0) {
    uv_close((uv_handle_t *)stream, on_closed);
    return;
  }
  size_t rest = (size_t)(count - sent);
  if (rest == 0) return;
  struct pending *pending = malloc(sizeof *pending + rest);
  if (!pending) abort();
  memcpy(pending->data, buf->base + sent, rest);
  out = uv_buf_init(pending->data, (unsigned)rest);
  check(uv_write(&pending->req, stream, &out, 1, on_written), "write");
}

static void on_connection(uv_stream_t *server, int status) {
  check(status, "accept");
  uv_tcp_t *client = malloc(sizeof *client);
  if (!client) abort();
  check(uv_tcp_init(server->loop, client), "tcp_init");
  check(uv_accept(server, (uv_stream_t *)client), "accept");
  check(uv_tcp_nodelay(client, 1), "nodelay");
  check(uv_read_start((uv_stream_t *)client, on_alloc, on_read), "read_start");
}

int main(int argc, char **argv) {
  uv_loop_t *loop = uv_default_loop();
  uv_tcp_t server;
  struct sockaddr_in addr;
  int length = sizeof addr;
  if (argc > 1) alarm((unsigned)atoi(argv[1]));   /* never outlives a benchmark that was killed */
  check(uv_ip4_addr("127.0.0.1", 0, &addr), "address");
  check(uv_tcp_init(loop, &server), "tcp_init");
  check(uv_tcp_bind(&server, (const struct sockaddr *)&addr, 0), "bind");
  check(uv_listen((uv_stream_t *)&server, 1024, on_connection), "listen");
  check(uv_tcp_getsockname(&server, (struct sockaddr *)&addr, &length), "getsockname");
  printf("port %d\n", ntohs(addr.sin_port));
  fflush(stdout);
  return uv_run(loop, UV_RUN_DEFAULT);
}
