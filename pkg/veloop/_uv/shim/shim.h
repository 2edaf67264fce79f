/* What the shim's files share. uv.h comes before the declarations that cffi reads too, so that
 * a prototype that differs from libuv's is a compile error.
 *
 * Who owns what: the shim allocates every handle and request that libuv sees, and frees a handle
 * only in its close callback, a request only in its own callback. Python holds opaque pointers
 * and must not use one again after vl_handle_close. */
#ifndef VL_SHIM_H
#define VL_SHIM_H

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "../decl/types.h"
#include "../decl/error.h"
#include "../decl/event.h"
#include "../decl/loop.h"
#include "../decl/signals.h"
#include "../decl/handle.h"
#include "../decl/stream.h"
#include "../decl/tcp.h"
#include "../decl/pipe.h"
#include "../decl/udp.h"
#include "../decl/datagram.h"
#include "../decl/listener.h"
#include "../decl/poll.h"
#include "../decl/dns.h"
#include "../decl/process.h"
#include "../decl/exit.h"
#include "../decl/table.h"

struct vl_loop {
  uv_loop_t uv;
  uv_async_t wakeup;
  uv_timer_t sleeper;
  uv_mutex_t wakeup_lock; /* held while wakeup is used or closed: any thread may call */
  int closed;
  int out_of_memory;      /* the ring could not grow: a record was lost */
  int64_t filled;         /* how many runs had records */
  int64_t round;          /* of reading, see stream.c */
  int torn;               /* forked while another thread was in the midst of its uv_run */
  int starved;            /* in this round somebody got no room in the slab */
  _Atomic uint64_t owner; /* the thread that runs the loop, or 0; see loop.c */
  int64_t next_id;
  int64_t streams; /* made so far */
  int64_t *ring; /* RECORD numbers for each record */
  int ring_len, ring_cap;
  char *slab;
  size_t slab_used;
  int most_events; /* that the last poll could bring */
  vl_handle_t **polls; /* by descriptor */
  int npolls;
  vl_handle_t *oldest, *newest; /* polls that rest, see poll.c */
  int64_t runs;
  vl_dns_t *requests; /* not freed yet */
  int pipes; /* streams that may be no sockets, see vl_loop_may_wait */
  vl_loop_t *next_zombie;
  enum { OWNED, ZOMBIE, RELEASED } state; /* by Python; by the list of zombies too; by it alone */
};

enum {
  RECORD = 4,                   /* numbers in a record */
  SLAB_SIZE = 512 * 1024,
  READ_MAX = 256 * 1024,        /* as much as asyncio's own transports take at once */
  READ_MIN = 32 * 1024,         /* with less left, reading waits for the next turn */
  TURN_BYTES = 256 * 1024,      /* what reads are to bring in a turn, about */
  EVENTS_MAX = 1024,            /* of a poll: as many as libuv asks for */
  EVENTS_NEAR = 32,             /* what these bring is still in the nearest cache when it is sent on */
  POLLS_APART = 2,              /* milliseconds: who polls that rarely gets all there is */
  SLAB_READS = SLAB_SIZE - 32 * 1024, /* what reads may use: accepting must not wait for them */
};

/* A piece of a stream's write queue. */
typedef struct chunk {
  struct chunk *next;
  size_t len, cap;
  char data[];
} chunk_t;

struct vl_handle {
  vl_loop_t *loop;
  int64_t id;
  int borrowed;  /* the descriptor is closed by somebody else */
  int fd;        /* poll and listener */
  int owned;     /* poll: fd is ours to close */
  int batch;     /* listener: connections accepted in one turn; udp: what a buffer has room for */
#ifdef _WIN32
  HANDLE wait;   /* async: what has the system wait for a process */
#endif
  int64_t round; /* stream and udp: in which it was read last */
  size_t waiting_size; /* stream and udp */
  union { /* there may be many streams: what only handles of another kind need takes no room there */
    struct { /* stream */
      int announces; /* its next read; -1: never, it is no socket */
      int shutting;  /* half-close when the queue is empty */
      chunk_t *waiting, *waiting_last, *flying;
      size_t flying_size;
      uv_write_t *write;
    };
    struct { /* udp */
      int quota;     /* bytes that it may still receive in this round */
      int64_t told;  /* in which run something that was sent got a record */
    };
    struct { /* poll */
      int events;    /* what is watched */
      int at_once;   /* epoll knows of it, see poll.c */
      int once;      /* each event is told once */
      int rests;     /* everything was told; since which run, and the neighbours in the list */
      int64_t rests_since;
      vl_handle_t *older, *newer;
    };
    struct { /* listener */
      int failures;  /* of accept, one after the other */
      int64_t told_of; /* its records so far */
    };
  };
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
    uv_poll_t poll;
    uv_process_t process;
    uv_udp_t udp;
    uv_async_t async;
  } uv; /* the last member: only as much of it as the kind needs is allocated */
};

/* The calling thread as Python's threading.get_ident() names it. */
uint64_t vl_self(void);
int vl_refuse(vl_loop_t *loop);

/* First line of every function that touches a loop. */
#define VL_GUARD(loop) \
  do { \
    uint64_t owner_ = atomic_load_explicit(&(loop)->owner, memory_order_relaxed); \
    if ((loop)->closed) \
      return UV_EINVAL; \
    if (owner_ != 0 && owner_ != vl_self()) \
      return vl_refuse(loop); \
  } while (0)

int vl_ring_grow(vl_loop_t *loop);
void vl_emit(vl_loop_t *loop, int kind, int64_t id, int64_t a, int64_t b);

/* Room in the slab before end, or NULL when too little is left; vl_slab_commit makes it taken.
 * -> offset. */
char *vl_slab_room(vl_loop_t *loop, size_t end, size_t least);
int64_t vl_slab_commit(vl_loop_t *loop, size_t size);
/* How many events the next poll may bring, by what the last one brought. */
int vl_most_events(vl_loop_t *loop);

vl_handle_t *vl_handle_alloc(vl_loop_t *loop, uv_handle_type type);
/* A watch of fd for the shim itself, not started yet. -> a status. */
int vl_handle_poll(vl_loop_t *loop, int fd, vl_handle_t **handle);
void vl_handle_discard(vl_handle_t *handle); /* never initialised by libuv */
void vl_handle_close_unguarded(vl_handle_t *handle);
int vl_handle_fileno_unguarded(vl_handle_t *handle);

int64_t vl_tcp_adopt(vl_loop_t *loop, int fd, int borrowed, vl_handle_t **handle);
void vl_poll_forget(vl_loop_t *loop, int fd);
void vl_poll_end_rests(vl_loop_t *loop);
void vl_stream_drop_queue(vl_handle_t *handle);
int vl_write_may_wait(vl_handle_t *handle);
int vl_loop_may_wait(vl_loop_t *loop);
void vl_dns_cancel_all(vl_loop_t *loop);
void vl_dns_free_all(vl_loop_t *loop);
void vl_dns_forked(void);

/* Without port.h libuv would close a borrowed descriptor, and gets a copy instead; and a socket that
 * is not in non-blocking mode any more may keep it waiting. */
#if defined(__linux__) && !defined(VL_SYSTEM_LIBUV)
enum { VL_CAN_BORROW = 1, VL_SOCKETS_MAY_WAIT = 0 };
#else
enum { VL_CAN_BORROW = 0, VL_SOCKETS_MAY_WAIT = 1 };
#endif
/* The most that is written with one request, about. Windows locks all of it into memory, and tells only
 * of its end, before which the queue would not become any shorter. */
#ifdef _WIN32
enum { PIECE_MAX = 256 * 1024 };
#else
enum { PIECE_MAX = 1 << 30 };
#endif
/* What libuv is told instead of ENOBUFS where it sends datagrams: no system has such an errno. */
enum { VL_PORT_ENOBUFS = 1 << 20 };
extern _Thread_local int vl_port_borrowed_fd;
extern unsigned int vl_port_pool_threads;
void vl_port_forked(void);
void vl_port_epoll_forked(void);
void vl_port_forget_epoll(int epoll_fd);
extern _Thread_local int vl_port_keeps_trial;
extern _Thread_local int vl_port_poll_errno;
extern _Thread_local uint64_t vl_port_deadline;
extern _Thread_local int vl_port_most_events;
enum { VL_IDLE = INT_MAX }; /* what a sleeper that is not needed is set to, milliseconds */
extern _Thread_local const vl_spawn_t *vl_port_spawn;
unsigned vl_port_occupy_stdio(void);
void vl_port_vacate_stdio(unsigned occupied);
/* -> another descriptor (SOCKET) of it, with a number above `after` and above 2, or a status. libuv
 * may still know that number, if a descriptor was closed behind its back; then it says UV_EEXIST,
 * and the caller asks for the next. */
int vl_port_copy(int fd, int after);
void vl_port_close_socket(int fd);
int vl_port_cancelling(int tries); /* May what was closed be still about to end? Then waits a moment. */
char **vl_environment(void);

#endif
