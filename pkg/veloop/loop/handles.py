"""Handles of scheduled callbacks: asyncio's classes with a cheaper start.

The loop fills the slots itself and asks for a traceback only in debug mode. Everything else is
inherited, so code that inspects a handle finds what it knows.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ..events import extract_stack

_copy_context = contextvars.copy_context


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
        # As Handle.__init__(), which is not called: that would make a timer a fifth slower.
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
