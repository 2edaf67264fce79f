/* The other end of port.h: what libuv's redirected system calls do. */
#include "shim.h"

/* The descriptor whose close is to be skipped: set only around one uv_close. */
_Thread_local int vl_port_borrowed_fd = -1;

unsigned int vl_port_slow_io_running;

#ifdef __linux__
#include <sys/epoll.h>
#include <sys/syscall.h>

int vl_port_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event) {
  int r = epoll_ctl(epoll_fd, op, fd, event);

  if (r == 0 || errno == EEXIST)
    return r;
  /* uv_poll_init registers a descriptor on trial, to learn whether it can be polled. Only
   * that call wants the error; it is recognised by its event data being -1. */
  if (op == EPOLL_CTL_ADD && event->data.fd == -1)
    return r;
  return 0;
}

int vl_port_refuses(long number, long argument) {
  if (number == SYS_close)
    return argument == vl_port_borrowed_fd;
#ifdef __NR_io_uring_setup
  if (number == __NR_io_uring_setup)
    return 1;
#endif
  return 0;
}

long vl_port_refused(long number) {
  if (number == SYS_close)
    return 0;
  errno = ENOSYS;
  return -1;
}
#endif

/* libuv asserts that no descriptor it closes is 0, 1 or 2. A program may have closed these, and
 * then a descriptor that libuv opens for itself would get the number: so they are occupied
 * while libuv opens some. */
#ifndef _WIN32
#include <fcntl.h>
#include <unistd.h>

unsigned vl_port_occupy_stdio(void) {
  unsigned occupied = 0;
  int fd;

  for (fd = 0; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR | O_CLOEXEC) == fd)
      occupied |= 1u << fd;
  return occupied;
}

void vl_port_vacate_stdio(unsigned occupied) {
  int fd;

  for (fd = 0; fd <= STDERR_FILENO; fd++)
    if (occupied & 1u << fd)
      close(fd);
}
#else
unsigned vl_port_occupy_stdio(void) { return 0; }
void vl_port_vacate_stdio(unsigned occupied) { (void) occupied; }
#endif
