"""Core: the part of the event loop that knows no socket. Its life, its queue, one turn of it;
tasks, executors, error handling.

A turn has asyncio's order: what was ready before the poll, then what the poll brought, then the
timers that are due. Callbacks added meanwhile run in the next turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import warnings
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVarTuple

from .._uv import lib
from .._uv.errors import forked
from .._uv.events import Driver, Target, drop
from ..spawning import is_eager, new_task, start_eagerly
from . import debug, fork, nesting
from . import executor as executors
from .asyncgens import AsyncGenerators
from .handles import Handle, ThreadSafeHandle, TimerHandle, trace, unqueued
from .signals import Signals
from .timers import Timers
from .turn import Looks

if TYPE_CHECKING:
    from .datagram import DatagramTransport
    from .server import Listener
    from .stream import StreamTransport

    if sys.version_info >= (3, 12):
        AnyCoroutine = Coroutine[Any, Any, Any]
    else:  # coroutines made of generators, which asyncio took until then
        AnyCoroutine = Coroutine[Any, Any, Any] | Generator[Any, None, Any]

Ts = TypeVarTuple("Ts")

Queue = deque  # the accelerator has one of its own, and Timers


class Core(asyncio.AbstractEventLoop):
    """What EventLoop is built on; `loop.py` adds the areas of I/O."""

    # All there are: as long as an instance has no dict, CPython finds its methods sooner. The
    # accelerator finds some of these by their offsets.
    __slots__ = (
        *("_closed", "_inherited", "_stopping", "_nesting", "_nested", "_put_off", "_thread_id"),
        *("_ready", "_due", "_timers", "_driver", "_given", "_signals", "_executor"),
        *("_task_factory", "_exception_handler", "_current_handle", "_origin_tracking"),
        *("_asyncgens", "slow_callback_duration", "_debug"),
    )

    def __init__(self) -> None:
        self._closed = False
        self._inherited = False  # from the parent, by a fork; then closed as well
        self._stopping: bool | int = False
        self._nesting = False  # allowed?
        self._nested = 0  # nested runs under way
        self._put_off: list[Handle | TimerHandle] = []  # until one of them is done
        self._thread_id: int | None = None
        self._ready: deque[Handle | TimerHandle] = Queue()
        self._due: deque[TimerHandle] = Queue()
        self._timers = Timers()
        self._driver = Driver()
        # By their descriptors: who has a socket that applications can get at too.
        self._given: dict[int, StreamTransport | DatagramTransport | Listener] = {}
        self._signals = Signals(self._driver, self._ready)
        self._executor = executors.DefaultExecutor()
        self._task_factory: Callable[..., Any] | None = None
        self._exception_handler: Callable[..., object] | None = None
        self._current_handle: Handle | TimerHandle | None = None
        self._origin_tracking = debug.OriginTracking()
        self._asyncgens = AsyncGenerators(self)
        self.slow_callback_duration = 0.1
        self._debug = debug.wanted()
        fork.loops.add(self)

    def __repr__(self) -> str:
        return (
            f"<{self.__class__.__name__} running={self.is_running()} "
            f"closed={self.is_closed()} debug={self.get_debug()}>"
        )

    def __del__(self) -> None:
        if getattr(self, "_closed", True):
            return
        try:
            warnings.warn(
                f"unclosed event loop {self!r}", ResourceWarning, stacklevel=2, source=self
            )
        finally:
            if not self.is_running():
                self.close()

    # ----------------------------------------------------------------- running and closing

    def run_forever(self) -> None:
        """Run until stop() is called."""
        self._check_closed()
        self._check_running()
        old_hooks = sys.get_asyncgen_hooks()
        self._driver.enter()
        try:
            self._thread_id = threading.get_ident()
            self._origin_tracking.set(self._debug)
            self._asyncgens.set_hooks()
            asyncio._set_running_loop(self)
            self._signals.enter()
            self._run_until_stopped()
        finally:
            # An interrupt may come at any call: what would refuse the next run goes first.
            self._stopping = False
            self._thread_id = None
            asyncio._set_running_loop(None)
            self._driver.leave()
            self._origin_tracking.set(False)
            sys.set_asyncgen_hooks(*old_hooks)
            self._signals.leave()

    def _run_until_stopped(self) -> None:
        """Turn after turn. One long function: what it costs, every message of a server pays."""
        driver = self._driver
        looks = Looks(self)
        ready = self._ready
        due = self._due
        timers = self._timers
        targets = driver.targets
        while True:
            if ready or due or self._stopping:
                timeout = 0.0
            elif timers.pending:
                timeout = self._sleep_time()
            else:
                timeout = -1.0
            looks.at_start(timeout)
            if timers.pending:
                timers.pop_due(self.time(), due)
            if self._debug:
                debug.run_all(self)
            else:
                n = len(ready)
                left = looks.stride
                while n:
                    n -= 1
                    try:
                        handle = ready.popleft()
                    except IndexError:
                        break  # a nested run has run them
                    if not handle._cancelled:
                        try:
                            handle._context.run(handle._callback, *handle._args)
                        except (SystemExit, KeyboardInterrupt):
                            raise
                        except BaseException as exc:
                            self._callback_failed(handle, exc)
                    left -= 1
                    if not left:
                        if looks.between():
                            n = len(ready)  # what was added before the records came
                        left = looks.stride
                if driver.records is not None:
                    for kind, ident, a, b in driver.records:
                        target = targets.get(ident)
                        if target is None:
                            drop(kind, a, b)
                        else:
                            try:
                                target(kind, a, b)
                            except (SystemExit, KeyboardInterrupt):
                                raise
                            except BaseException as exc:
                                self._target_failed(target, exc)
                    driver.records = None
                while due:
                    self._run_handle(due.popleft())
                handle = target = None  # type: ignore[assignment]
            if self._stopping:
                break

    def _sleep_time(self) -> float:
        """Seconds until there is a timer to run; negative if there is none."""
        return self._timers.sleep_time(self.time)

    def _look(self, seconds: float) -> bool:
        """Poll ahead of the turn (testing.py). -> whether there is something to do now."""
        driver = self._driver
        if driver.records is None:
            n = lib.vl_loop_run(driver.pointer, seconds, driver.taken)
            if n:
                driver.take(n)
        return driver.records is not None or bool(self._ready)

    def _run_handle(self, handle: Handle | TimerHandle) -> None:
        try:
            if handle._cancelled:
                return
            if self._debug:
                debug.run_handle(self, handle)
            else:
                handle._context.run(handle._callback, *handle._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._callback_failed(handle, exc)
        finally:
            del handle  # see debug.run_handle

    def _callback_failed(self, handle: Handle | TimerHandle, exc: BaseException) -> None:
        if self._nested and nesting.put_off(self, handle):
            return
        handle = unqueued(handle)
        what = debug.format_callback(handle._callback, handle._args)
        context: dict[str, Any] = {
            "message": f"Exception in callback {what}",
            "exception": exc,
            "handle": handle,
        }
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _target_failed(self, target: Target, exc: BaseException) -> None:
        """What protocols raise is caught where they are called; this is an error of ours.

        Or it is what the program's handler of a signal raised, which ends the run, as in asyncio.
        """
        if target == self._signals._on_event:
            raise exc
        self.call_exception_handler(
            {"message": f"Error in the handling of an I/O event by {target!r}", "exception": exc}
        )

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future (or coroutine, in a task) is done; return or raise its result."""
        self._check_closed()
        if self._nesting and self._thread_id == threading.get_ident():
            return nesting.run_until_complete(self, future)
        self._check_running()
        new_task = not asyncio.isfuture(future)
        future = asyncio.ensure_future(future, loop=self)
        if new_task:
            # The caller has no access to the task; what stops it is raised from here.
            future._log_destroy_pending = False
        # asyncio's own function: anyio finds a program's root task by it.
        done = base_events._run_until_complete_cb  # type: ignore[attr-defined]
        future.add_done_callback(done)
        try:
            self.run_forever()
        except BaseException:
            if new_task and future.done() and not future.cancelled():
                future.exception()  # retrieved: it is being raised already
            raise
        finally:
            future.remove_done_callback(done)
        if not future.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return future.result()

    def stop(self) -> None:
        """Stop running after this turn; callbacks that are scheduled already still run."""
        self._stopping = True

    def set_nesting(self, enabled: bool) -> None:
        """Allow run_until_complete() inside of a task of this loop, which asyncio refuses.

        For synchronous code that has to wait for a coroutine where a loop runs already: notebooks,
        plug-ins, callbacks of libraries. The calling task waits; everything else goes on.
        """
        self._nesting = enabled

    def get_nesting(self) -> bool:
        """Return whether set_nesting() allowed nested runs."""
        return self._nesting

    def is_running(self) -> bool:
        """Return True while run_forever() or run_until_complete() runs."""
        return self._thread_id is not None

    def is_closed(self) -> bool:
        """Return True once the loop was closed."""
        return self._closed

    def close(self) -> None:
        """Close the loop and every handle still open in it. Idempotent."""
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self._closed:
            if self._inherited:
                self._close_inherited()
            return
        if self._debug:
            debug.logger.debug("Close %r", self)
        self._signals.close(self)
        self._closed = True
        self._ready.clear()
        self._due.clear()
        self._timers.clear()
        self._executor.close()
        self._release()

    def _release(self) -> None:
        self._driver.close()
        self._given.clear()
        self._signals.close_descriptors()

    def _forked(self) -> None:
        """This is a child process now, and the loop the parent's: to us it is a closed one.

        Nothing is released yet, for that takes time, and most children do not live long.
        """
        self._inherited = self._closed = True
        self._thread_id = None
        # The fork may have been in a callback: the rest of this turn is the parent's business.
        for handle in self._ready:
            handle._cancelled = True
        self._due.clear()
        self._timers.clear()
        self._driver.forked(closing=False)
        self._signals.forked()

    def _close_inherited(self) -> None:
        """Release what the child has of a loop; the parent does not notice. Once."""
        if not self._driver.closed:
            self._signals.close(self)
            self._ready.clear()
            self._release()

    def _check_not_given(self, fd: int) -> None:
        """Refuse a descriptor that a transport was given: two would read from it."""
        transport = self._given.get(fd)
        # As with asyncio, one that is closing does not count.
        if transport is not None and not transport.is_closing() and transport._fileno() == fd:
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {transport!r}")

    def _check_closed(self) -> None:
        if self._inherited:
            raise forked()
        if self._closed:
            raise RuntimeError("Event loop is closed")

    def _check_running(self) -> None:
        if self.is_running():
            raise RuntimeError("This event loop is already running")
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("Cannot run the event loop while another loop is running")

    # ---------------------------------------------------------------- scheduling callbacks

    def time(self) -> float:
        """The loop's clock: time.monotonic(), in seconds. Tests may replace this method."""
        return time.monotonic()

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Handle:
        """Call callback(*args) in the next turn."""
        if self._closed or self._debug:
            return self._call_soon_checked("call_soon", callback, args, context)
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Handle:
        """call_soon() from any thread, and from signal handlers: wakes the loop."""
        if self._closed or self._debug:
            handle = self._call_soon_checked("call_soon_threadsafe", callback, args, context)
        else:
            handle = ThreadSafeHandle(callback, args, self, context)
            self._ready.append(handle.queued())
        self._driver.wakeup()
        return handle

    def _call_soon_checked(
        self,
        method: str,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> Handle:
        if self._inherited and len(args) == 1 and asyncio.isfuture(args[0]):
            # A future of the parent's is done: nobody is told. The task that forked may end so,
            # by sys.exit() for one.
            return Handle(callback, args, self, context)
        self._check_closed()
        if method == "call_soon":
            debug.check_thread(self._thread_id)
        debug.check_callback(callback, method)
        kind = Handle if method == "call_soon" else ThreadSafeHandle
        handle = kind(callback, args, self, context)
        trace(handle, 2)
        self._ready.append(handle.queued())
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> TimerHandle:
        """Call callback(*args) after `delay` seconds, never sooner."""
        if delay is None:
            raise TypeError("delay must not be None")
        return self._call_at(self.time() + delay, callback, args, context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> TimerHandle:
        """Call callback(*args) when time() reaches `when`, never sooner."""
        if when is None:
            raise TypeError("when cannot be None")
        return self._call_at(when, callback, args, context)

    def _call_at(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> TimerHandle:
        self._check_closed()
        if type(when) is not float and not hasattr(when, "__float__"):
            raise TypeError(f"when must be a number, not {when!r}")
        if when != when:
            raise ValueError(f"when must not be {when!r}")
        timer = TimerHandle(when, callback, args, self, context)
        if self._debug:
            debug.check_thread(self._thread_id)
            debug.check_callback(callback, "call_at")
            trace(timer, 2)
        self._timers.add(timer)
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        """asyncio.TimerHandle.cancel() calls this."""
        # Any thread may cancel, but only the loop's own may tidy up under the loop.
        if self._timers.cancelled(timer) and self._thread_id in (  # type: ignore[arg-type]
            None,
            threading.get_ident(),
        ):
            self._timers.compact(timer)  # type: ignore[arg-type]

    # ------------------------------------------------------------------- futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        """A new asyncio.Future of this loop."""
        return asyncio.Future(loop=self)

    if sys.version_info >= (3, 14):

        def create_task(self, coro: AnyCoroutine, **kwargs: Any) -> Any:
            """Run a coroutine in a new task; keywords go to the Task or the task factory."""
            self._check_closed()
            if self._task_factory is not None:
                return self._task_factory(self, coro, **kwargs)
            return _traced(asyncio.Task(coro, loop=self, **kwargs))

    else:

        def create_task(
            self,
            coro: AnyCoroutine,
            *,
            name: str | None = None,
            context: contextvars.Context | None = None,
            **kwargs: Any,
        ) -> Any:
            """Run a coroutine in a new task; keywords go to the Task or the task factory."""
            if self._closed:
                self._check_closed()
            factory = self._task_factory
            if factory is None:
                task = new_task(coro, loop=self, name=name, context=context, **kwargs)
                return _traced(task) if self._debug else task
            if is_eager(factory):
                # It takes every keyword, and its tasks need their names before they start.
                return start_eagerly(factory, coro, loop=self, name=name, context=context, **kwargs)
            if context is not None:
                kwargs["context"] = context  # factories of old take no keywords: only if given
            task = factory(self, coro, **kwargs)
            if name is not None:
                set_name = getattr(task, "set_name", None)
                if set_name is not None:
                    set_name(name)
            return task

    def set_task_factory(self, factory: Callable[..., Any] | None) -> None:
        """Make create_task() call factory(loop, coro, **keywords); None: asyncio.Task."""
        if factory is not None and not callable(factory):
            raise TypeError(f"task factory must be a callable or None, not {factory!r}")
        self._task_factory = factory

    def get_task_factory(self) -> Callable[..., Any] | None:
        """Return the task factory, None for the default one."""
        return self._task_factory

    async def shutdown_asyncgens(self) -> None:
        """Close all asynchronous generators that are still open."""
        await self._asyncgens.shutdown(self)

    # --------------------------------------------------------------------------- executor

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run func(*args) in an executor, None for the default one; return a future."""
        self._check_closed()
        if self._debug:
            debug.check_callback(func, "run_in_executor")
        return executors.run_in_executor(self, executor, func, args)

    def set_default_executor(self, executor: Executor) -> None:
        """Set the executor, a ThreadPoolExecutor, that run_in_executor(None, ...) uses."""
        self._executor.set(executor)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Shut the default executor down and wait, at most `timeout` seconds, for its threads."""
        await self._executor.shutdown(self, timeout)

    # -------------------------------------------------------------- debug and error handling

    def get_debug(self) -> bool:
        """Return whether the debug mode is on."""
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        """Switch the debug mode on or off."""
        self._debug = enabled
        if self.is_running():
            self.call_soon_threadsafe(self._origin_tracking.set, enabled)

    def set_exception_handler(self, handler: Callable[..., object] | None) -> None:
        """Call handler(loop, context) for errors that nobody awaits; None: log them."""
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        self._exception_handler = handler

    def get_exception_handler(self) -> Callable[..., object] | None:
        """Return the exception handler, None for the default one."""
        return self._exception_handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an error: see asyncio's documentation for the keys of `context`."""
        debug.call_exception_handler(self, context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log an error to the 'asyncio' logger."""
        debug.default_exception_handler(self, context)

    # ---------------------------------------------------------------------------- signals

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call callback(*args) in the loop when the signal arrives. Main thread only."""
        self._signals.add(self, sig, callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Restore a signal's default handler; return whether there was one of ours."""
        return self._signals.remove(sig)


def _traced(task: Any) -> Any:
    """In debug mode a task tells where it was made: there, and not in this file."""
    if task._source_traceback:
        del task._source_traceback[-1]
    return task
