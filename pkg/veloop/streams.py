"""Streams: connections that are read with await and written without callbacks.

`open_connection` and `start_server` give pairs of a StreamReader and a StreamWriter; a
StreamReaderProtocol stands between them and the transport. They are subclasses of asyncio's
classes, and work on any loop and any transport. What keeps them cheap:

- the protocol resumes the task that waits for data, instead of having the loop do it,
- a writer's `write` is its transport's own bound method,
- drain() looks at three flags before it would ask the protocol.
"""

from __future__ import annotations

import asyncio
import collections
import sys
import warnings
import weakref
from asyncio import streams as stock
from asyncio.log import logger
from collections.abc import Awaitable, Callable, Iterable
from threading import get_ident
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import events
from .stream_reader import DEFAULT_LIMIT, StreamReader
from .tasks import sleep, wait

if TYPE_CHECKING:
    import ssl

    Buffer = bytes | bytearray | memoryview
    Connected = Callable[["StreamReader", "StreamWriter"], Awaitable[None] | None]

__all__ = (
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
)

_get_running_loop = asyncio._get_running_loop

# On Python 3.11 the one asks the kernel for the process each time, the other is no C function.
_PY311 = sys.version_info < (3, 12)
_current_task: Callable[[asyncio.AbstractEventLoop], Any] = (
    asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]
    if _PY311
    else asyncio.current_task
)


def _exit(exc: BaseException) -> None:
    raise exc


async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    **kwds: Any,
) -> tuple[StreamReader, StreamWriter]:
    """Connect and return (reader, writer).

    `limit` is the reader's, in bytes; everything else goes to loop.create_connection(), whose
    errors are raised.
    """
    loop = events.get_running_loop()
    reader = StreamReader(limit, loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    address: tuple[Any, Any] = host, port
    transport, _ = await loop.create_connection(lambda: protocol, *address, **kwds)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_server(
    client_connected_cb: Connected,
    host: Any = None,
    port: int | str | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    **kwds: Any,
) -> asyncio.Server:
    """Listen and return the server; call client_connected_cb(reader, writer) for each client.

    A coroutine that it returns runs in a task. An exception, of either, is reported to the loop's
    exception handler and closes the connection. `limit` is the readers', in bytes; everything else
    goes to loop.create_server(), whose errors are raised.
    """
    loop = events.get_running_loop()

    def factory() -> StreamReaderProtocol:
        return StreamReaderProtocol(StreamReader(limit, loop), client_connected_cb, loop)

    address: tuple[Any, Any] = host, port
    return await loop.create_server(factory, *address, **kwds)


async def open_unix_connection(
    path: Any = None, *, limit: int = DEFAULT_LIMIT, **kwds: Any
) -> tuple[StreamReader, StreamWriter]:
    """open_connection() for the path of a Unix socket, by loop.create_unix_connection()."""
    loop = events.get_running_loop()
    reader = StreamReader(limit, loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_unix_connection(lambda: protocol, path, **kwds)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_unix_server(
    client_connected_cb: Connected, path: Any = None, *, limit: int = DEFAULT_LIMIT, **kwds: Any
) -> asyncio.Server:
    """start_server() for the path of a Unix socket, by loop.create_unix_server()."""
    loop = events.get_running_loop()

    def factory() -> StreamReaderProtocol:
        return StreamReaderProtocol(StreamReader(limit, loop), client_connected_cb, loop)

    return await loop.create_unix_server(factory, path, **kwds)


class FlowControlMixin(stock.FlowControlMixin):
    """What a protocol needs for StreamWriter.drain(): it knows whether the transport is full.

    A subclass that overrides one of these methods has to call it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = events.get_event_loop() if loop is None else loop
        self._paused = False
        self._drain_waiters: collections.deque[asyncio.Future[None]] = collections.deque()
        self._connection_lost = False

    def pause_writing(self) -> None:
        """Called by the transport: it has too much to send, drain() is to wait."""
        assert not self._paused
        self._paused = True
        if self._loop.get_debug():
            logger.debug("%r pauses writing", self)

    def resume_writing(self) -> None:
        """Called by the transport: it can take more, drain() is to return."""
        assert self._paused
        self._paused = False
        if self._loop.get_debug():
            logger.debug("%r resumes writing", self)
        for waiter in self._drain_waiters:
            if not waiter.done():
                waiter.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the transport at its end: who waits in drain() gets the exception."""
        self._connection_lost = True
        if not self._paused:
            return
        for waiter in self._drain_waiters:
            if not waiter.done():
                if exc is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(exc)

    async def _drain_helper(self) -> None:
        if self._connection_lost:
            raise ConnectionResetError("Connection lost")
        if not self._paused:
            return
        waiter = self._loop.create_future()
        self._drain_waiters.append(waiter)
        try:
            await waiter
        finally:
            self._drain_waiters.remove(waiter)

    def _get_close_waiter(self, stream: StreamWriter) -> asyncio.Future[None]:
        raise NotImplementedError


class StreamReaderProtocol(FlowControlMixin, asyncio.StreamReaderProtocol):
    """The protocol that feeds a StreamReader: asyncio.StreamReaderProtocol.

    With `client_connected_cb` it is a server's: see start_server().
    """

    # The accelerator finds these by their place.
    __slots__ = ("_hands_over", "_loop", "_stream_reader_wr")

    _transport: Any

    def __init__(
        self,
        stream_reader: StreamReader | None,
        client_connected_cb: Connected | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(loop)
        self._stream_reader_wr: Callable[[], Any] | None = None
        if stream_reader is not None:
            self._stream_reader_wr = weakref.ref(stream_reader)
        # Has the reader a short way? In debug mode each step of a task is a callback of the loop,
        # which takes its time.
        self._hands_over = (
            isinstance(stream_reader, StreamReader)
            and type(stream_reader).feed_data is _FEED_DATA
            and not self._loop.get_debug()
        )
        # Nobody else has a server's reader before there is a connection.
        self._strong_reader = None if client_connected_cb is None else stream_reader
        self._task: asyncio.Task[None] | None = None
        self._transport = None
        self._client_connected_cb = client_connected_cb
        self._over_ssl = False
        self._closed = self._loop.create_future()

    @property
    def _stream_reader(self) -> Any:
        return None if self._stream_reader_wr is None else self._stream_reader_wr()

    def connection_made(self, transport: Any) -> None:
        """Called by the transport: a server's client_connected_cb gets its streams."""
        self._transport = transport
        reader = self._stream_reader
        if reader is not None:
            reader.set_transport(transport)
        self._over_ssl = transport.get_extra_info("sslcontext") is not None
        connected = self._client_connected_cb
        if connected is None:
            return
        try:
            result = connected(reader, StreamWriter(transport, self, reader, self._loop))
        except Exception as exc:
            self._handler_failed(transport, exc)
        else:
            if asyncio.iscoroutine(result):
                self._task = task = self._loop.create_task(result)
                task.add_done_callback(lambda task: self._handler_done(transport, task))
        self._strong_reader = None

    def _handler_done(self, transport: Any, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            transport.close()
            return
        exc = task.exception()
        if exc is not None:
            self._handler_failed(transport, exc)

    def _handler_failed(self, transport: Any, exc: BaseException) -> None:
        self._loop.call_exception_handler(
            {
                "message": "Unhandled exception in client_connected_cb",
                "exception": exc,
                "transport": transport,
            }
        )
        transport.close()

    def _replace_transport(self, transport: Any) -> None:
        self._transport = transport
        self._over_ssl = transport.get_extra_info("sslcontext") is not None
        reader = self._stream_reader
        if reader is not None:
            reader._replace_transport(transport)

    def _replace_writer(self, writer: asyncio.StreamWriter) -> None:
        """What asyncio's StreamWriter.start_tls() calls before Python 3.15."""
        self._replace_transport(writer.transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the transport at its end: the reader gets it, or the exception."""
        reader = self._stream_reader
        if reader is not None:
            if exc is None:
                reader.feed_eof()
            else:
                reader.set_exception(exc)
        closed = self._closed
        if not closed.done():
            if exc is None:
                closed.set_result(None)
            else:
                closed.set_exception(exc)
                closed.exception()  # nobody has to call wait_closed()
        super().connection_lost(exc)
        self._stream_reader_wr = None
        self._task = None
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Called by the transport: data for the reader."""
        reader = self._stream_reader
        if reader is None:
            return
        # A task that waits for it goes on at once if this is the loop's thread and no task runs.
        loop = self._loop
        if _PY311:
            in_loop = getattr(loop, "_thread_id", None) == get_ident()
        else:
            in_loop = _get_running_loop() is loop
        if in_loop and _current_task(loop) is None and type(data) is bytes:
            try:
                if self._hand_over(data):
                    return
            except (SystemExit, KeyboardInterrupt) as exc:
                if isinstance(loop, asyncio.BaseEventLoop) or hasattr(loop, "get_nesting"):
                    raise
                loop.call_soon(_exit, exc)  # not every transport lets it out of the loop
                return
        reader.feed_data(data)

    def _hand_over(self, data: bytes) -> bool:
        """StreamReader._hand_over(), if there is a reader and it has that."""
        reader: Any = self._stream_reader_wr
        # Nested runs are impossible below a transport's event.
        if reader is None or not self._hands_over or getattr(self._loop, "_nesting", False):
            return False
        reader = reader()
        return reader is not None and reader._hand_over(data)

    def _dispatcher(self) -> Callable[[bytes], bool] | None:
        """What transports of ours offer data to before they call data_received(), if anything.

        They do so outside of any callback. Nothing if somebody overrides data_received().
        """
        own = type(self).data_received is _DATA_RECEIVED and "data_received" not in vars(self)
        return self._hand_over if own and self._hands_over else None

    def eof_received(self) -> bool:
        """Called by the transport: only the other side's half is closed, except over TLS."""
        reader = self._stream_reader
        if reader is not None:
            reader.feed_eof()
        return not self._over_ssl

    def _get_close_waiter(self, stream: asyncio.StreamWriter) -> asyncio.Future[None]:
        return self._closed


class StreamWriter(asyncio.StreamWriter):
    """The writing half of a stream, as asyncio.StreamWriter.

    It closes the transport, with a ResourceWarning, if nobody did before it is garbage.
    """

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.BaseProtocol,
        reader: asyncio.StreamReader | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._protocol: Any = protocol
        assert reader is None or isinstance(reader, asyncio.StreamReader)
        self._reader: Any = reader
        # Whether drain() may look at the protocol's flags before it asks.
        self._flags = getattr(type(protocol), "_drain_helper", None) in _DRAIN_HELPERS
        self._transport = transport

    # Libraries that did start_tls() by themselves assign it.
    @property
    def _transport(self) -> Any:
        return self._current

    @_transport.setter
    def _transport(self, transport: Any) -> None:
        self._current = transport
        if type(self).write is _WRITE and hasattr(transport, "write"):
            self.write = transport.write  # type: ignore[method-assign]

    def __repr__(self) -> str:
        info = [self.__class__.__name__, f"transport={self._current!r}"]
        if self._reader is not None:
            info.append(f"reader={self._reader!r}")
        return f"<{' '.join(info)}>"

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The transport."""
        transport: asyncio.WriteTransport = self._current
        return transport

    def write(self, data: Buffer) -> None:
        """Send data, or keep what cannot be sent now: transport.write()."""
        self._current.write(data)

    def writelines(self, data: Iterable[Buffer]) -> None:
        """Send several pieces together: transport.writelines()."""
        self._current.writelines(data)

    def write_eof(self) -> None:
        """Close this direction once everything is sent: transport.write_eof()."""
        return self._current.write_eof()  # type: ignore[no-any-return]

    def can_write_eof(self) -> bool:
        """Return whether write_eof() is possible; over TLS it is not."""
        return self._current.can_write_eof()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close both directions once everything is sent: transport.close()."""
        return self._current.close()  # type: ignore[no-any-return]

    def is_closing(self) -> bool:
        """Return whether the connection is closed, or being closed."""
        return self._current.is_closing()  # type: ignore[no-any-return]

    async def wait_closed(self) -> None:
        """Wait until the connection is closed; raise what it was lost by."""
        closed = self._protocol._get_close_waiter(self)
        if not closed.done():
            await wait([closed])  # which may be cancelled, unlike what others wait for
        closed.result()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows: transport.get_extra_info()."""
        return self._current.get_extra_info(name, default)

    async def drain(self) -> None:
        """Wait while the transport has too much to send; without awaiting anything if it has not.

        Raise what the reader's connection failed by, ConnectionResetError after its end.
        """
        reader = self._reader
        if reader is not None and reader._exception is not None:
            raise reader._exception
        if self._current.is_closing():
            await sleep(0)  # connection_lost() may come, so a loop of write and drain can end
        protocol = self._protocol
        if not self._flags or protocol._paused or protocol._connection_lost:
            await protocol._drain_helper()

    async def start_tls(
        self,
        sslcontext: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        """Go on with TLS on this connection, after all data was sent: loop.start_tls()."""
        protocol = self._protocol
        server_side = protocol._client_connected_cb is not None
        await self.drain()
        transport: Any = await self._loop.start_tls(
            self._current,
            protocol,
            sslcontext,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        self._transport = transport
        if hasattr(protocol, "_replace_transport"):
            protocol._replace_transport(transport)
        else:
            protocol._replace_writer(self)  # asyncio's protocol before Python 3.15

    def __del__(self, warnings: ModuleType = warnings) -> None:
        transport = getattr(self, "_current", None)
        if transport is None or transport.is_closing():
            return
        loop = self._loop
        if loop.is_closed():
            warnings.warn("loop is closed", ResourceWarning, stacklevel=2)
            return
        if loop.is_running() and asyncio._get_running_loop() is not loop:
            loop.call_soon_threadsafe(transport.close)  # the collector runs in any thread
        else:
            self.close()
        warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2)


_DRAIN_HELPERS = tuple(
    vars(each)["_drain_helper"] for each in (FlowControlMixin, stock.FlowControlMixin)
)
_WRITE = StreamWriter.write
_FEED_DATA = StreamReader.feed_data
_DATA_RECEIVED = StreamReaderProtocol.data_received
