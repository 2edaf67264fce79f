"""run() and Runner: a loop's whole life around a coroutine.

A Runner makes its loop when it is first needed, and closes it in an order that leaves nothing
behind: tasks are cancelled and waited for, asynchronous generators closed, threads joined. Ctrl-C
cancels the main task, which may clean up; a second one interrupts at once.

The loop is one of veloop's unless a factory makes another; all of this works with any.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from . import events
from .loop import EventLoop, new_event_loop
from .tasks import all_tasks, gather

__all__ = ("Runner", "run")

T = TypeVar("T")

# Seconds that close() gives the threads of the default executor.
_THREAD_JOIN_TIMEOUT = 300.0

# What get_event_loop() and a Runner without a factory make.
events.new_default_loop = new_event_loop


class Runner:
    """A loop for several calls of run(), with one context: asyncio.Runner().

    `with Runner() as runner` closes it at the end. The loop comes from `loop_factory`, if given;
    otherwise it is one of veloop's, and the thread's current one (see get_event_loop()) until
    close(). `debug` sets the loop's debug mode; None leaves that as it is.
    """

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self._debug = debug
        self._loop_factory = loop_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: contextvars.Context | None = None
        self._closed = False
        self._interrupts = 0

    def __enter__(self) -> Self:
        self.get_loop()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, made now if this is the first use; RuntimeError after close()."""
        if self._loop is not None:
            return self._loop
        if self._closed:
            raise RuntimeError("Runner is closed")
        if self._loop_factory is None:
            loop = events.new_default_loop()
            events.set_event_loop(loop)
        else:
            loop = self._loop_factory()
        if self._debug is not None:
            loop.set_debug(self._debug)
        self._context = contextvars.copy_context()
        self._loop = loop
        return loop

    def run(self, coro: Awaitable[T], *, context: contextvars.Context | None = None) -> T:
        """Run a coroutine (or any awaitable) in a task; return or raise what it comes to.

        Without `context` all runs share one, copied when the loop was made. KeyboardInterrupt if
        Ctrl-C cancelled the task; this takes the main thread and Python's own SIGINT handler.
        RuntimeError where a loop is running already.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("Runner.run() cannot be called from a running event loop")
        loop = self.get_loop()
        if context is None:  # a given one may be empty, which is false
            context = self._context
        task = loop.create_task(_as_coroutine(coro), context=context)
        self._interrupts = 0
        handler = self._catch_interrupts(loop, task)
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError as exc:
            if self._interrupts and _uncancel(task) == 0:
                raise KeyboardInterrupt from exc
            raise
        finally:
            if handler is not None and signal.getsignal(signal.SIGINT) is handler:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def close(self) -> None:
        """Cancel the tasks left, close generators, join threads (5 minutes), close the loop.

        Nothing if the loop was never made. What a task raises on being cancelled goes to the
        loop's exception handler.
        """
        loop = self._loop
        if loop is None:
            return
        try:
            _cancel_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(_shutdown_executor(loop))
        finally:
            if self._loop_factory is None:
                events.set_event_loop(None)
            loop.close()
            self._loop = None
            self._closed = True

    def _catch_interrupts(
        self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]
    ) -> Callable[[int, FrameType | None], None] | None:
        """Install a SIGINT handler that cancels the task; None where that is not ours to do."""
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ):
            return None
        handler = functools.partial(self._on_interrupt, loop, task)
        try:
            signal.signal(signal.SIGINT, handler)
        except ValueError:  # an embedded interpreter, whose main thread has no signals
            return None
        return handler

    def _on_interrupt(
        self,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any],
        signum: int,
        frame: FrameType | None,
    ) -> None:
        self._interrupts += 1
        if self._interrupts > 1 or task.done():
            raise KeyboardInterrupt
        task.cancel()
        loop.call_soon_threadsafe(_nothing)  # it may be asleep


def run(
    main: Awaitable[T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    context: contextvars.Context | None = None,
) -> T:
    """Run a coroutine (or any awaitable) on a new loop, close the loop, return the result.

    asyncio.run(), with the arguments of Runner and of Runner.run(). RuntimeError where a loop is
    running already, TypeError for what cannot be awaited.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("veloop.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main, context=context)


def _as_coroutine(main: Awaitable[T]) -> Coroutine[Any, Any, T]:
    if isinstance(main, Coroutine):
        return main
    if inspect.isawaitable(main):
        return _wait_for(main)
    raise TypeError(f"An asyncio.Future, a coroutine or an awaitable is required, not {main!r}")


async def _wait_for(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _uncancel(task: asyncio.Task[Any]) -> int | None:
    """How often the task is to be cancelled yet; None if it does not count (a factory's own)."""
    uncancel = getattr(task, "uncancel", None)
    return None if uncancel is None else uncancel()


def _cancel_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = all_tasks(loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    loop.run_until_complete(gather(*tasks, return_exceptions=True))
    for task in tasks:
        if not task.cancelled() and (exc := task.exception()) is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception during asyncio.run() shutdown",
                    "exception": exc,
                    "task": task,
                }
            )


def _shutdown_executor(loop: asyncio.AbstractEventLoop) -> Coroutine[Any, Any, None]:
    if sys.version_info >= (3, 12) or isinstance(loop, EventLoop):
        return loop.shutdown_default_executor(_THREAD_JOIN_TIMEOUT)  # type: ignore[call-arg,unused-ignore]
    return loop.shutdown_default_executor()


def _nothing() -> None:
    pass
