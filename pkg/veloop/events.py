"""Handles of scheduled callbacks, and which loop is the current one.

The running loop and the one that set_event_loop() keeps are asyncio's own state, so that either
module sees what the other set. Only where asyncio up to 3.13 would make a loop by itself,
get_event_loop() makes one of ours.

`Handle` and `TimerHandle` are asyncio's classes with a cheaper start: the loop fills the
slots itself and asks for a traceback only in debug mode. Everything else is inherited, so code
that inspects a handle finds what it knows.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import traceback
import warnings
from asyncio import AbstractEventLoop, get_running_loop, set_event_loop
from asyncio import get_event_loop as _get_event_loop
from collections.abc import Callable
from typing import Any

__all__ = ("get_event_loop", "get_running_loop", "set_event_loop")

_copy_context = contextvars.copy_context

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


def trace(handle: Handle | TimerHandle, depth: int) -> None:
    """Remember, in debug mode, who scheduled this: `depth` frames above the caller."""
    handle._source_traceback = extract_stack(sys._getframe(depth + 1))


class Handle(asyncio.Handle):
    """What loop.call_soon() returns: an asyncio.Handle."""

    __slots__ = ()

    _args: tuple[Any, ...]
    _callback: Callable[..., object]
    _context: contextvars.Context
    _source_traceback: traceback.StackSummary | None

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: Any,
        context: contextvars.Context | None = None,
    ) -> None:
        self._context = _copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def get_context(self) -> contextvars.Context:
        """Return the context in which the callback runs (in asyncio since Python 3.12)."""
        return self._context


class TimerHandle(asyncio.TimerHandle):
    """What loop.call_later() and loop.call_at() return: an asyncio.TimerHandle."""

    __slots__ = ()

    _args: tuple[Any, ...]
    _callback: Callable[..., object]
    _context: contextvars.Context
    _source_traceback: traceback.StackSummary | None

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: Any,
        context: contextvars.Context | None = None,
    ) -> None:
        self._context = _copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = False

    def get_context(self) -> contextvars.Context:
        """Return the context in which the callback runs (in asyncio since Python 3.12)."""
        return self._context
