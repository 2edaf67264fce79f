"""Which loop is the current one.

The running loop and the one that set_event_loop() keeps are asyncio's own state, so that either
module sees what the other set. Only where asyncio up to 3.13 would make a loop by itself,
get_event_loop() makes one of ours.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
import warnings
from asyncio import AbstractEventLoop, get_running_loop, set_event_loop
from asyncio import get_event_loop as _get_event_loop
from collections.abc import Callable
from typing import Any

__all__ = ("get_event_loop", "get_running_loop", "set_event_loop")

# Makes the loops of those who name no factory. runners.py puts ours here, for this module lies
# below the loop.
new_default_loop: Callable[[], AbstractEventLoop] = asyncio.new_event_loop


def get_event_loop() -> AbstractEventLoop:
    """Return the running loop or, where none runs, the one that set_event_loop() was given.

    If there is neither, RuntimeError. Python up to 3.13 makes a loop in the main thread then (3.12
    and 3.13 with a DeprecationWarning): so does this, one of veloop's. A policy that the program
    has set decides for itself. asyncio.get_event_loop().
    """
    loop = asyncio._get_running_loop()
    if loop is not None:
        return loop
    if sys.version_info < (3, 14):
        _make_current_loop()
    return _get_event_loop()


if sys.version_info < (3, 14):
    # Not looked up when needed: who replaces the name in asyncio means to replace the policy.
    from asyncio import DefaultEventLoopPolicy as _DefaultPolicy

    def _make_current_loop() -> None:
        """Set a loop where asyncio's default policy is about to make one of its own."""
        policy = asyncio.get_event_loop_policy()
        if type(policy) is not _DefaultPolicy:
            return
        local = policy._local  # type: ignore[attr-defined]
        if local._loop is not None or local._set_called:
            return
        if threading.current_thread() is not threading.main_thread():
            return
        if sys.version_info >= (3, 12):
            warnings.warn("There is no current event loop", DeprecationWarning, stacklevel=3)
        policy.set_event_loop(new_default_loop())


def extract_stack(frame: Any) -> traceback.StackSummary:
    """The stack of `frame`, most recent call last, as asyncio keeps it in debug mode."""
    stack = traceback.StackSummary.extract(
        traceback.walk_stack(frame), limit=10, lookup_lines=False
    )
    stack.reverse()
    return stack
