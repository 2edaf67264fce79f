/* The ring record: four int64_t, in this order: kind, id, a, b.
 *
 *   kind            id         a                       b
 *   VL_READ         stream     bytes read, or status   offset of the bytes in the slab
 *                              (0: there is something to read, see vl_stream_announce)
 *   VL_WRITE        stream,    status                  -
 *                   udp
 *   VL_CONNECT      stream     status                  -
 *   VL_ACCEPT       listener   vl_handle_t *, status   offset in the slab of the addresses and
 *                                                      the descriptor (listener.c);
 *                                                      of a status, whether it pauses
 *   VL_POLL         poll       VL_READABLE | ...       -
 *                           (0: hang-up, of a vl_pipe_watch)
 *   VL_SIGNAL       0          bytes read              offset of the signal numbers in the slab
 *   VL_GETADDRINFO  request    status                  vl_dns_t *
 *   VL_GETNAMEINFO  request    status                  vl_dns_t *
 *   VL_EXIT         process    -                       -
 *   VL_DATAGRAM     udp        its size, or status     offset in the slab of the sender's
 *                                                      sockaddr; the bytes come 32 later
 *
 * Ids count up and are never used again, so an id is its own generation: a record that
 * comes late, after Python closed its handle, finds no target and is dropped.
 */
enum {
  VL_READ = 1,
  VL_WRITE,
  VL_CONNECT,
  VL_ACCEPT,
  VL_POLL,
  VL_SIGNAL,
  VL_GETADDRINFO,
  VL_GETNAMEINFO,
  VL_EXIT,
  VL_DATAGRAM
};

enum { VL_READABLE = 1, VL_WRITABLE = 2 };

/* Where the records are; the ring moves when it grows beyond its capacity. */
int64_t *vl_loop_ring(vl_loop_t *loop);
int vl_loop_ring_capacity(vl_loop_t *loop);
char *vl_loop_slab(vl_loop_t *loop);
size_t vl_loop_slab_size(vl_loop_t *loop);
