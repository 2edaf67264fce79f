"""TLS: its settings, the two transports of a TLS connection, start_tls."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from asyncio import constants
from typing import TYPE_CHECKING, Any, NamedTuple

from .arguments import check_positive
from .stream import StreamTransport
from .tls_transport import SSLTransport
from .transport import Transport

try:
    import ssl
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from .loop import EventLoop
    from .server import Server
    from .tls_state import Session


class Settings(NamedTuple):
    """What TLS was asked for, checked. None stands for: without TLS."""

    context: ssl.SSLContext
    server_side: bool
    server_hostname: str | None
    handshake_timeout: float
    shutdown_timeout: float


def settings(
    context: Any,
    *,
    server_side: bool,
    server_hostname: Any = None,
    ssl_handshake_timeout: Any = None,
    ssl_shutdown_timeout: Any = None,
) -> Settings | None:
    """Check the TLS arguments of an asyncio function; `context` is its `ssl`."""
    if not context:
        for name, value in (
            ("server_hostname", server_hostname),
            ("ssl_handshake_timeout", ssl_handshake_timeout),
            ("ssl_shutdown_timeout", ssl_shutdown_timeout),
        ):
            if value is not None:
                raise ValueError(f"{name} is only meaningful with ssl")
        return None
    if ssl is None:
        raise RuntimeError("Python ssl module is not available")
    if ssl_handshake_timeout is None:
        ssl_handshake_timeout = constants.SSL_HANDSHAKE_TIMEOUT
    if ssl_shutdown_timeout is None:
        ssl_shutdown_timeout = constants.SSL_SHUTDOWN_TIMEOUT
    check_positive("ssl_handshake_timeout", ssl_handshake_timeout)
    check_positive("ssl_shutdown_timeout", ssl_shutdown_timeout)
    if isinstance(context, bool):
        if server_side:
            raise ValueError("Server side SSL needs a valid SSLContext")
        context = ssl.create_default_context()
        if not server_hostname:
            context.check_hostname = False
    elif not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, a bool or None, not {context!r}")
    return Settings(
        context,
        server_side,
        None if server_side else server_hostname or None,
        ssl_handshake_timeout,
        ssl_shutdown_timeout,
    )


class Below(asyncio.Protocol):
    """The protocol of the transport underneath."""

    # A stream transport of ours may show us its own memory instead of copying out of it.
    takes_views = True

    __slots__ = ("_app_transport", "data_received")

    def __init__(self, transport: SSLTransport) -> None:
        self._app_transport = transport
        self.data_received = transport._on_data  # type: ignore[method-assign]

    def connection_made(self, transport: Any) -> None:
        self._app_transport._on_connected()

    def eof_received(self) -> bool:
        return self._app_transport._on_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._app_transport._on_lost(exc)

    def pause_writing(self) -> None:
        self._app_transport._on_stuck()

    def resume_writing(self) -> None:
        self._app_transport._on_unstuck()


def transports(
    loop: EventLoop,
    protocol: asyncio.BaseProtocol,
    context: contextvars.Context,
    handle: Any,
    secure: Settings | None,
    *,
    waiter: asyncio.Future[None] | None = None,
    server: Server | None = None,
    sock: socket.socket | None = None,
    addresses: bytes = b"",
) -> tuple[Transport, StreamTransport]:
    """(the application's transport, the one that is to be started) for a stream handle.

    Without TLS they are the same. With TLS the waiter is told how the handshake went.
    """
    if secure is None:
        stream = StreamTransport(
            loop, protocol, context, handle, server=server, sock=sock, addresses=addresses
        )
        return stream, stream
    upper = SSLTransport(loop, protocol, context, secure, waiter=waiter)
    stream = StreamTransport(loop, Below(upper), context, handle, sock=sock, addresses=addresses)
    upper._put_on(stream, server)
    return upper, stream


async def start_tls(
    loop: EventLoop,
    below: Any,
    protocol: Any,
    sslcontext: Any,
    *,
    server_side: bool,
    server_hostname: str | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
) -> SSLTransport:
    if ssl is None:
        raise RuntimeError("Python ssl module is not available")
    if not isinstance(sslcontext, ssl.SSLContext):
        raise TypeError(
            f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
        )
    if not getattr(below, "_start_tls_compatible", False):
        raise TypeError(f"transport {below!r} is not supported by start_tls()")
    checked = settings(
        sslcontext,
        server_side=server_side,
        server_hostname=server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    assert checked is not None
    if below.is_closing():
        raise ConnectionResetError(f"transport {below!r} is closed: start_tls() needs an open one")
    ours = isinstance(below, Transport)
    context = below._context if ours else contextvars.copy_context()
    waiter: asyncio.Future[None] | None = loop.create_future()
    transport = SSLTransport(loop, protocol, context, checked, waiter=waiter, announced=True)
    server = None
    if ours and below._server is not None:
        # From now on the server's client is who encrypts: it can be closed in an orderly way.
        server, below._server = below._server, None
        server._clients.discard(below)
    transport._put_on(below, server)
    # Nothing may come before the handshake has begun; below is told to go on right after.
    below.pause_reading()
    if server_side and isinstance(protocol, asyncio.StreamReaderProtocol):
        _take_over(protocol, transport._session)
    below.set_protocol(Below(transport))
    loop.call_soon(transport._on_connected, context=context)
    loop.call_soon(below.resume_reading, context=context)
    if getattr(below, "_eof_read", False):  # the protocol of before was told already
        loop.call_soon(transport._on_eof, context=context)
    try:
        await waiter  # type: ignore[misc]
    except BaseException:
        transport.close()
        waiter = None  # it has the exception, whose traceback has this frame
        raise
    return transport


def _take_over(protocol: asyncio.StreamReaderProtocol, session: Session) -> None:
    """What a server's stream has read already is the beginning of the handshake."""
    reader = protocol._stream_reader  # type: ignore[attr-defined]
    if reader is not None and reader._buffer:
        session.incoming.write(reader._buffer)
        reader._buffer.clear()
