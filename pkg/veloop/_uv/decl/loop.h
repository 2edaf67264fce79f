/* A new loop; NULL, with the reason in *status, when it cannot be made. */
vl_loop_t *vl_loop_new(int *status);

/* Closes every handle and request and gives back what the kernel lent. Idempotent. The
 * memory itself stays until vl_loop_free, so that a late vl_loop_wakeup is harmless. */
int vl_loop_close(vl_loop_t *loop);
void vl_loop_free(vl_loop_t *loop);

/* Declares the calling thread the owner, until vl_loop_leave: other threads are refused. */
int vl_loop_enter(vl_loop_t *loop);
void vl_loop_leave(vl_loop_t *loop);

/* Runs uv_run once, for at most timeout seconds (negative: until something happens).
 * -> the number of records in the ring, or a status. Whatever the ring and the slab held
 * before is gone. */
int vl_loop_run(vl_loop_t *loop, double timeout);

/* Where the records are; the ring moves when it grows beyond its capacity. */
int64_t *vl_loop_ring(vl_loop_t *loop);
int vl_loop_ring_capacity(vl_loop_t *loop);
char *vl_loop_slab(vl_loop_t *loop);
size_t vl_loop_slab_size(vl_loop_t *loop);

/* Ends a running or the next vl_loop_run. From any thread, also on a closed loop. */
int vl_loop_wakeup(vl_loop_t *loop);

/* Forwards the bytes that Python's C signal handler writes to the other end of fd. */
int vl_loop_watch_signals(vl_loop_t *loop, int fd);

/* Who runs the loop that refused the calling thread's last call, as threading.get_ident() does. */
uint64_t vl_refused_owner(void);
