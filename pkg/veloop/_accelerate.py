"""Puts the accelerator in place, where there is one; VELOOP_PURE=1 leaves it out.

`_speedups` is C: it replaces methods of the classes named here by functions that do the same, and
needs the slots that they have. `originals` are those methods, as they are without it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from . import stream_reader, streams
from ._uv import lib
from ._uv.events import Driver, drop
from .loop import core, datagram, debug, gil
from .loop.handles import Handle, TimerHandle
from .loop.stream import StreamTransport

# By "Class.method"; empty without the accelerator.
originals: dict[str, Callable[..., Any]] = {}


def _install() -> bool:
    if os.environ.get("VELOOP_PURE", "0") not in ("", "0"):
        return False
    try:
        from . import _speedups

        queue, timers = _speedups.Queue, _speedups.Timers
        found = _speedups.install(
            table=lib.vl_table(),
            Core=core.Core,
            Handle=Handle,
            TimerHandle=TimerHandle,
            Driver=Driver,
            StreamTransport=StreamTransport,
            StreamReader=stream_reader.StreamReader,
            StreamReaderProtocol=streams.StreamReaderProtocol,
            resumed=stream_reader.RESUMED,
            UdpTransport=datagram.UdpTransport,
            packed=datagram.packed,
            unpacked=datagram.unpacked,
            run_all=debug.run_all,
            gil=gil,
            drop=drop,
            asyncio=asyncio,
        )
    except (ImportError, AttributeError, TypeError):
        return False  # not built (the folder of its source has no install), or of another version
    originals.update(found)
    core.Queue = queue  # type: ignore[assignment]
    core.Timers = timers  # type: ignore[attr-defined, assignment]
    return True


accelerated = _install()
