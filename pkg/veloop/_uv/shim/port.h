/* Read ahead of every file of libuv (the compiler's -include), so that a few system calls of
 * libuv come to us first. libuv itself stays as it was released.
 *
 * epoll_ctl: libuv aborts the process when a descriptor that it watches has been closed behind
 *   its back. Python code can do that at any time, so such failures are swallowed: the
 *   descriptor then just never becomes ready, which is what asyncio's selector gives.
 * syscall: (1) close of a descriptor that is only borrowed (tcp.c) is skipped; (2) the
 *   io_uring that libuv would set up for epoll_ctl is refused: sandboxes kill processes for
 *   it, it costs every new loop a mapping, and its failures abort as above.
 * slow_io_work_running: how many threads of the pool resolve names. In a forked child libuv makes
 *   a new pool, but goes on counting from where the parent was; once the count is at its limit,
 *   no name is resolved any more. So we keep the count, to reset it. Libuv's own declaration of
 *   the variable becomes, with this macro, one of the function.
 */
#ifndef _WIN32
extern unsigned int vl_port_slow_io_running;
__attribute__((unused)) static unsigned int *vl_port_slow_io(void) {
  return &vl_port_slow_io_running;
}
#define slow_io_work_running (*vl_port_slow_io())
#endif

#ifdef __linux__
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

int vl_port_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int vl_port_refuses(long number, long argument);
long vl_port_refused(long number);

#define epoll_ctl vl_port_epoll_ctl
#define vl_port_first(a, ...) a
#define vl_port_second(a, b, ...) b
#define syscall(...) \
  (vl_port_refuses((long) vl_port_first(__VA_ARGS__, 0), \
                   (long) vl_port_second(__VA_ARGS__, 0, 0)) \
       ? vl_port_refused((long) vl_port_first(__VA_ARGS__, 0)) \
       : (syscall)(__VA_ARGS__))
#endif
