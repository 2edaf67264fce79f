"""Nested running: run_until_complete() inside of a task of the same loop, for who asked for it.

It suspends the task that calls it, and the rest of the turn goes on inside. What belongs to the
outer run, its stop() for one, waits until the inner one is done. Nothing of libuv is nested: no
Python frame is ever below uv_run.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import tasks
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core import Core
    from .handles import Handle, TimerHandle

# Instead of True in Core._stopping: stop, but only the innermost run.
INNER = 2


def run_until_complete(loop: Core, future: Any) -> Any:
    task = asyncio.current_task(loop)
    if task is None:
        raise RuntimeError(
            "This event loop is already running, and runs can be nested only inside of a task"
        )
    if not _runs_by_itself(loop):
        raise RuntimeError(
            "This event loop is already running, and runs cannot be nested inside of a task that a "
            f"callback has started eagerly: {task!r}"
        )
    new_task = not asyncio.isfuture(future)
    future = asyncio.ensure_future(future, loop=loop)
    if future is task:
        raise RuntimeError(f"Task cannot run itself until complete: {task!r}")
    if new_task:
        future._log_destroy_pending = False

    def done(_: object) -> None:
        loop._stopping = loop._stopping or INNER

    future.add_done_callback(done)
    stopped = loop._stopping
    current_handle, loop._current_handle = loop._current_handle, None
    tasks._leave_task(loop, task)
    loop._nested += 1
    try:
        # Ctrl-C comes where Python jumps back. That it is inside of this `try` for CPython as well
        # takes a loop without a condition, and no `if` at its end.
        while True:
            if future.done():
                break
            loop._stopping = False
            loop._run_until_stopped()
            stopped = stopped or loop._stopping is True  # that is for the run outside
    finally:
        tasks._enter_task(loop, task)
        loop._current_handle = current_handle
        loop._nested -= 1
        loop._ready.extend(loop._put_off)
        loop._put_off.clear()
        # A nested run outside of this one may be done meanwhile too, and must look.
        loop._stopping = stopped or (INNER if loop._nested else False)
        future.remove_done_callback(done)
    return future.result()


def put_off(loop: Core, handle: Handle | TimerHandle) -> bool:
    """Is the handle's context that of a suspended task? Then it can only be run after that one."""
    try:
        handle._context.run(int)
    except RuntimeError:
        loop._put_off.append(handle)
        return True
    return False


def _runs_by_itself(loop: Core) -> bool:
    """Has the loop called a task, and nothing else? Looked up in the frames: no turn pays for it.

    Below a callback of a transport nothing may be nested: the callback's context is entered, and
    the same transport's next callback could not be run in it.
    """
    handle = loop._current_handle  # the debug mode and the accelerator say so
    if handle is None:
        frame = sys._getframe(2)
        while (name := frame.f_code.co_name) not in _CALLERS:
            assert frame.f_back is not None
            frame = frame.f_back
            if frame.f_code.co_qualname == "Core.run_forever" or frame.f_code is _NESTED:
                return False  # the accelerator has no frame, and runs no handle: so a target
        if name == "_call_target" or frame.f_locals.get("target") is not None:
            return False
        handle = frame.f_locals["handle"]
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)


# The functions of core.py and debug.py that call what is ready, and the targets of records.
_CALLERS = {"_run_until_stopped", "_run_handle", "_call_target"}
_NESTED = run_until_complete.__code__
