"""EventLoop: the facade. Every method is one call into the file of its area."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVarTuple

from . import dns, poll, process, sockets, tcp, tls, udp, unix
from . import pipe as pipes
from . import sendfile as files
from .core import Core
from .server import ProtocolFactory, Server

if sys.platform == "win32":
    from . import named_pipe

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike as FileDescriptor

Ts = TypeVarTuple("Ts")


class EventLoop(Core):
    """asyncio's event loop on libuv. Make one with `veloop.new_event_loop()`."""

    __slots__ = ("_watches",)

    def __init__(self) -> None:
        super().__init__()
        self._watches: dict[int, poll.Watch] = {}  # by descriptor

    def close(self) -> None:
        """Close the loop and every handle still open in it. Idempotent."""
        super().close()
        self._watches.clear()

    # -------------------------------------------------------------- descriptors

    def add_reader(self, fd: FileDescriptor, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call callback(*args) whenever fd can be read (uv_poll, level-triggered)."""
        poll.add_reader(self, fd, callback, args)

    def remove_reader(self, fd: FileDescriptor) -> bool:
        """Stop watching fd for reading; return whether it was watched."""
        return poll.remove_reader(self, fd)

    def add_writer(self, fd: FileDescriptor, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call callback(*args) whenever fd can be written (uv_poll, level-triggered)."""
        poll.add_writer(self, fd, callback, args)

    def remove_writer(self, fd: FileDescriptor) -> bool:
        """Stop watching fd for writing; return whether it was watched."""
        return poll.remove_writer(self, fd)

    # asyncio.PidfdChildWatcher calls the running loop by these names.
    _add_reader = add_reader
    _remove_reader = remove_reader

    # ----------------------------------------------------------------------- raw sockets

    # The functions themselves: where a call need not wait, one more frame would be felt.

    sock_recv = sockets.sock_recv  # type: ignore[assignment]
    sock_recv_into = sockets.sock_recv_into
    sock_recvfrom = sockets.sock_recvfrom
    sock_recvfrom_into = sockets.sock_recvfrom_into
    sock_sendall = sockets.sock_sendall
    sock_sendto = sockets.sock_sendto
    sock_accept = sockets.sock_accept
    sock_connect = sockets.sock_connect

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int:
        """Send a file from offset, count bytes of it or all; return how many were sent."""
        return await files.sock_sendfile(self, sock, file, offset, count, bool(fallback))

    # -------------------------------------------------------------------------- sendfile

    async def sendfile(
        self,
        transport: asyncio.WriteTransport,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send a file through a transport; return how many bytes were sent."""
        self._check_closed()
        return await files.sendfile(self, transport, file, offset, count, fallback)

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
        look_up = dns.getaddrinfo_debug if self._debug else dns.getaddrinfo
        return await look_up(self, host, port, family, type, proto, flags)

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

    # -------------------------------------------------------------------------- datagrams

    # typeshed has reuse_address, which no CPython since 3.11 has.
    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: ProtocolFactory,
        local_addr: tuple[str, int] | str | None = None,
        remote_addr: tuple[str, int] | str | None = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket.socket | None = None,
    ) -> tuple[asyncio.DatagramTransport, Any]:
        """Send and receive datagrams (UDP, Unix); return (transport, protocol)."""
        self._check_closed()
        return await udp.create_datagram_endpoint(
            self,
            protocol_factory,
            local_addr,
            remote_addr,
            family=family,
            proto=proto,
            flags=flags,
            reuse_port=reuse_port,
            allow_broadcast=allow_broadcast,
            sock=sock,
        )

    # ----------------------------------------------------------------------- Unix sockets

    async def create_unix_connection(
        self,
        protocol_factory: ProtocolFactory,
        path: Any = None,
        *,
        ssl: Any = None,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, Any]:
        """Connect to a Unix socket, or take a connected one; return (transport, protocol)."""
        self._check_closed()
        return await unix.create_unix_connection(
            self,
            protocol_factory,
            path,
            ssl=ssl,
            sock=sock,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    async def create_unix_server(
        self,
        protocol_factory: ProtocolFactory,
        path: Any = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = unix.CLEANUP,
    ) -> Server:
        """Serve at a path or abstract address, or on a bound socket.

        Before Python 3.13 cleanup_socket is False unless it is asked for.
        """
        self._check_closed()
        return await unix.create_unix_server(
            self,
            protocol_factory,
            path,
            sock=sock,
            backlog=backlog,
            ssl=ssl,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            start_serving=start_serving,
            cleanup_socket=cleanup_socket,
        )

    # ------------------------------------------------------------------------------ pipes

    async def connect_read_pipe(
        self, protocol_factory: ProtocolFactory, pipe: Any
    ) -> tuple[asyncio.ReadTransport, Any]:
        """Read from a pipe, terminal, socket; return (transport, protocol)."""
        self._check_closed()
        return await pipes.connect_read_pipe(self, protocol_factory, pipe)

    async def connect_write_pipe(
        self, protocol_factory: ProtocolFactory, pipe: Any
    ) -> tuple[asyncio.WriteTransport, Any]:
        """Write to a pipe, terminal, socket; return (transport, protocol)."""
        self._check_closed()
        return await pipes.connect_write_pipe(self, protocol_factory, pipe)

    if sys.platform == "win32":

        async def create_pipe_connection(
            self, protocol_factory: ProtocolFactory, address: str
        ) -> tuple[asyncio.Transport, Any]:
            """Connect to a named pipe; return (transport, protocol)."""
            self._check_closed()
            return await named_pipe.create_pipe_connection(self, protocol_factory, address)

        async def start_serving_pipe(
            self, protocol_factory: ProtocolFactory, address: str
        ) -> list[named_pipe.PipeServer]:
            """Serve a named pipe; return a list of one server, which has close() and closed()."""
            self._check_closed()
            return await named_pipe.start_serving_pipe(self, protocol_factory, address)

    # ----------------------------------------------------------------------- subprocesses

    async def subprocess_shell(
        self,
        protocol_factory: ProtocolFactory,
        cmd: str | bytes,
        *,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        universal_newlines: bool = False,
        shell: bool = True,
        bufsize: int = 0,
        encoding: None = None,
        errors: None = None,
        text: bool | None = None,
        **kwargs: Any,
    ) -> tuple[process.SubprocessTransport, Any]:
        """Run a command of the shell; keywords as for subprocess.Popen."""
        self._check_closed()
        return await process.subprocess_shell(
            self,
            protocol_factory,
            cmd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            universal_newlines=universal_newlines,
            shell=shell,
            bufsize=bufsize,
            encoding=encoding,
            errors=errors,
            text=text,
            options=kwargs,
        )

    async def subprocess_exec(
        self,
        protocol_factory: ProtocolFactory,
        program: Any,
        *args: Any,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        universal_newlines: bool = False,
        shell: bool = False,
        bufsize: int = 0,
        encoding: None = None,
        errors: None = None,
        text: bool | None = None,
        **kwargs: Any,
    ) -> tuple[process.SubprocessTransport, Any]:
        """Run a program; keywords as for subprocess.Popen."""
        self._check_closed()
        return await process.subprocess_exec(
            self,
            protocol_factory,
            (program, *args),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            universal_newlines=universal_newlines,
            shell=shell,
            bufsize=bufsize,
            encoding=encoding,
            errors=errors,
            text=text,
            options=kwargs,
        )


def new_event_loop() -> EventLoop:
    """Return a new event loop."""
    return EventLoop()
