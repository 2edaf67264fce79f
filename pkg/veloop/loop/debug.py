"""Exception handlers, and what the debug mode adds: checks, tracebacks, slow callbacks."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
import threading
import traceback
from asyncio import format_helpers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._uv.events import Target, drop
from . import nesting
from .handles import Handle, TimerHandle, unqueued
from .poll import Watch

if TYPE_CHECKING:
    from .core import Core

# asyncio's own logger: users have configured and filter this one.
logger = logging.getLogger("asyncio")

_ORIGIN_DEPTH = 10  # frames of a coroutine's origin, as asyncio keeps


def wanted() -> bool:
    """Is the debug mode on by default (-X dev, PYTHONASYNCIODEBUG)?"""
    return sys.flags.dev_mode or (
        not sys.flags.ignore_environment and bool(os.environ.get("PYTHONASYNCIODEBUG"))
    )


def check_callback(callback: object, method: str) -> None:
    if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
        raise TypeError(f"coroutines cannot be used with {method}()")
    if not callable(callback):
        raise TypeError(f"a callable object was expected by {method}(), got {callback!r}")


def check_thread(thread_id: int | None) -> None:
    if thread_id is not None and threading.get_ident() != thread_id:
        raise RuntimeError(
            "Non-thread-safe operation invoked on an event loop other than the current one"
        )


def format_callback(callback: object, args: Any) -> str:
    """'name(args) at file:line', as asyncio's log messages have it."""
    return str(format_helpers._format_callback_source(callback, args))


class OriginTracking:
    """sys.set_coroutine_origin_tracking_depth, while a loop runs in debug mode."""

    __slots__ = ("_saved",)

    def __init__(self) -> None:
        self._saved: int | None = None

    def set(self, enabled: object) -> None:
        if bool(enabled) == (self._saved is not None):
            return
        if enabled:
            self._saved = sys.get_coroutine_origin_tracking_depth()
            sys.set_coroutine_origin_tracking_depth(_ORIGIN_DEPTH)
        else:
            assert self._saved is not None
            sys.set_coroutine_origin_tracking_depth(self._saved)
            self._saved = None


def run_handle(loop: Core, handle: Handle | TimerHandle) -> None:
    """Run a handle in debug mode: time it and say so when it took too long."""
    if loop._nested and nesting.put_off(loop, handle):
        return
    handle = unqueued(handle)
    loop._current_handle = handle
    try:
        t0 = loop.time()
        handle._run()
        took = loop.time() - t0
        if took >= loop.slow_callback_duration:
            _slow(_describe(handle), took)
    finally:
        loop._current_handle = None
        # A task's exception keeps this frame alive through its traceback: it must not keep
        # the handle, which keeps the task.
        del handle


def run_all(loop: Core) -> None:
    """One turn, as in Core._run_until_stopped, with each call timed."""
    for _ in range(len(loop._ready)):
        if not loop._ready:
            break  # a nested run has run them
        loop._run_handle(loop._ready.popleft())
    driver = loop._driver
    for kind, ident, a, b in driver.records or ():
        target = driver.targets.get(ident)
        if target is None:
            drop(kind, a, b)
        else:
            _call_target(loop, target, kind, a, b)
    driver.records = None
    while loop._due:
        loop._run_handle(loop._due.popleft())


def _call_target(loop: Core, target: Target, kind: int, a: int, b: int) -> None:
    t0 = loop.time()
    try:
        target(kind, a, b)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        loop._target_failed(target, exc)
    took = loop.time() - t0
    owner = getattr(target, "__self__", target)
    # The callbacks of add_reader and add_writer are handles, each of which was timed.
    if took >= loop.slow_callback_duration and not isinstance(owner, Watch):
        _slow(repr(owner), took)


def _slow(what: str, took: float) -> None:
    logger.warning("Executing %s took %.3f seconds", what, took)


def _describe(handle: Handle | TimerHandle) -> str:
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return repr(owner)  # a task's step: the task says more than its bound method
    return str(handle)


def call_exception_handler(loop: Core, context: dict[str, Any]) -> None:
    handler = loop._exception_handler
    if handler is None:
        _call_default(loop, context, "Exception in default exception handler")
        return
    try:
        _in_context_of(context, handler, loop)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        report = {
            "message": "Unhandled error in exception handler",
            "exception": exc,
            "context": context,
        }
        _call_default(
            loop,
            report,
            "Exception in default exception handler while handling an unexpected error "
            "in custom exception handler",
        )


def _call_default(loop: Core, context: dict[str, Any], on_failure: str) -> None:
    try:
        loop.default_exception_handler(context)  # a subclass may have its own
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        logger.error(on_failure, exc_info=True)


def _in_context_of(context: dict[str, Any], handler: Callable[..., object], loop: object) -> None:
    """Call the handler in the contextvars context of what failed, where that is known."""
    thing = context.get("task") or context.get("future") or context.get("handle")
    get_context = getattr(thing, "get_context", None)
    ctx = get_context() if get_context is not None else None
    if ctx is not None and hasattr(ctx, "run"):
        ctx.run(handler, loop, context)
    else:
        handler(loop, context)


def default_exception_handler(loop: Core, context: dict[str, Any]) -> None:
    message = context.get("message") or "Unhandled exception in event loop"
    exc = context.get("exception")
    current = loop._current_handle
    if "source_traceback" not in context and current is not None and current._source_traceback:
        context["handle_traceback"] = current._source_traceback
    lines = [message]
    for key in sorted(context):
        if key in ("message", "exception"):
            continue
        value = context[key]
        if key == "source_traceback":
            value = f"Object created at (most recent call last):\n{_format_stack(value)}"
        elif key == "handle_traceback":
            value = f"Handle created at (most recent call last):\n{_format_stack(value)}"
        else:
            value = repr(value)
        lines.append(f"{key}: {value}")
    exc_info = (type(exc), exc, exc.__traceback__) if exc is not None else False
    logger.error("\n".join(lines), exc_info=exc_info)


def _format_stack(stack: traceback.StackSummary) -> str:
    return "".join(traceback.format_list(stack)).rstrip()
