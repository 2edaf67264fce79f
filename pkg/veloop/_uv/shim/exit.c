/* The end of a child process: heard of, but not reaped. */
#include "shim.h"

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>

/* A number that the C library's headers may be too old for. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#endif

int vl_exit_pidfd(int pid) {
#ifdef __linux__
  int fd = (int) syscall(SYS_pidfd_open, pid, 0); /* close-on-exec */

  return fd < 0 ? uv_translate_sys_error(errno) : fd;
#else
  (void) pid;
  return UV_ENOTSUP;
#endif
}

#ifdef _WIN32
/* One of the system's threads waits for many processes. */
static void CALLBACK on_signalled(void *async, BOOLEAN timed_out) {
  (void) timed_out;
  uv_async_send(async);
}

static void on_dead(uv_async_t *async) {
  vl_handle_t *handle = async->data;

  vl_emit(handle->loop, VL_EXIT, handle->id, 0, 0);
}

int64_t vl_exit_watch(vl_loop_t *loop, int pidfd, vl_handle_t **into) {
  vl_handle_t *handle;
  int r;

  VL_GUARD(loop);
  handle = vl_handle_alloc(loop, UV_ASYNC);
  if (handle == NULL)
    return UV_ENOMEM;
  r = uv_async_init(&loop->uv, &handle->uv.async, on_dead);
  if (r != 0) {
    vl_handle_discard(handle);
    return r;
  }
  handle->uv.async.data = handle;
  if (!RegisterWaitForSingleObject(&handle->wait, (HANDLE) (intptr_t) pidfd, on_signalled,
                                   &handle->uv.async, INFINITE,
                                   WT_EXECUTEINWAITTHREAD | WT_EXECUTEONLYONCE)) {
    r = uv_translate_sys_error(GetLastError());
    handle->wait = NULL;
    vl_handle_close_unguarded(handle);
    return r;
  }
  *into = handle;
  return handle->id;
}
#else
static void on_dead(uv_poll_t *poll, int status, int events) {
  vl_handle_t *handle = poll->data;

  (void) status;
  (void) events;
  uv_poll_stop(poll);
  vl_emit(handle->loop, VL_EXIT, handle->id, 0, 0);
}

int64_t vl_exit_watch(vl_loop_t *loop, int pidfd, vl_handle_t **into) {
  vl_handle_t *handle;
  int r;

  VL_GUARD(loop);
  r = vl_handle_poll(loop, pidfd, &handle);
  if (r != 0)
    return r;
  r = uv_poll_start(&handle->uv.poll, UV_READABLE, on_dead);
  if (r != 0) {
    vl_handle_close_unguarded(handle);
    return r;
  }
  *into = handle;
  return handle->id;
}
#endif
