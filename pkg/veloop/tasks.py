"""Tasks: starting them, waiting for them, shielding them; sleep().

`Task` is asyncio's own class, and so are the registry behind all_tasks() and the current task: a
task of either module is one for the other. What waits here is told through done callbacks, one
callback object for a call and no closure for each task. Cancelling the one who waits never loses
a result: whatever is done stays in the future that was passed in.

Two things that older Pythons lack are made up for: tasks that start at once (`eager_start`, since
3.12), and loops whose create_task() does not know that keyword (3.13.2 and before). Where
Python keeps the graph of who awaits whom (since 3.14), each wait is entered in it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import sys
from asyncio import AbstractEventLoop, Future, Task, all_tasks, current_task, isfuture
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from types import CoroutineType
from typing import Any, TypeVar, overload

from .events import get_event_loop, get_running_loop
from .exceptions import CancelledError, InvalidStateError

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
F = TypeVar("F")

FIRST_COMPLETED = concurrent.futures.FIRST_COMPLETED
FIRST_EXCEPTION = concurrent.futures.FIRST_EXCEPTION
ALL_COMPLETED = concurrent.futures.ALL_COMPLETED

_running_loop = asyncio._get_running_loop
_iscoroutine = asyncio.iscoroutine

# The graph of who awaits whom: asyncio's functions (future, task), None before Python 3.14.
add_awaited_by: Callable[[Any, Any], object] | None
discard_awaited_by: Callable[[Any, Any], object] | None
add_awaited_by = getattr(asyncio, "future_add_to_awaited_by", None)
discard_awaited_by = getattr(asyncio, "future_discard_from_awaited_by", None)


def _typed_as(stock: F) -> Callable[[Any], F]:
    """Give a function the type of asyncio's, which has an overload for each number of arguments."""
    return lambda function: function


# --------------------------------------------------------------------------- starting tasks


def create_task(coro: Coroutine[Any, Any, T], **kwargs: Any) -> Task[T]:
    """Run a coroutine in a new task of the running loop; return the task.

    Keywords go to the loop's create_task(): `name`; `context`, the contextvars.Context to run in (a
    copy of the current one if not given); `eager_start`, true to run the coroutine at once up to
    where it first waits. Keep a reference to the task: the loop has only a weak one.
    """
    loop = get_running_loop()
    if "eager_start" in kwargs:
        return spawn(loop, coro, kwargs)
    return loop.create_task(coro, **kwargs)


def spawn(loop: AbstractEventLoop, coro: Coroutine[Any, Any, T], kwargs: dict[str, Any]) -> Task[T]:
    """loop.create_task(coro, **kwargs), on loops too that do not take eager_start."""
    try:
        return loop.create_task(coro, **kwargs)
    except TypeError as exc:
        # Raised before anything looked at the coroutine: it can be given to somebody else.
        if "eager_start" not in kwargs or "eager_start" not in str(exc):
            raise
        constructor = _constructor(loop.get_task_factory())
        if constructor is None:
            raise
    task: Task[T] = constructor(coro, loop=loop, **kwargs)
    return task


def _constructor(factory: Any) -> Callable[..., Any] | None:
    """What makes the tasks of a task factory and takes eager_start; None if nobody can tell."""
    if factory is None:
        return new_task
    # asyncio's own factories for eager tasks took no keywords in the beginning.
    if getattr(factory, "__code__", None) is eager_task_factory.__code__:
        constructor: Callable[..., Any] = factory.__closure__[0].cell_contents
        return constructor
    return None


if sys.version_info >= (3, 12):
    from asyncio import create_eager_task_factory, eager_task_factory

    new_task: Callable[..., Any] = Task
else:

    def new_task(
        coro: Coroutine[Any, Any, T],
        *,
        loop: AbstractEventLoop,
        name: str | None = None,
        context: contextvars.Context | None = None,
        eager_start: bool = False,
    ) -> Task[T]:
        """asyncio.Task() with eager_start. A loop without attributes of its own starts normally."""
        if not eager_start or _running_loop() is not loop or not hasattr(loop, "__dict__"):
            return Task(coro, loop=loop, name=name, context=context)
        steps: list[Callable[[], object]] = []

        def keep(step: Callable[[], object], *, context: contextvars.Context) -> None:
            steps.append(lambda: context.run(step))

        # The constructor schedules the first step; here it is told to us and not to the loop.
        attributes = loop.__dict__
        own = attributes.get("call_soon")
        attributes["call_soon"] = keep
        try:
            task = Task(coro, loop=loop, name=name, context=context)
        finally:
            if own is None:
                del attributes["call_soon"]
            else:
                attributes["call_soon"] = own
        current = current_task(loop)
        if current is not None:
            asyncio._leave_task(loop, current)
        try:
            steps[0]()
        finally:
            if current is not None:
                asyncio._enter_task(loop, current)
        return task

    def create_eager_task_factory(custom_task_constructor: Callable[..., Any]) -> Any:
        """Return a task factory, for loop.set_task_factory(), whose tasks start at once.

        The constructor makes the tasks; it is called like asyncio.Task(), with eager_start.
        """

        def factory(
            loop: AbstractEventLoop, coro: Any, *, eager_start: bool = True, **kwargs: Any
        ) -> Any:
            return custom_task_constructor(coro, loop=loop, eager_start=eager_start, **kwargs)

        return factory

    eager_task_factory = create_eager_task_factory(new_task)


@_typed_as(asyncio.ensure_future)
def ensure_future(coro_or_future: Any, *, loop: AbstractEventLoop | None = None) -> Any:
    """Return a future as it is, and a task that runs a coroutine or awaits any other awaitable.

    ValueError if the future is one of another loop than `loop`, TypeError for what is no awaitable.
    """
    if isfuture(coro_or_future):
        if loop is not None and loop is not coro_or_future.get_loop():
            raise ValueError(
                "The future belongs to a different loop than the one specified as the loop argument"
            )
        return coro_or_future
    if _iscoroutine(coro_or_future):
        coro = coro_or_future
    elif inspect.isawaitable(coro_or_future):
        coro = _await(coro_or_future)
    else:
        raise TypeError("An asyncio.Future, a coroutine or an awaitable is required")
    try:
        if loop is None:
            loop = get_event_loop()
        return loop.create_task(coro)
    except RuntimeError:
        coro.close()  # nobody will run it, and the error says so already
        raise


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


# ---------------------------------------------------------------------------------- sleeping


class _OneTurn:
    """`await` gives way for one turn of the loop: Task takes a bare None so.

    The iterator is made and run in C, and it is none that would have to be told of exceptions.
    """

    __slots__ = ()
    __await__ = (None,).__iter__


_one_turn: Awaitable[None] = _OneTurn()  # type: ignore[assignment]


@overload
async def sleep(delay: float) -> None: ...
@overload
async def sleep(delay: float, result: T) -> T: ...
async def sleep(delay: float, result: Any = None) -> Any:
    """Return `result` after `delay` seconds; after one turn of the loop if that is zero or less.

    ValueError if `delay` is no number (NaN).
    """
    if delay <= 0:
        await _one_turn
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


if sys.version_info >= (3, 13):
    # Task.uncancel() itself forgets a cancellation that was not delivered yet.
    def undelivered(task: Task[Any]) -> bool:
        """Will the task still be told of a cancellation that nobody asks for any more?"""
        return False
else:

    def undelivered(task: Task[Any]) -> bool:
        """Will the task still be told of a cancellation that nobody asks for any more?"""
        return bool(getattr(task, "_must_cancel", False)) and not task.cancelling()


async def take_delivery(task: Task[Any]) -> CancelledError | None:
    """Swallow the CancelledError that `undelivered` spoke of, in the task itself.

    Returns it if somebody cancelled the task meanwhile: then it is theirs.
    """
    try:
        await _one_turn
    except CancelledError as exc:
        return exc if task.cancelling() else None
    return None


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


@_typed_as(asyncio.gather)
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
    children: dict[Any, Any] = {}
    arg = None
    try:
        for arg in coros_or_futures:
            if arg in children:
                continue
            if type(arg) is CoroutineType and create is not None:
                child = create(arg)
            else:
                child = ensure_future(arg, loop=loop)
                if loop is None:
                    loop = child.get_loop()
            if child is not arg:
                child._log_destroy_pending = False  # who calls cannot keep it from being dropped
            children[arg] = child
    except BaseException as exc:
        # Nobody will ask for the results of those that run already.
        for child in children.values():
            child.add_done_callback(_retrieve)
        if isinstance(exc, RuntimeError) and type(arg) is CoroutineType:
            arg.close()
        raise
    finally:
        create = arg = None
    futures = list(children.values())
    left = len(futures)
    if left != len(coros_or_futures):
        futures = [children[each] for each in coros_or_futures]
    outer = _GatheringFuture(futures, left, return_exceptions, task, loop)
    child_done = outer.child_done
    early = []
    for child in children.values():
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


@_typed_as(asyncio.wait)
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


class _Shield:
    """Ties the future that shield() returns to the one it protects."""

    __slots__ = ("_inner", "_outer", "_task")

    def __init__(self, inner: Future[Any], outer: Future[Any], task: Task[Any] | None) -> None:
        self._inner = inner
        self._outer = outer
        self._task = task
        if task is not None:
            add_awaited_by(inner, task)  # type: ignore[misc]
        inner.add_done_callback(self._inner_done)
        outer.add_done_callback(self._outer_done)

    def _inner_done(self, inner: Future[Any]) -> None:
        outer = self._outer
        if self._task is not None:
            discard_awaited_by(inner, self._task)  # type: ignore[misc]
        if outer.done():
            return  # an exception stays what nobody retrieved, and will be logged
        if inner.cancelled():
            outer.cancel()
            return
        exc = inner.exception()
        if exc is not None:
            outer.set_exception(exc)
        else:
            outer.set_result(inner.result())

    def _outer_done(self, outer: Future[Any]) -> None:
        inner = self._inner
        if not inner.done():
            inner.remove_done_callback(self._inner_done)
            if self._task is not None:
                discard_awaited_by(inner, self._task)  # type: ignore[misc]


@_typed_as(asyncio.shield)
def shield(arg: Any) -> Any:
    """Return a future with the result of an awaitable that goes on if the future is cancelled.

    So a task that does `await shield(something())` can be cancelled and something() is not. Keep
    a reference to what is shielded: the loop has only a weak one. Of an exception that
    comes when the future was cancelled already, the loop's exception handler is told.
    """
    inner = ensure_future(arg)
    if inner.done():
        return inner
    loop = inner.get_loop()
    outer = loop.create_future()
    _Shield(inner, outer, None if add_awaited_by is None else current_task(loop))
    return outer


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
            task: Future[T] = ensure_future(coro, loop=loop)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if future.set_running_or_notify_cancel():
                future.set_exception(exc)
            raise

        def future_done(future: concurrent.futures.Future[T]) -> None:
            if future.cancelled() and not task.done():
                if _running_loop() is loop:
                    task.cancel()
                else:
                    loop.call_soon_threadsafe(task.cancel)

        future.add_done_callback(future_done)
        task.add_done_callback(lambda task: _hand_over(task, future))

    loop.call_soon_threadsafe(start)
    return future


def _hand_over(task: Future[T], future: concurrent.futures.Future[T]) -> None:
    """Tell another thread how the task ended."""
    if task.cancelled():
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    exc = task.exception()
    if exc is None:
        future.set_result(task.result())
        return
    # Who waits knows of one of these classes, asyncio's.
    if type(exc) is concurrent.futures.CancelledError:
        exc = CancelledError(*exc.args).with_traceback(exc.__traceback__)
    elif type(exc) is concurrent.futures.InvalidStateError:
        exc = InvalidStateError(*exc.args).with_traceback(exc.__traceback__)
    future.set_exception(exc)
