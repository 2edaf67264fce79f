/* What all handles share. A pointer is valid until vl_handle_close; then it is gone. */
int vl_handle_close(vl_handle_t *handle);
int64_t vl_handle_id(vl_handle_t *handle);

/* Handles allocated and not freed yet, in the whole process. */
int vl_live_handles(void);
