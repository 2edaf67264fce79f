/* Read ahead of every file of libuv (the compiler's -include), so that a few system calls of
 * libuv come to us first. libuv itself stays as it was released.
 *
 * epoll_ctl: libuv aborts the process when a descriptor that it watches has been closed behind
 *   its back. Python code can do that at any time, so such failures are swallowed: the
 *   descriptor then just never becomes ready, which is what asyncio's selector gives. If the
 *   kernel is only short of memory the registration is tried again, in epoll_pwait.
 * epoll_pwait: fails, where libuv would abort, if the epoll itself was closed; and ends in time for
 *   our timers, not up to a millisecond later (epoll.c); and may bring fewer events (event.c).
 * syscall: (1) close of a descriptor that is only borrowed (tcp.c) is skipped; (2) the
 *   io_uring that libuv would set up for epoll_ctl is refused: sandboxes kill processes for
 *   it, it costs every new loop a mapping, and its failures abort as above.
 * slow_io_work_running: how many threads of the pool resolve names. In a forked child libuv makes
 *   a new pool, but goes on counting from where the parent was; once the count is at its limit,
 *   no name is resolved any more. So we keep the count, to reset it. Libuv's own declaration of
 *   the variable becomes, with this macro, one of the function.
 * sendmsg, sendmmsg: ENOBUFS becomes an errno that libuv does not take for EAGAIN (see udp.c).
 * read, write, writev in stream.c; recvmsg, recvmmsg, sendmsg, sendmmsg: never wait if it is a socket,
 *   also where another process that has it cleared O_NONBLOCK, as a child does with its standard
 *   input. The accelerator keeps the GIL meanwhile; and a loop must not wait for one client.
 * epoll_create1, eventfd, pipe2, open: never give a standard stream's number, which libuv would refuse
 *   to close by aborting.
 * nthreads: how many threads the pool has. Kept by us for the same reason: a child that ends would
 *   wait, in libuv's destructor, for threads of the parent.
 * pthread_create: libuv aborts when it cannot have as many threads for its pool as it wants. It gets
 *   one that was made beforehand, and a smaller pool if there are no more (dns.c).
 *
 * uv__signal_global_init: libuv guards the signals that it watches by a pipe for the whole process, made
 *   with the first loop, and anew in every forked child, which aborts if it cannot. Programs close
 *   it unknowingly (a daemon closes all it has not opened), and then nothing with signals works, or
 *   a file that got its number is closed in a child. We have libuv watch none: no pipe, no fork hook.
 *   The macro meets libuv's definition only, for uv_once is given the bare name.
 *
 * uv_spawn (process.c says why; nothing else in libuv uses these, but for fcntl):
 * SIGCHLD: is no signal, so that uv_signal_start returns at once: libuv gets no handler for it.
 * fork, waitpid: vfork; and a child that somebody else has reaped is no reason to abort.
 * signal, sigprocmask, fcntl: what the new child does to its signals and descriptors is skipped,
 * execvp: and done there.
 * read: does not wait for the end of a pipe that another child may have.
 */
#ifndef _WIN32
#include <pthread.h>

extern unsigned int vl_port_slow_io_running;
__attribute__((unused)) static unsigned int *vl_port_slow_io(void) {
  return &vl_port_slow_io_running;
}
#define slow_io_work_running (*vl_port_slow_io())

extern unsigned int vl_port_pool_threads;
__attribute__((unused)) static unsigned int *vl_port_pool(void) {
  return &vl_port_pool_threads;
}
#define nthreads (*vl_port_pool())

int vl_port_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                           void *(*entry)(void *), void *argument);
#define pthread_create vl_port_pthread_create
#endif

#ifdef __linux__
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

int vl_port_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int vl_port_epoll_pwait(int epoll_fd, struct epoll_event *events, int max, int timeout,
                        const sigset_t *mask);
int vl_port_above_stdio(int fd);
int vl_port_pipe2(int ends[2], int flags);
int vl_port_refuses(long number, long argument);
long vl_port_refused(long number);
struct mmsghdr;
ssize_t vl_port_sendmsg(int fd, const struct msghdr *message, int flags);
int vl_port_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
pid_t vl_port_waitpid(pid_t pid, int *status, int options);
int vl_port_keeps_flags(int command);
int vl_port_execvp(void);
ssize_t vl_port_read(int fd, void *data, size_t size);
struct iovec;
ssize_t vl_port_receive(int fd, void *data, size_t size);
ssize_t vl_port_write(int fd, const void *data, size_t size);
ssize_t vl_port_writev(int fd, const struct iovec *pieces, int count);

#define epoll_ctl vl_port_epoll_ctl
#define epoll_pwait vl_port_epoll_pwait
#define epoll_create1(flags) vl_port_above_stdio((epoll_create1)(flags))
#define eventfd(value, flags) vl_port_above_stdio((eventfd)(value, flags))
#define open(...) vl_port_above_stdio((open)(__VA_ARGS__))
#define pipe2 vl_port_pipe2
#define sendmsg vl_port_sendmsg
#define sendmmsg vl_port_sendmmsg
#define vl_port_first(a, ...) a
#define vl_port_second(a, b, ...) b
#define syscall(...) \
  (vl_port_refuses((long) vl_port_first(__VA_ARGS__, 0), \
                   (long) vl_port_second(__VA_ARGS__, 0, 0)) \
       ? vl_port_refused((long) vl_port_first(__VA_ARGS__, 0)) \
       : (syscall)(__VA_ARGS__))

#define uv__signal_global_init(...) \
  uv__signal_global_init(void) {} \
  __attribute__((unused)) static void vl_port_no_signals(void)
#undef SIGCHLD
#define SIGCHLD 0
#define waitpid(pid, status, options) vl_port_waitpid(pid, status, options)
#define fork() vfork()
#define signal(number, handler) SIG_DFL
#define sigprocmask(how, set, before) ((void) (set), 0)
#define fcntl(fd, ...) \
  (vl_port_keeps_flags((int) vl_port_first(__VA_ARGS__, 0)) ? 0 : (fcntl)(fd, __VA_ARGS__))
#define execvp(file, arguments) ((void) (file), (void) (arguments), vl_port_execvp())

/* Is this stream.c? Known when it is compiled. */
#define vl_port_in_stream() \
  (__builtin_strcmp( \
       &__FILE__[sizeof(__FILE__) > sizeof("stream.c") ? sizeof(__FILE__) - sizeof("stream.c") : 0], \
       "stream.c") == 0)
#define vl_port_any_read(fd, data, size) \
  (vl_port_in_stream() ? vl_port_receive(fd, data, size) : vl_port_read(fd, data, size))
#define vl_port_any_write(fd, data, size) \
  (vl_port_in_stream() ? vl_port_write(fd, data, size) : (write)(fd, data, size))
#define vl_port_any_writev(fd, pieces, count) \
  (vl_port_in_stream() ? vl_port_writev(fd, pieces, count) : (writev)(fd, pieces, count))
#define vl_port_recvmsg(fd, message, flags) (recvmsg)(fd, message, (flags) | MSG_DONTWAIT)
#define vl_port_recvmmsg(fd, messages, count, flags, timeout) \
  (recvmmsg)(fd, messages, count, (flags) | MSG_DONTWAIT, timeout)
#define read(...) vl_port_any_read(__VA_ARGS__)
#define write(...) vl_port_any_write(__VA_ARGS__)
#define writev(...) vl_port_any_writev(__VA_ARGS__)
#define recvmsg(...) vl_port_recvmsg(__VA_ARGS__)
#define recvmmsg(...) vl_port_recvmmsg(__VA_ARGS__)
#endif
