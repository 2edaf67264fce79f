"""Timeouts: timeout() and timeout_at() for blocks, wait_for() for one awaitable.

A timeout that expires cancels the task of its block, and takes that one cancellation back where the
block ends: there the CancelledError becomes a TimeoutError, but only if nobody else has cancelled
the task since the block began. So of timeouts that expire together each answers for
its own, and a cancellation from outside is never mistaken for one.

wait_for() runs a coroutine in the task of the caller, as Python 3.12 began to: no second task,
and no result that gets lost because the caller is cancelled at the same moment.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, current_task
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, TypeVar

from .events import get_running_loop
from .exceptions import CancelledError
from .spawning import (
    add_awaited_by,
    discard_awaited_by,
    ensure_future,
    take_delivery,
    undelivered,
)

__all__ = ("Timeout", "timeout", "timeout_at", "wait_for")

T = TypeVar("T")

# The states, as the repr names them.
_CREATED = "created"
_ENTERED = "active"
_EXPIRING = "expiring"
_EXPIRED = "expired"
_EXITED = "finished"


class Timeout:
    """What timeout() and timeout_at() return: an asynchronous context manager, for one use."""

    __slots__ = ("__weakref__", "_cancelling", "_handle", "_loop", "_state", "_task", "_when")

    def __init__(self, when: float | None) -> None:
        """Make a timeout for the loop time `when`; None never expires."""
        self._state = _CREATED
        self._when = when
        self._handle: asyncio.Handle | None = None

    def __repr__(self) -> str:
        if self._state is not _ENTERED:
            return f"<Timeout [{self._state}]>"
        when = None if self._when is None else round(self._when, 3)
        return f"<Timeout [{self._state}] when={when}>"

    def when(self) -> float | None:
        """Return the loop time at which the block is cut short; None if never."""
        return self._when

    def expired(self) -> bool:
        """Return whether the time was over before the block ended."""
        return self._state is _EXPIRING or self._state is _EXPIRED

    def reschedule(self, when: float | None) -> None:
        """Set another loop time, None for never. RuntimeError if the block is not being run."""
        if self._state is not _ENTERED:
            if self._state is _CREATED:
                raise RuntimeError("Timeout has not been entered")
            raise RuntimeError(f"Cannot change state of {self._state} Timeout")
        self._when = when
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if when is not None:
            self._schedule(when)

    def _schedule(self, when: float) -> None:
        loop = self._loop
        if when <= loop.time():
            self._handle = loop.call_soon(self._expire)
        else:
            self._handle = loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._task.cancel()
        self._state = _EXPIRING
        self._handle = None

    def _enter(self) -> None:
        if self._state is not _CREATED:
            raise RuntimeError("Timeout has already been entered")
        loop = self._loop = get_running_loop()
        task = current_task(loop)
        if task is None:
            raise RuntimeError("Timeout should be used inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._state = _ENTERED
        if self._when is not None:
            self._schedule(self._when)

    def _exit_in_time(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._state = _EXITED

    async def _exit_late(self, exc: BaseException | None) -> None:
        """Take the cancellation back; raise what it comes to, if not `exc` as it is."""
        self._state = _EXPIRED
        left = self._task.uncancel()
        if undelivered(self._task):
            theirs = await take_delivery(self._task)
            if theirs is not None:
                try:
                    raise theirs
                finally:
                    del theirs, exc  # no cycle through the traceback
        if left <= self._cancelling and exc is not None:
            _translate(exc)

    async def __aenter__(self) -> Timeout:
        self._enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._state is _ENTERED:
            self._exit_in_time()
        elif self._state is _EXPIRING:
            await self._exit_late(exc)


def _translate(exc: BaseException) -> None:
    """The block ended by this exception, and the timeout is to blame: say TimeoutError."""
    if isinstance(exc, CancelledError):
        raise TimeoutError from exc
    _insert_timeout_error(exc)
    if isinstance(exc, ExceptionGroup):
        for each in exc.exceptions:
            _insert_timeout_error(each)


def _insert_timeout_error(exc: BaseException) -> None:
    """Where another exception was raised because of the cancellation, it was due to the timeout."""
    while (context := exc.__context__) is not None:
        if isinstance(context, CancelledError):
            error = TimeoutError()
            error.__context__ = error.__cause__ = context
            exc.__context__ = error
            return
        exc = context


def timeout(delay: float | None) -> Timeout:
    """Cut the block of an `async with` short `delay` seconds from now; None: never.

    What is awaited in the block is cancelled, and the `async with` raises TimeoutError.
    """
    return Timeout(None if delay is None else get_running_loop().time() + delay)


def timeout_at(when: float | None) -> Timeout:
    """Cut the block of an `async with` short at `when`, a time of loop.time(); None: never."""
    return Timeout(when)


async def wait_for(fut: Awaitable[T], timeout: float | None) -> T:
    """Return the result of an awaitable; TimeoutError when it takes longer than so many seconds.

    It is cancelled then, and waited for; so it is if the caller is cancelled. If it returns a value
    all the same, that is returned. With a timeout of zero or less it is not even
    started, unless it is a future that is done. None: wait as long as it takes.
    """
    if timeout is not None and timeout <= 0:
        return await _now_or_never(fut)
    # An `async with` by hand: what takes no time needs no coroutines to enter and leave the block.
    block = Timeout(None if timeout is None else get_running_loop().time() + timeout)
    block._enter()
    try:
        result = await fut
    except BaseException as exc:
        if block._state is _ENTERED:
            block._exit_in_time()
        else:
            await block._exit_late(exc)
        raise
    if block._state is _ENTERED:
        block._exit_in_time()
    else:
        await block._exit_late(None)
    return result


async def _now_or_never(awaitable: Awaitable[T]) -> T:
    future = ensure_future(awaitable)
    if future.done():
        return future.result()
    await _cancel_and_wait(future)
    try:
        return future.result()
    except CancelledError as exc:
        raise TimeoutError from exc


async def _cancel_and_wait(future: Future[Any]) -> None:
    """Cancel a future and wait until it is done.

    Not for the future itself: if we are cancelled, that must show.
    """
    loop = get_running_loop()
    done = loop.create_future()

    def release(_: Future[Any]) -> None:
        if not done.done():
            done.set_result(None)

    future.add_done_callback(release)
    task = None
    if add_awaited_by is not None:
        task = current_task(loop)
        add_awaited_by(future, task)
    try:
        future.cancel()
        await done
    finally:
        future.remove_done_callback(release)
        if discard_awaited_by is not None:
            discard_awaited_by(future, task)
