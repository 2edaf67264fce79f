"""Future, which is asyncio's own, and what ties futures to threads and to each other.

wrap_future() makes the result of a thread awaitable; _chain_future() is the tie below it, in
either direction between the futures of a loop and those of concurrent.futures. Nothing here waits,
and what belongs to another thread's loop is done there.

future_add_to_awaited_by() and its counterpart tell the call graph (graph.py) who waits for whom
where a library ties futures by callbacks of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import weakref
from asyncio import AbstractEventLoop, Future, isfuture
from collections.abc import Callable, Iterable
from typing import Any

from .events import get_event_loop

__all__ = (
    "Future",
    "future_add_to_awaited_by",
    "future_discard_from_awaited_by",
    "isfuture",
    "wrap_future",
)


def wrap_future(
    future: concurrent.futures.Future[Any] | Future[Any],
    *,
    loop: AbstractEventLoop | None = None,
) -> Future[Any]:
    """Return a future of the loop that ends as the given concurrent.futures.Future does.

    Cancelling one cancels the other. A future of a loop is returned as it is. Without `loop` it is
    the current one, see get_event_loop(). asyncio.wrap_future().
    """
    if isfuture(future):
        return future
    if not isinstance(future, concurrent.futures.Future):
        raise AssertionError(f"concurrent.futures.Future is expected, got {future!r}")
    if loop is None:
        loop = get_event_loop()
    wrapper: Future[Any] = loop.create_future()
    _chain_future(future, wrapper)
    return wrapper


def _chain_future(source: Any, destination: Any) -> None:
    """Let `destination` end as `source` does, and cancel `source` if `destination` is cancelled.

    Each is a future of a loop or a concurrent.futures.Future; TypeError for anything else.
    """
    source_loop = _loop_of(source, "source")
    destination_loop = _loop_of(destination, "destination")
    copy = _end_thread_future if destination_loop is None else _end_loop_future

    def on_cancel(destination: Any) -> None:
        if destination.cancelled() and not source.done():
            _call_in(source_loop, source.cancel)

    def on_end(source: Any) -> None:
        _call_in(destination_loop, copy, source, destination)

    destination.add_done_callback(on_cancel)
    source.add_done_callback(on_end)


def _loop_of(future: Any, name: str) -> AbstractEventLoop | None:
    """The loop of a future; None for one of concurrent.futures, which has none."""
    if isfuture(future):
        return future.get_loop()
    if isinstance(future, concurrent.futures.Future):
        return None
    raise TypeError(f"A future is required for {name} argument")


def _call_in(loop: AbstractEventLoop | None, callback: Callable[..., object], *args: Any) -> None:
    """Call back where the loop lives. If it is closed nobody can be waiting there any more."""
    if loop is None or loop is asyncio._get_running_loop():
        callback(*args)
    elif not loop.is_closed():
        try:
            loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not loop.is_closed():  # else its own thread has just closed it
                raise


def _end_loop_future(source: Any, destination: Any) -> None:
    if destination.cancelled():
        return
    if source.cancelled():
        destination.cancel()
    elif (exc := source.exception()) is not None:
        destination.set_exception(_as_asyncios(exc))
    else:
        destination.set_result(source.result())


def _end_thread_future(source: Any, destination: Any) -> None:
    if source.cancelled():
        destination.cancel()
    if not destination.set_running_or_notify_cancel():
        return
    if (exc := source.exception()) is not None:
        destination.set_exception(_as_asyncios(exc))
    else:
        destination.set_result(source.result())


# Raised by a function that ran in a thread, these two must not pass for what they are not.
_ASYNCIOS: dict[type[BaseException], type[BaseException]] = {
    concurrent.futures.CancelledError: asyncio.CancelledError,
    concurrent.futures.InvalidStateError: asyncio.InvalidStateError,
}


def _as_asyncios(exc: BaseException) -> BaseException:
    kind = _ASYNCIOS.get(type(exc))
    return exc if kind is None else kind(*exc.args).with_traceback(exc.__traceback__)


_awaited_by: weakref.WeakKeyDictionary[Any, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()


def future_add_to_awaited_by(fut: Any, waiter: Any, /) -> None:
    """Note for the call graph that `waiter` waits for `fut`; what is no Future is ignored.

    asyncio.future_add_to_awaited_by(), new in Python 3.14.
    """
    if isinstance(fut, Future) and isinstance(waiter, Future):
        _awaited_by.setdefault(fut, weakref.WeakSet()).add(waiter)


def future_discard_from_awaited_by(fut: Any, waiter: Any, /) -> None:
    """Take back what future_add_to_awaited_by() noted; nothing if it did not.

    asyncio.future_discard_from_awaited_by(), new in Python 3.14.
    """
    if isinstance(fut, Future) and isinstance(waiter, Future):
        _awaited_by.get(fut, weakref.WeakSet()).discard(waiter)


def noted_waiters(future: Any) -> Iterable[Any]:
    """Return what future_add_to_awaited_by() noted about the future."""
    return tuple(_awaited_by.get(future, ()))


if sys.version_info >= (3, 14):
    from asyncio import future_add_to_awaited_by, future_discard_from_awaited_by
