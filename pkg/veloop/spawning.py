"""How tasks start: create_task(), ensure_future(), eager tasks; and what all that waits shares.

The part of `tasks.py` that its other parts, the groups and the loop are built on. Two things
that older Pythons lack are made up for: tasks that start at once (`eager_start`, since 3.12), and
loops whose create_task() does not know that keyword (3.13.2 and before). Where Python keeps a
graph of who awaits whom (since 3.14), those who wait enter themselves in it.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import types
from asyncio import AbstractEventLoop, Task, current_task, isfuture
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from .events import get_event_loop, get_running_loop
from .exceptions import CancelledError

__all__ = ("create_eager_task_factory", "create_task", "eager_task_factory", "ensure_future")

T = TypeVar("T")
F = TypeVar("F")

# The graph of who awaits whom: asyncio's functions (future, task), None before Python 3.14.
add_awaited_by: Callable[[Any, Any], object] | None
discard_awaited_by: Callable[[Any, Any], object] | None
add_awaited_by = getattr(asyncio, "future_add_to_awaited_by", None)
discard_awaited_by = getattr(asyncio, "future_discard_from_awaited_by", None)


def typed_as(stock: F) -> Callable[[Any], F]:
    """Give a function the type of asyncio's, which has an overload for each number of arguments."""
    return lambda function: function


def create_task(coro: Coroutine[Any, Any, T], **kwargs: Any) -> Task[T]:
    """Run a coroutine in a new task of the running loop; return the task.

    Keywords go to the loop's create_task(): `name`; `context`, the contextvars.Context to run in (a
    copy of the current one if not given); `eager_start`, true to run the coroutine at once up to
    where it first waits. Keep a reference to the task: the loop has only a weak one.
    """
    loop = get_running_loop()
    return spawn(loop, coro, kwargs) if kwargs else loop.create_task(coro)


def spawn(loop: AbstractEventLoop, coro: Coroutine[Any, Any, T], kwargs: dict[str, Any]) -> Task[T]:
    """loop.create_task(coro, **kwargs), on loops too that do not take eager_start."""
    try:
        return loop.create_task(coro, **kwargs)
    except TypeError as exc:
        # Raised before anything looked at the coroutine: it can be given to somebody else.
        if "eager_start" not in kwargs or "eager_start" not in str(exc):
            raise
        factory = loop.get_task_factory()
        if factory is not None and not is_eager(factory):
            raise
    task: Task[T]
    if factory is None:
        task = new_task(coro, loop=loop, **kwargs)
    else:
        task = start_eagerly(factory, coro, loop=loop, **kwargs)
    return task


def is_eager(factory: Any) -> bool:
    """Is this task factory one that create_eager_task_factory() made?"""
    return getattr(factory, "__code__", None) is eager_task_factory.__code__


def start_eagerly(factory: Any, coro: Any, *, eager_start: bool = True, **kwargs: Any) -> Any:
    """Call such a factory with eager_start, which Python's own do not take before 3.13.3."""
    return factory.__closure__[0].cell_contents(coro, eager_start=eager_start, **kwargs)


if sys.version_info >= (3, 12):
    from asyncio import create_eager_task_factory, eager_task_factory

    new_task: Callable[..., Any] = Task
else:

    def without_us(task: Any) -> Any:
        """In debug mode a task tells where it was made: in the caller of new_task()."""
        if task._source_traceback:
            del task._source_traceback[-1]
        return task

    def new_task(
        coro: Any,
        *,
        loop: AbstractEventLoop,
        name: str | None = None,
        context: contextvars.Context | None = None,
        eager_start: bool = False,
    ) -> Any:
        """asyncio.Task() with eager_start. A loop without attributes of its own starts normally."""
        if (
            not eager_start
            or asyncio._get_running_loop() is not loop
            or not hasattr(loop, "__dict__")
        ):
            return without_us(Task(coro, loop=loop, name=name, context=context))
        steps: list[Callable[[], object]] = []

        def keep(step: Callable[[], object], *, context: contextvars.Context) -> None:
            steps.append(lambda: context.run(step))

        # The constructor schedules the first step; here it is told to us and not to the loop.
        attributes = loop.__dict__
        own = attributes.get("call_soon")
        attributes["call_soon"] = keep
        try:
            task = without_us(Task(coro, loop=loop, name=name, context=context))
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
            """Make a task that starts at once, unless eager_start is false."""
            return custom_task_constructor(coro, loop=loop, eager_start=eager_start, **kwargs)

        return factory

    eager_task_factory = create_eager_task_factory(new_task)


@typed_as(asyncio.ensure_future)
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
    if asyncio.iscoroutine(coro_or_future):
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


@types.coroutine
def one_turn() -> Generator[None, None, None]:
    """`await` gives way for one turn of the loop: Task takes a bare yield so."""
    yield


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
        await one_turn()
    except CancelledError as exc:
        return exc if task.cancelling() else None
    return None
