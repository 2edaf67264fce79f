"""Python address tuple <-> struct sockaddr, as bytes."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

# On the BSDs and macOS the first byte is the length and the second the family.
_HAS_LENGTH = sys.platform.startswith(("darwin", "freebsd", "netbsd", "openbsd", "dragonfly"))

_IN = struct.Struct("=2s2s4s8x")
_IN6 = struct.Struct("=2s2s4s16sI")


def _family_bytes(af: int, size: int) -> bytes:
    return bytes((size, af)) if _HAS_LENGTH else struct.pack("=H", af)


def pack(af: int, address: tuple[Any, ...]) -> bytes:
    """The sockaddr for an AF_INET or AF_INET6 address whose host is numeric."""
    if not 0 <= address[1] <= 0xFFFF:
        raise OverflowError(f"port must be 0-65535, got {address[1]!r} in {address!r}")
    port = struct.pack("!H", address[1])
    if af == socket.AF_INET:
        host = socket.inet_pton(af, address[0])
        return _IN.pack(_family_bytes(af, 16), port, host)
    host, _, zone = address[0].partition("%")
    flowinfo = address[2] if len(address) > 2 else 0
    scope = address[3] if len(address) > 3 else 0
    if zone and not scope:
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return _IN6.pack(
        _family_bytes(af, 28),
        port,
        struct.pack("!I", flowinfo),
        socket.inet_pton(af, host),
        scope,
    )


def family(raw: bytes) -> int:
    """The AF_* of a sockaddr."""
    return raw[1] if _HAS_LENGTH else int.from_bytes(raw[:2], sys.byteorder)


def unpack(raw: bytes) -> Any:
    """What socket.getsockname() gives for a sockaddr; None if there is none."""
    if len(raw) < 2:
        return None
    af = family(raw)
    if af == socket.AF_INET:
        _, port, host = _IN.unpack_from(raw)
        return socket.inet_ntop(af, host), int.from_bytes(port, "big")
    if af == socket.AF_INET6:
        _, port, flowinfo, host, scope = _IN6.unpack_from(raw)
        port, flowinfo = int.from_bytes(port, "big"), int.from_bytes(flowinfo, "big")
        return socket.inet_ntop(af, host), port, flowinfo, scope
    return _unpack_unix(raw[2:])


def _unpack_unix(path: bytes) -> str | bytes:
    if path[:1] == b"\0" and len(path) > 1:
        return path  # Linux's abstract namespace: the zero byte is part of the name
    name = path.split(b"\0", 1)[0]
    return name.decode(sys.getfilesystemencoding(), "surrogateescape")
