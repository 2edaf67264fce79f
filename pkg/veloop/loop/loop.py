"""EventLoop: the facade. Every method is one call into the file of its area."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVarTuple

from . import dns, sockets, tcp, tls
from .core import Core
from .poll import Poller
from .server import ProtocolFactory, Server

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike as FileDescriptor

Ts = TypeVarTuple("Ts")


class EventLoop(Core):
    """asyncio's event loop on libuv. Make one with `veloop.new_event_loop()`."""

    def __init__(self) -> None:
        super().__init__()
        self._poller = Poller(self)

    def close(self) -> None:
        """Close the loop and every handle still open in it. Idempotent."""
        super().close()
        self._poller.close()

    # -------------------------------------------------------------- descriptors

    def add_reader(self, fd: FileDescriptor, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call callback(*args) whenever fd can be read (uv_poll, level-triggered)."""
        self._poller.add_reader(fd, callback, args)

    def remove_reader(self, fd: FileDescriptor) -> bool:
        """Stop watching fd for reading; return whether it was watched."""
        return self._poller.remove_reader(fd)

    def add_writer(self, fd: FileDescriptor, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call callback(*args) whenever fd can be written (uv_poll, level-triggered)."""
        self._poller.add_writer(fd, callback, args)

    def remove_writer(self, fd: FileDescriptor) -> bool:
        """Stop watching fd for writing; return whether it was watched."""
        return self._poller.remove_writer(fd)

    # ----------------------------------------------------------------------- raw sockets

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a non-blocking socket."""
        await sockets.sock_connect(self, sock, address)

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection; return (connection, address), the connection non-blocking."""
        return await sockets.sock_accept(self, sock)

    # -------------------------------------------------------------------------------- DNS

    async def getaddrinfo(
        self,
        host: str | bytes | None,
        port: str | bytes | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """socket.getaddrinfo() without blocking (uv_getaddrinfo)."""
        self._check_closed()
        return await dns.getaddrinfo(self, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int = 0) -> tuple[str, str]:
        """socket.getnameinfo() without blocking (uv_getnameinfo)."""
        self._check_closed()
        return await dns.getnameinfo(self, sockaddr, flags)

    # -------------------------------------------------------------------------------- TCP

    async def create_connection(
        self,
        protocol_factory: ProtocolFactory,
        host: str | bytes | None = None,
        port: str | bytes | int | None = None,
        *,
        ssl: Any = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket.socket | None = None,
        local_addr: tuple[Any, ...] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[asyncio.Transport, Any]:
        """Connect to host and port, or take a connected socket; return (transport, protocol)."""
        self._check_closed()
        return await tcp.create_connection(
            self,
            protocol_factory,
            host,
            port,
            ssl=ssl,
            family=family,
            proto=proto,
            flags=flags,
            sock=sock,
            local_addr=local_addr,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            happy_eyeballs_delay=happy_eyeballs_delay,
            interleave=interleave,
            all_errors=all_errors,
        )

    async def create_server(
        self,
        protocol_factory: ProtocolFactory,
        host: Any = None,
        port: str | bytes | int | None = None,
        *,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: Any = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> Server:
        """Serve TCP on host (one, or a sequence; None: all interfaces) and port."""
        self._check_closed()
        return await tcp.create_server(
            self,
            protocol_factory,
            host,
            port,
            family=family,
            flags=flags,
            sock=sock,
            backlog=backlog,
            ssl=ssl,
            reuse_address=reuse_address,
            reuse_port=reuse_port,
            keep_alive=keep_alive,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            start_serving=start_serving,
        )

    async def connect_accepted_socket(
        self,
        protocol_factory: ProtocolFactory,
        sock: socket.socket,
        *,
        ssl: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, Any]:
        """Handle a connection accepted elsewhere; return (transport, protocol)."""
        self._check_closed()
        return await tcp.connect_accepted_socket(
            self,
            protocol_factory,
            sock,
            ssl=ssl,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    # -------------------------------------------------------------------------------- TLS

    async def start_tls(
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        """Encrypt an open connection from here on; return the transport that replaces its own."""
        self._check_closed()
        return await tls.start_tls(
            self,
            transport,
            protocol,
            sslcontext,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )


def new_event_loop() -> EventLoop:
    """Return a new event loop."""
    return EventLoop()  # type: ignore[abstract]  # what is to come raises NotImplementedError
