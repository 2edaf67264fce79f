"""Python address tuple <-> struct sockaddr, as bytes."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

# On the BSDs and macOS the first byte is the length and the second the family.
_HAS_LENGTH = sys.platform.startswith(("darwin", "freebsd", "netbsd", "openbsd", "dragonfly"))

# Families are small numbers: one byte tells.
_FAMILY_AT = 1 if _HAS_LENGTH or sys.byteorder == "big" else 0

_INET, _INET6 = int(socket.AF_INET), int(socket.AF_INET6)

_IN = struct.Struct("=2s2s4s8x")
_IN6 = struct.Struct("=2s2s4s16sI")
_read_in = struct.Struct("!2xH4s").unpack_from
_read_in6 = struct.Struct("!2xHI16s").unpack_from
_read_scope = struct.Struct("=24xI").unpack_from


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
    return raw[_FAMILY_AT]


def unpack(raw: bytes) -> Any:
    """What socket.getsockname() gives for a sockaddr; None if there is none."""
    if len(raw) < 2:
        return None
    af = raw[_FAMILY_AT]
    if af == _INET:
        port, host = _read_in(raw)
        return socket.inet_ntop(af, host), port
    if af == _INET6:
        port, flowinfo, host = _read_in6(raw)
        return socket.inet_ntop(af, host), port, flowinfo, *_read_scope(raw)
    return _unpack_unix(raw[2:])


def _unpack_unix(path: bytes) -> str | bytes:
    if path[:1] == b"\0" and len(path) > 1:
        return path  # Linux's abstract namespace: the zero byte is part of the name
    name = path.split(b"\0", 1)[0]
    return name.decode(sys.getfilesystemencoding(), "surrogateescape")
