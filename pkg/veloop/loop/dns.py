"""getaddrinfo and getnameinfo.

What needs no name server is answered at once by the socket module, without a thread: numeric
hosts and no host. Everything else goes through libuv's thread pool, as much as that does at once:
names behind those for which nobody answers would wait there. The rest is the default executor's,
as with asyncio, and so is everything if a program has put a function of its own into the socket
module: a cache, a guard, a mock.
"""

from __future__ import annotations

import _socket
import asyncio
import operator
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._uv import ffi, lib, sockaddr
from .._uv.errors import check, error
from .debug import logger

if TYPE_CHECKING:
    from .loop import EventLoop

AddrInfo = tuple[int, int, int, str, Any]

_PROTOCOLS: dict[int, int] = {
    socket.SOCK_STREAM: socket.IPPROTO_TCP,
    socket.SOCK_DGRAM: socket.IPPROTO_UDP,
}

# The socket module's enumerations cost more than the rest of a look-up of a numeric address.
_UNSPECIFIED, _INET, _INET6 = socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6
_FAMILIES: dict[int, int] = {int(each): each for each in socket.AddressFamily}
_KINDS: dict[int, int] = {int(each): each for each in socket.SocketKind}

# With other flags than these the answer for a numeric address and port may be another.
_MATTER = ~int(socket.AI_PASSIVE | socket.AI_NUMERICHOST | getattr(socket, "AI_NUMERICSERV", 0))


def _tells_names() -> bool:
    """Does the system tell the canonical name unasked? musl does; for an address, the host."""
    try:
        return bool(_socket.getaddrinfo("127.0.0.1", 0, 0, 0, 0, socket.AI_NUMERICHOST)[0][3])
    except OSError:
        return False


_NAMED = _tells_names()

_own_getaddrinfo, _own_getnameinfo = socket.getaddrinfo, socket.getnameinfo

# libuv gives look-ups half of its pool, which is two threads if UV_THREADPOOL_SIZE is not set.
_AT_ONCE = 2
_under_way: set[Request] = set()  # of all loops, for they share the pool

_ANSWER = ffi.typeof("vl_dns_t *")

# All of a vl_addrinfo_t at once; cffi takes nearly as long for each of its fields.
_read_info = struct.Struct("@4iPP").unpack


class Request:
    """One request in the thread pool, and the future that waits for its answer."""

    __slots__ = ("future", "ident", "loop")

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self.ident = 0
        self.future: asyncio.Future[Any] | None = loop.create_future()

    async def wait(self, ident: int) -> Any:
        self.ident = check(ident)
        self.loop._driver.targets[ident] = self.on_event
        _under_way.add(self)
        try:
            return await self.future  # type: ignore[misc]
        except asyncio.CancelledError:
            if not self.loop.is_closed():
                lib.vl_dns_cancel(self.loop._driver.pointer, ident)
            raise
        finally:
            self.future = None  # it may have the exception, whose traceback has this frame

    def on_event(self, kind: int, status: int, pointer: int) -> None:
        del self.loop._driver.targets[self.ident]
        _under_way.discard(self)
        answer = ffi.cast(_ANSWER, pointer)
        future = self.future
        try:
            if future is None or future.done():
                return  # cancelled meanwhile
            if status < 0:
                future.set_exception(error(status))
            elif kind == lib.VL_GETADDRINFO:
                future.set_result(_addresses(answer))
            else:
                host, service = lib.vl_dns_host(answer), lib.vl_dns_service(answer)
                future.set_result((os.fsdecode(ffi.string(host)), ffi.string(service).decode()))
        except UnicodeDecodeError as exc:  # what a name server says may be anything
            assert future is not None
            future.set_exception(exc)
        finally:
            lib.vl_dns_free(answer)

    def _on_loop_close(self) -> None:
        _under_way.discard(self)


def _if_busy(
    loop: EventLoop, function: Callable[..., Any], *args: Any
) -> asyncio.Future[Any] | None:
    """A look-up in the default executor if it would have to wait for others in libuv's pool."""
    if len(_under_way) < _AT_ONCE:
        return None
    try:
        return loop.run_in_executor(None, function, *args)
    except RuntimeError:  # it was shut down, or cannot start a thread: then it waits
        return None


def _addresses(answer: Any) -> list[AddrInfo]:
    info = ffi.new("vl_addrinfo_t *")
    fields = ffi.buffer(info)
    found: list[AddrInfo] = []
    last, address = b"", None  # an address mostly comes once for each kind of socket
    while lib.vl_dns_next(answer, info):
        family, kind, protocol, size, _, named = _read_info(fields)
        raw = ffi.buffer(info.address, size)[:]
        if raw != last:
            last, address = raw, sockaddr.unpack(raw)
        name = ffi.string(info.canonname).decode() if named else ""
        found.append(
            (_FAMILIES.get(family, family), _KINDS.get(kind, kind), protocol, name, address)
        )
    return found


def is_numeric(host: str) -> bool:
    """Is `host` an IPv4 or IPv6 address, maybe with a zone ('fe80::1%lo')?"""
    if ":" not in host and not host[-1:].isdigit():
        return False
    try:
        socket.inet_pton(socket.AF_INET, host)
        return True
    except (OSError, ValueError):
        pass
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        return True
    except (OSError, ValueError):
        return False


async def getaddrinfo(
    loop: EventLoop,
    host: str | bytes | None,
    port: str | bytes | int | None,
    family: int,
    type: int,
    proto: int,
    flags: int,
) -> list[Any]:
    node: Any
    if socket.getaddrinfo is not _own_getaddrinfo:
        lookup = loop.run_in_executor(
            None, socket.getaddrinfo, host, port, family, type, proto, flags
        )
        return list(await lookup)
    if isinstance(host, str):
        if flags == 0 or (isinstance(flags, int) and not int(flags) & _MATTER):
            info = _known_addrinfo(host, port, family, type, proto)
            if info is not None:
                sys.audit("socket.getaddrinfo", host, port, family, type, proto)
                return [info]
        if host.isascii() and len(host) < 64 and ".." not in host and host[:1] != ".":
            node = host.encode()
        else:
            node = host.encode("idna")  # what the socket module does, with its errors
    elif host is None or isinstance(host, bytes):
        node = host
    else:
        return socket.getaddrinfo(host, port, family, type, proto, flags)  # raises TypeError
    if not node or is_numeric(node.decode("latin-1")):
        return socket.getaddrinfo(host, port, family, type, proto, flags)
    if not node.isascii() or b"\0" in node or len(node) > 255:
        # libuv would read these bytes otherwise than the system does.
        lookup = loop.run_in_executor(
            None, socket.getaddrinfo, host, port, family, type, proto, flags
        )
        return list(await lookup)
    busy = _if_busy(loop, socket.getaddrinfo, host, port, family, type, proto, flags)
    if busy is not None:
        return list(await busy)
    sys.audit("socket.getaddrinfo", host, port, family, type, proto)
    request = Request(loop)
    ident = lib.vl_getaddrinfo(
        loop._driver.pointer, node, _service(port), family, type, proto, flags
    )
    found: list[AddrInfo] = await request.wait(ident)
    return found


async def getaddrinfo_debug(loop: EventLoop, host: Any, port: Any, *args: int) -> list[Any]:
    """getaddrinfo(), and a line in the log, as asyncio has it: at INFO if it took long."""
    what = f"{host}:{port!r}"
    for name, value in zip(("family", "type", "proto", "flags"), args, strict=True):
        if value:
            what += f", {name}={value!r}"
    logger.debug("Get address info %s", what)
    before = loop.time()
    found = await getaddrinfo(loop, host, port, *args)
    took = loop.time() - before
    log = logger.info if took >= loop.slow_callback_duration else logger.debug
    log("Getting address info %s took %.3fms: %r", what, took * 1e3, found)
    return found


def _service(port: str | bytes | int | None) -> Any:
    if port is None:
        return ffi.NULL
    if isinstance(port, bytes):
        return port
    if isinstance(port, str):
        return port.encode()
    if type(port) is not int:
        socket.getaddrinfo(None, port)  # raises for what it does not take: True, enumerations
    return b"%d" % port


async def getnameinfo(loop: EventLoop, address: tuple[Any, ...], flags: int) -> tuple[str, str]:
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    if socket.getnameinfo is not _own_getnameinfo:
        name = await loop.run_in_executor(None, socket.getnameinfo, address, flags)
        return name  # type: ignore[no-any-return]
    if not _plain(address) or flags & numeric == numeric:
        return socket.getnameinfo(address, flags)
    host, percent, _ = address[0].partition("%")
    if percent:
        socket.getnameinfo(address, flags | numeric)  # raises for a zone that is none
    busy = _if_busy(loop, socket.getnameinfo, address, flags)
    if busy is not None:
        return await busy  # type: ignore[no-any-return]
    sys.audit("socket.getnameinfo", address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    request = Request(loop)
    # The scope is what the tuple says, without regard to the zone: so the socket module has it.
    raw = sockaddr.pack(family, (host, *address[1:]))
    answer: tuple[str, str] = await request.wait(
        lib.vl_getnameinfo(loop._driver.pointer, raw, flags)
    )
    return answer


def _plain(address: Any) -> bool:
    """A well-formed numeric address? Any other gets the socket module's own error."""
    return (
        isinstance(address, tuple)
        and 2 <= len(address) <= 4
        and isinstance(address[0], str)
        and is_numeric(address[0])
        and all(isinstance(n, int) for n in address[1:])
        and 0 <= address[1] <= 0xFFFF
        and (len(address) == 2 or ":" in address[0])
        and all(0 <= n < 1 << 32 for n in address[2:])
        and (len(address) < 3 or address[2] <= 0xFFFFF)
    )


async def resolve(
    loop: EventLoop,
    address: Any,
    *,
    family: int = 0,
    type: int = socket.SOCK_STREAM,
    proto: int = 0,
    flags: int = 0,
) -> list[AddrInfo]:
    """The addresses of a (host, port[, flowinfo, scope]) tuple, without a look-up if numeric.

    This calls loop.getaddrinfo(), which applications override to bring their own resolver.
    """
    host, port = address[:2]
    if hasattr(port, "__index__"):  # numpy's integers are no int
        port = operator.index(port)
    info = _known_address(host, port, family, type, proto, *address[2:])
    if info is not None:
        return [info]
    found: list[AddrInfo] = await loop.getaddrinfo(
        host, port, family=family, type=type, proto=proto, flags=flags
    )
    return found


def _known_addrinfo(host: str, port: Any, family: int, type: int, proto: int) -> AddrInfo | None:
    """_known_address(), as socket.getaddrinfo() has it; None where only that can tell."""
    if ":" not in host and not host[-1:].isdigit():
        return None  # a name
    if sys.platform == "win32":
        return None  # it tells no protocol that it was not asked for
    if port.__class__ is not int or not 0 <= port <= 0xFFFF:
        return None
    info = _known_address(host, port, family, type, proto)
    if info is None:
        return None
    af, _, protocol, _, address = info
    if af == _INET6:
        address = socket.inet_ntop(_INET6, socket.inet_pton(_INET6, host)), *address[1:]
    return af, _KINDS[type], protocol, host if _NAMED else "", address


def _known_address(
    host: Any, port: Any, family: int, type: int, proto: int, flowinfo: int = 0, scope: int = 0
) -> AddrInfo | None:
    """The one addrinfo of a numeric address; None where getaddrinfo has to tell."""
    protocol = _PROTOCOLS.get(type)
    if host is None or protocol is None or proto not in (0, protocol):
        return None
    if port is None or port in ("", b""):
        port = 0
    elif isinstance(port, (str, bytes)):
        if not (port.isascii() and port.isdigit()):
            return None  # a service name
        port = int(port)
    elif not isinstance(port, int):
        return None
    if isinstance(host, bytes):
        host = host.decode("idna")
    if not isinstance(host, str) or "%" in host:
        return None
    af = _INET6 if ":" in host else _INET
    if family not in (_UNSPECIFIED, af) or (af == _INET and not host[-1:].isdigit()):
        return None
    try:
        socket.inet_pton(af, host)
    except (OSError, ValueError):
        return None
    address = (host, port) if af == _INET else (host, port, flowinfo, scope)
    return af, type, protocol, "", address
