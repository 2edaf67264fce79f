/* Accepts connections from a listening socket, which stays the caller's: at most batch of
 * them in one turn. Each comes as an open stream handle. -> the id, or a status. */
int64_t vl_listener_open(vl_loop_t *loop, int fd, int batch, vl_handle_t **handle);

/* After a VL_ACCEPT that says so the listener pauses; this goes on. */
int vl_listener_resume(vl_handle_t *handle);

/* -> how many VL_ACCEPT it has emitted in its life: some may still wait in the ring. */
int64_t vl_listener_close(vl_handle_t *handle);
