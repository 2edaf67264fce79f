"""Child processes: starting one, and being told of its end. No pipes, no protocol: process.py.

`Popen` is subprocess.Popen with another way to fork: libuv's uv_spawn (shim/process.c). All that
Popen checks, opens, warns of and cleans up around that stays its own. What runs Python in the
child or changes its user (preexec_fn, user, group, extra_groups) is left to Popen: vfork would not
be safe for it. So is everything where the redirections of shim/port.h are missing: macOS,
Windows, VELOOP_SYSTEM_LIBUV, and Linux before 5.11, which has no close_range() for close-on-exec.

One thing differs, and is the hazard: Popen holds the GIL until exec, uv_spawn does not. Other
threads run meanwhile, so the shim relies on nothing that they can change: a process that
they fork does not keep uv_spawn waiting, and the child's environment is a copy, made under the GIL.
PyPy's GIL is not to be had in C: there it is left to Popen as soon as there is another thread.
Where there is no GIL it is a copy of os.environ then; what was set without that is not in it.

`watch` finds out that a child is dead, by a pidfd or, where there is none, in a thread; on Windows
by the handle that Popen has. None touches SIGCHLD. The child is reaped in the loop's thread, in the
moment its exit becomes known there: before, its pid cannot be another's, and may be signalled.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from .._uv import IS_PYPY, ffi, lib
from .._uv.errors import check, error
from .debug import logger
from .gil import has_gil

if TYPE_CHECKING:
    from .core import Core

if sys.platform == "win32":
    # Its pipes are overlapped on this side: without a thread for each read and write.
    from asyncio import windows_utils

    _Popen = windows_utils.Popen[bytes]
else:
    _Popen = subprocess.Popen[bytes]

OnExit = Callable[[int], object]

_SHELL = "/system/bin/sh" if hasattr(sys, "getandroidapilevel") else "/bin/sh"

# subprocess.Popen's own name for what starts the child, as Python 3.11 to 3.15 call it. Another
# version, another order: then it does the work itself.
_ARGUMENTS = """
    self args executable preexec_fn close_fds pass_fds cwd env startupinfo creationflags shell
    p2cread p2cwrite c2pread c2pwrite errread errwrite
    restore_signals gid gids uid umask start_new_session process_group
""".split()


@cache
def can_spawn() -> bool:
    """Is uv_spawn of use on this system, and does this Python's Popen let us?"""
    execute_child = getattr(subprocess.Popen, "_execute_child", None)
    return (
        bool(lib.vl_process_can_spawn())
        and execute_child is not None
        and list(inspect.signature(execute_child).parameters) == _ARGUMENTS
    )


def _may_change_meanwhile(env: Any) -> bool:
    """Could another thread change the environment while C copies it for the child?"""
    return env is None and threading.active_count() > 1 and not has_gil()


class Popen(_Popen):
    """A subprocess.Popen that is started by libuv where that comes to the same."""

    def __init__(self, loop: Core, args: Any, **options: Any) -> None:
        self._loop_pointer = loop._driver.pointer
        try:
            super().__init__(args, **options)
        finally:
            self._loop_pointer = None

    def _execute_child(self, *given: Any) -> None:
        named = dict(zip(_ARGUMENTS[1:], given, strict=False))
        special = ("preexec_fn", "gid", "gids", "uid")
        # The subprocess module's documentation names this switch, against vfork.
        vfork = getattr(subprocess, "_USE_VFORK", True)
        plain = all(named[name] is None for name in special)
        if IS_PYPY and _may_change_meanwhile(named["env"]):
            plain = False
        if vfork and can_spawn() and plain:
            self._spawn(**named)
        else:
            super()._execute_child(*given)  # type: ignore[misc]

    def _spawn(
        self,
        *,
        args: Any,
        executable: Any,
        close_fds: Any,
        pass_fds: Any,
        cwd: Any,
        env: Any,
        shell: Any,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        restore_signals: Any,
        umask: int,
        start_new_session: Any,
        process_group: int,
        **unused: Any,
    ) -> None:
        args = [args] if isinstance(args, (str, bytes)) else list(args)
        if shell:
            args = [executable or _SHELL, "-c", *args]
        if executable is None:
            executable = args[0]
        sys.audit("subprocess.Popen", executable, args, cwd, env)

        if _may_change_meanwhile(env):
            # In one step, which is not to be had by what is public.
            env = os.environ._data.copy()  # type: ignore[attr-defined]
        strings = _Strings()
        argv = strings.array([os.fsencode(arg) for arg in args])
        variables = ffi.NULL if env is None else strings.array(_variables(env))
        paths = strings.array(_paths(os.fsencode(executable), env))
        fds = sorted({int(fd) for fd in pass_fds})
        if fds and not 0 <= fds[0] <= fds[-1] < 1 << 31:
            raise ValueError(f"pass_fds must be file descriptors, got {pass_fds!r}")
        passed = ffi.new("int[]", fds)
        what = ffi.new(
            "vl_spawn_t *",
            {
                "paths": paths,
                "argv": argv,
                "env": variables,
                "cwd": ffi.NULL if cwd is None else strings.one(os.fsencode(cwd)),
                "stdio": [p2cread, c2pwrite, errwrite],
                "close_fds": bool(close_fds),
                "pass_fds": passed,
                "passed": len(fds),
                "restore_signals": bool(restore_signals),
                "new_session": bool(start_new_session),
                "process_group": process_group,
                "umask": umask,
            },
        )
        stage = ffi.new("int *")
        pid = lib.vl_process_spawn(self._loop_pointer, what, stage)
        if pid < 0:
            raise _failure(pid, stage[0], cwd, executable)
        self.pid = pid
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        )

    def reap(self) -> int:
        """The return code; waits for the child to die, if it is not known to be dead."""
        if sys.platform == "win32":
            return self.wait()
        with self._waitpid_lock:  # type: ignore[attr-defined]  # other threads may wait() for it
            if self.returncode is None:
                try:
                    _, status = os.waitpid(self.pid, 0)
                except ChildProcessError:
                    logger.warning(
                        "child process pid %d exit status already read: will report returncode 255",
                        self.pid,
                    )
                    self.returncode = 255
                else:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode


def _failure(status: int, stage: int, cwd: Any, executable: Any) -> Exception:
    """The exception of Popen, which tells the file that it is about."""
    exc = error(status)
    if isinstance(exc, OSError):
        if stage == lib.VL_SPAWN_CHDIR:
            exc.filename = cwd
        elif stage == lib.VL_SPAWN_EXEC:
            exc.filename = executable
    return exc


class _Strings:
    """C strings and arrays of them, that live as long as this object."""

    __slots__ = ("_alive",)

    def __init__(self) -> None:
        self._alive: list[Any] = []

    def one(self, text: bytes) -> Any:
        if b"\0" in text:
            raise ValueError("embedded null byte")
        pointer = ffi.new("char[]", text)
        self._alive.append(pointer)
        return pointer

    def array(self, texts: list[bytes]) -> Any:
        pointer = ffi.new("char *[]", [*map(self.one, texts), ffi.NULL])
        self._alive.append(pointer)
        return pointer


def _variables(env: Any) -> list[bytes]:
    variables = []
    for name, value in env.items():
        name = os.fsencode(name)
        if b"=" in name:
            raise ValueError("illegal environment variable name")
        variables.append(name + b"=" + os.fsencode(value))
    return variables


def _paths(program: bytes, env: Any) -> list[bytes]:
    """Where to look for the program: in the PATH of the child's environment."""
    if os.path.dirname(program):
        return [program]
    return [os.path.join(os.fsencode(folder), program) for folder in os.get_exec_path(env)]


# ------------------------------------------------------------------------------ its end


def watch(loop: Core, child: Popen, on_exit: OnExit) -> None:
    """Reap the child when it is dead, and then call on_exit(returncode), in the loop's thread."""
    if sys.platform == "win32":
        _ExitWatch(loop, child, int(child._handle), on_exit)  # type: ignore[attr-defined]
        return
    try:
        pidfd = check(lib.vl_exit_pidfd(child.pid))
    except ProcessLookupError:  # reaped already: this process ignores SIGCHLD
        loop.call_soon(lambda: on_exit(child.reap()))
        return
    except OSError:  # another system, an old kernel, a sandbox, or no descriptor left
        pass
    else:
        try:
            _ExitWatch(loop, child, pidfd, on_exit)
            return
        except BaseException as exc:
            os.close(pidfd)
            if not isinstance(exc, OSError):
                raise
    threading.Thread(
        target=_wait,
        args=(loop, child, on_exit),
        name=f"veloop-waitpid-{child.pid}",
        daemon=True,
    ).start()


class _ExitWatch:
    """A pidfd, which becomes readable when its process is dead; on Windows the child's handle."""

    __slots__ = ("_child", "_handle", "_ident", "_loop", "_on_exit", "_pidfd")

    def __init__(self, loop: Core, child: Popen, pidfd: int, on_exit: OnExit) -> None:
        driver = loop._driver
        self._ident = check(lib.vl_exit_watch(driver.pointer, pidfd, driver.out))
        self._handle = driver.out[0]
        self._loop = loop
        self._child = child
        self._pidfd = pidfd
        self._on_exit = on_exit
        driver.targets[self._ident] = self._on_event

    def _on_event(self, kind: int, a: int, b: int) -> None:
        del self._loop._driver.targets[self._ident]
        self._on_loop_close()
        self._on_exit(self._child.reap())

    def _on_loop_close(self) -> None:
        handle, self._handle = self._handle, None
        lib.vl_handle_close(handle)  # refused in a forked child, where the driver does it
        if sys.platform != "win32":
            os.close(self._pidfd)


def _wait(loop: Core, child: Popen, on_exit: OnExit) -> None:
    """In a thread: wait without reaping, where the system can."""
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            while True:
                result = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
                if result is None or result.si_code != os.CLD_STOPPED:
                    break
                # macOS tells of stopped children too, until somebody takes note of it.
                os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG)
    else:
        child.reap()
    try:
        loop.call_soon_threadsafe(lambda: on_exit(child.reap()))
    except RuntimeError:  # the loop is closed
        child.reap()
        logger.warning("Loop %r that handles pid %r is closed", loop, child.pid)
