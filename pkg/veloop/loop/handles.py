"""Handles of scheduled callbacks: asyncio's classes with a cheaper start.

The loop fills the slots itself and asks for a traceback only in debug mode. Everything else is
inherited, so code that inspects a handle finds what it knows.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import traceback
from asyncio import events
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

    def queued(self) -> Handle:
        """What goes into the loop's queue for this one."""
        return self


if sys.version_info >= (3, 14):

    class ThreadSafeHandle(events._ThreadSafeHandle, Handle):  # type: ignore[name-defined, misc]
        """What loop.call_soon_threadsafe() returns: asyncio's, which any thread may cancel.

        Who cancels it while the callback runs in another thread waits for the callback's end. So
        it has a lock, that the loop's turn need not know of: another handle lies in the queue.
        """

        __slots__ = ()

        _lock: threading.RLock

        def __init__(
            self,
            callback: Callable[..., object],
            args: tuple[Any, ...],
            loop: Any,
            context: contextvars.Context | None = None,
        ) -> None:
            Handle.__init__(self, callback, args, loop, context)
            self._lock = threading.RLock()  # type: ignore[misc]

        def queued(self) -> Handle:
            """What goes into the loop's queue: calls this one."""
            return Handle(self._call, (), self._loop, self._context)

        def _call(self) -> None:
            with self._lock:
                if not self._cancelled:
                    self._callback(*self._args)

    def unqueued(handle: Handle | TimerHandle) -> Handle | TimerHandle:
        """The handle that a program knows, by the one that was in the queue."""
        known = getattr(handle._callback, "__self__", None)
        if type(known) is ThreadSafeHandle and handle._callback == known._call:
            return known
        return handle

else:
    ThreadSafeHandle = Handle

    def unqueued(handle: Handle | TimerHandle) -> Handle | TimerHandle:
        """The handle that a program knows, by the one that was in the queue."""
        return handle


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
