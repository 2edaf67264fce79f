/* A socket of AF_INET or AF_INET6 that carries datagrams. Who owns it: as with vl_tcp_open.
 * -> the id, or a status. */
int64_t vl_udp_open(vl_loop_t *loop, int fd, int borrowed, vl_handle_t **handle);

/* What comes is a VL_DATAGRAM each. */
int vl_udp_read_start(vl_handle_t *handle);
int vl_udp_read_stop(vl_handle_t *handle);

/* Sends at once if it can, and else queues a copy. The address is a sockaddr, or NULL on a
 * connected socket. -> what is queued now (0: nothing), or a status. */
int64_t vl_udp_send(vl_handle_t *handle, const char *data, size_t size, const char *address);
/* The bytes queued, and 8 more for each datagram, as asyncio counts. */
int64_t vl_udp_queued(vl_handle_t *handle);
