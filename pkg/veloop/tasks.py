"""Tasks: waiting for them, shielding them; sleep(). How they start is in `spawning.py`.

`Task` is asyncio's own class, and so are the registry behind all_tasks() and the current task: a
task of either module is one for the other. What waits here is told through done callbacks, one
callback object for a call and no closure for each task. Cancelling the one who waits never loses
a result: whatever is done stays in the future that was passed in.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
from asyncio import AbstractEventLoop, Future, Task, all_tasks, current_task, isfuture
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Coroutine,
    Iterable,
    Iterator,
)
from types import CoroutineType
from typing import Any, TypeVar, overload

from .events import get_event_loop, get_running_loop
from .exceptions import CancelledError
from .futures import _chain_future
from .spawning import (
    add_awaited_by,
    create_eager_task_factory,
    create_task,
    discard_awaited_by,
    eager_task_factory,
    ensure_future,
    one_turn,
    typed_as,
)

__all__ = (
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "Task",
    "all_tasks",
    "as_completed",
    "create_eager_task_factory",
    "create_task",
    "current_task",
    "eager_task_factory",
    "ensure_future",
    "gather",
    "run_coroutine_threadsafe",
    "shield",
    "sleep",
    "wait",
)

T = TypeVar("T")

FIRST_COMPLETED = concurrent.futures.FIRST_COMPLETED
FIRST_EXCEPTION = concurrent.futures.FIRST_EXCEPTION
ALL_COMPLETED = concurrent.futures.ALL_COMPLETED

_running_loop = asyncio._get_running_loop
_iscoroutine = asyncio.iscoroutine


@overload
async def sleep(delay: float) -> None: ...
@overload
async def sleep(delay: float, result: T) -> T: ...
async def sleep(delay: float, result: Any = None) -> Any:
    """Return `result` after `delay` seconds; after one turn of the loop if that is zero or less.

    ValueError if `delay` is no number (NaN).
    """
    if delay <= 0:
        await one_turn()
        return result
    if delay != delay:
        raise ValueError("Invalid delay: NaN (not a number)")
    loop = get_running_loop()
    future = loop.create_future()
    timer = loop.call_later(delay, _release, future, result)
    try:
        return await future
    except BaseException:
        timer.cancel()
        raise


def _release(future: Future[Any], result: Any = None) -> None:
    if not future.done():
        future.set_result(result)


# ---------------------------------------------------------------------------- many at a time


class _GatheringFuture(Future[list[Any]]):
    """What gather() returns. Its cancel() cancels the children, and it ends when they have."""

    __slots__ = ("_cancel_requested", "_children", "_left", "_return_exceptions", "_task")

    def __init__(
        self,
        children: list[Future[Any]],
        left: int,
        return_exceptions: bool,
        task: Task[Any] | None,
        loop: AbstractEventLoop,
    ) -> None:
        super().__init__(loop=loop)
        self._children = children
        self._left = left  # how many of them are not done
        self._return_exceptions = return_exceptions
        self._task = task  # who awaits them, where there is a graph
        self._cancel_requested = False

    def cancel(self, msg: Any | None = None) -> bool:
        if self.done():
            return False
        for child in self._children:
            if child.cancel(msg=msg):
                self._cancel_requested = True
        return self._cancel_requested

    def child_done(self, child: Future[Any]) -> None:
        self._left -= 1
        if self._task is not None:
            discard_awaited_by(child, self._task)  # type: ignore[misc]
        if self.done():
            _retrieve(child)
            return
        if not self._return_exceptions:
            exc = _cancelled_error(child) if child.cancelled() else child.exception()
            if exc is not None:
                if self._task is not None:
                    for other in self._children:
                        discard_awaited_by(other, self._task)  # type: ignore[misc]
                self.set_exception(exc)
                return
        if self._left:
            return
        if self._cancel_requested:
            # Who cancelled must hear of it, whatever the children made of it.
            self.set_exception(_cancelled_error(child))
        elif self._return_exceptions:
            self.set_result([_outcome(each) for each in self._children])
        else:
            self.set_result([each.result() for each in self._children])


def _cancelled_error(future: Any) -> BaseException:
    """The CancelledError of a future, with the exception that the cancellation came as."""
    exc: BaseException = future._make_cancelled_error()
    return exc


def _outcome(future: Any) -> Any:
    """The result, or the exception as a value."""
    if future.cancelled():
        message = future._cancel_message
        return CancelledError("" if message is None else message)
    exc = future.exception()
    return future.result() if exc is None else exc


def _retrieve(future: Future[Any]) -> None:
    """Of an exception of this future's nothing will be logged."""
    if not future.cancelled():
        future.exception()


@typed_as(asyncio.gather)
def gather(*coros_or_futures: Any, return_exceptions: bool = False) -> Any:
    """Run awaitables concurrently; return a future of the list of their results, in this order.

    The first exception is the future's exception, and the others go on; with `return_exceptions` an
    exception is a result like others. A child that is cancelled counts as one that raised
    CancelledError; cancelling the future cancels the children. An awaitable given twice runs once.
    """
    if not coros_or_futures:
        nothing = get_event_loop().create_future()
        nothing.set_result([])
        return nothing
    loop: Any = _running_loop()
    task = None
    create = None
    if loop is not None:
        create = loop.create_task
        if add_awaited_by is not None:
            task = current_task(loop)
    distinct: Any = coros_or_futures
    if len({*distinct}) != len(distinct):
        distinct = dict.fromkeys(distinct)
    children: list[Any] = []
    arg = None
    try:
        for arg in distinct:
            if type(arg) is CoroutineType and create is not None:
                child = create(arg)
            else:
                child = ensure_future(arg, loop=loop)
                if loop is None:
                    loop = child.get_loop()
            if child is not arg:
                child._log_destroy_pending = False  # who calls cannot keep it from being dropped
            children.append(child)
    except BaseException as exc:
        # Nobody will ask for the results of those that run already.
        for child in children:
            child.add_done_callback(_retrieve)
        if isinstance(exc, RuntimeError) and type(arg) is CoroutineType:
            arg.close()
        raise
    finally:
        create = arg = None
    results_of = children
    if distinct is not coros_or_futures:
        child_of = dict(zip(distinct, children, strict=True))
        results_of = [child_of[each] for each in coros_or_futures]
    outer = _GatheringFuture(results_of, len(children), return_exceptions, task, loop)
    child_done = outer.child_done
    early = []
    for child in children:
        if child.done():
            early.append(child)
        else:
            if task is not None:
                add_awaited_by(child, task)  # type: ignore[misc]
            child.add_done_callback(child_done)
    for child in early:
        child_done(child)
    return outer


class _Waiter(Future[None]):
    """What wait() waits for: so many futures, or the first that failed."""

    __slots__ = ("_left", "_or_failed", "_task")

    def __init__(
        self, left: int, or_failed: bool, task: Task[Any] | None, loop: AbstractEventLoop
    ) -> None:
        super().__init__(loop=loop)
        self._left = left
        self._or_failed = or_failed
        self._task = task

    def one_done(self, future: Future[Any]) -> None:
        self._left -= 1
        if (
            self._left <= 0
            or (self._or_failed and not future.cancelled() and future.exception() is not None)
        ) and not self.done():
            self.set_result(None)
        if self._task is not None:
            discard_awaited_by(future, self._task)  # type: ignore[misc]


@typed_as(asyncio.wait)
async def wait(fs: Any, *, timeout: float | None = None, return_when: str = ALL_COMPLETED) -> Any:
    """Wait for futures and tasks; return two sets, those that are done and those that are not.

    For all of them, for the first to be done, or for the first to raise (`return_when`), and for
    `timeout` seconds at most. Nothing is cancelled and no TimeoutError raised. TypeError for
    coroutines, whose tasks the caller would not know; ValueError if there is nothing to wait for.
    """
    if isfuture(fs) or _iscoroutine(fs):
        raise TypeError(f"expect a list of futures, not {type(fs).__name__}")
    futures: set[Any] = set(fs) if fs else set()
    if not futures:
        raise ValueError("Set of Tasks/Futures is empty.")
    if return_when == ALL_COMPLETED or return_when == FIRST_EXCEPTION:
        left = len(futures)
    elif return_when == FIRST_COMPLETED:
        left = 1
    else:
        raise ValueError(f"Invalid return_when value: {return_when}")
    for future in futures:
        if not isfuture(future) and _iscoroutine(future):
            raise TypeError("Passing coroutines is forbidden, use tasks explicitly.")
    loop = get_running_loop()
    task = None if add_awaited_by is None else current_task(loop)
    waiter = _Waiter(left, return_when == FIRST_EXCEPTION, task, loop)
    one_done = waiter.one_done
    timer = None if timeout is None else loop.call_later(timeout, _release, waiter)
    for future in futures:
        future.add_done_callback(one_done)
        if task is not None:
            add_awaited_by(future, task)  # type: ignore[misc]
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()
        # Were all told of, there is nothing to take back.
        if waiter._left > 0 or left < len(futures):
            for future in futures:
                future.remove_done_callback(one_done)
                if task is not None:
                    discard_awaited_by(future, task)  # type: ignore[misc]
    done = {future for future in futures if future.done()}
    return done, futures - done


class AsCompleted(Iterator[Coroutine[Any, Any, T]], AsyncIterator["Future[T]"]):
    """What as_completed() returns."""

    __slots__ = ("_done", "_left", "_loop", "_task", "_timer", "_todo", "_waiters")

    def __init__(self, awaitables: Iterable[Any], timeout: float | None) -> None:
        loop = self._loop = get_event_loop()
        self._task = (
            None if discard_awaited_by is None or _running_loop() is None else current_task(loop)
        )
        # A dict and not a set: they start in the order in which they were given.
        todo = [ensure_future(each, loop=loop) for each in dict.fromkeys(awaitables)]
        self._todo: set[Any] = set(todo)
        self._done: deque[Future[T] | None] = deque()  # None: the time is over
        self._waiters: deque[Future[None]] = deque()
        self._left = len(self._todo)
        for future in self._todo:
            future.add_done_callback(self._one_done)
            if self._task is not None:
                add_awaited_by(future, self._task)  # type: ignore[misc]
        self._timer = None
        if todo and timeout is not None:
            self._timer = loop.call_later(timeout, self._time_is_over)

    def __iter__(self) -> AsCompleted[T]:
        return self

    def __next__(self) -> Coroutine[Any, Any, T]:
        if not self._left:
            raise StopIteration
        self._left -= 1
        return self._next_result()

    def __aiter__(self) -> AsCompleted[T]:
        return self

    async def __anext__(self) -> Future[T]:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        if not self._done:
            await self._wait()
        return self._pop()

    async def _next_result(self) -> T:
        if not self._done:
            await self._wait()
        return self._pop().result()

    async def _wait(self) -> None:
        """Wait until something is in `_done`. First come, first served."""
        while not self._done:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                self._left += 1  # the one that we did not get is another's
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # and so is the news of it
                else:
                    waiter.cancel()
                    with contextlib.suppress(ValueError):
                        self._waiters.remove(waiter)
                raise

    def _pop(self) -> Future[T]:
        future = self._done.popleft()
        if future is None:
            raise TimeoutError
        return future

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def _one_done(self, future: Future[T]) -> None:
        if future not in self._todo:
            return  # the time was over before
        self._todo.remove(future)
        if self._task is not None:
            discard_awaited_by(future, self._task)  # type: ignore[misc]
        self._done.append(future)
        self._wake()
        if not self._todo and self._timer is not None:
            self._timer.cancel()

    def _time_is_over(self) -> None:
        for future in self._todo:
            future.remove_done_callback(self._one_done)
            if self._task is not None:
                discard_awaited_by(future, self._task)  # type: ignore[misc]
            self._done.append(None)
            self._wake()
        self._todo.clear()


def as_completed(fs: Iterable[Awaitable[T]], *, timeout: float | None = None) -> AsCompleted[T]:
    """Run awaitables concurrently; return an iterator over them in the order they are done.

    `async for` gives the futures and tasks that were passed, or the tasks made of awaitables.
    A plain `for` gives coroutines: awaiting one returns, or raises, what the next one is done
    with. Both raise TimeoutError `timeout` seconds after this call.
    """
    if inspect.isawaitable(fs):
        raise TypeError(f"expects an iterable of awaitables, not {type(fs).__name__}")
    return AsCompleted(fs, timeout)


# --------------------------------------------------------------- one, from behind something


class _ShieldedFuture(Future[Any]):
    """What shield() returns. Cancelling it does not reach the future inside."""

    __slots__ = ("_inner", "_task")

    def __init__(self, inner: Future[Any], task: Task[Any] | None, loop: AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._inner = inner
        self._task = task  # who awaits it, where there is a graph
        if task is not None:
            add_awaited_by(inner, task)  # type: ignore[misc]
        inner.add_done_callback(self._inner_done)

    def cancel(self, msg: Any | None = None) -> bool:
        inner = self._inner
        if not inner.done():
            # So what it raises is an exception that nobody retrieved, and will be logged.
            inner.remove_done_callback(self._inner_done)
            if self._task is not None:
                discard_awaited_by(inner, self._task)  # type: ignore[misc]
        return super().cancel(msg)

    def _inner_done(self, inner: Future[Any]) -> None:
        if self._task is not None:
            discard_awaited_by(inner, self._task)  # type: ignore[misc]
        if self.done():
            return
        if inner.cancelled():
            super().cancel()
            return
        exc = inner.exception()
        if exc is not None:
            self.set_exception(exc)
        else:
            self.set_result(inner.result())


@typed_as(asyncio.shield)
def shield(arg: Any) -> Any:
    """Return a future with the result of an awaitable that goes on if the future is cancelled.

    So a task that does `await shield(something())` can be cancelled and something() is not. Keep
    a reference to what is shielded: the loop has only a weak one. An exception that
    comes when the future was cancelled already is one that nobody retrieved, and gets logged.
    """
    inner = ensure_future(arg)
    if inner.done():
        return inner
    loop = inner.get_loop()
    return _ShieldedFuture(inner, None if add_awaited_by is None else current_task(loop), loop)


# ------------------------------------------------------------------------ from other threads


def run_coroutine_threadsafe(
    coro: Coroutine[Any, Any, T], loop: AbstractEventLoop
) -> concurrent.futures.Future[T]:
    """Run a coroutine in a loop that runs in another thread; return a concurrent.futures.Future.

    Its result() waits; cancelling it cancels the task. TypeError for what is no coroutine object.
    """
    if not _iscoroutine(coro):
        raise TypeError("A coroutine object is required")
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def start() -> None:
        try:
            _chain_future(ensure_future(coro, loop=loop), future)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if future.set_running_or_notify_cancel():
                future.set_exception(exc)
            raise

    loop.call_soon_threadsafe(start)
    return future
