/* Lets a process fork under AddressSanitizer while other threads allocate memory.
 *
 * gcc 12's runtime does not take the locks of its allocator before a fork, as C libraries do: what another
 * thread has locked in that moment stays locked in the child, which then waits for ever. Loaded before the
 * runtime, this keeps all threads out of the allocator during a fork. */
#include <pthread.h>
#include <stddef.h>

#define PUBLIC __attribute__((visibility("default")))
#define UNDER(call)                                                                                \
  pthread_rwlock_rdlock(&lock);                                                                    \
  call;                                                                                            \
  pthread_rwlock_unlock(&lock)

void *__interceptor_malloc(size_t);
void *__interceptor_calloc(size_t, size_t);
void *__interceptor_realloc(void *, size_t);
void *__interceptor_reallocarray(void *, size_t, size_t);
void *__interceptor_memalign(size_t, size_t);
void *__interceptor_aligned_alloc(size_t, size_t);
int __interceptor_posix_memalign(void **, size_t, size_t);
void __interceptor_free(void *);

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

PUBLIC void *malloc(size_t size) {
  void *p;

  UNDER(p = __interceptor_malloc(size));
  return p;
}

PUBLIC void *calloc(size_t count, size_t size) {
  void *p;

  UNDER(p = __interceptor_calloc(count, size));
  return p;
}

PUBLIC void *realloc(void *old, size_t size) {
  void *p;

  UNDER(p = __interceptor_realloc(old, size));
  return p;
}

PUBLIC void *reallocarray(void *old, size_t count, size_t size) {
  void *p;

  UNDER(p = __interceptor_reallocarray(old, count, size));
  return p;
}

PUBLIC void *memalign(size_t alignment, size_t size) {
  void *p;

  UNDER(p = __interceptor_memalign(alignment, size));
  return p;
}

PUBLIC void *aligned_alloc(size_t alignment, size_t size) {
  void *p;

  UNDER(p = __interceptor_aligned_alloc(alignment, size));
  return p;
}

PUBLIC int posix_memalign(void **found, size_t alignment, size_t size) {
  int r;

  UNDER(r = __interceptor_posix_memalign(found, alignment, size));
  return r;
}

PUBLIC void free(void *p) {
  UNDER(__interceptor_free(p));
}

static void before(void) { pthread_rwlock_wrlock(&lock); }
static void in_parent(void) { pthread_rwlock_unlock(&lock); }

/* A lock that another thread has is only to be let go of by that one: the child gets a new one. */
static void in_child(void) { lock = (pthread_rwlock_t) PTHREAD_RWLOCK_INITIALIZER; }

__attribute__((constructor)) static void start(void) {
  pthread_atfork(before, in_parent, in_child);
}
