/* Child processes: starting them with uv_spawn. How their end is heard of: exit.c.
 *
 * uv_spawn forks, waits for exec and hands back what went wrong. But what its child does between
 * fork and exec is not what subprocess.Popen's does: it leaves inheritable descriptors open,
 * resets signals that this process ignores (nohup!), unblocks those it blocks, makes the standard
 * streams blocking although this process has the same open files, and runs a shell for what the
 * kernel cannot execute. So port.h turns all of that into nothing and execvp into child() below,
 * which does what Popen's child does. Two more redirections: fork is vfork, as in Popen (copying
 * the page tables of a big process takes many milliseconds); and libuv gets no SIGCHLD, which
 * is the application's: the end of a child comes through a pidfd, whoever handles signals.
 *
 * No lock of Python's is held meanwhile, so other threads may fork, too. Their children inherit what
 * uv_spawn has open, among it the end of the pipe that tells of exec: vl_port_read sees to that.
 * And they may change the environment: environment.c sees to that. */
#include "shim.h"

#ifdef __linux__
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A number that the C library's headers may be too old for. */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#endif

#if defined(__linux__) && !defined(VL_SYSTEM_LIBUV)

enum {
  CLOSE_ON_EXEC = 1 << 2, /* CLOSE_RANGE_CLOEXEC */
  STAGE_SHIFT = 12,       /* in the number that comes from the child; errno is below 4096 */
};

static _Thread_local sigset_t signal_mask; /* of this thread, before libuv blocks everything */
static _Thread_local volatile int memory_is_shared; /* the child's is the parent's */

/* ----------------------------------------------------------------------------- in the child
 *
 * Memory is still the parent's (vfork), and other threads of it may have been anywhere: only
 * system calls here, and no writing to anything but the stack, errno and memory_is_shared. */

static int failed(int stage) {
  errno |= stage << STAGE_SHIFT;
  return -1;
}

static int set_inheritable(int fd) {
  int flags = fcntl(fd, F_GETFD);

  return flags < 0 ? -1 : fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC);
}

static int set_descriptors(const vl_spawn_t *what) {
  int from[3], i;

  if (what->close_fds && syscall(SYS_close_range, 3, ~0U, CLOSE_ON_EXEC) != 0)
    return -1;
  for (i = 0; i < what->passed; i++)
    if (set_inheritable(what->pass_fds[i]) < 0)
      return -1;
  /* First out of the way what another one will be put over. */
  for (i = 0; i < 3; i++) {
    from[i] = what->stdio[i];
    if (from[i] >= 0 && from[i] < 3 && from[i] != i) {
      from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 3);
      if (from[i] < 0)
        return -1;
    }
  }
  for (i = 0; i < 3; i++)
    if (from[i] >= 0 && (from[i] == i ? set_inheritable(i) : dup2(from[i], i)) < 0)
      return -1;
  return 0;
}

/* exec resets handlers by itself; but a handler must not run in the parent's memory, and here is
 * where signals are unblocked. */
static int set_signals(const vl_spawn_t *what) {
  struct sigaction action;
  int n, restored;

  for (n = 1; n < NSIG; n++) {
    if (sigaction(n, NULL, &action) != 0 || action.sa_handler == SIG_DFL)
      continue;
    restored = what->restore_signals && (n == SIGPIPE || n == SIGXFSZ);
    if (action.sa_handler == SIG_IGN && !restored)
      continue;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    if (sigaction(n, &action, NULL) != 0)
      return -1;
  }
  return sigprocmask(SIG_SETMASK, &signal_mask, NULL);
}

/* Returns only when it failed, with the stage in errno's upper bits: libuv writes that number
 * to the pipe on which the parent waits. */
static int child(const vl_spawn_t *what) {
  char **path;
  int first = 0;

  if (set_descriptors(what) < 0)
    return failed(VL_SPAWN_PREPARE);
  if (what->cwd != NULL && chdir(what->cwd) < 0)
    return failed(VL_SPAWN_CHDIR);
  if (what->umask >= 0)
    umask((mode_t) what->umask);
  if (set_signals(what) < 0 || (what->new_session && setsid() < 0) ||
      (what->process_group >= 0 && setpgid(0, what->process_group) < 0))
    return failed(VL_SPAWN_PREPARE);
  for (path = what->paths; *path != NULL; path++) {
    execve(*path, what->argv, what->env);
    if (first == 0 && errno != ENOENT && errno != ENOTDIR)
      first = errno;
  }
  if (first != 0)
    errno = first;
  return failed(VL_SPAWN_EXEC);
}

int vl_port_execvp(void) {
  memory_is_shared = 1;
  return child(vl_port_spawn);
}

/* ---------------------------------------------------------------------------- in the parent */

int vl_process_can_spawn(void) {
  return syscall(SYS_close_range, ~0U, ~0U, CLOSE_ON_EXEC) == 0;
}

/* libuv waits for the end of the pipe to which its child writes what went wrong. A process that another
 * thread forks meanwhile has a copy of the other end, and may live for days. But vfork returned
 * when the child had run exec, or was dead: what is not in the pipe now will never be. Only where an
 * emulator (qemu, valgrind) makes vfork a fork, which shows, libuv has to wait. */
ssize_t vl_port_read(int fd, void *data, size_t size) {
  int available = 0;

  if (vl_port_spawn != NULL && memory_is_shared && ioctl(fd, FIONREAD, &available) == 0 &&
      available == 0)
    return 0;
  return read(fd, data, size);
}

/* In the child a number that is no descriptor here might be libuv's own. */
static int check_descriptors(const vl_spawn_t *what) {
  int i;

  for (i = 0; i < 3; i++)
    if (what->stdio[i] != -1 && fcntl(what->stdio[i], F_GETFD) < 0)
      return uv_translate_sys_error(errno);
  for (i = 0; i < what->passed; i++)
    if (fcntl(what->pass_fds[i], F_GETFD) < 0)
      return uv_translate_sys_error(errno);
  return 0;
}

static int64_t spawn(vl_loop_t *loop, const vl_spawn_t *what, int *stage) {
  uv_stdio_container_t stdio[3];
  uv_process_options_t options;
  vl_handle_t *handle;
  unsigned occupied;
  int64_t pid;
  int i, r;

  *stage = VL_SPAWN_PREPARE;
  r = check_descriptors(what);
  if (r != 0)
    return r;
  *stage = VL_SPAWN_NOT_BEGUN;
  handle = vl_handle_alloc(loop, UV_PROCESS);
  if (handle == NULL)
    return UV_ENOMEM;
  memset(&options, 0, sizeof(options));
  options.file = what->paths[0];
  options.args = what->argv;
  options.stdio = stdio;
  options.stdio_count = 3;
  for (i = 0; i < 3; i++) {
    stdio[i].flags = UV_INHERIT_FD;
    stdio[i].data.fd = i; /* as they are: child() sees to them */
  }
  pthread_sigmask(SIG_SETMASK, NULL, &signal_mask);
  occupied = vl_port_occupy_stdio(); /* uv_spawn opens pipes */
  memory_is_shared = 0;
  vl_port_spawn = what;
  r = uv_spawn(&loop->uv, &handle->uv.process, &options);
  vl_port_spawn = NULL;
  vl_port_vacate_stdio(occupied);
  /* Nothing that we use makes uv_spawn fail before the handle is initialised. */
  pid = handle->uv.process.pid;
  handle->uv.process.data = handle;
  vl_handle_close_unguarded(handle);
  if (r == 0)
    return pid;
  *stage = -r >> STAGE_SHIFT;
  return -(-r & ((1 << STAGE_SHIFT) - 1));
}

int64_t vl_process_spawn(vl_loop_t *loop, const vl_spawn_t *what, int *stage) {
  vl_spawn_t own = *what;
  int64_t pid;

  VL_GUARD(loop);
  *stage = VL_SPAWN_NOT_BEGUN;
  if (what->env == NULL) {
    own.env = vl_environment();
    if (own.env == NULL)
      return UV_ENOMEM;
  }
  pid = spawn(loop, &own, stage);
  if (what->env == NULL)
    free(own.env);
  return pid;
}

#else
int vl_process_can_spawn(void) { return 0; }

int64_t vl_process_spawn(vl_loop_t *loop, const vl_spawn_t *what, int *stage) {
  (void) loop;
  (void) what;
  *stage = VL_SPAWN_NOT_BEGUN;
  return UV_ENOTSUP;
}
#endif
