/* A descriptor that becomes readable when the child is dead, for vl_exit_watch; the caller's.
 * -> it, or a status. */
int vl_exit_pidfd(int pid);

/* One VL_EXIT when that is so. The child is not reaped. Close pidfd after vl_handle_close. On Windows
 * it is the HANDLE of the process, or of what else can be waited for. -> the id, or a status. */
int64_t vl_exit_watch(vl_loop_t *loop, int pidfd, vl_handle_t **handle);
