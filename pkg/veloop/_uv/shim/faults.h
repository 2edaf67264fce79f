/* Only in builds with VELOOP_FAULTS=1, for the soak test: read ahead of every file of libuv and of
 * the shim, so that a share of their system calls fails as a busy machine makes them fail. Calls
 * whose failure no kernel ever reports, an eventfd's read say, stay as they are. */
#ifdef __linux__
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { VL_FAULT_RECEIVE, VL_FAULT_SEND, VL_FAULT_ACCEPT, VL_FAULT_CONNECT, VL_FAULT_OPEN, VL_FAULT_WATCH };

/* Shall this call fail? Sets errno. */
int vl_fault(int kind, const char *file);

/* In libuv's files it is port.h that redirects these, too. */
#ifdef read
#undef read
#undef recvmsg
#undef recvmmsg
#undef write
#undef writev
#else
#define vl_port_any_read (read)
#define vl_port_recvmsg (recvmsg)
#define vl_port_recvmmsg (recvmmsg)
#define vl_port_any_write (write)
#define vl_port_any_writev (writev)
#endif
#define read(...) (vl_fault(VL_FAULT_RECEIVE, __FILE__) ? -1 : vl_port_any_read(__VA_ARGS__))
#define recvmsg(...) (vl_fault(VL_FAULT_RECEIVE, __FILE__) ? -1 : vl_port_recvmsg(__VA_ARGS__))
#define recvmmsg(...) (vl_fault(VL_FAULT_RECEIVE, __FILE__) ? -1 : vl_port_recvmmsg(__VA_ARGS__))
#define write(...) (vl_fault(VL_FAULT_SEND, __FILE__) ? -1 : vl_port_any_write(__VA_ARGS__))
#define writev(...) (vl_fault(VL_FAULT_SEND, __FILE__) ? -1 : vl_port_any_writev(__VA_ARGS__))
#define accept4(...) (vl_fault(VL_FAULT_ACCEPT, __FILE__) ? -1 : (accept4)(__VA_ARGS__))
#define connect(...) (vl_fault(VL_FAULT_CONNECT, __FILE__) ? -1 : (connect)(__VA_ARGS__))
#define socket(...) (vl_fault(VL_FAULT_OPEN, __FILE__) ? -1 : (socket)(__VA_ARGS__))
/* The same, but port.c and epoll.c call these again. */
#ifndef epoll_ctl
#define pipe2(...) (vl_fault(VL_FAULT_OPEN, __FILE__) ? -1 : (pipe2)(__VA_ARGS__))
#define sendmsg(...) (vl_fault(VL_FAULT_SEND, __FILE__) ? -1 : (sendmsg)(__VA_ARGS__))
#define sendmmsg(...) (vl_fault(VL_FAULT_SEND, __FILE__) ? -1 : (sendmmsg)(__VA_ARGS__))
#define epoll_ctl(epoll_fd, op, ...) \
  ((op) == EPOLL_CTL_ADD && vl_fault(VL_FAULT_WATCH, __FILE__) \
       ? -1 : (epoll_ctl)(epoll_fd, op, __VA_ARGS__))
#endif
#endif
