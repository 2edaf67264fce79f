/* A stream over a pipe, FIFO, terminal, other character device or socket. The handle has a copy
 * of the descriptor: several may be open over one file, and fd stays the caller's.
 * -> the id, or a status. */
int64_t vl_pipe_open(vl_loop_t *loop, int fd, vl_handle_t **handle);
