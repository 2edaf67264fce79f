int vl_stream_read_start(vl_handle_t *handle);
int vl_stream_read_stop(vl_handle_t *handle);
/* The next read becomes a record of 0 bytes, who gets it may read: -> bytes, 0 if there were none, or a
 * status. */
void vl_stream_announce(vl_handle_t *handle);
int64_t vl_stream_receive(vl_handle_t *handle, char *data, size_t size);

/* Tries the socket at once, from the caller's memory; what the kernel does not take is
 * copied and queued. -> bytes now queued (0: all is written), or a status. */
int64_t vl_stream_write(vl_handle_t *handle, const char *data, size_t size);
int64_t vl_stream_writev(vl_handle_t *handle, char **data, size_t *sizes, int count);
int64_t vl_stream_queued(vl_handle_t *handle);

/* Half-closes once all queued bytes are written. */
int vl_stream_shutdown(vl_handle_t *handle);
