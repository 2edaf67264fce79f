"""create_datagram_endpoint: what an endpoint is asked to be, and the socket for it.

The transports are in datagram.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any

from . import dns
from .arguments import check_callable, check_host, check_int, check_port
from .datagram import INTERNET, UdpTransport, WatchedTransport
from .debug import logger
from .server import ProtocolFactory
from .stream import check_protocol

if TYPE_CHECKING:
    from .loop import EventLoop

# Of an endpoint: (family, protocol), (local address, remote address)
_Pair = tuple[tuple[int, int], tuple[Any, Any]]


async def create_datagram_endpoint(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    local_addr: Any,
    remote_addr: Any,
    *,
    family: int,
    proto: int,
    flags: int,
    reuse_port: bool | None,
    allow_broadcast: bool | None,
    sock: socket.socket | None,
) -> tuple[asyncio.DatagramTransport, Any]:
    check_callable("protocol_factory", protocol_factory)
    ours = sock is None
    address = None
    if sock is not None:
        _check_given(
            sock,
            local_addr=local_addr,
            remote_addr=remote_addr,
            family=family,
            proto=proto,
            flags=flags,
            reuse_port=reuse_port,
            allow_broadcast=allow_broadcast,
        )
        loop._check_not_given(sock.fileno())
        sock.setblocking(False)
    else:
        check_int("family", family)
        check_int("proto", proto)
        check_int("flags", flags)
        pairs = await _pairs(loop, local_addr, remote_addr, family, proto, flags)
        sock, address = await _first_socket(loop, pairs, bool(reuse_port), bool(allow_broadcast))
    try:
        protocol = protocol_factory()
        check_protocol(protocol)
        if sys.platform == "win32":
            _bind_to_any(sock)
        kind = UdpTransport if sock.family in INTERNET else WatchedTransport
        transport = kind(loop, protocol, sock, address, ours=ours)
    except BaseException:
        if ours:
            sock.close()
        raise
    if loop.get_debug():
        logger.debug(
            "Datagram endpoint local_addr=%r remote_addr=%r created: (%r, %r)",
            local_addr,
            remote_addr,
            transport,
            protocol,
        )
    await transport._start()
    return transport, protocol


def _bind_to_any(sock: socket.socket) -> None:
    """Windows receives nothing before; libuv would do it, but with IPv4's address alone."""
    try:
        sock.getsockname()
    except OSError:
        sock.bind(("::" if sock.family == socket.AF_INET6 else "0.0.0.0", 0))


def _check_given(sock: socket.socket, **others: Any) -> None:
    """A socket of the application's, and nothing that would be about a socket of ours."""
    if not hasattr(sock, "type"):
        raise AttributeError(f"sock must be a socket, not {sock!r}")
    if sock.type == socket.SOCK_STREAM:
        # 3.11.8 and 3.12.2 have reworded it, and the tests of each version want its own words.
        reworded = sys.version_info >= (3, 11, 8) and not (3, 12) <= sys.version_info < (3, 12, 2)
        kind = "datagram socket" if reworded else "UDP Socket"
        raise ValueError(f"A {kind} was expected, got {sock!r}")
    if any(others.values()):
        problems = ", ".join(f"{name}={value}" for name, value in others.items() if value)
        raise ValueError(
            "socket modifier keyword arguments can not be used when sock is specified. "
            f"({problems})"
        )


async def _pairs(
    loop: EventLoop, local_addr: Any, remote_addr: Any, family: int, proto: int, flags: int
) -> list[_Pair]:
    """What an endpoint may be made of, the best first."""
    if not (local_addr or remote_addr):
        if family == 0:
            raise ValueError("unexpected address family: 0, and neither local nor remote address")
        return [((family, proto), (None, None))]
    if family == getattr(socket, "AF_UNIX", None):
        for name, path in (("local_addr", local_addr), ("remote_addr", remote_addr)):
            if path is not None and not isinstance(path, str):
                raise TypeError(f"{name} must be a string for a Unix socket, not {path!r}")
        _remove_stale(local_addr)
        return [((family, proto), (local_addr, remote_addr))]
    found: dict[tuple[int, int], list[Any]] = {}
    for index, name, address in ((0, "local_addr", local_addr), (1, "remote_addr", remote_addr)):
        if address is None:
            continue
        _check_address(name, address)
        infos = await dns.resolve(
            loop, address, family=family, type=socket.SOCK_DGRAM, proto=proto, flags=flags
        )
        if not infos:
            raise OSError("getaddrinfo() returned empty list")
        for af, _, protocol, _, resolved in infos:
            found.setdefault((af, protocol), [None, None])[index] = resolved
    pairs: list[_Pair] = [
        (key, (local, remote))
        for key, (local, remote) in found.items()
        if (local or not local_addr) and (remote or not remote_addr)
    ]
    if not pairs:
        raise ValueError(f"can not get address information for {local_addr=} and {remote_addr=}")
    return pairs


def _check_address(name: str, address: Any) -> None:
    if not isinstance(address, tuple) or len(address) != 2:
        raise TypeError(f"{name} must be a tuple (host, port), not {address!r}")
    try:
        check_host("host", address[0])
        check_port("port", address[1])
    except (TypeError, ValueError, OverflowError, OSError) as exc:
        raise type(exc)(f"{name}={address!r}: {exc}") from None


def _remove_stale(path: str | None) -> None:
    """Remove what an earlier endpoint has left at the path; abstract names have no file."""
    if not path or path[0] == "\0":
        return
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        # The folder may allow to make a socket in it and no more.
        logger.error("Unable to check or remove stale UNIX socket %r: %r", path, exc)


async def _first_socket(
    loop: EventLoop, pairs: list[_Pair], reuse_port: bool, allow_broadcast: bool
) -> tuple[socket.socket, Any]:
    """The first socket that can be had, and the address of its fixed peer."""
    first: OSError | None = None
    try:
        for (family, proto), (local, remote) in pairs:
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM, proto)
                try:
                    if reuse_port:
                        _set_reuse_port(sock)
                    if allow_broadcast:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                    sock.setblocking(False)
                    if local:
                        sock.bind(local)
                    # A broadcast address cannot be connected to: its answers have others.
                    if remote and not allow_broadcast:
                        await loop.sock_connect(sock, remote)
                except BaseException:
                    sock.close()
                    raise
                return sock, remote
            except OSError as exc:
                first = first or exc
        assert first is not None
        raise first
    finally:
        first = None  # its traceback holds this frame


def _set_reuse_port(sock: socket.socket) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port not supported by socket module")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as exc:
        raise ValueError(f"reuse_port not supported by socket {sock!r}: {exc}") from None
