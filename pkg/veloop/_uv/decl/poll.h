/* Watches any descriptor for VL_READABLE | VL_WRITABLE, level-triggered; 0 ends it.
 * By descriptor, not by pointer: a closed descriptor's number may come back at any time, and
 * then the stale watch has to give way (see poll.c). So the caller says also which of the events
 * it has just added (0: none, it took some away): these are all that is watched, under a new id,
 * if there is no watch of the number's present file.
 * once: from the first event on nothing is watched. If that was all, the watch ends by itself; else
 * it is to be set again for what is left.
 * -> the id (0 when ended), or a status. With any but VL_EFOREIGN the watch has ended, too. */
int64_t vl_poll_set(vl_loop_t *loop, int fd, int events, int added, int once);
