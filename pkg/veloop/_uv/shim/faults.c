/* Which system calls fail in a build with VELOOP_FAULTS=1. The environment says how many of them, at
 * run time, and from which seed: VELOOP_FAULT_RATE=0.01:7. Without it none does. At the end of the
 * process stderr is told how many there were. */
#ifdef VL_FAULTS
#include "shim.h"

#include <stdio.h>

/* Reading and writing sockets and pipes, opening and watching them; not libuv's own eventfds. */
static const char *const files[] = {"stream.c", "udp.c",  "tcp.c",      "pipe.c",
                                    "core.c",   "poll.c", "listener.c", "port.c",
                                    "epoll.c"};

static const int errors[][3] = {
    [VL_FAULT_RECEIVE] = {ECONNRESET, ENOBUFS, ENOMEM},
    [VL_FAULT_SEND] = {ECONNRESET, ENOBUFS, ENOMEM},
    [VL_FAULT_ACCEPT] = {EMFILE, ENOBUFS, ENOMEM},
    [VL_FAULT_CONNECT] = {ECONNRESET, ENOBUFS, ENOMEM},
    [VL_FAULT_OPEN] = {EMFILE, ENOBUFS, ENOMEM},
    [VL_FAULT_WATCH] = {ENOMEM, ENOSPC, ENOMEM},
};

static uv_once_t once = UV_ONCE_INIT;
static uint64_t threshold, seed;
static _Atomic uint64_t calls, failed;

static void tell(void) {
  fprintf(stderr, "faults: %llu of %llu system calls failed\n",
          (unsigned long long) atomic_load(&failed), (unsigned long long) atomic_load(&calls));
}

static void setup(void) {
  const char *text = getenv("VELOOP_FAULT_RATE");
  double rate = 0.0;
  unsigned long long number = 0;

  if (text == NULL || sscanf(text, "%lf:%llu", &rate, &number) < 1 || rate <= 0.0)
    return;
  threshold = (uint64_t) ((rate < 1.0 ? rate : 1.0) * 4294967295.0);
  seed = number;
  atexit(tell);
}

static int is_subject(const char *file) {
  const char *name = strrchr(file, '/');
  size_t i;

  name = name == NULL ? file : name + 1;
  for (i = 0; i < sizeof(files) / sizeof(*files); i++)
    if (strcmp(files[i], name) == 0)
      return 1;
  return 0;
}

int vl_fault(int kind, const char *file) {
  uint64_t x;

  uv_once(&once, setup);
  if (threshold == 0 || !is_subject(file))
    return 0;
  /* splitmix64 of the call's number: the same calls in the same order fail in the same way */
  x = seed + 0x9e3779b97f4a7c15u * (atomic_fetch_add(&calls, 1) + 1);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  if ((x & 0xffffffffu) >= threshold)
    return 0;
  atomic_fetch_add(&failed, 1);
  errno = errors[kind][(x >> 32) % 3];
  return 1;
}
#else
typedef int vl_no_faults_t; /* a file must not be empty */
#endif
