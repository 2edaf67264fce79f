/* Watches any descriptor for VL_READABLE | VL_WRITABLE, level-triggered; 0 ends it.
 * By descriptor, not by pointer: a closed descriptor's number may come back at any time, and
 * then the stale watch has to give way (see poll.c). -> the id (0 when ended), or a status. */
int64_t vl_poll_set(vl_loop_t *loop, int fd, int events);
