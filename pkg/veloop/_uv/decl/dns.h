typedef struct {
  int family;
  int socktype;
  int protocol;
  int size;
  const char *address;
  const char *canonname;
} vl_addrinfo_t;

/* Both run in libuv's thread pool. -> the id, or a status. */
int64_t vl_getaddrinfo(vl_loop_t *loop, const char *host, const char *service, int family,
                       int socktype, int protocol, int flags);
int64_t vl_getnameinfo(vl_loop_t *loop, const char *address, int flags);
/* Of a request that its record names, until vl_dns_free. */
int vl_dns_next(vl_dns_t *request, vl_addrinfo_t *into);
const char *vl_dns_host(vl_dns_t *request);
const char *vl_dns_service(vl_dns_t *request);
void vl_dns_free(vl_dns_t *request);

/* The system's text for one of its EAI_* numbers. */
const char *vl_eai_text(int number);

/* Takes a request back that no thread has begun. The record comes all the same. */
int vl_dns_cancel(vl_loop_t *loop, int64_t id);
