/* Forwards the bytes that Python's C signal handler writes to the other end of fd. */
int vl_signals_watch(vl_loop_t *loop, int fd);
