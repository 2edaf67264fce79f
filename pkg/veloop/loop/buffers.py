"""The buffers of BufferedProtocols."""

from __future__ import annotations

import asyncio
from typing import Any

from .._uv import IS_PYPY, ffi

memmove = ffi.memmove


def fill(protocol: asyncio.BufferedProtocol, data: Any) -> int:
    """Copy the beginning of data, a buffer of bytes, into the protocol's next buffer.

    -> how much of it
    """
    buffer: Any = protocol.get_buffer(-1)
    if type(buffer) is memoryview and not IS_PYPY:
        size = len(data)
        try:
            buffer[:size] = data  # bytes, and as many as that: nearly always
            return size
        except (NotImplementedError, TypeError, ValueError):
            pass  # it is too small, or its items are others, or what is wrong is told below
    buffer = as_bytes(buffer)
    size = min(len(buffer), len(data))
    if not IS_PYPY:
        buffer[:size] = data[:size]
    elif isinstance(data, (bytes, memoryview)) or buffer.readonly or not buffer.c_contiguous:
        buffer[:size] = bytes(data[:size])
    else:  # a part of the slab, which PyPy would copy byte by byte
        memmove(buffer, data, size)
    let_go(buffer)
    return size


def copied(data: Any) -> bytes:
    """bytes(data) of a contiguous buffer, in one step also on PyPy."""
    if not IS_PYPY:
        return bytes(data)
    with ffi.from_buffer(data) as items:
        copy: bytes = ffi.buffer(items)[:]
    return copy


def buffer_of(protocol: asyncio.BufferedProtocol, hint: int) -> memoryview:
    """The protocol's next buffer, as bytes to write into. To be let go before the protocol runs."""
    return as_bytes(protocol.get_buffer(hint))


def as_bytes(buffer: Any) -> memoryview:
    """What get_buffer() returned, as bytes to write into."""
    if IS_PYPY:
        buffer = memoryview(buffer)  # ours, to be released
        if buffer.format != "B" or buffer.ndim != 1:
            with buffer as items:
                buffer = items.cast("B")
    elif type(buffer) is not memoryview or buffer.format != "B" or buffer.ndim != 1:
        buffer = memoryview(buffer).cast("B")
    if not len(buffer):
        raise RuntimeError("get_buffer() returned an empty buffer")
    return buffer  # type: ignore[no-any-return]


def let_go(buffer: memoryview) -> None:
    """The caller has no more use for what buffer_of() gave it, and refers to it no longer.

    Where no references are counted, a view that is only forgotten keeps its owner from being
    resized for a while.
    """
    if IS_PYPY:
        buffer.release()
