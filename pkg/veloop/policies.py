"""EventLoopPolicy and install(), where Python still has event loop policies.

asyncio deprecates policies from 3.14 on and drops them in 3.16: pass `loop_factory` instead.
Importing this module warns of nothing; using it on 3.14 and newer warns as asyncio does.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import Any, ClassVar

from .loop import EventLoop, new_event_loop

if sys.version_info >= (3, 16):
    raise ImportError(
        "this Python has no event loop policies; use loop_factory=veloop.new_event_loop"
    )
elif sys.version_info < (3, 14):
    from asyncio import DefaultEventLoopPolicy as _DefaultPolicy
elif sys.platform == "win32":
    # The public name would warn already here.
    from asyncio.windows_events import _DefaultEventLoopPolicy as _DefaultPolicy
else:
    from asyncio.unix_events import _DefaultEventLoopPolicy as _DefaultPolicy


class EventLoopPolicy(_DefaultPolicy):
    """asyncio's default policy, making veloop's loops."""

    # Both, for the one is looked up by asyncio and the other by those who subclass.
    _loop_factory: ClassVar[Any] = EventLoop

    def new_event_loop(self) -> EventLoop:
        """Return a new veloop.EventLoop."""
        return new_event_loop()


def install() -> None:
    """Make asyncio create veloop's loops everywhere, by asyncio.set_event_loop_policy().

    Deprecated by Python from 3.14 on: use veloop.run(), asyncio.run(loop_factory=...), or
    ``python -m veloop``, which need no policy.
    """
    if sys.version_info >= (3, 14):
        warnings.warn(
            "veloop.install() uses event loop policies, which Python deprecates: use veloop.run() "
            "or pass loop_factory=veloop.new_event_loop",
            DeprecationWarning,
            stacklevel=2,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(EventLoopPolicy())
    else:
        asyncio.set_event_loop_policy(EventLoopPolicy())
