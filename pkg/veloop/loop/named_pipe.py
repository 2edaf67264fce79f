"""Named pipes of Windows: create_pipe_connection and start_serving_pipe, as asyncio's
ProactorEventLoop has them, with the same arguments and results.

libuv reads and writes them (pipe.py). Its uv_pipe_listen and uv_pipe_connect are not used: the
instances of a server are made here, one ahead of the clients, so that none finds no pipe at all.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._uv import lib
from .._uv.errors import check
from .arguments import check_callable
from .pipe import PipeTransport
from .stream import check_protocol
from .tcp import started

if sys.platform == "win32":
    import _winapi
    from asyncio.windows_utils import BUFSIZE, PipeHandle

if TYPE_CHECKING:
    from .loop import EventLoop
    from .server import ProtocolFactory

assert sys.platform == "win32", "these named pipes are a feature of Windows"

# Seconds between two attempts to connect to a server that has no instance free just now.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.1


class DuplexPipeTransport(PipeTransport):
    """A connection by a named pipe: an asyncio.Transport. It cannot be half-closed."""

    __slots__ = ()

    def _state(self) -> Iterable[str]:
        yield "read=polling" if self._live else "read=idle"
        yield f"write=<bufsize={self.get_write_buffer_size()}>"

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError


class PipeServer:
    """Takes clients of a named pipe: what start_serving_pipe() returns a list of."""

    def __init__(self, loop: EventLoop, protocol_factory: ProtocolFactory, address: str) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._context = contextvars.copy_context()
        self._address: str | None = address
        self._pipe: Any = None  # the instance that the next client gets
        self._overlapped: Any = None
        self._watch: Any = None
        self._ident = 0
        self._listen(_winapi.FILE_FLAG_FIRST_PIPE_INSTANCE)

    def closed(self) -> bool:
        """Return True once the server was closed."""
        return self._address is None

    def close(self) -> None:
        """Take no more clients; those that there are stay. Idempotent."""
        if self._address is None:
            return
        self._stop_watching()
        self._address = None
        self._overlapped.cancel()
        self._pipe.close()
        self._pipe = self._overlapped = None

    def _listen(self, flags: int = 0) -> None:
        self._pipe = pipe = PipeHandle(
            _winapi.CreateNamedPipe(
                self._address,
                _winapi.PIPE_ACCESS_DUPLEX | _winapi.FILE_FLAG_OVERLAPPED | flags,
                _winapi.PIPE_WAIT,  # of bytes
                _winapi.PIPE_UNLIMITED_INSTANCES,
                BUFSIZE,
                BUFSIZE,
                _winapi.NMPWAIT_WAIT_FOREVER,
                _winapi.NULL,
            )
        )
        try:
            self._overlapped = _winapi.ConnectNamedPipe(pipe.handle, overlapped=True)
            # What can be waited for as a process can be: the event that there is a client.
            event, driver = self._overlapped.event, self._loop._driver
            self._ident = check(lib.vl_exit_watch(driver.pointer, event, driver.out))
        except BaseException:
            pipe.close()
            raise
        self._watch = driver.out[0]
        driver.targets[self._ident] = self._on_client

    def _stop_watching(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            del self._loop._driver.targets[self._ident]
            check(lib.vl_handle_close(watch))

    def _on_client(self, kind: int, a: int, b: int) -> None:
        self._stop_watching()
        pipe, overlapped = self._pipe, self._overlapped
        self._listen()
        try:
            overlapped.GetOverlappedResult(True)
        except OSError:  # it has gone again
            pipe.close()
            return
        try:
            self._context.copy().run(self._serve, pipe)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            pipe.close()
            self._loop.call_exception_handler(
                {"message": "Pipe accept failed", "exception": exc, "pipe": pipe}
            )

    def _serve(self, pipe: PipeHandle) -> None:
        protocol = self._protocol_factory()
        assert self._address is not None
        _transport(self._loop, protocol, pipe, self._address)._start()

    def _on_loop_close(self) -> None:
        self._watch = None
        self.close()


def _transport(
    loop: EventLoop, protocol: Any, pipe: PipeHandle, address: str
) -> DuplexPipeTransport:
    check_protocol(protocol)
    driver = loop._driver
    check(lib.vl_pipe_open(driver.pointer, pipe.handle, driver.out))
    context = contextvars.copy_context()
    transport = DuplexPipeTransport(loop, protocol, context, driver.out[0], pipe, pipe.handle)
    transport._extra = {"pipe": pipe, "addr": address}
    return transport


async def create_pipe_connection(
    loop: EventLoop, protocol_factory: ProtocolFactory, address: str
) -> tuple[asyncio.Transport, Any]:
    check_callable("protocol_factory", protocol_factory)
    pipe = PipeHandle(await _connect(address))
    try:
        transport = _transport(loop, protocol_factory(), pipe, address)
    except BaseException:
        pipe.close()
        raise
    return await started(loop, transport, transport)


async def _connect(address: str) -> int:
    pause = _FIRST_PAUSE
    access = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
    while True:
        try:
            return _winapi.CreateFile(
                address,
                access,
                0,
                _winapi.NULL,
                _winapi.OPEN_EXISTING,
                _winapi.FILE_FLAG_OVERLAPPED,
                _winapi.NULL,
            )
        except OSError as exc:
            if exc.winerror != _winapi.ERROR_PIPE_BUSY:
                raise
        # Nothing tells when there is an instance free.
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def start_serving_pipe(
    loop: EventLoop, protocol_factory: ProtocolFactory, address: str
) -> list[PipeServer]:
    check_callable("protocol_factory", protocol_factory)
    return [PipeServer(loop, protocol_factory, address)]
