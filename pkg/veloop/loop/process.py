"""subprocess_exec and subprocess_shell: the transport of a child and of the pipes to it.

children.py starts and watches the child; the pipes are this loop's connect_read_pipe and
connect_write_pipe. What protocols are told while the pipes are being connected waits until
connection_made. connection_lost comes when the child is dead and all pipes are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal as signals
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._uv.errors import forked
from .children import Popen, watch
from .debug import logger
from .transport import owner_elsewhere

if TYPE_CHECKING:
    from .loop import EventLoop
    from .server import ProtocolFactory

    Made = tuple["SubprocessTransport", Any]

_NOT_ALLOWED = ("encoding", "errors")


async def subprocess_shell(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    cmd: Any,
    *,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    universal_newlines: Any,
    shell: Any,
    bufsize: Any,
    encoding: Any,
    errors: Any,
    text: Any,
    options: dict[str, Any],
) -> Made:
    if not isinstance(cmd, (bytes, str)):
        raise ValueError(f"cmd must be a string, not {cmd!r}")
    _check(universal_newlines, bufsize, encoding, errors, text)
    if not shell:
        raise ValueError(f"shell must be True, got {shell!r}")
    return await _make(
        loop, protocol_factory, cmd, stdin, stdout, stderr, {**options, "shell": True}
    )


async def subprocess_exec(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    args: tuple[Any, ...],
    *,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    universal_newlines: Any,
    shell: Any,
    bufsize: Any,
    encoding: Any,
    errors: Any,
    text: Any,
    options: dict[str, Any],
) -> Made:
    _check(universal_newlines, bufsize, encoding, errors, text)
    if shell:
        raise ValueError(f"shell must be False, got {shell!r}")
    return await _make(loop, protocol_factory, args, stdin, stdout, stderr, options)


def _check(universal_newlines: Any, bufsize: Any, encoding: Any, errors: Any, text: Any) -> None:
    """Only bytes go through the pipes, and what is read is not buffered twice."""
    for name, value in (("universal_newlines", universal_newlines), ("text", text)):
        if value:
            raise ValueError(f"{name} must be False, got {value!r}")
    if bufsize != 0:
        raise ValueError(f"bufsize must be 0, got {bufsize!r}")
    for name, value in (("encoding", encoding), ("errors", errors)):
        if value is not None:
            raise ValueError(f"{name} must be None, got {value!r}")


async def _make(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    args: Any,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    options: dict[str, Any],
) -> Made:
    protocol: Any = protocol_factory()
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    what = ""
    if loop.get_debug():
        # No parameters: they may be secret, or long.
        what = (
            f"run shell command {args!r}" if "shell" in options else f"execute program {args[0]!r}"
        )
        logger.debug("%s%s", what, _describe(**streams))
    transport = SubprocessTransport(loop, protocol, args, {**options, **streams})
    try:
        await transport._connect_pipes()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport.close()
        await asyncio.shield(transport._wait())
        raise
    if what:
        logger.info("%s: %r", what, transport)
    return transport, protocol


def _describe(stdin: Any, stdout: Any, stderr: Any) -> str:
    def name(value: Any) -> str:
        if isinstance(value, int):
            return {subprocess.PIPE: "<pipe>", subprocess.STDOUT: "<stdout>"}.get(
                value, repr(value)
            )
        return repr(value)

    info = []
    if stdin is not None:
        info.append(f" stdin={name(stdin)}")
    if stdout is not None and stderr == subprocess.STDOUT:
        info.append(f" stdout=stderr={name(stdout)}")
    else:
        if stdout is not None:
            info.append(f" stdout={name(stdout)}")
        if stderr is not None:
            info.append(f" stderr={name(stderr)}")
    return "".join(info)


class SubprocessTransport(asyncio.SubprocessTransport):
    """A child process and the pipes to it."""

    _extra: dict[str, Any]
    _closed = True  # for __del__, until there is something to close

    def __init__(self, loop: EventLoop, protocol: Any, args: Any, options: dict[str, Any]) -> None:
        super().__init__()
        self._loop: Any = loop
        self._protocol = protocol
        self._context = contextvars.copy_context()
        self._returncode: int | None = None
        self._exit_waiters: set[asyncio.Future[int]] = set()
        # Calls of the protocol that wait for connection_made; None when that has been called.
        self._pending: list[tuple[Callable[..., object], tuple[Any, ...]]] | None = []
        self._finished = False
        self._pipes: dict[int, _Pipe] = {}
        self._proc: Any = Popen(loop, args, bufsize=0, **options)
        self._pid: int = self._proc.pid
        self._extra["subprocess"] = self._proc
        self._closed = False
        for fd, file in enumerate((self._proc.stdin, self._proc.stdout, self._proc.stderr)):
            if file is not None:
                self._pipes[fd] = (_WritePipe if fd == 0 else _ReadPipe)(self, fd, file)
        if loop.get_debug():
            program = args if isinstance(args, (str, bytes)) else args[0]
            logger.debug("process %r created: pid %s", program, self._pid)
        try:
            watch(loop, self._proc, self._on_exit)
        except BaseException:  # there can be no more threads
            for pipe in self._pipes.values():
                pipe.file.close()
            self.close()
            self._proc.wait()
            raise

    def __repr__(self) -> str:
        info = [self.__class__.__name__]
        if self._closed:
            info.append("closed")
        info.append(f"pid={self._pid}")
        if self._returncode is not None:
            info.append(f"returncode={self._returncode}")
        else:
            info.append("running")
        for fd, name in enumerate(("stdin", "stdout", "stderr")):
            if fd in self._pipes:
                info.append(f"{name}={self._pipes[fd].transport}")
        return f"<{' '.join(info)}>"

    def __del__(self) -> None:
        # In a forked child it is the parent's process, which is not to be killed from here.
        if not (self._closed or getattr(self._loop, "_inherited", False)):
            warnings.warn(
                f"unclosed transport {self!r}", ResourceWarning, stacklevel=2, source=self
            )
            self.close()

    # -------------------------------------------------------------------------- connecting

    async def _connect_pipes(self) -> None:
        loop = self._loop
        try:
            for pipe in self._pipes.values():
                await pipe.connect(loop)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            for pipe in self._pipes.values():
                if pipe.transport is None:
                    pipe.file.close()
            raise
        loop.call_soon(self._protocol.connection_made, self)
        for callback, args in self._pending or ():
            loop.call_soon(callback, *args)
        self._pending = None
        await asyncio.sleep(0)  # until connection_made has been called

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        if self._pending is not None:
            self._pending.append((callback, args))
        else:
            self._loop.call_soon(callback, *args)

    # ------------------------------------------------------------------------ the protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_pipe_transport(self, fd: int) -> Any:
        pipe = self._pipes.get(fd)
        return None if pipe is None else pipe.transport

    def _pipe_data_received(self, fd: int, data: bytes) -> None:
        self._call(self._protocol.pipe_data_received, fd, data)

    def _pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self._call(self._protocol.pipe_connection_lost, fd, exc)
        self._try_finish()

    # ------------------------------------------------------------------------- the process

    def get_pid(self) -> int:
        return self._pid

    def get_returncode(self) -> int | None:
        return self._returncode

    def send_signal(self, signal: int) -> None:
        proc = self._running()
        if proc is not None:
            if sys.platform == "win32":
                proc.send_signal(signal)
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal)

    def terminate(self) -> None:
        if sys.platform == "win32":
            proc = self._running()
            if proc is not None:
                proc.terminate()
        else:
            self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        if sys.platform == "win32":
            self.terminate()
        else:
            self.send_signal(signals.SIGKILL)

    def _running(self) -> Any:
        """The Popen object, if its pid is still its own: a reaped one may be another's."""
        if self._proc is None:
            raise ProcessLookupError
        return self._proc if self._proc.returncode is None else None

    async def _wait(self) -> int:
        """Wait for the end of the process and return its return code."""
        if self._returncode is not None:
            return self._returncode
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._exit_waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._exit_waiters.discard(waiter)

    # ----------------------------------------------------------------------------- the end

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if self._closed:
            return
        loop = self._loop
        if loop is not None and loop._inherited:
            raise forked()
        if loop is not None and owner_elsewhere(loop) is not None:
            loop.call_soon_threadsafe(self.close)  # as transports do
            return
        self._closed = True
        if loop is not None and not loop.is_closed():
            for pipe in self._pipes.values():
                if pipe.transport is not None:
                    pipe.transport.close()
        # poll(), for it may be dead without our having been told.
        if self._proc is not None and self._returncode is None and self._proc.poll() is None:
            if loop.get_debug():
                logger.warning("Close running child process: kill %r", self)
            # It may run as another user.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._proc.kill()

    def _on_exit(self, returncode: int) -> None:
        self._context.run(self._process_exited, returncode)

    def _process_exited(self, returncode: int) -> None:
        if self._loop.get_debug():
            logger.info("%r exited with return code %r", self, returncode)
        self._returncode = returncode
        self._call(self._protocol.process_exited)
        self._try_finish()
        for waiter in self._exit_waiters:
            if not waiter.done():
                waiter.set_result(returncode)

    def _try_finish(self) -> None:
        if self._returncode is None or self._finished:
            return
        if all(pipe.disconnected for pipe in self._pipes.values()):
            self._finished = True
            self._call(self._call_connection_lost)

    def _call_connection_lost(self) -> None:
        try:
            self._protocol.connection_lost(None)
        finally:
            self._loop = None
            self._proc = None
            self._protocol = None


class _Pipe(asyncio.BaseProtocol):
    """The protocol of one pipe to the child: passes all on to the child's."""

    def __init__(self, process: SubprocessTransport, fd: int, file: Any) -> None:
        self.process: Any = process
        self.fd = fd
        self.file = file
        self.transport: Any = None
        self.disconnected = False

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} fd={self.fd} pipe={self.transport!r}>"

    async def connect(self, loop: EventLoop) -> None:
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: BaseException | None) -> None:
        self.disconnected = True
        process, self.process = self.process, None
        process._pipe_connection_lost(self.fd, exc)


class _WritePipe(_Pipe):
    async def connect(self, loop: EventLoop) -> None:
        await loop.connect_write_pipe(lambda: self, self.file)

    def pause_writing(self) -> None:
        self.process._protocol.pause_writing()

    def resume_writing(self) -> None:
        self.process._protocol.resume_writing()


class _ReadPipe(_Pipe, asyncio.Protocol):
    async def connect(self, loop: EventLoop) -> None:
        await loop.connect_read_pipe(lambda: self, self.file)

    def data_received(self, data: bytes) -> None:
        self.process._pipe_data_received(self.fd, data)
