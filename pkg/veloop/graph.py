"""The call graph of tasks: who waits for whom, and where. New in Python 3.14, here on all.

From 3.14 on these are asyncio's own. Before, nobody keeps record of who waits for a future, so
this looks when it is asked, and running tasks pay nothing: a future's callbacks lead to the tasks
that wait for it, directly or behind gather(), shield(), wait(), a TaskGroup. A library that ties
futures by means of its own can say so with future_add_to_awaited_by().
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

from .futures import Future, noted_waiters

__all__ = (
    "FrameCallGraphEntry",
    "FutureCallGraph",
    "capture_call_graph",
    "format_call_graph",
    "print_call_graph",
)

# Who takes this module for asyncio's finds what else is there.
if sys.version_info >= (3, 14):
    __getattr__ = functools.partial(getattr, asyncio.graph)


class _Writer(Protocol):
    def write(self, text: str, /) -> object: ...


@dataclasses.dataclass(frozen=True, slots=True)
class FrameCallGraphEntry:
    """One frame of a call stack. asyncio.FrameCallGraphEntry."""

    frame: FrameType


@dataclasses.dataclass(frozen=True, slots=True)
class FutureCallGraph:
    """A future, where its task stands (innermost first), and the graphs of who waits for it.

    asyncio.FutureCallGraph.
    """

    future: Future[Any]
    call_stack: tuple[FrameCallGraphEntry, ...]
    awaited_by: tuple[FutureCallGraph, ...]


def capture_call_graph(
    future: Future[Any] | None = None, /, *, depth: int = 1, limit: int | None = None
) -> FutureCallGraph | None:
    """Return the call graph of a future or task; without one, of the current task.

    None where no task is current. `depth` leaves out that many frames of the current task,
    counted from this call. `limit` keeps that many frames of each stack: the outermost, or the
    innermost if it is negative; 0 none. RuntimeError without a future and a running loop,
    TypeError for what is no Future. asyncio.capture_call_graph().
    """
    loop = asyncio._get_running_loop()
    current: Any = None if loop is None else asyncio.current_task(loop)
    if future is None:
        if loop is None:
            raise RuntimeError(
                "capture_call_graph() is called outside of a running event loop and no "
                "*future* to introspect was provided"
            )
        if current is None:
            return None
        future = current
    if not isinstance(future, Future):
        raise TypeError(f"{future!r} object does not appear to be compatible with asyncio.Future")
    if future is not current:
        return _graph_of(future, limit, ())
    stack = _running_stack(sys._getframe(depth)) if limit != 0 else []
    return _with_waiters(future, stack, limit, ())


def format_call_graph(
    future: Future[Any] | None = None, /, *, depth: int = 1, limit: int | None = None
) -> str:
    """Return the call graph as text, one line per frame; "" where no task is current.

    Arguments and errors are those of capture_call_graph(). asyncio.format_call_graph().
    """
    graph = capture_call_graph(future, depth=depth + 1, limit=limit)
    return "" if graph is None else "\n".join(_lines(graph, ""))


def print_call_graph(
    future: Future[Any] | None = None,
    /,
    *,
    file: _Writer | None = None,
    depth: int = 1,
    limit: int | None = None,
) -> None:
    """Print what format_call_graph() returns, to `file` or stdout. asyncio.print_call_graph()."""
    print(format_call_graph(future, depth=depth + 1, limit=limit), file=file)


# ------------------------------------------------------------------------------------ frames

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_RESUMABLE = _ASYNC | inspect.CO_GENERATOR
# The attributes of coroutines, of generators that are awaited, of asynchronous generators.
_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))
# PyPy's futures are written in Python: a frame of theirs, which nobody else's futures have.
_AWAIT = getattr(Future.__await__, "__code__", None)


def _running_stack(frame: FrameType | None) -> list[FrameType]:
    """The frames from this one to that of the task's coroutine."""
    stack = []
    while frame is not None:
        stack.append(frame)
        caller = frame.f_back
        if frame.f_code.co_flags & _ASYNC and caller is not None:
            if not caller.f_code.co_flags & _RESUMABLE:
                break  # called by the loop
        frame = caller
    return stack


def _waiting_stack(future: Future[Any]) -> list[FrameType]:
    """The frames of what a task that does not run is waiting in, innermost first."""
    stack: list[FrameType] = []
    get_coro = getattr(future, "get_coro", None)
    waiting: Any = None if get_coro is None else get_coro()
    while waiting is not None:
        for frame_name, next_name in _KINDS:
            if hasattr(waiting, next_name):
                frame = getattr(waiting, frame_name)
                if frame is not None and frame.f_code is not _AWAIT:  # None: it is over
                    stack.append(frame)
                waiting = getattr(waiting, next_name)
                break
        else:
            break
    stack.reverse()
    return stack


# ----------------------------------------------------------------------------------- waiters


def _graph_of(
    future: Future[Any], limit: int | None, below: tuple[Future[Any], ...]
) -> FutureCallGraph:
    stack = _waiting_stack(future) if limit != 0 else []
    return _with_waiters(future, stack, limit, below)


def _with_waiters(
    future: Future[Any],
    stack: list[FrameType],
    limit: int | None,
    below: tuple[Future[Any], ...],
) -> FutureCallGraph:
    """`below` are the futures the graph came through: two may wait for each other."""
    if limit is not None and limit != 0:
        stack = stack[-limit:] if limit > 0 else stack[:-limit]
    below += (future,)
    waiters = [waiter for waiter in _waiters(future) if waiter not in below]
    return FutureCallGraph(
        future,
        tuple(map(FrameCallGraphEntry, stack)),
        tuple(_graph_of(waiter, limit, below) for waiter in waiters),
    )


def _waiters(future: Future[Any]) -> list[Future[Any]]:
    """Who waits for the future, each once."""
    found = dict.fromkeys(noted_waiters(future))
    seen = {future}
    ties = [future]
    while ties:
        tie: Any = ties.pop()
        for callback, _ in tie._callbacks or ():
            owner = getattr(callback, "__self__", None)
            if isinstance(owner, asyncio.Task):
                # Its wake-up, unless somebody else uses one of its methods.
                if owner._fut_waiter is tie:  # type: ignore[attr-defined]
                    found[owner] = None
            elif _is_ours(callback):
                parent = getattr(owner, "_parent_task", None)
                if parent is not None:  # of a TaskGroup
                    found[parent] = None
                for held in _held_by(callback):
                    if isinstance(held, Future) and held not in seen:
                        seen.add(held)
                        if not isinstance(held, asyncio.Task):
                            ties.append(held)
    return list(found)


def _is_ours(callback: Any) -> bool:
    """Is this a callback of asyncio's or veloop's? What others hold tells nothing."""
    function = callback.func if isinstance(callback, functools.partial) else callback
    return str(getattr(function, "__module__", "")).partition(".")[0] in ("asyncio", "veloop")


def _held_by(callback: Any) -> Iterator[object]:
    """What a callback was given, or its object has: the future that it will end may be among it."""
    if isinstance(callback, functools.partial):
        yield from callback.args
    for cell in getattr(callback, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not yet assigned
            continue
    owner = getattr(callback, "__self__", None)
    if owner is not None:
        yield owner
        yield from getattr(owner, "__dict__", {}).values()
        for kind in type(owner).__mro__:
            for name in getattr(kind, "__slots__", ()):
                yield getattr(owner, name, None)


# -------------------------------------------------------------------------------------- text


def _lines(graph: FutureCallGraph, indent: str) -> Iterator[str]:
    future = graph.future
    if isinstance(future, asyncio.Task):
        yield f"{indent}* Task(name={future.get_name()!r}, id={id(future):#x})"
    else:
        yield f"{indent}* Future(id={id(future):#x})"
    if graph.call_stack:
        yield f"{indent}  + Call stack:"
    for entry in graph.call_stack:
        code = entry.frame.f_code
        yield (
            f"{indent}  |   File {code.co_filename!r}, line {entry.frame.f_lineno}, "
            f"in {_tag(code.co_flags)}{code.co_qualname}()"
        )
    if graph.awaited_by:
        yield f"{indent}  + Awaited by:"
    for waiter in graph.awaited_by:
        yield from _lines(waiter, indent + "    ")


def _tag(flags: int) -> str:
    if flags & inspect.CO_COROUTINE:
        return "async "
    if flags & inspect.CO_ASYNC_GENERATOR:
        return "async generator "
    return "generator " if flags & inspect.CO_GENERATOR else ""


if sys.version_info >= (3, 14):
    # asyncio's own, classes and all, for its isinstance() and its records of who waits.
    from asyncio import (
        FrameCallGraphEntry,
        FutureCallGraph,
        capture_call_graph,
        format_call_graph,
        print_call_graph,
    )
