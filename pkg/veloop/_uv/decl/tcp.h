/* Wraps a socket. On success it belongs to the handle, which closes it, unless it is
 * borrowed: then the caller closes it, after vl_handle_close. On failure it stays the
 * caller's. -> the id, or a status. */
int64_t vl_tcp_open(vl_loop_t *loop, int fd, int borrowed, vl_handle_t **handle);
int vl_tcp_connect(vl_handle_t *handle, const char *address);
int vl_tcp_nodelay(vl_handle_t *handle);
