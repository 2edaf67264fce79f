/* Sockets that carry datagrams, of all families but AF_INET and AF_INET6: only told when they are
 * ready, by VL_POLL. They stay the caller's. -> the id, or a status. */
int64_t vl_datagram_watch(vl_loop_t *loop, int fd, vl_handle_t **handle);
int vl_datagram_watch_for(vl_handle_t *handle, int events);
