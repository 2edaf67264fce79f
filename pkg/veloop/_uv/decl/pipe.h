/* A stream over a pipe, FIFO, terminal, other character device or socket. The handle has a copy
 * of the descriptor: several may be open over one file, and fd stays the caller's.
 * On Windows fd is the HANDLE of a pipe. -> the id, or a status. */
int64_t vl_pipe_open(vl_loop_t *loop, int fd, vl_handle_t **handle);

/* Tells, with one VL_POLL, when nobody is left to read what is written to fd; on a copy of it too.
 * Not on Windows. */
int64_t vl_pipe_watch(vl_loop_t *loop, int fd, vl_handle_t **handle);
