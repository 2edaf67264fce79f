/* Accepts connections from a listening socket, which stays the caller's: at most batch of
 * them in one turn. Each comes as an open stream handle. -> the id, or a status. */
int64_t vl_listener_open(vl_loop_t *loop, int fd, int batch, vl_handle_t **handle);

/* After a VL_ACCEPT with a status the listener pauses; this goes on. */
int vl_listener_resume(vl_handle_t *handle);
