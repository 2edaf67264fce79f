"""Server: listening sockets, the connections accepted from them, and the end of both.

It behaves like the newest CPython's on every version: wait_closed() waits for the connections
too, close_clients() and abort_clients() exist, a cancelled serve_forever() ends them.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import socket
from asyncio import trsock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._uv import ffi, lib
from .._uv.errors import check, error
from . import tls
from .stream import check_protocol
from .transport import Transport, refuse_others

if TYPE_CHECKING:
    from .loop import EventLoop

_RETRY_DELAY = 1.0  # seconds until accept is tried again, asyncio's ACCEPT_RETRY_DELAY
_BATCH_MAX = 256  # connections of one socket accepted in one turn

ProtocolFactory = Callable[[], asyncio.BaseProtocol]

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """Accepts the connections of one listening socket of a server."""

    __slots__ = (
        "_fd",
        "_handle",
        "_ident",
        "_late",
        "_loop",
        "_retry",
        "_seen",
        "_server",
        "_sock",
    )

    def __init__(self, server: Server, sock: socket.socket, backlog: int) -> None:
        self._server = server
        self._sock = sock
        self._loop = loop = server._loop
        self._retry: asyncio.TimerHandle | None = None
        self._seen = 0  # records that were taken from the ring
        self._late = 0  # those that are still in there, once closed
        self._fd = sock.fileno()
        driver = loop._driver
        batch = min(max(backlog, 1), _BATCH_MAX)
        self._ident = check(lib.vl_listener_open(driver.pointer, sock.fileno(), batch, driver.out))
        self._handle: Any = driver.out[0]
        driver.targets[self._ident] = self._on_event
        loop._given[self._fd] = self

    def is_closing(self) -> bool:
        return self._handle is None

    def _fileno(self) -> int:
        return -1 if self._handle is None else self._sock.fileno()

    def _on_event(self, kind: int, a: int, b: int) -> None:
        self._seen += 1
        if a < 0:
            self._on_error(error(a), paused=bool(b))
            return
        handle = ffi.cast("vl_handle_t *", a)
        slab = self._loop._driver.slab
        end = b + 6 + sum(slab[b : b + 2])  # two sizes, two addresses, a descriptor
        self._server._accepted(handle, slab[b:end])

    def _on_late_event(self, kind: int, a: int, b: int) -> None:
        """What came in the turn in which the server was closed; an error is no matter now."""
        server = self._server
        self._late -= 1
        if not self._late:
            self.forget_late()
        try:
            if a > 0:
                self._on_event(kind, a, b)
        finally:
            server._accepting -= 1
            server._wakeup_if_done()

    def _on_error(self, exc: BaseException, *, paused: bool) -> None:
        """accept() failed: with a new connection, or with all until the shim is told to resume."""
        loop = self._loop
        message = "socket.accept() failed"
        if getattr(exc, "errno", None) in _OUT_OF_RESOURCES:
            message = "socket.accept() out of system resource"
        if paused:
            self._retry = loop.call_later(_RETRY_DELAY, self._resume)
        loop.call_exception_handler(
            {"message": message, "exception": exc, "socket": trsock.TransportSocket(self._sock)}
        )

    def _resume(self) -> None:
        self._retry = None
        check(lib.vl_listener_resume(self._handle))

    def close(self) -> None:
        """Stop accepting. The socket itself is the server's to close.

        Who was accepted already is a connection of the server's: nobody else will answer.
        """
        if self._handle is None:
            return
        told_of = check(lib.vl_listener_close(self._handle))  # first: it may refuse the thread
        self._handle = None
        if self._retry is not None:
            self._retry.cancel()
        if self._loop._given.get(self._fd) is self:
            del self._loop._given[self._fd]
        self._late = told_of - self._seen
        if self._late:
            self._server._accepting += self._late
            self._server._late.add(self)
            self._loop._driver.targets[self._ident] = self._on_late_event
        else:
            del self._loop._driver.targets[self._ident]

    def forget_late(self) -> None:
        """What is still in the ring has no target now: the drain closes it."""
        self._server._accepting -= self._late
        self._server._late.discard(self)
        del self._loop._driver.targets[self._ident]

    def _on_loop_close(self) -> None:
        self._handle = None


class Server(asyncio.Server):
    """What loop.create_server() returns: an asyncio.Server."""

    _loop: EventLoop

    def __init__(
        self,
        loop: EventLoop,
        sockets: list[socket.socket],
        protocol_factory: ProtocolFactory,
        backlog: int,
        secure: tls.Settings | None = None,
    ) -> None:
        self._loop = loop
        self._secure = secure
        # All callbacks of a connection run in one copy of it, as in CPython 3.15.
        self._context = contextvars.copy_context()
        self._sockets: list[socket.socket] | None = sockets
        self._listeners: list[Listener] = []
        self._protocol_factory = protocol_factory
        self._backlog = backlog
        # The loop keeps an open transport alive anyway, so this need not be weak.
        self._clients: set[Transport] = set()
        self._accepting = 0
        self._late: set[Listener] = set()  # closed ones, with connections still to be served
        self._waiters: list[asyncio.Future[None]] | None = []
        self._serving = False
        self._serving_forever_fut: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} sockets={self.sockets!r}>"

    # --------------------------------------------------------------------- the connections

    def _accepted(self, handle: Any, addresses: bytes) -> None:
        """A connection came, as an open stream handle."""
        loop = self._loop
        context = self._context.copy()
        protocol = None
        self._accepting += 1  # a server that its factory closes still has this connection
        try:
            protocol = context.run(self._protocol_factory)
            check_protocol(protocol)
            _, stream = tls.transports(
                loop, protocol, context, handle, self._secure, server=self, addresses=addresses
            )
        except BaseException as exc:
            lib.vl_handle_close(handle)
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            report: dict[str, Any] = {
                "message": "Error on transport creation for incoming connection",
                "exception": exc,
            }
            if protocol is not None:
                report["protocol"] = protocol
            loop.call_exception_handler(report)
            return
        finally:
            self._accepting -= 1
            self._wakeup_if_done()
        stream._start()

    def _attach(self, transport: Transport) -> None:
        self._clients.add(transport)

    def _detach(self, transport: Transport) -> None:
        self._clients.discard(transport)
        self._wakeup_if_done()

    def _wakeup_if_done(self) -> None:
        """The server is closed and has no connection any more: wait_closed() returns."""
        if self._sockets is not None or self._clients or self._accepting:
            return
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------------------- public API

    def get_loop(self) -> EventLoop:
        """Return the loop that serves."""
        return self._loop

    def is_serving(self) -> bool:
        """Return True while the server accepts connections."""
        return self._serving

    @property
    def sockets(self) -> tuple[trsock.TransportSocket, ...]:  # type: ignore[override]
        """The listening sockets; none once the server is closed."""
        return tuple(trsock.TransportSocket(sock) for sock in self._sockets or ())

    def _start_serving(self) -> None:
        if self._serving:
            return
        self._loop._check_closed()
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        try:
            for sock in self._sockets:
                sock.listen(self._backlog)
                self._listeners.append(Listener(self, sock, self._backlog))
        except BaseException:
            self._stop_listening()  # all or none, so that it can be tried again
            raise
        self._serving = True

    def _stop_listening(self, *, serve_late: bool = False) -> None:
        while self._listeners:
            self._listeners[-1].close()
            self._listeners.pop()
        self._serving = False
        if not serve_late:
            self._forget_late()

    def _forget_late(self) -> None:
        """Close the connections that came in this turn: no protocol knows of them."""
        for listener in self._late.copy():
            listener.forget_late()
        self._wakeup_if_done()

    async def start_serving(self) -> None:
        """Begin to accept connections; RuntimeError on a closed server. Idempotent."""
        self._start_serving()
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """Accept connections until cancelled; then close the server and its connections."""
        if self._serving_forever_fut is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        self._start_serving()
        self._serving_forever_fut = self._loop.create_future()
        try:
            await self._serving_forever_fut
        except asyncio.CancelledError:
            try:
                self.close()
                self.close_clients()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever_fut = None

    def close(self) -> None:
        """Stop listening and close the listening sockets; connections stay. Idempotent."""
        if self._sockets is None:
            return
        self._stop_listening(serve_late=True)
        sockets, self._sockets = self._sockets, None
        for sock in sockets:
            sock.close()
        forever = self._serving_forever_fut
        if forever is not None and not forever.done():
            forever.cancel()
            self._serving_forever_fut = None
        self._wakeup_if_done()

    def close_clients(self) -> None:
        """Close all connections, after what they still have to send."""
        refuse_others(self._loop)
        self._forget_late()
        for transport in self._clients.copy():
            transport.close()

    def abort_clients(self) -> None:
        """Close all connections at once; what they still had to send is lost."""
        refuse_others(self._loop)
        self._forget_late()
        for transport in self._clients.copy():
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the server is closed and its last connection is gone."""
        if self._waiters is None:
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter
