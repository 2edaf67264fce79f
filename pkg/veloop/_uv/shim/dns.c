/* getaddrinfo and getnameinfo in libuv's thread pool. A request stays until Python has read
 * its answer and frees it, or until the loop is closed. */
#include "shim.h"

#ifndef _WIN32
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#endif

struct vl_dns {
  vl_loop_t *loop;
  vl_dns_t *prev, *next;
  int64_t id;
  int answered;
  struct addrinfo *at; /* the next one to hand out */
  union {
    uv_req_t request;
    uv_getaddrinfo_t addr;
    uv_getnameinfo_t name;
  } uv;
};

/* ------------------------------------------------------------------------ the thread pool */

/* libuv starts its threads at the first request, and aborts if one cannot be started. So before
 * that we start one, which is an error that can be told; libuv gets it as its first thread, and
 * is content with as many more as there are to be had. */
#if !defined(_WIN32) && !defined(VL_SYSTEM_LIBUV)
enum { POOL_STACK = 8 << 20 }; /* what libuv gives its threads */

static uv_mutex_t pool_lock;
static uv_once_t pool_once = UV_ONCE_INIT;
static uv_sem_t pool_hired;
static uv_thread_t pool_first;
static uv_thread_cb pool_entry;
static void *pool_argument;
static unsigned pool_started;
static enum { NO_THREAD, WAITS, HIRED } pool_state; /* the first */
static _Thread_local int in_request;

static void pool_init(void) { uv_mutex_init(&pool_lock); }

static void first_thread(void *unused) {
  (void) unused;
  uv_sem_wait(&pool_hired);
  pool_entry(pool_argument);
}

/* Around each request: between these two, libuv may want to make its pool. */
static int pool_enter(void) {
  uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE, .stack_size = POOL_STACK};
  int r = 0;

  uv_once(&pool_once, pool_init);
  uv_mutex_lock(&pool_lock);
  if (pool_state == NO_THREAD) {
    r = uv_sem_init(&pool_hired, 0);
    if (r == 0 && (r = uv_thread_create_ex(&pool_first, &options, first_thread, NULL)) != 0)
      uv_sem_destroy(&pool_hired);
    if (r == 0)
      pool_state = WAITS;
    else if (r == UV_EAGAIN || r == UV_ENOMEM)
      r = VL_ENOTHREAD;
  }
  in_request = r == 0;
  uv_mutex_unlock(&pool_lock);
  return r;
}

int vl_port_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                           void *(*entry)(void *), void *argument) {
  if (!in_request)
    return pthread_create(thread, attributes, entry, argument);
  uv_mutex_lock(&pool_lock);
  if (pool_state == WAITS) {
    pool_state = HIRED;
    pool_started = 1;
    pool_entry = (uv_thread_cb) (void (*)(void)) entry; /* what libuv has made this of */
    pool_argument = argument;
    *thread = pool_first;
    uv_sem_post(&pool_hired);
  } else if (pthread_create(thread, attributes, entry, argument) == 0) {
    pool_started++;
  } else {
    vl_port_pool_threads = pool_started; /* which ends libuv's loop that makes them */
  }
  uv_mutex_unlock(&pool_lock);
  return 0;
}

void vl_dns_forked(void) {
  uv_once(&pool_once, pool_init);
  uv_mutex_init(&pool_lock);
  pool_state = NO_THREAD;
}

static void pool_leave(void) { in_request = 0; }
#else
static int pool_enter(void) { return 0; }
static void pool_leave(void) {}
void vl_dns_forked(void) {}
#endif

/* ------------------------------------------------------------------------------- requests */

static vl_dns_t *dns_alloc(vl_loop_t *loop) {
  vl_dns_t *dns = calloc(1, sizeof(*dns));

  if (dns == NULL)
    return NULL;
  dns->loop = loop;
  dns->id = loop->next_id++;
  dns->next = loop->requests;
  if (dns->next != NULL)
    dns->next->prev = dns;
  loop->requests = dns;
  return dns;
}

void vl_dns_free(vl_dns_t *dns) {
  if (dns->prev != NULL)
    dns->prev->next = dns->next;
  else
    dns->loop->requests = dns->next;
  if (dns->next != NULL)
    dns->next->prev = dns->prev;
  if (dns->uv.request.type == UV_GETADDRINFO)
    uv_freeaddrinfo(dns->uv.addr.addrinfo);
  free(dns);
}

static void answer(vl_dns_t *dns, int kind, int status) {
  dns->answered = 1;
  if (dns->loop->closed)
    vl_dns_free(dns);
  else
    vl_emit(dns->loop, kind, dns->id, status, (int64_t) (intptr_t) dns);
}

static void on_addrinfo(uv_getaddrinfo_t *request, int status, struct addrinfo *res) {
  vl_dns_t *dns = request->data;

  dns->at = res;
  answer(dns, VL_GETADDRINFO, status);
}

static void on_nameinfo(uv_getnameinfo_t *request, int status, const char *host,
                        const char *service) {
  (void) host;
  (void) service;
  answer(request->data, VL_GETNAMEINFO, status);
}

int64_t vl_getaddrinfo(vl_loop_t *loop, const char *host, const char *service, int family,
                       int socktype, int protocol, int flags) {
  struct addrinfo hints;
  vl_dns_t *dns;
  int r;

  VL_GUARD(loop);
  memset(&hints, 0, sizeof(hints));
  hints.ai_family = family;
  hints.ai_socktype = socktype;
  hints.ai_protocol = protocol;
  hints.ai_flags = flags;
  dns = dns_alloc(loop);
  if (dns == NULL)
    return UV_ENOMEM;
  dns->uv.addr.data = dns;
  r = pool_enter();
  if (r == 0) {
    r = uv_getaddrinfo(&loop->uv, &dns->uv.addr, on_addrinfo, host, service, &hints);
    pool_leave();
  }
  if (r != 0) {
    dns->uv.request.type = UV_UNKNOWN_REQ;
    vl_dns_free(dns);
    return r;
  }
  return dns->id;
}

int64_t vl_getnameinfo(vl_loop_t *loop, const char *address, int flags) {
  vl_dns_t *dns;
  int r;

  VL_GUARD(loop);
  dns = dns_alloc(loop);
  if (dns == NULL)
    return UV_ENOMEM;
  dns->uv.name.data = dns;
  r = pool_enter();
  if (r == 0) {
    r = uv_getnameinfo(&loop->uv, &dns->uv.name, on_nameinfo, (const struct sockaddr *) address,
                       flags);
    pool_leave();
  }
  if (r != 0) {
    dns->uv.request.type = UV_UNKNOWN_REQ;
    vl_dns_free(dns);
    return r;
  }
  return dns->id;
}

int vl_dns_next(vl_dns_t *dns, vl_addrinfo_t *into) {
  struct addrinfo *at = dns->at;

  if (at == NULL)
    return 0;
  into->family = at->ai_family;
  into->socktype = at->ai_socktype;
  into->protocol = at->ai_protocol;
  into->size = (int) at->ai_addrlen;
  into->address = (const char *) at->ai_addr;
  into->canonname = at->ai_canonname;
  dns->at = at->ai_next;
  return 1;
}

const char *vl_dns_host(vl_dns_t *dns) { return dns->uv.name.host; }
const char *vl_dns_service(vl_dns_t *dns) { return dns->uv.name.service; }
const char *vl_eai_text(int number) { return gai_strerror(number); }

int vl_dns_cancel(vl_loop_t *loop, int64_t id) {
  vl_dns_t *dns;

  VL_GUARD(loop);
  for (dns = loop->requests; dns != NULL; dns = dns->next)
    if (dns->id == id && !dns->answered)
      return uv_cancel(&dns->uv.request);
  return 0;
}

void vl_dns_cancel_all(vl_loop_t *loop) {
  vl_dns_t *dns;

  for (dns = loop->requests; dns != NULL; dns = dns->next)
    if (!dns->answered)
      uv_cancel(&dns->uv.request);
}

void vl_dns_free_all(vl_loop_t *loop) {
  while (loop->requests != NULL)
    vl_dns_free(loop->requests);
}
