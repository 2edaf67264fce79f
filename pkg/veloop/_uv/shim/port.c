/* The other end of port.h: what libuv's redirected system calls do. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sendmmsg */
#endif
#include "shim.h"

/* The descriptor whose close is to be skipped: set only around one uv_close. */
_Thread_local int vl_port_borrowed_fd = -1;

unsigned int vl_port_slow_io_running, vl_port_pool_threads;

/* What the child shall be: set while the thread is in uv_spawn, and so in the child. */
_Thread_local const vl_spawn_t *vl_port_spawn;

#ifdef __linux__
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Mostly of sockets. The parentheses: faults.h has had its turn in libuv's file. */
ssize_t vl_port_receive(int fd, void *data, size_t size) {
  ssize_t r = recv(fd, data, size, MSG_DONTWAIT);

  return r == -1 && errno == ENOTSOCK ? (read)(fd, data, size) : r;
}

ssize_t vl_port_write(int fd, const void *data, size_t size) {
  ssize_t r = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

  return r == -1 && errno == ENOTSOCK ? (write)(fd, data, size) : r;
}

ssize_t vl_port_writev(int fd, const struct iovec *pieces, int count) {
  struct msghdr message = {.msg_iov = (struct iovec *) pieces, .msg_iovlen = (size_t) count};
  ssize_t r = (sendmsg)(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

  return r == -1 && errno == ENOTSOCK ? (writev)(fd, pieces, count) : r;
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

ssize_t vl_port_sendmsg(int fd, const struct msghdr *message, int flags) {
  ssize_t r = sendmsg(fd, message, flags | MSG_DONTWAIT);

  if (r < 0 && errno == ENOBUFS)
    errno = VL_PORT_ENOBUFS;
  return r;
}

int vl_port_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  int r = sendmmsg(fd, messages, count, flags | MSG_DONTWAIT);

  if (r < 0 && errno == ENOBUFS)
    errno = VL_PORT_ENOBUFS;
  return r;
}

/* Called for a child that could not exec. It is reaped by another if the program ignores SIGCHLD,
 * or waits for any child. */
pid_t vl_port_waitpid(pid_t pid, int *status, int options) {
  pid_t r = waitpid(pid, status, options);

  return r == -1 && errno == ECHILD ? pid : r;
}

int vl_port_keeps_flags(int command) {
  return vl_port_spawn != NULL && (command == F_SETFL || command == F_SETFD);
}

/* libuv asserts that no descriptor it closes is 0, 1 or 2. A program may have closed these, and
 * then what libuv opens for itself would get such a number: it gets another one instead. */
int vl_port_above_stdio(int fd) {
  int copy;

  if (fd < 0 || fd > STDERR_FILENO)
    return fd;
  copy = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  close(fd); /* succeeds, and so leaves errno alone */
  return copy;
}

int vl_port_pipe2(int ends[2], int flags) {
  if (pipe2(ends, flags) != 0)
    return -1;
  ends[0] = vl_port_above_stdio(ends[0]);
  ends[1] = vl_port_above_stdio(ends[1]);
  if (ends[0] != -1 && ends[1] != -1)
    return 0;
  if (ends[0] != -1)
    close(ends[0]);
  if (ends[1] != -1)
    close(ends[1]);
  return -1;
}
#endif

/* Where we do not meet libuv's system calls, the three numbers are occupied while it opens
 * something. By one thread at a time, for another would take what it sees there for the
 * program's. That does not help against files that a thread opens for a moment outside of it. */
#ifndef _WIN32
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__linux__) && !defined(VL_SYSTEM_LIBUV)
unsigned vl_port_occupy_stdio(void) { return 0; }
void vl_port_vacate_stdio(unsigned occupied) { (void) occupied; }
static void stdio_forked(void) {}
#else
enum { HOLDS_LOCK = 8 };

static pthread_mutex_t stdio_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned stdio_occupied;
static struct stat stdio_file[3];

/* A program may have put a file of its own onto the number meanwhile, that too /dev/null. But
 * for appending to it, and for this process only, nobody else opens that. */
static int is_ours(int fd) {
  struct stat now, *then = &stdio_file[fd];
  int flags = fcntl(fd, F_GETFL);

  return flags != -1 && flags & O_APPEND && fcntl(fd, F_GETFD) & FD_CLOEXEC &&
         fstat(fd, &now) == 0 && now.st_dev == then->st_dev && now.st_ino == then->st_ino &&
         now.st_rdev == then->st_rdev;
}

static void vacate(void) {
  int fd;

  for (fd = 0; fd <= STDERR_FILENO; fd++)
    if (stdio_occupied & 1u << fd && is_ours(fd))
      close(fd);
  stdio_occupied = 0;
}

unsigned vl_port_occupy_stdio(void) {
  int fd, got;

  pthread_mutex_lock(&stdio_lock);
  for (fd = 0; fd <= STDERR_FILENO; fd++) {
    if (fcntl(fd, F_GETFD) != -1)
      continue;
    got = open("/dev/null", O_RDWR | O_APPEND | O_CLOEXEC);
    if (got == fd && fstat(fd, &stdio_file[fd]) == 0)
      stdio_occupied |= 1u << fd;
    else if (got != -1)
      close(got); /* another thread was faster, and has the number */
  }
  return HOLDS_LOCK;
}

void vl_port_vacate_stdio(unsigned occupied) {
  if (!(occupied & HOLDS_LOCK))
    return;
  vacate();
  pthread_mutex_unlock(&stdio_lock);
}

/* In a forked child: nobody holds the lock, and nobody will vacate what its holder occupied. */
static void stdio_forked(void) {
  pthread_mutex_init(&stdio_lock, NULL);
  vacate();
}
#endif

int vl_port_copy(int fd, int after) {
  int least = after < STDERR_FILENO ? STDERR_FILENO + 1 : after + 1;
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, least);

  return copy < 0 ? uv_translate_sys_error(errno) : copy;
}

void vl_port_close_socket(int fd) { close(fd); }

int vl_port_cancelling(int tries) {
  (void) tries;
  return 0;
}
#else
unsigned vl_port_occupy_stdio(void) { return 0; }
void vl_port_vacate_stdio(unsigned occupied) { (void) occupied; }

int vl_port_copy(int fd, int after) {
  WSAPROTOCOL_INFOW info;
  SOCKET copy;

  (void) after;
  if (WSADuplicateSocketW((SOCKET) fd, GetCurrentProcessId(), &info) != 0)
    return uv_translate_sys_error(WSAGetLastError());
  copy = WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &info, 0,
                    WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
  return copy == INVALID_SOCKET ? uv_translate_sys_error(WSAGetLastError()) : (int) copy;
}

void vl_port_close_socket(int fd) { closesocket((SOCKET) fd); }

/* Overlapped reads end, cancelled, when the system gets to it. */
int vl_port_cancelling(int tries) {
  if (tries < 100)
    Sleep(1);
  return tries < 100;
}
#endif

void vl_port_forked(void) {
  vl_port_slow_io_running = 0;
  vl_port_pool_threads = 0;
  vl_dns_forked();
#ifndef _WIN32
  stdio_forked();
#endif
  vl_port_epoll_forked();
}
