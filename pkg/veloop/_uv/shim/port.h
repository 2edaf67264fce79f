/* Read ahead of every file of libuv (the compiler's -include), so that a few system calls of
 * libuv come to us first. libuv itself stays as it was released.
 *
 * epoll_ctl: libuv aborts the process when a descriptor that it watches has been closed behind
 *   its back. Python code can do that at any time, so such failures are swallowed: the
 *   descriptor then just never becomes ready, which is what asyncio's selector gives. If the
 *   kernel is only short of memory the registration is tried again, by vl_loop_run.
 * syscall: (1) close of a descriptor that is only borrowed (tcp.c) is skipped; (2) the
 *   io_uring that libuv would set up for epoll_ctl is refused: sandboxes kill processes for
 *   it, it costs every new loop a mapping, and its failures abort as above.
 */
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
