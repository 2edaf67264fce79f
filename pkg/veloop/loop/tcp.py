"""create_connection, create_server, connect_accepted_socket."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import itertools
import os
import socket
import sys
from asyncio import staggered
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._uv import lib, sockaddr
from .._uv.errors import check, error
from . import dns, tls
from .arguments import (
    check_address,
    check_backlog,
    check_callable,
    check_delay,
    check_host,
    check_hosts,
    check_int,
    check_no_tls_socket,
    check_port,
    check_stream_socket,
)
from .debug import logger
from .server import ProtocolFactory, Server
from .sockets import sock_connect
from .stream import StreamTransport, check_protocol
from .tls_transport import SSLTransport
from .transport import Transport

if TYPE_CHECKING:
    from .loop import EventLoop

_own_connect = socket.socket.connect
_HAS_REUSE_ADDRESS = os.name == "posix" and sys.platform != "cygwin"


# ------------------------------------------------------------------------------ connecting


class _Connecting:
    """One connection attempt of libuv's on a socket that stays Python's."""

    __slots__ = ("_loop", "future", "handle", "ident", "sock")

    def __init__(self, loop: EventLoop, sock: socket.socket) -> None:
        driver = loop._driver
        self._loop = loop
        self.sock = sock
        self.future: asyncio.Future[None] = loop.create_future()
        self.ident = check(lib.vl_tcp_open(driver.pointer, sock.fileno(), True, driver.out))
        self.handle: Any = driver.out[0]
        driver.targets[self.ident] = self._on_event

    def _on_event(self, kind: int, status: int, unused: int) -> None:
        if self.future.done():
            return
        if status < 0:
            self.future.set_exception(error(status))
        else:
            self.future.set_result(None)

    async def run(self, raw: bytes) -> None:
        try:
            check(lib.vl_tcp_connect(self.handle, raw))
            await self.future
        finally:
            self.close()
            del self.future  # it has the exception, whose traceback has this frame

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None and not self._loop.is_closed():
            del self._loop._driver.targets[self.ident]
            check(lib.vl_handle_close(handle))

    def _on_loop_close(self) -> None:
        self.handle = None


async def _connect(
    loop: EventLoop,
    failures: list[OSError],
    info: dns.AddrInfo,
    local_infos: list[dns.AddrInfo] | None,
) -> socket.socket:
    """Create, bind and connect one socket. A failure goes into `failures` too."""
    family, kind, proto, _, address = info
    sock = None
    try:
        sock = socket.socket(family=family, type=kind, proto=proto)
        sock.setblocking(False)
        if local_infos is not None:
            _bind_local(sock, family, local_infos, failures)
        if sys.platform == "win32" or socket.socket.connect is not _own_connect:
            # libuv would connect a copy, of which this socket need not learn, and the system
            # ties what is open to the first handle of libuv's that had it. And where a program
            # has put a function of its own, to refuse hosts say, it is to be asked.
            connecting = sock_connect(loop, sock, address)
        else:
            sys.audit("socket.connect", sock, address)
            raw = sockaddr.pack(family, address)
            connecting = _Connecting(loop, sock).run(raw)
        try:
            await connecting
        except OSError as exc:
            raise OSError(exc.errno, f"Connect call failed {address}") from None
        return sock
    except BaseException as exc:
        if sock is not None:
            sock.close()
        if isinstance(exc, OSError):
            failures.append(exc)
        raise


def _bind_local(
    sock: socket.socket,
    family: int,
    local_infos: list[dns.AddrInfo],
    failures: list[OSError],
) -> None:
    """Bind to the first local address of the family that can be had."""
    failure = None
    for local_family, _, _, _, address in local_infos:
        if local_family != family:
            continue
        try:
            sock.bind(address)
            return
        except OSError as exc:
            if failure is not None:
                failures.append(failure)
            failure = OSError(
                exc.errno,
                f"error while attempting to bind on address {address!r}: {str(exc).lower()}",
            )
    raise failure or OSError(f"no matching local address with {family=} found")


def _interleave(infos: list[dns.AddrInfo], first_count: int) -> list[dns.AddrInfo]:
    """Alternate between the address families, after `first_count` of the first one."""
    by_family: dict[int, list[dns.AddrInfo]] = {}
    for info in infos:
        by_family.setdefault(info[0], []).append(info)
    lists = list(by_family.values())
    head = lists[0][: first_count - 1]
    lists[0] = lists[0][first_count - 1 :]
    rest = itertools.chain.from_iterable(itertools.zip_longest(*lists))
    return head + [info for info in rest if info is not None]


def _failure(failures: list[OSError], all_errors: bool) -> Exception:
    """What to raise when no address could be connected to."""
    if all_errors:
        return ExceptionGroup("create_connection failed", failures)
    if len(failures) == 1 or all(str(exc) == str(failures[0]) for exc in failures):
        return failures[0]
    return OSError(f"Multiple exceptions: {', '.join(str(exc) for exc in failures)}")


async def _connect_any(
    loop: EventLoop,
    infos: list[dns.AddrInfo],
    local_infos: list[dns.AddrInfo] | None,
    delay: float | None,
    all_errors: bool,
) -> socket.socket:
    failures: list[OSError] = []
    outcomes: list[Exception | None] | None
    try:
        if delay is None:
            for info in infos:
                try:
                    return await _connect(loop, failures, info, local_infos)
                except OSError:
                    continue
        else:

            def attempt(info: dns.AddrInfo) -> Any:
                return lambda: _connect(loop, failures, info, local_infos)

            sock, _, outcomes = await staggered.staggered_race(
                map(attempt, infos), delay, loop=loop
            )
            if sock is not None:
                return sock  # type: ignore[no-any-return]
            for exc in outcomes:
                if exc is not None and not isinstance(exc, OSError):
                    raise exc
        raise _failure(failures, all_errors)
    finally:
        # An exception's traceback holds this frame, and must not hold itself by it.
        failures.clear()
        outcomes = exc = None


async def create_connection(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    host: Any,
    port: Any,
    *,
    ssl: Any,
    family: int,
    proto: int,
    flags: int,
    sock: socket.socket | None,
    local_addr: Any,
    server_hostname: str | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
    happy_eyeballs_delay: float | None,
    interleave: int | None,
    all_errors: bool,
) -> tuple[asyncio.Transport, Any]:
    check_callable("protocol_factory", protocol_factory)
    if ssl and server_hostname is None:
        # '' says that the certificate may be for any name.
        if not host:
            raise ValueError("You must set server_hostname when using ssl without a host")
        server_hostname = host
    secure = tls.settings(
        ssl,
        server_side=False,
        server_hostname=server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    check_no_tls_socket(sock)
    check_delay("happy_eyeballs_delay", happy_eyeballs_delay)
    if interleave is not None:
        check_int("interleave", interleave)
    elif happy_eyeballs_delay is not None:
        interleave = 1
    if host is None and port is None:
        if sock is None:
            raise ValueError("host and port was not specified and no sock specified")
        check_stream_socket(sock)
        return await open_transport(loop, sock, protocol_factory, ours=False, secure=secure)
    if sock is not None:
        raise ValueError("host/port and sock can not be specified at the same time")
    check_host("host", host)
    check_port("port", port)
    check_int("family", family)
    check_int("proto", proto)
    check_int("flags", flags)
    if local_addr is not None:
        check_address("local_addr", local_addr)
    infos = await dns.resolve(loop, (host, port), family=family, proto=proto, flags=flags)
    if not infos:
        raise OSError("getaddrinfo() returned empty list")
    local_infos = None
    if local_addr is not None:
        local_infos = await dns.resolve(loop, local_addr, family=family, proto=proto, flags=flags)
        if not local_infos:
            raise OSError("getaddrinfo() returned empty list")
    if interleave:
        infos = _interleave(infos, interleave)
    sock = await _connect_any(loop, infos, local_infos, happy_eyeballs_delay, all_errors)
    return await open_transport(loop, sock, protocol_factory, ours=True, secure=secure)


async def open_transport(
    loop: EventLoop,
    sock: socket.socket,
    protocol_factory: ProtocolFactory,
    *,
    ours: bool,
    secure: tls.Settings | None = None,
) -> tuple[asyncio.Transport, Any]:
    """A transport over a connected socket, which is the transport's from here on.

    If there is no transport to be made the socket is closed, as in CPython 3.14 and newer. Is it
    not ours from the start, libuv gets a copy of the descriptor: the application may close its
    socket at any time, and then reading or writing by number would hit whoever has it next.
    """
    if not ours:
        loop._check_not_given(sock.fileno())
    copy = -1
    handle = None
    try:
        sock.setblocking(False)
        protocol = protocol_factory()
        check_protocol(protocol)
        driver = loop._driver
        fd = sock.fileno()
        if not ours:
            fd = copy = sock.dup().detach()
        check(lib.vl_tcp_open(driver.pointer, fd, ours, driver.out))
        handle = driver.out[0]
        transport, stream = tls.transports(
            loop,
            protocol,
            contextvars.copy_context(),
            handle,
            secure,
            waiter=loop.create_future() if secure else None,
            sock=sock,
        )
    except BaseException:
        if handle is not None:
            lib.vl_handle_close(handle)
        elif copy != -1:
            socket.close(copy)
        sock.close()
        raise
    if sock.family != getattr(socket, "AF_UNIX", None):
        lib.vl_tcp_nodelay(handle)
    return await started(loop, transport, stream)


async def started(
    loop: EventLoop, transport: Transport, stream: StreamTransport
) -> tuple[asyncio.Transport, Any]:
    """(transport, protocol), once connection_made was called, in a turn of its own.

    `stream` is started: the transport itself, or what TLS runs on; then the handshake comes before.
    """
    protocol = transport.get_protocol()
    if isinstance(transport, SSLTransport):
        waiter = transport._waiter
        loop.call_soon(stream._start)
    else:
        waiter = loop.create_future()
        loop.call_soon(_start, stream, waiter)
    assert waiter is not None
    try:
        await waiter
    except BaseException:
        transport.close()
        # The future has the exception, whose traceback has this frame.
        del waiter
        raise
    if loop.get_debug():
        logger.debug("connected: (%r, %r)", transport, protocol)
    return transport, protocol


def _start(transport: StreamTransport, started: asyncio.Future[None]) -> None:
    """connection_made, in a turn of its own."""
    try:
        transport._start()
    finally:  # connection_made may end the run of the loop, which may go on later
        if not started.done():
            started.set_result(None)


async def connect_accepted_socket(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    sock: socket.socket,
    *,
    ssl: Any,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
) -> tuple[asyncio.Transport, Any]:
    check_callable("protocol_factory", protocol_factory)
    check_no_tls_socket(sock)
    check_stream_socket(sock)
    secure = tls.settings(
        ssl,
        server_side=True,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    return await open_transport(loop, sock, protocol_factory, ours=False, secure=secure)


# --------------------------------------------------------------------------------- serving


async def create_server(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    host: Any,
    port: Any,
    *,
    family: int,
    flags: int,
    sock: socket.socket | None,
    backlog: int,
    ssl: Any,
    reuse_address: bool | None,
    reuse_port: bool | None,
    keep_alive: bool | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
    start_serving: bool,
) -> Server:
    if isinstance(ssl, bool):
        raise TypeError(f"ssl argument must be an SSLContext or None, not {ssl!r}")
    check_callable("protocol_factory", protocol_factory)
    check_backlog(backlog)
    secure = tls.settings(
        ssl,
        server_side=True,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    check_no_tls_socket(sock)
    if host is None and port is None:
        if sock is None:
            raise ValueError("Neither host/port nor sock were specified")
        check_stream_socket(sock)
        return await _serve(loop, protocol_factory, [sock], backlog, secure, start_serving)
    if sock is not None:
        raise ValueError("host/port and sock can not be specified at the same time")
    check_port("port", port)
    check_int("family", family)
    check_int("flags", flags)
    addresses = await _server_addresses(loop, host, port, family, flags)
    if reuse_address is None:
        reuse_address = _HAS_REUSE_ADDRESS
    sockets = _bind_all(loop, addresses, _options(reuse_address, reuse_port, keep_alive))
    try:
        return await _serve(loop, protocol_factory, sockets, backlog, secure, start_serving)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise


async def _serve(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    sockets: list[socket.socket],
    backlog: int,
    secure: tls.Settings | None,
    start_serving: bool,
) -> Server:
    """A server on bound sockets. If this fails they are still open and the caller's."""
    for sock in sockets:
        sock.setblocking(False)
    server = Server(loop, sockets, protocol_factory, backlog, secure)
    if start_serving:
        try:
            server._start_serving()
            await asyncio.sleep(0)
        except BaseException:
            server._stop_listening()
            raise
    if loop.get_debug():
        logger.info("%r is serving", server)
    return server


async def _server_addresses(
    loop: EventLoop, host: Any, port: Any, family: int, flags: int
) -> list[dns.AddrInfo]:
    """All addresses to bind, each once, in the order of the hosts."""
    hosts: list[Any]
    if host == "":
        hosts = [None]
    elif isinstance(host, (str, bytes)) or not isinstance(host, Iterable):
        check_host("host", host)
        hosts = [host]
    else:
        hosts = list(host)
        check_hosts("host", hosts)
    lists = await asyncio.gather(
        *(dns.resolve(loop, (one, port), family=family, flags=flags) for one in hosts)
    )
    for one, infos in zip(hosts, lists, strict=True):
        if not infos:
            raise OSError(f"getaddrinfo({one!r}) returned empty list")
    return list(dict.fromkeys(itertools.chain.from_iterable(lists)))


def _options(
    reuse_address: bool | None, reuse_port: bool | None, keep_alive: bool | None
) -> list[tuple[str, int]]:
    """(name, SO_* number) of the socket options to switch on before bind."""
    options = []
    if reuse_address:
        options.append(("reuse_address", socket.SO_REUSEADDR))
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("reuse_port not supported by socket module")
        options.append(("reuse_port", socket.SO_REUSEPORT))
    if keep_alive:
        options.append(("keep_alive", socket.SO_KEEPALIVE))
    return options


def _bind_all(
    loop: EventLoop, infos: list[dns.AddrInfo], options: list[tuple[str, int]]
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for af, kind, proto, _, address in infos:
            try:
                sock = socket.socket(af, kind, proto)
            except OSError:
                # The system resolves names of a family that it cannot open sockets of.
                if loop.get_debug():
                    logger.warning(
                        "create_server() failed to create socket.socket(%r, %r, %r)",
                        af,
                        kind,
                        proto,
                        exc_info=True,
                    )
                continue
            sockets.append(sock)
            _set_options(sock, options)
            # One socket a family: on Linux an IPv6 socket would take IPv4 connections too.
            if af == socket.AF_INET6 and hasattr(socket, "IPPROTO_IPV6"):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(address)
            except OSError as exc:
                message = (
                    f"error while attempting to bind on address {address!r}: {str(exc).lower()}"
                )
                if exc.errno != errno.EADDRNOTAVAIL:
                    raise OSError(exc.errno, message) from None
                # This family is not configured here.
                sockets.pop().close()
                if loop.get_debug():
                    logger.warning(message)
        if not sockets:
            addresses = [info[4] for info in infos]
            raise OSError(f"could not bind on any address out of {addresses!r}")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _set_options(sock: socket.socket, options: list[tuple[str, int]]) -> None:
    for name, number in options:
        try:
            sock.setsockopt(socket.SOL_SOCKET, number, 1)
        except OSError as exc:
            raise ValueError(f"{name} not supported by socket {sock!r}: {exc}") from None
