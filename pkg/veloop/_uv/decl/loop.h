/* A new loop; NULL, with the reason in *status, when it cannot be made. */
vl_loop_t *vl_loop_new(int *status);

/* Closes every handle and request and gives back what the kernel lent. Once only. The
 * memory itself stays until vl_loop_free, so that a late vl_loop_wakeup is harmless. */
int vl_loop_close(vl_loop_t *loop);
void vl_loop_free(vl_loop_t *loop);

/* Declares the calling thread the owner, until vl_loop_leave: other threads are refused. Is it the
 * owner already, nothing changes. */
int vl_loop_enter(vl_loop_t *loop);
void vl_loop_leave(vl_loop_t *loop);

/* Runs uv_run once, for at most timeout seconds (negative: until something happens).
 * -> the number of records in the ring, or a status. Whatever the ring and the slab held
 * before is gone: taken is how many times the caller has got records so far. Is that one less
 * than it should be, an interrupt came between; then nothing runs, and the records that were
 * missed are given again. */
int vl_loop_run(vl_loop_t *loop, double timeout, int64_t taken);

/* Ends a running or the next vl_loop_run. From any thread, also on a closed loop. */
int vl_loop_wakeup(vl_loop_t *loop);

/* In the child after a fork: first the one, then the other for each loop. Such a loop is the
 * parent's; it refuses every call but vl_loop_close, which touches nothing of the parent's.
 * closing: another thread was about to close it. */
void vl_process_forked(void);
void vl_loop_forked(vl_loop_t *loop, int closing);

/* Who runs the loop that refused the calling thread's last call, as threading.get_ident() does;
 * 0: it is a loop of the parent process. */
uint64_t vl_refused_owner(void);
