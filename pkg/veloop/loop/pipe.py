"""connect_read_pipe, connect_write_pipe: pipes, FIFOs, terminals and other character devices,
sockets, each in one direction.

The file object belongs to its transport, which closes it at the end. libuv has a descriptor of
its own for each transport (pipe.c), so one file may have several.

A writer also wants to hear that its reader has gone while nothing is being written. That is a
watch for a hang-up, on one more descriptor.

On Windows there are pipes alone: asyncio's PipeHandle and whatever else has a handle for its
fileno(), as with asyncio, and also file objects over os.pipe(), for which libuv uses threads. A
pipe that was made for both directions, as asyncio's Popen makes the standard input of a child,
shows its writer by the end of what could be read that the reader has gone.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import io
import os
import socket
import stat
import sys
from asyncio import constants
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._uv import lib
from .._uv.errors import check, error
from .arguments import check_callable
from .debug import logger
from .handles import Handle
from .server import ProtocolFactory
from .stream import StreamTransport, check_protocol
from .tcp import started

if TYPE_CHECKING:
    from .loop import EventLoop

_DEVICE_READ_MAX = 256 * 1024  # bytes read in a turn

_HAS_EPOLL = sys.platform in ("linux", "android")

# A named FIFO of these systems says it hung up when it did not (CPython's gh-145030).
_FIFO_MISFIRES = sys.platform in ("darwin", "ios", "tvos", "watchos", "sunos5")


class PipeTransport(StreamTransport):
    """What both directions share. The protocol is told; the file object is closed in the end."""

    __slots__ = ("_fd", "_pipe")

    # Both need a socket, or both directions.
    _sendfile_compatible = constants._SendfileMode.UNSUPPORTED
    _start_tls_compatible = False

    _kind = "pipe"
    _lost_write = "pipe closed by peer or os.write(pipe, data) raised exception."

    def __init__(
        self,
        loop: EventLoop,
        protocol: asyncio.BaseProtocol,
        context: contextvars.Context,
        handle: Any,
        pipe: Any,
        fd: int,
    ) -> None:
        super().__init__(loop, protocol, context, handle)
        self._pipe = pipe
        self._fd = fd
        self._extra = {"pipe": pipe}

    def __repr__(self) -> str:
        info = [self.__class__.__name__]
        if self._handle is None:
            info.append("closed")
        else:
            if self._closing:
                info.append("closing")
            info.append(f"fd={self._fd}")
            info.extend(self._state())
        return f"<{' '.join(info)}>"

    def _state(self) -> Iterable[str]:
        raise NotImplementedError

    def __del__(self) -> None:
        try:
            super().__del__()
        finally:
            pipe = getattr(self, "_pipe", None)  # not there if it was never quite made
            if pipe is not None:
                pipe.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._extra or {}).get(name, default)

    def _fileno(self) -> int:
        return -1  # libuv does not have the file's own: anybody may watch that

    def _protocol_failed(self, exc: BaseException, method: str) -> None:
        if method in ("get_buffer", "buffer_updated"):  # data would be lost in between
            super()._protocol_failed(exc, method)
            return
        # Unlike a socket's, asyncio's pipe transports stay open when data_received fails, say.
        self._loop.call_exception_handler(
            {
                "message": f"protocol.{method}() failed",
                "exception": exc,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def _release(self) -> None:
        pipe, self._pipe = self._pipe, None
        try:
            super()._release()
        finally:
            pipe.close()


class ReadPipeTransport(PipeTransport):
    """The reading end of a pipe: an asyncio.ReadTransport."""

    __slots__ = ()

    # That StreamTransport writes too is nothing that a reader should show.
    write = asyncio.WriteTransport.write
    writelines = asyncio.WriteTransport.writelines
    write_eof = asyncio.WriteTransport.write_eof
    can_write_eof = asyncio.WriteTransport.can_write_eof

    def _state(self) -> Iterable[str]:
        return ("polling" if self._live else "idle",)

    def _on_eof(self) -> None:
        """The end in any case: whatever eof_received returns, there is nothing to keep open."""
        if self._eof_read:
            return
        if self._loop.get_debug():
            logger.info("%r was closed by peer", self)
        self._live = False
        self._eof_read = self._closing = True
        self._loop.call_soon(self._protocol.eof_received, context=self._context)
        self._schedule_end(None)

    def _fatal_error(self, exc: BaseException, message: str) -> None:
        # EIO is how a terminal ends: nothing to report.
        if isinstance(exc, OSError) and exc.errno != errno.EIO:
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
            self._force_close(exc)
        else:
            super()._fatal_error(exc, message)


class DeviceReadTransport(ReadPipeTransport):
    """A reader of what the system cannot watch, /dev/null for one: it never blocks either.

    So it is read in every turn. asyncio's selectors refuse such a file with a PermissionError.
    """

    __slots__ = ("_pump",)

    _pump: Handle | None

    def _begin_reading(self) -> None:
        if not (self._closing or self._paused or self._eof_read):
            self._live = True
            self._read_soon()

    def resume_reading(self) -> None:
        if self._closing or not self._paused:
            return
        if self._held:
            super().resume_reading()
        else:
            self._paused = False
            self._begin_reading()

    def _read_soon(self) -> None:
        if getattr(self, "_pump", None) is None:
            self._pump = self._loop.call_soon(self._read_once)

    def _read_once(self) -> None:
        self._pump = None
        if not self._live:
            return
        try:
            data = os.read(self._fd, _DEVICE_READ_MAX)
        except OSError as exc:
            self._fatal_error(exc, "Fatal read error on pipe transport")
            return
        if data:
            self._read_soon()
            self._deliver(data)
        else:
            self._on_eof()


class WritePipeTransport(PipeTransport):
    """The writing end of a pipe: an asyncio.WriteTransport."""

    __slots__ = ("_watch", "_watch_id")

    # As asyncio's: these methods are there, and refuse.
    is_reading = asyncio.ReadTransport.is_reading
    pause_reading = asyncio.ReadTransport.pause_reading
    resume_reading = asyncio.ReadTransport.resume_reading

    def __init__(
        self,
        loop: EventLoop,
        protocol: asyncio.BaseProtocol,
        context: contextvars.Context,
        handle: Any,
        pipe: Any,
        fd: int,
        watch: Any,
    ) -> None:
        super().__init__(loop, protocol, context, handle, pipe, fd)
        self._watch = watch  # for the reader's end, or None
        self._watch_id = 0
        if watch is not None:
            self._watch_id = lib.vl_handle_id(watch)
            loop._driver.targets[self._watch_id] = self._on_hangup

    def _state(self) -> Iterable[str]:
        yield "polling" if self._queued else "idle"
        yield f"bufsize={self.get_write_buffer_size()}"

    def _begin_reading(self) -> None:
        """There is nothing to read; on Windows the end of that shows the end of the reader."""
        if sys.platform == "win32":
            # Refused if the pipe is for this direction alone: then writing will tell.
            lib.vl_stream_read_start(self._handle)

    # ------------------------------------------------------------------------- the reader

    def _on_held(self, status: int, data: bytes) -> None:
        if status < 0 and not self._closing:
            self._on_hangup(0, 0, 0)

    def _on_hangup(self, kind: int, a: int, b: int) -> None:
        if self._conn_lost:
            return
        if self._loop.get_debug():
            logger.info("%r was closed by peer", self)
        self._force_close(BrokenPipeError() if self._queued else None)

    def _release(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            del self._loop._driver.targets[self._watch_id]
            check(lib.vl_handle_close(watch))
        super()._release()

    def _on_loop_close(self) -> None:
        self._watch = None
        super()._on_loop_close()

    # --------------------------------------------------------------------------- writing

    def _write_checks(self, data: Any) -> Any:
        data = super()._write_checks(data)
        return b"" if self._closing else data

    def write_eof(self) -> None:
        self.close()

    def close(self) -> None:
        if not self._closing and not self._passed_on(self.close):
            super().close()
            self._refuse = True  # what is written from now on is lost, although the rest is sent


async def connect_read_pipe(
    loop: EventLoop, protocol_factory: ProtocolFactory, pipe: Any
) -> tuple[asyncio.ReadTransport, Any]:
    fd, mode, protocol = _prepare(
        protocol_factory, pipe, "Pipe transport is for pipes/sockets only."
    )
    kind = ReadPipeTransport
    if _HAS_EPOLL and stat.S_ISCHR(mode) and not _can_be_watched(loop, fd):
        kind = DeviceReadTransport
    driver = loop._driver
    check(lib.vl_pipe_open(driver.pointer, fd, driver.out))
    transport = kind(loop, protocol, contextvars.copy_context(), driver.out[0], pipe, fd)
    return await started(loop, transport, transport)


async def connect_write_pipe(
    loop: EventLoop, protocol_factory: ProtocolFactory, pipe: Any
) -> tuple[asyncio.WriteTransport, Any]:
    fd, mode, protocol = _prepare(
        protocol_factory, pipe, "Pipe transport is only for pipes, sockets and character devices"
    )
    driver = loop._driver
    check(lib.vl_pipe_open(driver.pointer, fd, driver.out))
    handle, watch = driver.out[0], None
    if _shows_hangup(fd, mode):
        status = lib.vl_pipe_watch(driver.pointer, fd, driver.out)
        if status < 0:
            lib.vl_handle_close(handle)
            raise error(status)
        watch = driver.out[0]
    context = contextvars.copy_context()
    transport = WritePipeTransport(loop, protocol, context, handle, pipe, fd, watch)
    return await started(loop, transport, transport)


def _prepare(protocol_factory: ProtocolFactory, pipe: Any, refusal: str) -> tuple[int, int, Any]:
    """-> descriptor, the file's mode, a protocol. Whatever fails, the pipe stays the caller's."""
    check_callable("protocol_factory", protocol_factory)
    protocol = protocol_factory()
    fd: int = pipe.fileno()
    if sys.platform == "win32":
        fd = _handle_of(pipe, fd, refusal)
        mode = stat.S_IFIFO
    else:
        mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
        raise ValueError(refusal)
    check_protocol(protocol)
    return fd, mode, protocol


if sys.platform == "win32":
    import _winapi
    import msvcrt

    def _handle_of(pipe: Any, number: int, refusal: str) -> int:
        """The handle under a file object; whatever else has a fileno() gives that by it."""
        handle = msvcrt.get_osfhandle(number) if isinstance(pipe, io.IOBase) else number
        # The system takes a socket for a pipe, but libuv would read and write it as one.
        if isinstance(pipe, socket.socket) or _winapi.GetFileType(handle) != _winapi.FILE_TYPE_PIPE:
            raise ValueError(refusal)
        return handle


def _can_be_watched(loop: EventLoop, fd: int) -> bool:
    driver = loop._driver
    status = lib.vl_pipe_watch(driver.pointer, fd, driver.out)
    if status < 0:
        exc = error(status)
        if isinstance(exc, PermissionError):
            return False
        raise exc
    check(lib.vl_handle_close(driver.out[0]))
    return True


def _shows_hangup(fd: int, mode: int) -> bool:
    """Can a writer be told that the reader is gone? Not on character devices."""
    if sys.platform == "win32":
        return False
    if stat.S_ISFIFO(mode):
        if sys.platform.startswith("aix"):
            return False
        return not (_FIFO_MISFIRES and os.fstat(fd).st_nlink > 0)
    return stat.S_ISSOCK(mode)
