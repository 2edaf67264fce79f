"""The buffers of BufferedProtocols."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

# PyPy does not, and a view that is only forgotten keeps its owner from being resized for a while.
COUNTS_REFERENCES = sys.implementation.name != "pypy"


def fill(protocol: asyncio.BufferedProtocol, data: memoryview) -> int:
    """Copy the beginning of data into the protocol's next buffer. -> how much of it."""
    buffer: Any = protocol.get_buffer(-1)
    if type(buffer) is memoryview and COUNTS_REFERENCES:
        size = len(data)
        try:
            buffer[:size] = data  # bytes, and as many as that: nearly always
            return size
        except (NotImplementedError, TypeError, ValueError):
            pass  # it is too small, or its items are others, or what is wrong is told below
    buffer = as_bytes(buffer)
    size = len(buffer)
    if size > len(data):
        size = len(data)
        buffer[:size] = data
    else:
        buffer[:] = data[:size]
    let_go(buffer)
    return size


def buffer_of(protocol: asyncio.BufferedProtocol, hint: int) -> memoryview:
    """The protocol's next buffer, as bytes to write into. To be let go before the protocol runs."""
    return as_bytes(protocol.get_buffer(hint))


def as_bytes(buffer: Any) -> memoryview:
    """What get_buffer() returned, as bytes to write into."""
    if not COUNTS_REFERENCES:
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
    """The caller has no more use for what buffer_of() gave it, and refers to it no longer."""
    if not COUNTS_REFERENCES:
        buffer.release()
